"""The router: which lane, in which order, and what it may say without asking a shard."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest

from engine.channels.answers import OVERLOADED
from engine.channels.intake.calls import CallsFull
from engine.channels.intake.lanes import DedicatedLanes, ShardedLanes
from engine.channels.intake.router import LOOKUPS_MAX, Router
from engine.channels.messages import ChannelView, Outcome, Status, decode_ids, encode
from engine.channels.options import SLOTS
from engine.channels.placement import slot_of
from engine.core.claim import Claim
from engine.core.commands import ConfirmFunding, RequestClose, SettleChannel
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import Sequencing
from engine.ports import ShardDown
from tests.builders import make_channel
from tests.channels.intake.test_lane import taken
from tests.channels.mortal import QUICK, MortalShard, Office, Told
from tests.channels.world import channel_id, item, opening


def claims_of(*items):
    return [
        Claim(one.channel_id, one.amount, one.signature, one.sequence, one.previous, one.sent_at)
        for one in items
    ]


class Gate:
    """A gateway's way in: a router over one lane."""

    def __init__(self, office):
        self.office = office
        self.shard = office.shard
        self.router = Router(ShardedLanes([office.lane], [0] * SLOTS), QUICK, 100)
        office.lane._watcher = self.router.watch

    def submit(self, *items):
        told = Told(items)
        self.router.submit(claims_of(*items), told.submission)
        return told


@asynccontextmanager
async def gate_to(shard, options=QUICK):
    async with Office(shard, options).open() as office:
        gate = Gate(office)
        async with gate.router.running():
            yield gate


@pytest.fixture
def shard(tmp_path):
    shard = MortalShard(tmp_path)
    shard.desk.open("a", "b")
    shard.desk.open("c", sequencing=Sequencing.AMOUNT)
    return shard


def test_it_is_full_when_every_lane_is(shard):
    lanes = [Office(shard).lane, Office(shard).lane]
    router = Router(ShardedLanes(lanes, [0, 1] * (SLOTS // 2)), QUICK, 100)
    for is_full in ((False, False), (True, False), (False, True), (True, True)):
        for lane, one in zip(lanes, is_full, strict=True):
            lane._batcher.is_full = one
        assert router.is_full is all(is_full)


def test_without_a_lane_it_is_not_full():
    assert not Router(ShardedLanes([], []), QUICK, 100).is_full


def holding(step, number=0):
    return lambda asked, count: "hold" if (asked, count) == (step, number) else ""


async def test_a_channel_is_asked_for_once_and_then_known(shard):
    async with gate_to(shard) as gate:
        for number in (1, 2):
            told = gate.submit(item("a", number, number), item("b", number, number))
            assert await told.words() == ["accepted"] * 2
        read = [one for call in shard.asked if call[0] == "read" for one in decode_ids(call[1])]
        assert sorted(read) == sorted([channel_id("a"), channel_id("b")])


async def test_an_unknown_channel_is_answered_and_not_remembered(shard):
    async with gate_to(shard) as gate:
        assert await gate.submit(item("new", 1, 1)).words() == ["unknown_channel"]
        assert len(gate.router.views) == 0
        assert (await gate.router.execute(opening("new"))).created
        assert await gate.submit(item("new", 1, 1)).words() == ["accepted"]


async def test_claims_that_wait_for_a_look_keep_their_order(shard):
    shard.trouble = holding("read")
    async with gate_to(shard) as gate:
        told = [gate.submit(item("c", number)) for number in (1, 2, 3)]
        await shard.held.wait()
        told.append(gate.submit(item("c", 4)))
        shard.release()
        assert [await one.words() for one in told] == [["accepted"]] * 4
        assert shard.calls.count("read") == 1


async def test_no_claim_overtakes_those_that_wait_for_a_look(shard):
    """The channel becomes known by another way while its first claims still wait."""
    shard.trouble = holding("read")
    async with gate_to(shard) as gate:
        first = gate.submit(item("c", 1), item("c", 2))
        await shard.held.wait()
        gate.router.views.put(gate.office.lane, shard.desk.view("c"))
        second = gate.submit(item("c", 3))
        await asyncio.sleep(0)
        shard.release()
        assert await first.words() == ["accepted"] * 2
        assert await second.words() == ["accepted"]
        assert taken(shard.desk, "c") == [1, 2, 3]


async def test_channels_that_come_together_are_asked_for_together(shard):
    """And their claims go on together: one parcel for each submission."""
    parcels = []
    async with gate_to(shard) as gate:
        put = gate.office.lane.put
        gate.office.lane.put = lambda parcel: (parcels.append(len(parcel)), put(parcel))
        first = gate.submit(item("a", 1, 1), item("b", 1, 1), item("new", 1, 1), item("a", 2, 2))
        second = gate.submit(item("b", 2, 2), item("c", 1))
        words = [await one.words() for one in (first, second)]
        assert words == [
            ["accepted", "accepted", "unknown_channel", "accepted"],
            ["accepted", "accepted"],
        ]
        assert gate.router._lookups_waiting.total() == 0
    asked = [decode_ids(call[1]) for call in shard.asked if call[0] == "read"]
    assert sum(len(ids) for ids in asked) == 4
    assert len(asked) <= 2
    assert parcels == [3, 1, 1]


async def test_claims_of_two_frames_keep_their_order_though_channels_come_crosswise(shard):
    """The first frame has c, the second b and c, the third c and b."""
    shard.trouble = holding("read")
    async with gate_to(shard) as gate:
        first = gate.submit(item("c", 1))
        await shard.held.wait()
        second = gate.submit(item("b", 1, 1), item("c", 2))
        third = gate.submit(item("c", 3), item("b", 2, 2))
        fourth = gate.submit(item("b", 3, 3), item("c", 4))
        shard.release()
        for told in (first, second, third, fourth):
            assert set(await told.words()) == {"accepted"}
        assert taken(shard.desk, "c") == [1, 2, 3, 4]
        assert taken(shard.desk, "b") == [1, 2, 3]


@pytest.mark.slow
async def test_claims_that_wait_for_a_look_are_bounded(shard):
    shard.trouble = holding("read")
    async with gate_to(shard) as gate:
        told = gate.submit(*[item("c", 1)] * (LOOKUPS_MAX + 5))
        await shard.held.wait()
        assert told.submission.answers[LOOKUPS_MAX:] == [OVERLOADED] * 5
        shard.release()
        await told.answers()
        assert gate.router._lookups_waiting.total() == 0
        assert gate.router._looking == set()


async def test_a_shard_that_stands_still_takes_no_room_from_looks_at_another(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.channels.intake.router.LOOKUPS_MAX", 3)
    stuck, well = MortalShard(tmp_path / "0", holding("read")), MortalShard(tmp_path / "1")
    well.desk.open("a")
    slots = [0] * SLOTS
    slots[slot_of(channel_id("a"))] = 1
    async with AsyncExitStack() as open_ones:
        first = await open_ones.enter_async_context(Office(stuck).open())
        await first.lane.wait_up()  # all its tasks are there
        second = await open_ones.enter_async_context(Office(well).open())
        router = Router(ShardedLanes([first.lane, second.lane], slots), QUICK, 100)
        async with router.running():
            waiting = Told([item("c", number) for number in range(1, 5)])
            router.submit(claims_of(*waiting.items), waiting.submission)
            await stuck.held.wait()
            assert waiting.submission.answers[3] == OVERLOADED
            told = Told([item("a", 1, 1)])
            router.submit(claims_of(*told.items), told.submission)
            assert await told.words() == ["accepted"]
            stuck.release()
            assert await waiting.words() == ["unknown_channel"] * 3 + ["overloaded"]


async def test_a_settled_channel_is_refused_without_asking(shard):
    async with gate_to(shard) as gate:
        await gate.submit(item("a", 1, 1)).answers()
        await gate.router.execute(RequestClose(channel_id=channel_id("a")))
        await gate.router.execute(SettleChannel(channel_id=channel_id("a")))
        asked = len(shard.calls)
        told = gate.submit(item("a", 2, 2))
        assert await told.words() == ["not_active"]
        assert len(shard.calls) == asked
        (answer,) = await told.answers()
        assert (answer.sequence, answer.claimed, answer.available) == (2, 1, 0)


@pytest.mark.parametrize("claim", [item("a", 10, 1), item("c", 10), item("c", 10, 7)])
async def test_a_claim_taken_before_the_settlement_is_a_duplicate_after_it(shard, claim):
    """Whose answer got lost must not be told that the claim was refused."""
    async with gate_to(shard) as gate:
        (first,) = await gate.submit(claim).answers()
        await gate.router.execute(RequestClose(channel_id=claim.channel_id))
        await gate.router.execute(SettleChannel(channel_id=claim.channel_id))
        (again,) = await gate.submit(claim).answers()
    assert (first.status, again.status) == (Status.ACCEPTED, Status.DUPLICATE)
    assert (again.position, again.claimed) == (first.position, 10)


async def test_all_else_is_for_the_shard_to_say(shard):
    """What a gateway knows may be old: closing, over capacity and used up go on to the shard."""
    async with gate_to(shard) as gate:
        await gate.router.execute(RequestClose(channel_id=channel_id("b")))
        told = gate.submit(item("a", 2_000, 1), item("b", 1, 1))
        assert await told.words() == ["amount_over_capacity", "not_active"]
        assert "commit" in shard.calls


async def test_every_answer_is_counted_once(shard):
    async with gate_to(shard) as gate:
        early, fills = item("a", 2, 2), item("a", 1, 1)
        await gate.submit(early, item("nobody", 1, 1)).answers()
        told = gate.submit(fills)
        await told.answers()
        await gate.office.lane.idle()
        assert gate.router.answered == {
            (Status.BUFFERED, None): 1,
            (Status.ACCEPTED, None): 2,
            (Status.REJECTED, RejectCode.UNKNOWN_CHANNEL): 1,
        }


# Commands and reads -------------------------------------------------------------------------------


async def test_a_command_whose_outcome_is_unknown_is_unavailable_and_may_be_sent_again(shard):
    shard.trouble = lambda step, count: "after" if (step, count) == ("execute", 0) else ""
    async with gate_to(shard) as gate:
        outcome = await gate.router.execute(opening("new"))
        assert outcome.rejected.code is RejectCode.UNAVAILABLE
        outcome = await gate.router.execute(opening("new"))
        assert (outcome.rejected, outcome.created) == (None, False)


async def test_a_command_for_no_channel_is_answered(shard):
    async with gate_to(shard) as gate:
        outcome = await gate.router.execute(ConfirmFunding(channel_id=channel_id("nobody")))
        assert outcome.rejected.code is RejectCode.UNKNOWN_CHANNEL


async def test_a_read_is_made_again_when_the_shard_ends_meanwhile(shard):
    shard.trouble = lambda step, count: "before" if (step, count) == ("read", 0) else ""
    async with gate_to(shard) as gate:
        number, view = await gate.router.read(channel_id("a"))
        assert (number, view.channel.claimed, shard.deaths) == (0, 0, 1)
        assert await gate.router.read(channel_id("nobody")) is None


async def test_a_strong_read_sees_what_a_view_does_not(shard):
    async with gate_to(shard) as gate:
        assert (await gate.router.balance(channel_id("a"), at_least=None)).claimed == 0
        shard.desk.submit(item("a", 7, 1), gateway="another")
        position = shard.desk.shard.position
        assert (await gate.router.balance(channel_id("a"), at_least=None)).claimed == 0
        assert (await gate.router.balance(channel_id("a"), at_least=position)).claimed == 7
        assert (await gate.router.read(channel_id("a")))[1].channel.claimed == 7


async def test_pages_come_in_order_of_id(shard):
    async with gate_to(shard) as gate:
        pages = await gate.router.page(b"", 2, "")
        assert [view.channel.terms.channel_id for _, view in pages] == sorted(
            map(channel_id, "abc")
        )[:2]
        await gate.office.lane.wait_up()
        assert all(lane.is_up for lane in gate.router.lanes)


# The end ------------------------------------------------------------------------------------------


async def test_claims_that_wait_for_a_look_at_the_end_are_answered_and_nobody_hangs(shard):
    shard.trouble = holding("read")

    async def stop_while_looking():
        async with gate_to(shard) as gate:
            told = gate.submit(item("c", 1))
            await shard.held.wait()
        return told

    told = await asyncio.wait_for(stop_while_looking(), 10)
    assert await told.words() == ["unavailable"]


# Placement ----------------------------------------------------------------------------------------


def test_a_slot_is_told_by_the_id_alone_and_all_are_used():
    slots = [slot_of(channel_id(f"channel {number}")) for number in range(10_000)]
    assert set(slots) == set(range(SLOTS))
    assert slot_of(bytes(32)) == 0x190A55AD % SLOTS  # crc32 of 32 zeros, as published


class Starter:
    """Starts dedicated shards that hold the channels a data directory has."""

    def __init__(self, channels=()):
        self.channels = dict(enumerate(channels))
        self.started = []

    async def __call__(self, number):
        self.started.append(number)
        await asyncio.sleep(0)
        return self.lane(number)

    def lane(self, number):
        return DedicatedStub(number, self.channels.get(number))


class DedicatedStub:
    """As much of a lane as placement needs."""

    def __init__(self, number, channel):
        self.shard = self
        self.number = number
        self.channel = channel

    async def ask(self, step, *arguments):
        if self.channel is None:
            return encode([])
        view = ChannelView(make_channel(channel_id=channel_id(self.channel)), 1, 0)
        return encode([view])


async def test_each_channel_gets_a_shard_of_its_own_and_keeps_it():
    starter = Starter()
    lanes = DedicatedLanes(starter, 10)
    first, again, second = await asyncio.gather(
        *(lanes.for_opening(channel_id(name)) for name in "aab")
    )
    assert first is again
    assert first is not second
    assert starter.started == [0, 1]
    assert lanes.find(channel_id("a")) is first
    assert lanes.find(channel_id("nobody")) is None


async def test_dedicated_shards_are_bounded():
    lanes = DedicatedLanes(Starter(), 1)
    await lanes.for_opening(channel_id("a"))
    await lanes.for_opening(channel_id("a"))
    outcome = await Router(lanes, QUICK, 100).execute(opening("b"))
    assert outcome.rejected.code is RejectCode.CONFLICT
    assert "1 channels have a shard of their own" in outcome.rejected.detail
    assert lanes.find(channel_id("b")) is None


class Desks(Starter):
    """Starts dedicated shards that open a channel, refuse to, or do not answer."""

    def lane(self, number):
        lane = super().lane(number)
        lane.is_given_up = False
        lane.commands = SimpleNamespace(call=self.call)
        return lane

    async def call(self, command):
        answer = self.answers.pop(0)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


OPEN = Outcome(ChannelView(make_channel(), 1, 0))
FULL = Outcome(rejected=Rejected(RejectCode.STORAGE_FULL))


@pytest.mark.parametrize(
    ("answers", "names", "kept"),
    [
        ([FULL, OPEN], "ab", "b"),
        ([CallsFull(), OPEN], "ab", "b"),
        ([ShardDown("gone"), OPEN], "ab", "ab"),
        ([FULL, OPEN, OPEN], "aab", "ab"),
        ([OPEN, FULL, OPEN], "aab", "ab"),
    ],
    ids=["refused", "not asked", "nobody knows", "refused once", "refused later"],
)
async def test_a_channel_that_was_not_opened_has_no_shard(answers, names, kept):
    starter = Desks()
    starter.answers = answers
    lanes = DedicatedLanes(starter, 2)
    router = Router(lanes, QUICK, 100)
    *first, last = names
    await asyncio.gather(*(router.execute(opening(name)) for name in first))
    await router.execute(opening(last))
    assert [name for name in "ab" if lanes.find(channel_id(name)) is not None] == list(kept)
    assert starter.started == list(range(len(kept)))


async def test_a_restart_finds_each_channel_in_its_shard_and_uses_empty_ones_first():
    starter = Starter(["a", None, "c"])
    lanes = DedicatedLanes(starter, 10)
    await lanes.adopt([starter.lane(number) for number in range(3)])
    assert [lanes.find(channel_id(name)).number for name in "ac"] == [0, 2]
    assert (await lanes.for_opening(channel_id("b"))).number == 1
    assert (await lanes.for_opening(channel_id("d"))).number == 3
    assert starter.started == [3]


async def test_a_shard_that_does_not_start_is_no_lane():
    async def fails(number):
        raise ShardDown("no room")

    lanes = DedicatedLanes(fails, 10)
    with pytest.raises(ShardDown):
        await lanes.for_opening(channel_id("a"))
    assert (list(lanes.all()), lanes.find(channel_id("a"))) == ([], None)
