"""What the process of a shard takes from its machine: disk, clock, ticks, the key of the seals.

The default is the machine it runs on; a simulation gives its own and runs everything in one thread.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from engine.channels.journal import OS_FILES, Files
from engine.channels.space import Room, room_at
from engine.channels.timers import SystemClock, Ticker
from engine.ports import Clock
from engine.verify.seal import load_or_create_seal_key


class Ticking(Protocol):
    """Something that calls the shard's tick again and again."""

    def stop(self) -> None:
        """Return once no further tick will come."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The surroundings of one shard.

    Attributes:
        files: The disk.
        clock: The wall clock.
        ticker: Begins to call its first argument every so many seconds.
        seal_key: Returns the key in a file, made first where there is none.
        room: Returns what is free on the file system of a directory.
        monotonic: The clock that never steps, in seconds.
        threads: Whether work may be done beside the step; without, it is done within.
    """

    files: Files = OS_FILES
    clock: Clock = SystemClock()
    ticker: Callable[[Callable[[], object], float], Ticking] = Ticker
    seal_key: Callable[[Path], bytes] = load_or_create_seal_key
    room: Callable[[Path], Room] = room_at
    monotonic: Callable[[], float] = time.monotonic
    threads: bool = True


THIS_MACHINE = Machine()
