"""Which environments this process has open: one for a directory, whatever the number of handles.

LMDB's locks belong to process and file, so a second environment of the same file would let go of
the locks of the first. A forked child may use none of its parent's: closing it there would take the
parent's readers from the table, and LMDB opens no second one beside it.
"""

import os
from pathlib import Path
from threading import Lock
from typing import Final

from engine.payments.errors import StoreUnavailableError
from engine.payments.kv.commits import GroupCommit
from engine.payments.kv.environment import Environment

Key = tuple[int, int]


class Shared:
    """An environment, the one who commits to it, and how many handles there are."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.commits = GroupCommit(environment)
        self.handles = 0


class Registry:
    """All environments of this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[Key, Shared] = {}
        self._inherited: dict[Key, Shared] = {}

    def take(self, place: Path, *, read_only: bool) -> Shared:
        """Return the environment of a directory there is, for one handle more.

        Raises:
            StoreError: it cannot be opened.
        """
        with self._lock:
            key = _key(place)
            if key in self._inherited:
                raise StoreUnavailableError(
                    f"this process was forked from one that has {place} open: start processes "
                    "anew (multiprocessing: spawn), or open the store only after the fork"
                )
            if key not in self._open:
                self._open[key] = Shared(Environment(place, read_only=read_only))
            shared = self._open[key]
            if not read_only:
                shared.environment.allow_writing()
            shared.handles += 1
            return shared

    def give_back(self, shared: Shared) -> None:
        """Take one handle away; the last one closes the environment."""
        with self._lock:
            if shared.environment.is_inherited:
                return
            shared.handles -= 1
            if not shared.handles:
                del self._open[_key_of(self._open, shared)]
                shared.environment.close()

    def forget(self) -> None:
        """Begin anew in a forked child, and keep what was inherited from being collected."""
        self._lock = Lock()
        self._inherited |= self._open
        for shared in self._inherited.values():
            shared.environment.is_inherited = True
        self._open = {}


def _key(place: Path) -> Key:
    status = place.stat()
    return status.st_dev, status.st_ino


def _key_of(opened: dict[Key, Shared], shared: Shared) -> Key:
    """Find it by itself: its directory may be gone."""
    return next(key for key, each in opened.items() if each is shared)


REGISTRY: Final = Registry()
os.register_at_fork(after_in_child=REGISTRY.forget)
