"""Whose turn it is when tests run side by side: most share it, some want the machine to themselves.

A marked test (`@pytest.mark.alone`) begins when no other test is under way, and none begins before
it has ended. It comes to its turn however many others there are: who waits for it keeps the door,
and nobody passes who comes later.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """The turns of one process; those that name the same folder take them together."""

    def __init__(self, folder: Path) -> None:
        self._door, self._room = folder / "door", folder / "room"

    @contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Run the block with others, or alone."""
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with locked(self._room) as room:
            with locked(self._door) as door:
                fcntl.flock(door, how)
                fcntl.flock(room, how)
            yield


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Yield a file to lock; it is unlocked at the end, also where a child holds it open."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield handle
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
