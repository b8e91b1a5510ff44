"""Disks for the tests of the log: one that never changes its mind, one that breaks off."""

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from wal import Log, LogOptions, OsFiles, Position
from wal.files import Files, How
from wal.format import MANIFEST_NAME, SEGMENT_HEADER_BYTES, SEGMENTS
from wal.manifest import decode_manifest

NEVER = 1 << 60
SMALL = LogOptions(segment_bytes=16 << 10, spare_in_background=False)


class QuickFiles(OsFiles):
    """The real disk without its syncs: they decide nothing where the page cache survives."""

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        """Return at once."""


QUICK = QuickFiles()


class SteadyFiles(QuickFiles):
    """The real disk with a clock and a chance that are the same each time."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000
        self._random = random.Random(7)

    def now_ns(self) -> int:
        self.now += 1_000
        return self.now

    def random_bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)


class Killed(BaseException):
    """The process is gone. Nothing of the log may catch this."""


class BreakingFiles(QuickFiles):
    """The real disk, until call number `at`: that one does `how`, and so does every later one.

    `how` None kills: the call is not done and `Killed` is raised. An OSError is raised as it is,
    once or for ever. Counts only calls that `counts` names; `taken` lists them all.
    """

    def __init__(
        self,
        at: int,
        error: OSError | None = None,
        calls: Iterable[str] = (),
        *,
        once: bool = False,
    ) -> None:
        self._at = at
        self._error = error
        self._calls = frozenset(calls)
        self._once = once
        self._open: set[int] = set()
        self.taken: list[str] = []

    @property
    def broke(self) -> bool:
        return len(self.taken) >= self._at

    def break_next(self) -> None:
        """Let the next call that counts be the one."""
        self._at = len(self.taken) + 1

    def break_after(self, calls: int) -> None:
        """Let so many more calls pass."""
        self._at = len(self.taken) + 1 + calls

    def die(self) -> None:
        """Close what the process had open, as its end would."""
        for handle in list(self._open):
            super().close(handle)
        self._open.clear()

    def _step(self, name: str) -> None:
        if self._calls and name not in self._calls:
            return
        self.taken.append(name)
        now = len(self.taken)
        if now == self._at or (now > self._at and not self._once):
            raise self._error or Killed

    def open(self, path: Path, how: How) -> int:
        self._step("open")
        handle = super().open(path, how)
        self._open.add(handle)
        return handle

    def close(self, handle: int) -> None:
        self._open.discard(handle)
        super().close(handle)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        self._step("read")
        return super().read(handle, size, offset)

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        try:
            self._step("write")
        except Killed:
            super().write(handle, bytes(data)[: len(data) // 2], offset)  # half of it got through
            raise
        return super().write(handle, data, offset)

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        self._step("sync")
        super().sync(handle, data_only=data_only)

    def resize(self, handle: int, size: int) -> None:
        self._step("resize")
        super().resize(handle, size)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)

    def make_directory(self, path: Path) -> None:
        self._step("make_directory")
        super().make_directory(path)


def fill(log: Log[bytes], frames: int, records: int = 3, size: int = 40) -> list[bytes]:
    """Commit `frames` frames of records that tell where they stand; return all records."""
    written = []
    for _ in range(frames):
        batch = [record(log.last + index + 1, size) for index in range(records)]
        log.append(batch)
        log.commit()
        written += batch
    return written


def record(position: int, size: int = 40) -> bytes:
    """Return the record of a position: its number, then bytes that do not compress."""
    return b"%08d" % position + random.Random(position).randbytes(size)


def records_of(directory: Path, files: Files | None = None) -> list[bytes]:
    """Open the log, read it all, and leave it closed."""
    with Log.open(directory, SMALL, files=files or QUICK) as log:
        return [data for _, data in log.read(Position(1))]


def live_segment(directory: Path) -> Path:
    """Return the segment the MANIFEST names as live."""
    live = decode_manifest((directory / MANIFEST_NAME).read_bytes()).live
    assert live is not None
    return directory / SEGMENTS / live.name


def sealed_segments(directory: Path) -> list[Path]:
    """Return the sealed segments, oldest first."""
    manifest = decode_manifest((directory / MANIFEST_NAME).read_bytes())
    return [directory / SEGMENTS / entry.name for entry in manifest.sealed]


def frame_starts(path: Path) -> list[int]:
    """Return where the frames of a segment begin, by their lengths alone, and where they end."""
    data = path.read_bytes()
    starts = [SEGMENT_HEADER_BYTES]
    while data[starts[-1] : starts[-1] + 4].strip(b"\0"):
        stored = int.from_bytes(data[starts[-1] + 36 : starts[-1] + 40], "little")
        starts.append(starts[-1] + 64 + (stored + 32 + 7) // 8 * 8)
    return starts


def change(path: Path, edit: Callable[[bytearray], object]) -> None:
    """Rewrite a file in place with what `edit` makes of it."""
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(data)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


def copied(source: Path, target: Path) -> Path:
    """Return a fresh copy of a log at `target`."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    return target
