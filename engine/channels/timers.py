"""The one place that reads the wall clock, and the thread that ticks a shard."""

import threading
import time
from collections.abc import Callable
from typing import Final

from engine.core.types import TimeNs

US: Final = 1_000


class SystemClock:
    """The machine's wall clock, cut to whole microseconds so that the log keeps it exactly."""

    def now_ns(self) -> TimeNs:
        """Return nanoseconds since 1970."""
        return TimeNs(time.time_ns() // US * US)  # noqa: TID251  (its one place)


class Ticker:
    """Calls `tick` every `period_s` seconds from a thread of its own until stopped."""

    def __init__(self, tick: Callable[[], object], period_s: float) -> None:
        self._tick = tick
        self._period_s = period_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return once no further tick will come."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            self._tick()
