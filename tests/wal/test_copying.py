"""A copy of a log goes where nothing is, and holds nothing that was not what it must be."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.wal.disk import QUICK, SMALL, fill, flip, sealed_segments
from wal import CorruptLogError, Log, WalError
from wal.backup import LogCopy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    with Log.open(tmp_path / "source", SMALL, files=QUICK) as log:
        fill(log, frames=60, size=300)
    return tmp_path / "source"


@pytest.mark.parametrize("place", ["MANIFEST", "wal/1.wal", "snap/1.snap", "quarantine/tail"])
def test_nothing_is_copied_over_anything(source: Path, tmp_path: Path, place: str) -> None:
    there = tmp_path / "target" / place
    there.parent.mkdir(parents=True)
    there.write_bytes(b"mine")
    with (
        closing(LogCopy(source, tmp_path / "target")) as copy,
        pytest.raises(WalError, match="is not empty"),
    ):
        copy.copy_files()
    assert there.read_bytes() == b"mine"


def test_a_segment_that_rotted_is_not_copied_as_if_it_had_not(source: Path, tmp_path: Path) -> None:
    rotten = sealed_segments(source)[1]
    flip(rotten, 8 * 5_000)
    with (
        closing(LogCopy(source, tmp_path / "target")) as copy,
        pytest.raises(CorruptLogError) as caught,
    ):
        copy.copy_files()
    assert caught.value.segment == f"wal/{rotten.name}"
    assert not (tmp_path / "target" / caught.value.segment).exists()
