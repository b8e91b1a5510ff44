"""Natural batching: while a batch is under way the next one gathers.

So batches are small when the engine is idle and large when it is busy. The queue is bounded; what
does not fit is given back at once.
"""

import asyncio
import math
import time
from collections import deque
from typing import Final

from engine.channels.intake.submission import Waiting
from engine.channels.options import LaneOptions

COMPANY: Final = 8
"""Claims that need not linger for more."""


class Batcher:
    """The queue before one shard, and the rule that says when a batch of it is worth sending."""

    def __init__(self, options: LaneOptions) -> None:
        self._options = options
        self._queue: deque[Waiting] = deque()
        self._came: deque[tuple[float, int]] = deque()
        """When those in the queue came, and how many at once."""
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gathering_since = 0.0
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def under_way(self) -> int:
        """Batches taken and not yet done."""
        return self._under_way

    def put(self, waiting: list[Waiting]) -> list[Waiting]:
        """Take claims in; return those there is no room for."""
        room = self._options.queue_claims_max - len(self._queue)
        refused: list[Waiting] = []
        if room < len(waiting):
            waiting, refused = waiting[:room], waiting[room:]
        if not waiting:
            return refused
        if not self._queue:
            self._gathering_since = time.monotonic()
            self._changed.set()
            self._idle.clear()
        self._queue.extend(waiting)
        self._came.append((time.monotonic(), len(waiting)))
        if len(self._queue) >= self._options.batch_claims_max:
            self._changed.set()
        return refused

    async def take(self) -> list[Waiting]:
        """Return the oldest claims once they are worth a batch; `done` must follow."""
        while (pause_s := self._pause_s()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if math.isinf(pause_s) else pause_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        count = min(len(self._queue), self._options.batch_claims_max)
        batch = self._pop(count)
        self._gathering_since = time.monotonic()
        self._under_way += 1
        return batch

    def done(self) -> None:
        """Say that a batch has been answered."""
        self._under_way -= 1
        self._changed.set()
        if not self._queue and not self._under_way:
            self._idle.set()

    async def idle(self) -> None:
        """Return once nothing waits and nothing is under way."""
        await self._idle.wait()

    def empty(self) -> list[Waiting]:
        """Return everything in the queue, which will not be sent."""
        waiting = list(self._queue)
        self._queue.clear()
        self._came.clear()
        if not self._under_way:
            self._idle.set()
        return waiting

    def shed(self) -> list[Waiting]:
        """Return the claims that have waited too long, which will not be sent."""
        before = time.monotonic() - self._options.queue_wait_max_ms / 1_000
        stale = self._pop(sum(count for came_at, count in self._came if came_at < before))
        if stale and not self._queue and not self._under_way:
            self._idle.set()
        return stale

    def _pop(self, count: int) -> list[Waiting]:
        """Take the oldest `count` claims from the queue."""
        popped = [self._queue.popleft() for _ in range(count)]
        while count:
            came_at, size = self._came.popleft()
            if size > count:
                self._came.appendleft((came_at, size - count))
            count -= min(size, count)
        return popped

    def _pause_s(self) -> float:
        """Return for how long a batch should still gather; infinite until something changes."""
        options, queued = self._options, len(self._queue)
        if not queued or self._under_way >= options.batches_max:
            return math.inf
        if queued >= options.batch_claims_max:
            return 0
        if self._under_way:
            patience_s = options.gather_ms / 1_000
        else:
            patience_s = options.linger_us / 1_000_000 if queued < COMPANY else 0.0
        return self._gathering_since + patience_s - time.monotonic()
