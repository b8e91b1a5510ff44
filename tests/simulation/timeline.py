"""Virtual time: an event loop without sockets or threads whose clock jumps to the next timer."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.core.types import TimeNs

NOON_NS = 1_800_000_000_000_000_000
US = 1_000
LEAP_S = 200


class Stuck(Exception):  # noqa: N818
    """Nothing is ready and no timer is set: whoever waits would wait for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order they were asked for; when none is ready, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self._selector = self

    def time(self) -> float:
        return self.now

    def select(self, timeout: float | None) -> list[object]:
        """Wait as a selector does: nothing ever comes but the time."""
        if timeout is None:
            raise Stuck
        self.now += timeout
        return []

    def _process_events(self, events: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class WallClock:
    """The wall clock of the machine: follows the loop, and steps when it is told to."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._step_ns = 0
        self.leapt = False

    def step(self, seconds: int) -> None:
        """Jump; `leapt` says ever after whether a jump was long enough to forget answers over."""
        self._step_ns += seconds * 1_000_000_000
        self.leapt = self.leapt or seconds >= LEAP_S

    def now_ns(self) -> TimeNs:
        ns = NOON_NS + self._step_ns + int(self._loop.now * 1_000_000) * US
        return TimeNs(ns)


@contextmanager
def clock_of(loop: VirtualLoop) -> Iterator[None]:
    """Let everybody who asks how much time has passed be told the time of `loop`.

    What is measured with `time.perf_counter` stays real; nothing is decided by it.
    """
    real = time.monotonic, time.sleep
    time.monotonic = loop.time  # type: ignore[assignment]
    time.sleep = lambda pause_s: setattr(loop, "now", loop.now + pause_s)
    try:
        yield
    finally:
        time.monotonic, time.sleep = real


def end_tasks(loop: VirtualLoop) -> None:
    """Cancel whatever still runs, as often as it takes."""
    for _ in range(20):
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
