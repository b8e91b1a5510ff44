"""Watch how much room the disk has left, apart from the way of an answer.

Below a soft limit a shard takes nothing new: what it has must still be closed, settled, sealed and
checkpointed, and all of that needs room. Above it again, with a margin, it goes on by itself.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from engine.channels.options import ShardOptions

LOOK_EVERY_S: Final = 1.0
"""At 10,000 claims a second a shard writes some 1 MB between two looks."""

MARGIN: Final = 10
"""Free space above the limit, in percent of it, for a short shard to go on; or it would flutter."""

SEGMENTS_KEPT_FREE: Final = 2
"""Room for so many whole segments stays free on any disk: closing one begins the next."""


class Room(msgspec.Struct, frozen=True):
    """Bytes of a file system that we may still use, and of the whole of it."""

    free_bytes: int
    size_bytes: int


def room_at(directory: Path) -> Room:
    """Return the room of the file system that holds `directory`.

    Raises:
        OSError: it does not answer.
    """
    seen = os.statvfs(directory)
    return Room(seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize)


class SpaceWatch:
    """Says whether there is room for anything new; asks the disk once a second at most.

    Attributes:
        free_bytes: What was free at the last look.
        limit_bytes: What must be free for anything new to be taken; 0 for no limit.
        is_short: Whether nothing new is to be taken.
    """

    def __init__(
        self,
        directory: Path,
        options: ShardOptions,
        room: Callable[[Path], Room] = room_at,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._options = options
        self._room = room
        self._clock = clock
        self._look_at = clock()
        self.free_bytes = self.limit_bytes = 0
        self.is_short = False

    def look(self) -> bool:
        """Look at the disk when it is time to; return `is_short`."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._measure()
        return self.is_short

    def _measure(self) -> None:
        try:
            room = self._room(self._directory)
        except OSError:  # the next write meets what is wrong, and says it better
            return
        self.free_bytes = room.free_bytes
        self.limit_bytes = self._limit(room)
        enough = self.limit_bytes * (100 + MARGIN) // 100 if self.is_short else self.limit_bytes
        self.is_short = room.free_bytes < enough

    def _limit(self, room: Room) -> int:
        options = self._options
        if not options.space_soft_bytes:
            return 0
        share = room.size_bytes * options.space_soft_percent // 100
        least = SEGMENTS_KEPT_FREE * options.segment_bytes
        return max(min(options.space_soft_bytes, share), least)
