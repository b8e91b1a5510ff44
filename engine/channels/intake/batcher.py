"""Natural batching: while a batch is under way the next one gathers.

So batches are small when the engine is idle and large when it is busy. The queue is bounded, by
claims and by the time that they would wait; what does not fit is given back at once.
"""

import asyncio
import math
import time
from collections import deque
from typing import Final

from engine.channels.intake.submission import Parcel
from engine.channels.options import LaneOptions
from engine.verify.batch import Item

COMPANY: Final = 8
"""Claims that need not linger for more."""

FULL_UNTIL: Final = 8
"""A queue that was full counts as full until this part of it (an eighth) is free again.

So a gateway is full or has room for many frames on end, and seldom for half a frame.
"""

RATES: Final = 4
"""So many rates of a busy shard are known; the best of them counts."""


class Batch:
    """Claims on their way together: to a verifier, then to the shard."""

    __slots__ = ("attempts", "blob", "items", "parcels", "reply", "turn", "verdicts")

    def __init__(
        self,
        parcels: list[Parcel],
        items: list[Item],
        blob: bytes,
        verdicts: asyncio.Task[bytes],
    ) -> None:
        self.parcels = parcels
        self.items = items
        self.blob = blob
        self.verdicts = verdicts
        self.attempts = 0
        self.turn = 0
        self.reply: asyncio.Future[bytes]


class Batcher:
    """The queue before one shard, and the rule that says when a batch of it is worth sending.

    Attributes:
        is_full: Whether the queue was full, and is nearly so. What comes is taken in while it fits.
    """

    def __init__(self, options: LaneOptions) -> None:
        self.is_full = False
        self._options = options
        self._claims_max = options.queue_claims_max
        self._queue: deque[Parcel] = deque()
        self._queued = 0
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gathering_since = 0.0
        self._under_way = 0
        self._rates: deque[float] = deque(maxlen=RATES)
        self._looked_at = -math.inf
        self._was_busy = False
        self._taken = 0

    def __len__(self) -> int:
        return self._queued

    @property
    def under_way(self) -> int:
        """Batches taken and not yet done."""
        return self._under_way

    def put(self, parcel: Parcel) -> Parcel | None:
        """Take claims in; return those there is no room for."""
        room = self._claims_max - self._queued
        refused = parcel.split(max(0, room)) if room < len(parcel) else None
        if not len(parcel):
            return refused
        parcel.came_at = time.monotonic()
        if not self._queued:
            self._gathering_since = parcel.came_at
            self._changed.set()
            self._idle.clear()
        self._queue.append(parcel)
        self._queued += len(parcel)
        if self._queued >= self._options.batch_claims_max:
            self._changed.set()
        if self._queued >= self._claims_max:
            self.is_full = True
        return refused

    async def take(self) -> list[Parcel]:
        """Return the oldest claims once they are worth a batch; `done` must follow."""
        while (pause_s := self._pause_s()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if math.isinf(pause_s) else pause_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        batch = self._pop(min(self._queued, self._options.batch_claims_max))
        self._gathering_since = time.monotonic()
        self._under_way += 1
        self._taken += sum(map(len, batch))
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

    def empty(self) -> list[Parcel]:
        """Return everything in the queue, which will not be sent."""
        return self._drop(self._queued)

    def shed(self) -> list[Parcel]:
        """Return the claims that have waited too long, which will not be sent."""
        before = time.monotonic() - self._options.queue_wait_max_ms / 1_000
        return self._drop(sum(len(parcel) for parcel in self._queue if parcel.came_at < before))

    def look(self) -> None:
        """See how fast claims are taken, and keep the queue to what that clears in `queue_ms_max`.

        To be called every now and then. Only a time in which claims always waited, and some were
        taken, tells how fast: a quiet shard says nothing, and one that is down neither. The queue
        may always hold the batches that may be under way. Where it was empty meanwhile and is now,
        the flood is over, and what was learnt in a slow moment is forgotten: until there is news,
        it may hold all that it ever may.
        """
        now, options = time.monotonic(), self._options
        if self._was_busy and self._taken:
            self._rates.append(self._taken / (now - self._looked_at))
            cleared = int(max(self._rates) * options.queue_ms_max / 1_000)
            least = options.batches_max * options.batch_claims_max
            self._claims_max = min(max(cleared, least), options.queue_claims_max)
        elif not self._was_busy and not self._queue:
            self._rates.clear()
            self._claims_max = options.queue_claims_max
            self._see_room()
        self._looked_at, self._was_busy, self._taken = now, bool(self._queue), 0

    def _drop(self, count: int) -> list[Parcel]:
        dropped = self._pop(count)
        if dropped and not self._queued and not self._under_way:
            self._idle.set()
        return dropped

    def _pop(self, count: int) -> list[Parcel]:
        """Take the oldest `count` claims from the queue; a parcel may be taken in two parts."""
        self._queued -= count
        if not self._queued:
            self._was_busy = False
        self._see_room()
        popped: list[Parcel] = []
        while count:
            parcel = self._queue.popleft()
            if len(parcel) > count:
                self._queue.appendleft(parcel.split(count))
            popped.append(parcel)
            count -= len(parcel)
        return popped

    def _see_room(self) -> None:
        if self._queued <= self._claims_max - self._claims_max // FULL_UNTIL:
            self.is_full = False

    def _pause_s(self) -> float:
        """Return for how long a batch should still gather; infinite until something changes."""
        options, queued = self._options, self._queued
        if not queued or self._under_way >= options.batches_max:
            return math.inf
        if queued >= options.batch_claims_max:
            return 0
        if self._under_way:
            # The busier the shard, the more a call is worth waiting for.
            share = self._under_way / options.batches_max
            patience_s = options.gather_ms / 1_000 * share
        else:
            patience_s = options.linger_us / 1_000_000 if queued < COMPANY else 0.0
        return self._gathering_since + patience_s - time.monotonic()
