"""What LMDB and the file system say, in the words of `engine.payments.errors`.

LMDB gives system errors as text only, so they are known by the text the system has for them.
"""

import errno
import os
from pathlib import Path
from typing import Final

import lmdb

from engine.payments.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreOutcomeUnknownError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

FULL_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY_ERRORS: Final = (errno.EROFS, errno.EACCES, errno.EPERM)

_DAMAGED: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)


def fault_of(error: lmdb.Error | OSError, place: Path) -> StoreError:
    """Return the fault that says what `error` means for the store at `place`."""
    if isinstance(error, _DAMAGED):
        return StoreDamagedError(
            f"{place} is damaged or no LMDB database ({error}): nothing was changed; restore a "
            "backup, or name another directory"
        )
    if isinstance(error, lmdb.ReadersFullError):
        return StoreLockedError(f"too many readers use {place} at once: try again, or end some")
    if isinstance(error, lmdb.PanicError):
        return StoreUnavailableError(
            f"a write to {place} failed half-way and its state is unknown here: nothing was "
            "changed by this call; close the store and open it again"
        )
    return _system_fault(error, place)


def _system_fault(error: lmdb.Error | OSError, place: Path) -> StoreError:
    if isinstance(error, lmdb.DiskError) or _is(error, FULL_ERRORS):
        return StoreFullError(f"no room is left for {place}: nothing was changed; make some room")
    if isinstance(error, lmdb.ReadonlyError) or _is(error, READ_ONLY_ERRORS):
        return StoreReadOnlyError(
            f"{place} cannot be written by this process ({error}): nothing was changed; allow it, "
            "or open the store read-only"
        )
    return StoreUnavailableError(f"{place} does not answer: {error}; look at its disk")


def map_fault_of(error: Exception, place: Path) -> StoreError:
    """Return the fault of a map that could not be made larger."""
    return StoreFullError(
        f"this process has no address space left for {place} ({error}): nothing was changed; raise "
        "its limit (ulimit -v)"
    )


def unknown_outcome_of(error: lmdb.Error, place: Path) -> StoreError:
    """Return the fault of a commit of which LMDB itself does not know what became."""
    return StoreOutcomeUnknownError(
        f"the disk of {place} failed while it was written ({error}): the call is whole or not "
        "at all; close the store, open it again, and fetch"
    )


def _is(error: lmdb.Error | OSError, numbers: tuple[int, ...]) -> bool:
    if isinstance(error, OSError):
        return error.errno in numbers
    return any(os.strerror(number) in str(error) for number in numbers)
