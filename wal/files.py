"""Reach the disk. Everything the log does to files goes through `Files`, so a test can be the disk.

The one rule: no other module of the package touches a file, a directory or the clock.
"""

import contextlib
import errno
import fcntl
import os
import time
from enum import Enum
from pathlib import Path
from typing import Protocol

from wal.errors import LogFailedError, LogFullError


class How(Enum):
    """Say what a file is opened for."""

    READ = "read"
    DISK = "read, after the cached pages were dropped, so that the disk itself answers"
    WRITE = "read and write a file that exists"
    CREATE = "read and write a file that must not exist yet"
    LOCK = "create if need be and hold alone; BlockingIOError when another holds it"
    DIRECTORY = "sync the entries of a directory"


class Files(Protocol):
    """A dozen calls to the disk. All raise OSError; a handle is a small integer."""

    def open(self, path: Path, how: How) -> int:
        """Open `path` and return a handle."""

    def close(self, handle: int) -> None:
        """Give the handle back; a lock goes with it."""

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Return at most `size` bytes; fewer only at the end of the file."""

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """Write some of `data` and return how many bytes were taken."""

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        """Return once the file (without its times, if `data_only`) or the directory is durable.

        Fails for one that has been removed meanwhile.
        """

    def resize(self, handle: int, size: int) -> None:
        """Cut the file to `size`, or grow it with space that is really allocated."""

    def scan(self, directory: Path) -> dict[str, int]:
        """Return the plain files of `directory` with their sizes; FileNotFoundError if missing."""

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target` in one step, replacing what had it."""

    def unlink(self, path: Path) -> None:
        """Remove the name `path`."""

    def make_directory(self, path: Path) -> None:
        """Create `path` and its parents; nothing if it is there."""

    def now_ns(self) -> int:
        """Return the wall clock in nanoseconds. It may step back."""

    def random_bytes(self, size: int) -> bytes:
        """Return `size` unpredictable bytes."""


_FLAGS = {
    How.READ: os.O_RDONLY,
    How.DISK: os.O_RDONLY,
    How.WRITE: os.O_RDWR,
    How.CREATE: os.O_RDWR | os.O_CREAT | os.O_EXCL,
    How.LOCK: os.O_RDWR | os.O_CREAT,
    How.DIRECTORY: os.O_RDONLY | os.O_DIRECTORY,
}


class OsFiles:
    """The disk of this machine."""

    def open(self, path: Path, how: How) -> int:
        """See `Files.open`."""
        handle = os.open(path, _FLAGS[how] | os.O_CLOEXEC, 0o640)
        try:
            if how is How.LOCK:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif how is How.DISK:
                _drop_cache(handle)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def close(self, handle: int) -> None:
        """See `Files.close`."""
        os.close(handle)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """See `Files.read`."""
        data = os.pread(handle, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < size and (data := os.pread(handle, size - got, offset + got)):
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """See `Files.write`."""
        return os.pwrite(handle, data, offset)

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        """See `Files.sync`."""
        if data_only and hasattr(os, "fdatasync"):
            os.fdatasync(handle)
        else:
            os.fsync(handle)
        # What has no name any more is gone with its last handle: it was removed by hand, or by a
        # writer that took over, and nothing in it may be answered.
        if _is_removed(handle):
            raise OSError(errno.ESTALE, "the file was removed while it was written")

    def resize(self, handle: int, size: int) -> None:
        """See `Files.resize`."""
        have = os.fstat(handle).st_size
        if size > have and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, have, size - have)
        else:
            os.ftruncate(handle, size)

    def scan(self, directory: Path) -> dict[str, int]:
        """See `Files.scan`."""
        sizes: dict[str, int] = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                # Who looks on beside a writer may see a name that is gone a moment later.
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return sizes

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `Files.unlink`."""
        os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """See `Files.make_directory`."""
        os.makedirs(path, exist_ok=True)

    def now_ns(self) -> int:
        """See `Files.now_ns`."""
        return time.time_ns()  # noqa: TID251 - the one place of this package that reads the clock

    def random_bytes(self, size: int) -> bytes:
        """See `Files.random_bytes`."""
        return os.urandom(size)


def write_all(files: Files, handle: int, data: bytes, offset: int) -> None:
    """Write the whole of `data`, taking up again after a short write."""
    taken = files.write(handle, data, offset)
    while taken < len(data):
        more = files.write(handle, memoryview(data)[taken:], offset + taken)
        if more <= 0:
            raise OSError(errno.EIO, "the disk takes no more bytes and names no error")
        taken += more


def sync_directory(files: Files, directory: Path) -> None:
    """Make the names in `directory` durable."""
    handle = files.open(directory, How.DIRECTORY)
    try:
        files.sync(handle)
    finally:
        files.close(handle)


def read_whole(files: Files, path: Path, how: How, size_max: int) -> bytes:
    """Return the content of `path`, at most `size_max` bytes and one more if it is longer."""
    handle = files.open(path, how)
    try:
        return files.read(handle, size_max + 1, 0)
    finally:
        files.close(handle)


def write_new(files: Files, path: Path, data: bytes) -> None:
    """Create `path` with `data` and sync it. Its directory is the caller's to sync."""
    handle = files.open(path, How.CREATE)
    try:
        write_all(files, handle, data, 0)
        files.sync(handle)
    finally:
        files.close(handle)


def failure(error: OSError) -> LogFailedError:
    """Return what the caller of the log is told of `error`."""
    kind = LogFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else LogFailedError
    return kind(f"the disk refused: {error}")


def _is_removed(handle: int) -> bool:
    """Say whether an open file has no name any more.

    Linux is asked through `/proc`: since 6.13 a file whose times were looked at, as `fstat` does,
    gets a new time with the next write, and so its inode is written with each sync (50 µs).
    """
    try:
        return os.readlink(f"/proc/self/fd/{handle}").endswith(" (deleted)")
    except OSError:  # no /proc here
        return os.fstat(handle).st_nlink == 0


def _drop_cache(handle: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
