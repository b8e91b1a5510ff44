"""The channel.db files of real lnd nodes that some tests read; not part of the repository."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "bbolt"

needs_real_files = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the files of real lnd nodes are not beside this repository"
)


def real_file(name: str) -> Path:
    """Return the path of the file of node `name`."""
    return FOLDER / f"{name}.channel.db"
