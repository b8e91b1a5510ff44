"""Hold a log alone, and say who does.

The one rule: the lock is the kernel's and goes with the process; the text in LOCK is for people.
"""

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
    """Say in LOCK who holds it. For people only; the lock itself is the kernel's."""
    text = f"node={platform.node()} pid={getpid()} epoch={epoch}\n"
    files.resize(lock, 0)
    write_all(files, lock, text.encode(), 0)


def _holder(files: Files, directory: Path) -> str:
    """Return what LOCK says of who holds it, in brackets; it may not have been written yet."""
    try:
        text = read_whole(files, directory / LOCK_NAME, How.READ, TEXT_BYTES_MAX)
    except OSError:
        return ""
    words = text.decode(errors="replace").strip()
    return f" ({words})" if words.isprintable() and words else ""
