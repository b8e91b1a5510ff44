"""The seams: what a part needs of the world, in at most five methods each."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from engine.core.events import AnyEvent
from engine.core.types import Position, TimeNs


class Clock(Protocol):
    """Wall time; data, never order."""

    def now_ns(self) -> TimeNs:
        """Return nanoseconds since 1970, a whole number of microseconds."""


class Journal(Protocol):
    """The one log of a shard, as the shard sees it."""

    def append(self, events: Sequence[AnyEvent]) -> Position:
        """Stage events; return the position of the first."""

    def commit(self) -> Position:
        """Return once all that is staged is on disk.

        Raises:
            Exception: the disk refused; the process must end, nobody may be answered.
        """

    def idle(self) -> bool:
        """Prove the newest frame durable by one of its own; True when it wrote.

        To be asked again and again: it writes nothing while more came since it was asked last,
        for each frame proves the one before it.
        """

    def checkpoint(self, state: Callable[[bool], Iterable[bytes]], *, wait: bool = False) -> bool:
        """Begin to keep the state as of the last commit, so that recovery need not read below it.

        Args:
            state: Returns the whole state (True), or what changed since the checkpoint before. It
                is called at once; what it returns may be taken by another thread.
            wait: For the checkpoint that is under way, if one is.

        Returns:
            Whether it was begun; not while another one is under way.
        """

    def close(self) -> None:
        """Seal the log; what was appended must have been committed."""


class Shard(Protocol):
    """A shard as a gateway sees it, wherever it runs."""

    @property
    def number(self) -> int:
        """Which shard, from 0; the first half of every position it gives."""

    def ask(self, step: str, *arguments: bytes | int | str) -> Awaitable[bytes]:
        """Start `step` of the shard at once, in the order of the calls; await its answer.

        Raises:
            ShardDown: when awaited; whether the step was taken is unknown.
        """


class ShardDown(Exception):  # noqa: N818  (a state of the world more than an error)
    """The shard's process ended, or never started, while somebody waited for an answer."""


class VerdictWorker(Protocol):
    """One verifier as the pool sees it: a Ray actor, a thread, or a test's own."""

    async def verify(self, blob: bytes) -> bytes:
        """Return a verdict byte per item of the batch, and their seal."""

    async def restart(self) -> None:
        """Return once a fresh worker stands in the place of this one."""
