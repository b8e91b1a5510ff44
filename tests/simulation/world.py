"""One simulated world: a machine, its disk, its clock, what is said of it, and how it may fail."""

import asyncio
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

from engine.app import Engine
from tests.simulation.disk import Disk, Trouble
from tests.simulation.timeline import VirtualLoop, WallClock

if TYPE_CHECKING:
    from tests.simulation.processes import SimShard

SEAL_KEY = bytes(range(32))


class Broken(Exception):  # noqa: N818  (it reads as the sentence it is)
    """A promise was broken; the message says which."""


class Nemesis(Protocol):
    """What makes trouble; see `faults`."""

    cramped: bool

    def fate_of(self, step: str) -> str: ...
    def trouble_of(self, shard: "SimShard") -> Trouble: ...
    def latency_s(self) -> float: ...
    def pause_before_start_s(self) -> float: ...
    def after_end(self) -> None: ...
    def refused(self, shard: "SimShard", error: Exception) -> None: ...
    def forgive(self, shard: "SimShard") -> None: ...


class Checker(Protocol):
    """What holds the engine to its promises; see `history`."""

    def recovered(self, shard: "SimShard") -> None: ...
    def stepped(self, shard: "SimShard") -> None: ...
    def ended(self, shard: "SimShard") -> None: ...


class World:
    """What everybody in a history shares. `number` decides all that chance decides."""

    nemesis: Nemesis
    checker: Checker

    def __init__(self, number: int, loop: VirtualLoop, datadir: Path) -> None:
        self.number = number
        self.loop = loop
        self.datadir = str(datadir)
        self.clock = WallClock(loop)
        self.disk = Disk(self.datadir, self.draw("disk"))
        self.chance = self.draw("world")
        self.story: list[str] = []
        self.engine: Engine | None = None
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.over: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._heard)

    def draw(self, name: str) -> Random:
        """Return a stream of chance that belongs to one part of this world alone."""
        return Random(f"{self.number}/{name}")

    def say(self, who: str, what: str) -> None:
        """Add a line to the story."""
        text = what.replace(self.datadir + "/", "")
        self.story.append(f"{self.loop.now - 1_000:9.4f} s  {who:<12} {text}")

    def fail(self, error: BaseException) -> None:
        """End the history: something is not as promised."""
        if not self.over.done():
            self.over.set_exception(error)

    def own(self, task: "asyncio.Task[object]") -> None:
        """Let an error of `task` be the end of this history."""
        task.add_done_callback(self._ended)

    def refused(self, shard: "SimShard", error: Exception) -> None:
        """A shard says that its log is corrupt."""
        self.nemesis.refused(shard, error)

    def _ended(self, task: "asyncio.Task[object]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _heard(self, loop: asyncio.AbstractEventLoop, said: dict[str, object]) -> None:
        error = said.get("exception")
        self.fail(error if isinstance(error, BaseException) else Broken(str(said["message"])))
