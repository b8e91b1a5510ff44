"""The engine as a gateway sees it: submit claims, send commands, read balances.

A claim's channel says which lane it takes. A channel the gateway has not seen is asked for first;
claims that come for it meanwhile wait in order. Only refusals that stay true for ever are made
here; everything else is the shard's to decide.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from engine.channels.answers import OVERLOADED, UNAVAILABLE, UNKNOWN_CHANNEL
from engine.channels.intake.calls import CallsFull, ask_in_time
from engine.channels.intake.lane import Lane
from engine.channels.intake.submission import Parcel, Submission
from engine.channels.intake.views import BalanceSeen, Known, Views
from engine.channels.messages import Answer, ChannelView, Outcome, Status, decode_views
from engine.channels.options import LaneOptions
from engine.core.commands import AnyCommand, OpenChannel
from engine.core.rejections import RejectCode, Rejected
from engine.ports import ShardDown
from engine.verify.batch import Item

PAGES_WAITING_MAX = 64
LOOKUPS_MAX = 32_768
"""Claims of one shard that may wait for a look at their channel."""

READ_AGAIN_S = 0.1
"""How long after a shard went down it is asked again for what is to be read."""


class ClaimLike(Protocol):
    """A claim with its syntax checked, however it came."""

    @property
    def channel_id(self) -> bytes: ...  # noqa: D102  (see `core.claim.Claim`)
    @property
    def amount(self) -> int: ...  # noqa: D102
    @property
    def signature(self) -> bytes: ...  # noqa: D102
    @property
    def sequence(self) -> int | None: ...  # noqa: D102
    @property
    def previous(self) -> bytes | int | None: ...  # noqa: D102
    @property
    def sent_at(self) -> int | None: ...  # noqa: D102


class Lanes(Protocol):
    """Which lane serves a channel; one kind per placement (`cluster`)."""

    def all(self) -> Sequence[Lane]:
        """Return every lane there is."""

    def find(self, channel_id: bytes) -> Lane | None:
        """Return the lane that serves, or would serve, a channel."""

    async def for_opening(self, channel_id: bytes) -> Lane:
        """Return the lane a new channel belongs to, making one where each has its own.

        Raises:
            NoShardLeft: no more channels can have a shard of their own.
        """

    def opened(self, channel_id: bytes, *, is_open: bool) -> None:
        """Say what became of an opening that was given a lane, once for each time."""


class NoShardLeft(Exception):  # noqa: N818  (a state, as queue.Full)
    """As many channels have a shard of their own as may; the message says so to people."""


class Router:
    """Routes claims, commands and reads to lanes, and keeps what it learns in `views`."""

    def __init__(self, lanes: Lanes, options: LaneOptions, channels_max: int) -> None:
        self.views = Views(channels_max)
        self.answered: Counter[tuple[Status, RejectCode | None]] = Counter()
        self._lanes = lanes
        self._options = options
        self._lookups: dict[bytes, _LookUp] = {}
        self._lookups_waiting: Counter[Lane | None] = Counter()
        self._pages = asyncio.Lock()
        self._pages_waiting = 0
        self._looking: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own the router's tasks while the engine runs."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:  # whom they wait for may be gone already
                for task in self._looking:
                    task.cancel()

    @property
    def lanes(self) -> Sequence[Lane]:
        """Every lane there is."""
        return self._lanes.all()

    @property
    def is_full(self) -> bool:
        """Say whether every lane is full, so that no claim has a way to go."""
        lanes = self._lanes.all()
        return bool(lanes) and all(lane.is_full for lane in lanes)

    # Claims -------------------------------------------------------------------------------------

    def submit(
        self,
        claims: Sequence[ClaimLike],
        submission: Submission,
        places: Sequence[int] | None = None,
    ) -> None:
        """Send claims on their way; `submission` gets an answer for each, in any order.

        Args:
            claims: With their syntax checked.
            submission: Whose they are.
            places: Where in it their answers go; None where they are all of it.
        """
        parcels: dict[Lane, Parcel] = {}
        begun: dict[Lane | None, _LookUp] = {}
        known_of, lookups = self.views.get, self._lookups
        for place, claim in zip(places or range(len(claims)), claims, strict=True):
            known = known_of(claim.channel_id)
            # Known or not: where claims wait for a look already, this one goes behind them.
            if known is None or claim.channel_id in lookups:
                self._wait_for_look(claim, submission, place, begun)
                continue
            # What is not above the mark may be a claim that was taken and whose answer got lost.
            if known.refusal is not None and claim.amount > known.mark.claimed:
                self._answer(submission, place, known.refused(known.refusal, claim.sequence))
                continue
            parcel = parcels.get(known.lane)
            if parcel is None:
                parcel = parcels[known.lane] = Parcel([], [], submission)
            parcel.items.append(_item(claim, known))
            parcel.places.append(place)
        for lane, parcel in parcels.items():
            lane.put(parcel)
        for look_up in begun.values():
            task = self._tasks.create_task(self._look_up(look_up))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    def watch(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        """Learn from what a lane was answered, and count it."""
        self.views.take_answers(items, answers)
        if [answer.status for answer in answers].count(Status.ACCEPTED) == len(answers):
            self.answered[Status.ACCEPTED, None] += len(answers)
        else:
            self.answered.update([(answer.status, answer.code) for answer in answers])

    def count(self, answer: Answer, times: int = 1) -> None:
        """Count an answer that was given before any lane was reached."""
        self.answered[answer.status, answer.code] += times

    def _answer(self, submission: Submission, place: int, answer: Answer) -> None:
        self.count(answer)
        submission.answer((place,), (answer,))

    def _wait_for_look(
        self,
        claim: ClaimLike,
        submission: Submission,
        place: int,
        begun: dict[Lane | None, "_LookUp"],
    ) -> None:
        """Let a claim wait until its channel has been asked for, with those in `begun` if new."""
        look_up = self._lookups.get(claim.channel_id)
        lane = self._lanes.find(claim.channel_id) if look_up is None else look_up.lane
        if self._lookups_waiting[lane] >= LOOKUPS_MAX:
            self._answer(submission, place, OVERLOADED)
            return
        self._lookups_waiting[lane] += 1
        if look_up is None:
            look_up = begun.get(lane)
            if look_up is None:
                look_up = begun[lane] = _LookUp(lane)
            look_up.channel_ids.append(claim.channel_id)
            self._lookups[claim.channel_id] = look_up
        look_up.waiting.append((claim, submission, place))

    async def _look_up(self, look_up: "_LookUp") -> None:
        seen: dict[bytes, Known] = {}
        answer, lane = UNAVAILABLE, look_up.lane
        try:
            if lane is not None:
                for view in await self._read_all(lane, look_up.channel_ids):
                    if view is not None:
                        seen[view.channel.terms.channel_id] = self.views.put(lane, view)
            answer = UNKNOWN_CHANNEL
        except (ShardDown, CallsFull):
            pass
        finally:
            self._end_look_up(look_up, seen, answer)

    def _end_look_up(self, look_up: "_LookUp", seen: dict[bytes, Known], answer: Answer) -> None:
        """Send on the claims that waited, in order; give them `answer` where there is no channel.

        Those that were sent together go on together.
        """
        for channel_id in look_up.channel_ids:
            del self._lookups[channel_id]
        self._lookups_waiting[look_up.lane] -= len(look_up.waiting)
        parcels: list[Parcel] = []
        for claim, submission, place in look_up.waiting:
            known = seen.get(claim.channel_id)
            if known is None:
                self._answer(submission, place, answer)
                continue
            if not parcels or parcels[-1].submission is not submission:
                parcels.append(Parcel([], [], submission))
            parcels[-1].items.append(_item(claim, known))
            parcels[-1].places.append(place)
        if look_up.lane is not None:
            for parcel in parcels:
                look_up.lane.put(parcel)

    async def _known(self, channel_id: bytes) -> Known | None:
        lane = self._lanes.find(channel_id)
        view = None if lane is None else await self._read(lane, channel_id)
        return None if view is None or lane is None else self.views.put(lane, view)

    # Commands -----------------------------------------------------------------------------------

    async def execute(self, command: AnyCommand) -> Outcome:
        """Have a command done; `unavailable` where the outcome is unknown."""
        try:
            if isinstance(command, OpenChannel):
                lane, outcome = await self._open(command)
            else:
                found = self._lanes.find(command.channel_id)
                if found is None:
                    return Outcome(rejected=Rejected(RejectCode.UNKNOWN_CHANNEL))
                lane, outcome = found, await _done(found, command)
        except NoShardLeft as error:
            return Outcome(rejected=Rejected(RejectCode.CONFLICT, detail=str(error)))
        except CallsFull:
            return Outcome(rejected=Rejected(RejectCode.OVERLOADED))
        except ShardDown:
            return Outcome(rejected=Rejected(RejectCode.UNAVAILABLE))
        # A channel nobody uses yet costs a gateway nothing; the first claim or read makes it known.
        if outcome.view is not None and self.views.is_wanted(command.channel_id):
            self.views.put(lane, outcome.view)
        return outcome

    def shard_of(self, channel_id: bytes) -> int:
        """Return the shard that serves a channel that is open."""
        lane = self._lanes.find(channel_id)
        if lane is None:
            raise LookupError(channel_id.hex())
        return lane.shard.number

    async def _open(self, command: OpenChannel) -> tuple[Lane, Outcome]:
        lane = await self._lanes.for_opening(command.channel_id)
        may_be_open = True
        try:
            outcome = await _done(lane, command)
            may_be_open = outcome.view is not None
        except CallsFull:
            may_be_open = False
            raise
        finally:
            self._lanes.opened(command.channel_id, is_open=may_be_open)
        return lane, outcome

    # Reads --------------------------------------------------------------------------------------

    async def read(self, channel_id: bytes) -> tuple[int, ChannelView] | None:
        """Return (shard, channel) as its shard has it on disk; None when there is none.

        Raises:
            ShardDown: the shard does not come back in time.
            CallsFull: too many reads wait already.
        """
        lane = self._lanes.find(channel_id)
        view = None if lane is None else await self._read(lane, channel_id)
        if view is None or lane is None:
            return None
        self.views.put(lane, view)
        return lane.shard.number, view

    async def balance(self, channel_id: bytes, *, at_least: int | None) -> BalanceSeen | None:
        """Return a balance from what is known here, if it is at or after a position.

        Args:
            channel_id: Which channel.
            at_least: Position the caller has seen; None for whatever is known.
        """
        known = self.views.get(channel_id)
        if known is None or (at_least is not None and known.position < at_least):
            known = await self._known(channel_id)
        return None if known is None else known.balance(channel_id)

    async def page(self, after: bytes, limit: int, state: str) -> list[tuple[int, ChannelView]]:
        """Return up to `limit` (shard, channel) with ids above `after`, in order of id.

        Raises:
            ShardDown: a shard does not answer.
            CallsFull: too many pages are waited for already.
        """
        if self._pages_waiting >= PAGES_WAITING_MAX:
            raise CallsFull
        self._pages_waiting += 1
        try:
            async with self._pages:  # one at a time: a page is work for every shard
                found = [
                    pair
                    for lane in self.lanes
                    for pair in await self._page(lane, after, limit, state)
                ]
        finally:
            self._pages_waiting -= 1
        found.sort(key=lambda pair: pair[1].channel.terms.channel_id)
        return found[:limit]

    async def _page(
        self, lane: Lane, after: bytes, limit: int, state: str
    ) -> list[tuple[int, ChannelView]]:
        wait_s = self._options.silent_after_ms / 1_000
        views = decode_views(await ask_in_time(lane.shard, wait_s, "page", after, limit, state))
        return [(lane.shard.number, view) for view in views if view is not None]

    async def _read(self, lane: Lane, channel_id: bytes) -> ChannelView | None:
        (view,) = await self._read_all(lane, (channel_id,))
        return view

    async def _read_all(
        self, lane: Lane, channel_ids: Sequence[bytes]
    ) -> Sequence[ChannelView | None]:
        """Read from the shard, again where it ended meanwhile: a read changes nothing."""
        give_up_at = asyncio.get_running_loop().time() + self._options.unavailable_after_ms / 1_000
        while True:
            try:
                if lane.is_given_up:
                    raise ShardDown("it has not answered for long")
                return await lane.reads.call_all(channel_ids)
            except ShardDown:
                if lane.is_given_up or asyncio.get_running_loop().time() >= give_up_at:
                    raise
                await asyncio.sleep(READ_AGAIN_S)


class _LookUp:
    """Channels of one lane that are asked for together, and the claims that wait, as they came."""

    __slots__ = ("channel_ids", "lane", "waiting")

    def __init__(self, lane: Lane | None) -> None:
        self.lane = lane
        self.channel_ids: list[bytes] = []
        self.waiting: list[tuple[ClaimLike, Submission, int]] = []


async def _done(lane: Lane, command: AnyCommand) -> Outcome:
    if lane.is_given_up:
        raise ShardDown("it has not answered for long")
    return await lane.commands.call(command)


def _item(claim: ClaimLike, known: Known) -> Item:
    return Item(
        claim.channel_id,
        known.public_key,
        claim.amount,
        claim.signature,
        claim.sequence,
        claim.previous,
        claim.sent_at,
    )
