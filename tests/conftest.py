"""What every test may ask for; channels and claims in words are in `tests.builders`."""

from collections.abc import Callable
from pathlib import Path

import pytest

PROCESSES = 3
"""One more than the machine has cores that runs every change: a third of the time a test waits for
a disk, a clock or another process. `-n` says another number."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the suite, or a folder of it, in processes side by side; named files need none beside."""
    named = (Path(arg.partition("::")[0]) for arg in config.args)
    return PROCESSES if any((config.invocation_params.dir / path).is_dir() for path in named) else 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        default=False,
        help="write golden files anew instead of comparing; explain the change in the commit",
    )


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[Path, bytes], None]:
    """Compare bytes with a golden file, or write it where `--update-golden` is given."""

    def check(path: Path, content: bytes) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        assert path.read_bytes() == content, f"{path.name} differs; see --update-golden"

    return check
