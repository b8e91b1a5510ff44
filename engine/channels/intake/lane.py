"""A lane: the way from one gateway to one shard, in order and bounded.

Batches are cut from the queue, checked by verifiers (several at once, in any order) and sent to the
shard in the order they were cut, at most `commits_max` on their way at once.

When the shard's process ends, what was on its way is sent again, the same claims in the same order,
to the next incarnation: a claim has an identity, so one that had been taken is answered as a
duplicate. The shard takes a gateway's batches in the order of their numbers only and refuses calls
meant for an earlier incarnation, so no failure can change the order of claims.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from engine.channels.answers import MALFORMED, OVERLOADED, UNAVAILABLE
from engine.channels.intake.batcher import Batch, Batcher
from engine.channels.intake.calls import Calls, ask_in_time, end_all
from engine.channels.intake.submission import (
    Parcel,
    Submission,
    answer_all,
    claim_at,
    items_of,
)
from engine.channels.intake.vitals import Vitals
from engine.channels.messages import (
    Answer,
    ChannelView,
    Hello,
    Late,
    Outcome,
    Refused,
    Status,
    decode_hello,
    decode_late,
    decode_outcomes,
    decode_reply,
    decode_views,
)
from engine.channels.options import LaneOptions
from engine.core.commands import AnyCommand
from engine.ports import Shard, ShardDown
from engine.verify.batch import Item, encode_batch, with_probes
from engine.verify.errors import MalformedBatchError, VerifierUnavailableError
from engine.verify.pool import VerifierPool

RECONNECT_PAUSE_S: Final = 0.05
HELLO_MAX_S: Final = 0.5
COLLECT_EVERY_S: Final = 0.05
SHED_EVERY_S: Final = 0.25
ATTEMPTS_MAX: Final = 5
"""How often one batch is sent as the oldest before its claims are answered `unavailable`."""

Watcher = Callable[[Sequence[Item], Sequence[Answer]], None]


class LaneStatistics(msgspec.Struct, frozen=True):
    """What a lane has done, and what it has before it."""

    queued: int
    under_way: int
    buffered: int
    batches: int
    reconnects: int
    up: bool


class Lane:
    """One gateway's way to one shard. `run` must be running for anything to move."""

    def __init__(
        self,
        gateway: str,
        shard: Shard,
        pool: VerifierPool,
        options: LaneOptions,
        watcher: Watcher,
    ) -> None:
        self.shard = shard
        self.hello: Hello | None = None
        self.vitals = Vitals(shard, options)
        self._wait_s = wait_s = options.silent_after_ms / 1_000
        self.commands: Calls[AnyCommand, Outcome] = Calls(
            shard, "execute", decode_outcomes, options.queue_commands_max, answer_max_s=wait_s
        )
        self.reads: Calls[bytes, ChannelView | None] = Calls(
            shard, "read", decode_views, options.queue_commands_max, answer_max_s=wait_s
        )
        self._gateway = gateway
        self._pool = pool
        self._options = options
        self._watcher = watcher
        self._batcher = Batcher(options)
        self._formed: deque[Batch] = deque()
        self._formed_some = asyncio.Event()
        self._sent: deque[Batch] = deque()
        self._sent_some = asyncio.Event()
        self._may_send = asyncio.Semaphore(options.commits_max)
        self._up = asyncio.Event()
        self._down_since = time.monotonic()
        self._buffered: dict[tuple[int, int], tuple[Submission, int, Item]] = {}
        self._buffered_some = asyncio.Event()
        self._turn = self._batches = self._reconnects = 0

    @property
    def is_up(self) -> bool:
        """Say whether the shard answers."""
        return self._up.is_set()

    @property
    def is_full(self) -> bool:
        """Say whether hardly a claim more has room in the queue."""
        return self._batcher.is_full

    @property
    def is_given_up(self) -> bool:
        """Say whether the shard has not answered for so long that nobody should wait for it."""
        return not self.is_up and self._down_for_long()

    async def idle(self) -> None:
        """Return once nothing waits and nothing is under way."""
        await self._batcher.idle()

    def statistics(self) -> LaneStatistics:
        """Return counters and lengths as of now."""
        return LaneStatistics(
            len(self._batcher),
            self._batcher.under_way,
            len(self._buffered),
            self._batches,
            self._reconnects,
            self.is_up,
        )

    def put(self, parcel: Parcel) -> None:
        """Take claims in; refuse at once what there is no room for."""
        if self.is_given_up:
            self._answer_each([parcel], UNAVAILABLE)
            return
        refused = self._batcher.put(parcel)
        if refused is not None:
            self._answer_each([refused], OVERLOADED)

    async def run(self) -> None:
        """Keep the lane moving until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.commands.run())
            tasks.create_task(self.reads.run())
            tasks.create_task(self._form(tasks))
            tasks.create_task(self._send())
            tasks.create_task(self._receive())
            tasks.create_task(self._collect())
            tasks.create_task(self._shed())
            tasks.create_task(self.vitals.run())
            try:
                await asyncio.Event().wait()
            finally:  # cancelled: what is still at the shard must not outlive the lane
                for batch in self._sent:
                    batch.reply.cancel()

    async def wait_up(self) -> Hello:
        """Return who the shard is, once it answers."""
        await self._up.wait()
        assert self.hello is not None
        return self.hello

    async def _connect(self) -> None:
        """Find the shard's present incarnation; give up what waits too long meanwhile."""
        while True:
            try:
                # A call to an actor that is being started again can be lost for good: ask again.
                async with asyncio.timeout(HELLO_MAX_S):
                    answer = await self.shard.ask("hello", self._gateway, self._turn)
            except (ShardDown, TimeoutError):
                if self._down_for_long():
                    self._give_up()
                await asyncio.sleep(RECONNECT_PAUSE_S)
            else:
                self.hello = decode_hello(answer)
                return

    # Forward ------------------------------------------------------------------------------------

    async def _form(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            parcels = await self._batcher.take()
            items = items_of(parcels)
            try:
                blob = encode_batch(with_probes(items))
            except (MalformedBatchError, OverflowError):  # a gateway let through what it must not
                self._answer_each(parcels, MALFORMED)
                self._batcher.done()
                continue
            verdicts = tasks.create_task(self._check(blob, len(items)))
            self._batches += 1
            self._formed.append(Batch(parcels, items, blob, verdicts))
            self._formed_some.set()

    async def _check(self, blob: bytes, count: int) -> bytes:
        """Return sealed verdicts, or nothing where no verifier gave any."""
        try:
            return await self._pool.verify(blob, count)
        except VerifierUnavailableError:
            return b""

    async def _send(self) -> None:
        await self._reconnect()
        while True:
            while not self._formed:
                self._formed_some.clear()
                await self._formed_some.wait()
            await self._send_oldest(self._formed[0])

    async def _send_oldest(self, batch: Batch) -> None:
        """Send `batch` once it is checked and the shard can take it, unless it is given up."""
        checked = await batch.verdicts
        await self._may_send.acquire()
        while checked and not self.is_up:
            await self._up.wait()
        if self._formed and self._formed[0] is batch:
            self._formed.popleft()
            if checked:
                self._sent.append(batch)
                self._transmit(batch)
                self._sent_some.set()
                return
            self._give_back(batch)
        self._may_send.release()

    def _transmit(self, batch: Batch) -> None:
        assert self.hello is not None
        batch.turn = self._turn
        self._turn += 1
        batch.attempts += batch is self._sent[0]  # what comes behind it is not to blame
        asked = self.shard.ask(
            "commit",
            self._gateway,
            self.hello.epoch,
            batch.turn,
            batch.blob,
            batch.verdicts.result(),
        )
        batch.reply = asyncio.ensure_future(asked)

    # Back ---------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            while not self._sent:
                self._sent_some.clear()
                await self._sent_some.wait()
            batch = self._sent[0]
            try:
                async with asyncio.timeout(self._wait_s):
                    reply = decode_reply(await batch.reply)
            except TimeoutError:
                await self._reconnect(silent=True)
                continue
            except ShardDown:
                if batch.attempts >= ATTEMPTS_MAX:  # it may be what kills every shard it meets
                    self._drop_oldest_sent()
                    self._give_back(batch)
                await self._reconnect()
                continue
            if reply.refused is not None:
                await self._retry(batch, reply.refused)
                continue
            self._drop_oldest_sent()
            self._note_buffered(batch, reply.answers)
            self._answer(batch.parcels, batch.items, reply.answers)
            self._batcher.done()
            self._answer_late(reply.late)

    async def _retry(self, batch: Batch, refused: Refused) -> None:
        """Send everything again after the shard would not look at `batch`."""
        if refused is Refused.MALFORMED or batch.attempts >= ATTEMPTS_MAX:
            self._drop_oldest_sent()
            self._give_back(batch)
        elif refused is Refused.FOREIGN_VERDICTS:
            self._pool.disbelieve(batch.verdicts.result())
            sealed = await self._check(batch.blob, len(batch.items))
            batch.verdicts = asyncio.ensure_future(_ready(sealed))
            await batch.verdicts
        await self._reconnect()

    async def _reconnect(self, *, silent: bool = False) -> None:
        """Find the shard's present incarnation and send it all that has no answer, in order.

        A `silent` shard has kept everybody waiting already: what was sent may be taken yet, so
        nobody is told more than that the outcome is unknown.
        """
        self._up.clear()
        self._down_since = -math.inf if silent else time.monotonic()
        self._reconnects += 1
        replies = [batch.reply for batch in self._sent]
        if silent:
            for reply in replies:
                reply.cancel()
            self._give_up()
        await end_all(replies, self._wait_s)
        for early in self._buffered.values():
            self._decide_late(early, UNAVAILABLE)
        self._buffered.clear()
        await self._connect()
        for batch in self._sent:
            self._transmit(batch)
        self._up.set()

    def _drop_oldest_sent(self) -> None:
        self._sent.popleft()
        self._may_send.release()

    def _give_back(self, batch: Batch) -> None:
        """Answer the claims of a batch `unavailable`: whether they were taken is unknown."""
        self._answer_each(batch.parcels, UNAVAILABLE)
        self._batcher.done()

    def _answer_each(self, parcels: Sequence[Parcel], answer: Answer) -> None:
        items = items_of(parcels)
        if items:
            self._answer(parcels, items, [answer] * len(items))

    def _answer(
        self, parcels: Sequence[Parcel], items: Sequence[Item], answers: Sequence[Answer]
    ) -> None:
        answer_all(parcels, answers, self.shard.number)
        self._watcher(items, answers)

    def _down_for_long(self) -> bool:
        down_ms = (time.monotonic() - self._down_since) * 1_000
        return down_ms > self._options.unavailable_after_ms

    def _give_up(self) -> None:
        """Answer all that waits `unavailable`: whether it was taken is unknown."""
        while self._sent:
            batch = self._sent[0]
            self._drop_oldest_sent()
            self._give_back(batch)
        while self._formed:
            self._give_back(self._formed.popleft())
        self._answer_each(self._batcher.empty(), UNAVAILABLE)

    async def _shed(self) -> None:
        """Refuse claims whose turn does not come in time, rather than let them wait on."""
        while True:
            await asyncio.sleep(SHED_EVERY_S)
            self._batcher.look()
            self._answer_each(self._batcher.shed(), OVERLOADED)

    # Decisions that come later ------------------------------------------------------------------

    def _note_buffered(self, batch: Batch, answers: Sequence[Answer]) -> None:
        if Status.BUFFERED not in [answer.status for answer in answers]:
            return
        for index, answer in enumerate(answers):
            if answer.status is not Status.BUFFERED:
                continue
            if len(self._buffered) < self._options.buffered_max:
                self._buffered[batch.turn, index] = claim_at(batch.parcels, index)
                self._buffered_some.set()

    def _answer_late(self, decisions: Sequence[Late]) -> None:
        for late in decisions:
            early = self._buffered.pop((late.number, late.index), None)
            if early is not None:
                self._decide_late(early, late.answer)

    def _decide_late(self, early: tuple[Submission, int, Item], answer: Answer) -> None:
        submission, place, item = early
        submission.answer_late(place, answer)
        self._watcher((item,), (answer,))

    async def _collect(self) -> None:
        """Come for late decisions while some are owed and no batch brings them."""
        while True:
            await self._buffered_some.wait()
            await asyncio.sleep(COLLECT_EVERY_S)
            if self._buffered and not self._sent:
                try:
                    asked = ask_in_time(self.shard, self._wait_s, "collect", self._gateway)
                    self._answer_late(decode_late(await asked))
                except ShardDown:
                    if not self._sent:
                        await self._reconnect()
            if not self._buffered:
                self._buffered_some.clear()


async def _ready(sealed: bytes) -> bytes:
    return sealed
