"""Hold a log alone, and say who does.

The one rule: the lock is the kernel's and goes with the process. The text in LOCK is for people; a
writer looks for its own there only to see that nobody put another file in its place.
"""

import errno
import platform
from os import getpid
from pathlib import Path

from wal.errors import LogInUseError
from wal.files import Files, How, failure, read_whole, write_all
from wal.format import LOCK_NAME

TEXT_BYTES_MAX = 256


def take_lock(files: Files, directory: Path) -> int:
    """Hold the log in `directory` alone until the handle is closed.

    Raises:
        LogInUseError: somebody else holds it.
        LogFailedError: the disk refused.
    """
    try:
        files.make_directory(directory)
        return files.open(directory / LOCK_NAME, How.LOCK)
    except BlockingIOError as error:
        holder = _holder(files, directory)
        raise LogInUseError(f"another writer holds {directory}{holder}") from error
    except OSError as error:
        raise failure(error) from error


def sign_lock(files: Files, lock: int, epoch: int) -> None:
    """Say in LOCK who holds it."""
    files.resize(lock, 0)
    write_all(files, lock, _signature(epoch), 0)


def check_lock(files: Files, directory: Path, epoch: int) -> None:
    """See that LOCK is still the file that this process signed for `epoch`.

    Raises:
        OSError: it was removed or replaced, so that another writer may have taken over.
    """
    found = read_whole(files, directory / LOCK_NAME, How.READ, TEXT_BYTES_MAX)
    if found != _signature(epoch):
        raise OSError(errno.ESTALE, "LOCK was replaced while the log was written")


def _signature(epoch: int) -> bytes:
    return f"node={platform.node()} pid={getpid()} epoch={epoch}\n".encode()


def _holder(files: Files, directory: Path) -> str:
    """Return what LOCK says of who holds it, in brackets; it may not have been written yet."""
    try:
        text = read_whole(files, directory / LOCK_NAME, How.READ, TEXT_BYTES_MAX)
    except OSError:
        return ""
    words = text.decode(errors="replace").strip()
    return f" ({words})" if words.isprintable() and words else ""
