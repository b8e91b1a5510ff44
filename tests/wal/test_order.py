"""What is on disk before what. The kills of the other tests keep the page cache; these do not ask
the disk at all but the order of the calls, which alone decides what a power cut leaves."""

from pathlib import Path

import pytest

from tests.wal.disk import SMALL, SteadyFiles, fill
from wal import Log
from wal.files import How


class Watched(SteadyFiles):
    """The real disk, which writes down what was done to which file."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        self.done: list[str] = []

    def note(self, call: str, name: str) -> None:
        if self.done[-1:] != [f"{call} {name}"]:
            self.done.append(f"{call} {name}")

    def open(self, path: Path, how: How) -> int:
        handle = super().open(path, how)
        self.names[handle] = _kind(path)
        return handle

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        self.note("write", self.names[handle])
        return super().write(handle, data, offset)

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        self.note("sync", self.names[handle])
        super().sync(handle, data_only=data_only)

    def resize(self, handle: int, size: int) -> None:
        self.note("resize", self.names[handle])
        super().resize(handle, size)

    def rename(self, source: Path, target: Path) -> None:
        self.note("rename", _kind(target))
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self.note("unlink", _kind(path))
        super().unlink(path)


def _kind(path: Path) -> str:
    """Return what a file is: a name, but for segments and snapshots only what they begin at."""
    first, dash, _ = path.name.partition("-")
    return f"{int(first)}{path.suffixes[0]}" if dash and first.isdecimal() else path.name


MANIFEST = ["write MANIFEST.tmp", "sync MANIFEST.tmp", "rename MANIFEST", "sync log"]
SPARE = ["resize next.pre", "write next.pre", "sync next.pre"]


def _begun(first_lsn: int) -> list[str]:
    name = f"{first_lsn}.wal"
    return [f"rename {name}", f"write {name}", f"sync {name}", "sync wal", *MANIFEST]


@pytest.fixture
def files() -> Watched:
    return Watched()


@pytest.fixture
def log(tmp_path: Path, files: Watched) -> Log[bytes]:
    return Log.open(tmp_path / "log", SMALL, files=files)


def test_a_new_log_is_named_only_when_all_of_it_is_durable(log: Log[bytes], files: Watched) -> None:
    begun = files.done.index("resize LOCK")
    assert {"sync log", "sync wal", "sync snap"} <= set(files.done[:begun])
    assert files.done[begun:] == ["resize LOCK", "write LOCK", *SPARE, *_begun(1)]
    log.close()


def test_a_rotation_names_a_segment_before_it_takes_a_frame(
    log: Log[bytes], files: Watched
) -> None:
    while not log.statistics().rotations:
        files.done.clear()
        next_lsn = log._live.last_lsn + 2  # the seal comes between
        fill(log, frames=1, size=300)
    seal = ["write 1.wal", "sync 1.wal", "resize 1.wal", "sync 1.wal"]
    frame = [f"write {next_lsn}.wal", f"sync {next_lsn}.wal"]
    assert files.done == [*SPARE, *seal, *_begun(next_lsn), *frame]
    log.close()


def test_a_snapshot_is_named_when_it_is_durable_and_an_old_one_goes_after(
    log: Log[bytes], files: Watched
) -> None:
    for _ in range(SMALL.snapshots_kept):
        fill(log, frames=1)
        log.snapshot(log.last, [b"state"])
    fill(log, frames=1)
    files.done.clear()
    log.snapshot(log.last, [b"state"])
    assert files.done == [
        "write 4.snap", "sync 4.snap", "rename 4.snap", "sync snap", *MANIFEST, "unlink 1.snap",
    ]  # fmt: skip
    log.close()


def test_a_close_seals_before_it_says_so(log: Log[bytes], files: Watched) -> None:
    fill(log, frames=1)
    files.done.clear()
    log.close()
    assert files.done == ["write 1.wal", "sync 1.wal", "resize 1.wal", "sync 1.wal", *MANIFEST]


def test_a_start_keeps_the_old_file_until_the_new_one_is_named(
    log: Log[bytes], files: Watched
) -> None:
    fill(log, frames=1)
    log.abandon()
    files.done.clear()
    (path,) = files_of(log)
    with path.open("r+b") as live:
        live.seek(4096 + 600)
        live.write(b"torn")
    Log.open(path.parents[1], SMALL, files=files).abandon()
    tail = f"{path.name}.tail-"
    begun = next(index for index, done in enumerate(files.done) if tail in done or "write" in done)
    after = files.done[begun:]
    assert after[1:3] == [after[0].replace("write", "sync"), "sync quarantine"]
    assert after[3:] == [
        "write 1.wal", "sync 1.wal", "rename 1.wal", "sync wal", "resize LOCK", "write LOCK",
        *SPARE, *_begun(2), "unlink 1.wal",
    ]  # fmt: skip


def files_of(log: Log[bytes]) -> list[Path]:
    return [path for path in (log._place.directory / "wal").iterdir() if path.suffix == ".wal"]
