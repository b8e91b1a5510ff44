"""The turn to write, among processes: like LMDB's own lock, but one that does not wait for ever."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from engine.payments.errors import StoreLockedError

WAIT_S_MAX: Final = 10.0
"""How long a writer waits for another process."""

PAUSE_S_FIRST: Final = 0.0002
PAUSE_S_MAX: Final = 0.005


class Turn:
    """A lock on a file beside the store. One thread of a process at a time may ask for it.

    It is a POSIX lock: the system lets go of it when its process ends, however it ends, and a
    forked child never has it.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def let_go(self) -> None:
        """Give the turn to whoever wants it."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def take(self) -> None:
        """Have the turn.

        Raises:
            StoreLockedError: another process had it all the time.
        """
        until: float | None = None
        pause_s = PAUSE_S_FIRST
        while not self._try():
            now = time.monotonic()
            until = until or now + WAIT_S_MAX
            if now > until:
                raise StoreLockedError(
                    f"another process has been writing to {self._place.parent} for "
                    f"{WAIT_S_MAX:g} s: nothing was changed; see what it does, or end it"
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, PAUSE_S_MAX)

    def _try(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
