"""A shard that hangs, or whose disk is slow: nobody waits for ever, and it is said."""

import asyncio

import msgspec
import pytest
import structlog

from engine.channels.intake import vitals
from engine.channels.intake.batcher import Batcher
from engine.channels.intake.calls import ask_in_time
from engine.channels.intake.router import Router
from engine.channels.intake.submission import Parcel, items_of
from engine.channels.intake.vitals import Vitals
from engine.channels.journal import SLOW_US, SyncTimes
from engine.channels.messages import Pulse, encode
from engine.channels.options import LaneOptions
from engine.core.commands import RequestClose
from engine.core.rejections import RejectCode
from engine.ports import ShardDown
from tests.channels.intake.test_lane import numbered, taken
from tests.channels.mortal import QUICK, MortalShard, Office
from tests.channels.world import channel_id, item

SOON = msgspec.structs.replace(QUICK, silent_after_ms=200)


@pytest.fixture
def shard(tmp_path):
    shard = MortalShard(tmp_path)
    shard.desk.open("a", "b")
    return shard


def holds_first_commit(step, count):
    return "hold" if (step, count) == ("commit", 0) else ""


async def submit_until_known(office, *items):
    """Send claims again, as a client does, until each has an answer that says what became of it."""
    while "unavailable" in (words := await office.submit(*items).words()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return words


# The lane -----------------------------------------------------------------------------------------


async def test_whoever_waits_for_a_silent_shard_is_told_that_the_outcome_is_unknown(shard):
    shard.trouble = holds_first_commit
    async with Office(shard, SOON).open() as office:
        await office.lane.wait_up()
        assert await office.submit(*numbered("a", 40)).words() == ["unavailable"] * 40
        assert not office.lane.is_up
        assert await office.submit(item("b", 1, 1)).words() == ["unavailable"]
        await asyncio.wait_for(office.lane.idle(), 20)
        shard.release()
        await asyncio.wait_for(office.lane.wait_up(), 20)
        words = await submit_until_known(office, *numbered("a", 40))
        assert set(words) == {"duplicate", "accepted"}
        assert taken(shard.desk, "a") == list(range(1, 41))


async def test_what_a_silent_shard_took_after_all_is_a_duplicate_at_its_successor_too(shard):
    shard.trouble = holds_first_commit
    async with Office(shard, SOON).open() as office:
        await office.lane.wait_up()
        assert await office.submit(*numbered("a", 4)).words() == ["unavailable"] * 4
        shard.release()
        await asyncio.wait_for(office.lane.wait_up(), 20)
        shard.die()
        assert await submit_until_known(office, *numbered("a", 4)) == ["duplicate"] * 4
        assert taken(shard.desk, "a") == [1, 2, 3, 4]


async def test_commands_and_reads_do_not_wait_for_a_silent_shard_either(shard):
    shard.trouble = lambda step, count: "hold" if (step, count) == ("execute", 0) else ""
    async with Office(shard, SOON).open() as office:
        await office.lane.wait_up()
        for calls, asked in (
            (office.lane.commands, RequestClose(channel_id=channel_id("a"))),
            (office.lane.reads, channel_id("a")),
        ):
            with pytest.raises(ShardDown, match="no answer"):
                await asyncio.wait_for(calls.call(asked), 20)
        shard.release()


class OneLane:
    """Every channel is on one lane."""

    def __init__(self, lane):
        self.lane = lane

    def all(self):
        return [self.lane]

    def find(self, channel_id):
        return self.lane

    async def for_opening(self, channel_id):
        return self.lane


async def test_nobody_new_waits_for_a_shard_that_is_known_to_be_silent(shard):
    shard.trouble = holds_first_commit
    async with Office(shard, SOON).open() as office:
        router = Router(OneLane(office.lane), SOON, 10)
        await office.lane.wait_up()
        await office.submit(item("a", 1, 1)).words()
        assert office.lane.is_given_up
        outcome = await router.execute(RequestClose(channel_id=channel_id("a")))
        assert outcome.rejected.code is RejectCode.UNAVAILABLE
        with pytest.raises(ShardDown):
            await router.read(channel_id("a"))
        assert not {"execute", "read"} & {step for step, *_ in shard._queue}
        shard.release()


async def test_a_claim_whose_turn_does_not_come_in_time_is_overload(shard):
    shard.trouble = holds_first_commit
    impatient = msgspec.structs.replace(QUICK, queue_wait_max_ms=1, batches_max=1)
    async with Office(shard, impatient).open() as office:
        first = office.submit(*numbered("a", 4))
        await asyncio.wait_for(shard.held.wait(), 20)
        behind = office.submit(*numbered("a", 6, 5))
        assert await behind.words() == ["overloaded"] * 6
        assert office.lane.statistics().queued == 0
        shard.release()
        assert await first.words() == ["accepted"] * 4
        await asyncio.wait_for(office.lane.idle(), 20)


async def test_only_those_are_shed_that_have_waited_too_long(monkeypatch):
    now = 100.0
    monkeypatch.setattr("engine.channels.intake.batcher.time.monotonic", lambda: now)
    batcher = Batcher(LaneOptions(queue_wait_max_ms=5_000, batch_claims_max=2))

    def shed():
        return items_of(batcher.shed())

    batcher.put(Parcel([1, 2, 3], [0, 1, 2], None))
    now += 4
    batcher.put(Parcel([4, 5], [0, 1], None))
    assert items_of(await batcher.take()) == [1, 2]
    assert shed() == []
    now += 2
    assert shed() == [3]
    batcher.done()
    assert len(batcher) == 2
    now += 4
    assert shed() == [4, 5]
    await asyncio.wait_for(batcher.idle(), 20)


async def test_a_call_that_gets_no_answer_is_as_a_shard_that_is_down():
    class Deaf:
        number = 0

        async def ask(self, step, *arguments):
            await asyncio.Event().wait()

    with pytest.raises(ShardDown, match="no answer to page within 0 s"):
        await ask_in_time(Deaf(), 0.001, "page")


# The pulse ----------------------------------------------------------------------------------------


class Patient:
    """A shard that says of itself what the test wants, when it wants."""

    number = 3

    def __init__(self):
        self.pulse = Pulse(1 << 40, 1, storage_full=False, slowest_sync_us=0)
        self.answers = asyncio.Event()
        self.answers.set()
        self.down = False
        self.asked_while_down = 0

    async def ask(self, step, *arguments):
        assert step == "pulse"
        if self.down:
            self.asked_while_down += 1
            raise ShardDown("gone")
        await self.answers.wait()
        return encode(self.pulse)

    def is_now(self, **changes):
        self.pulse = msgspec.structs.replace(self.pulse, **changes)


@pytest.fixture
async def felt(monkeypatch):
    """Return a shard and its vitals, felt every few milliseconds; a second is 20 of them."""
    monkeypatch.setattr(vitals, "PULSE_EVERY_S", 0.002)
    monkeypatch.setattr(vitals, "CALM_S", 0.02)
    patient = Patient()
    seen = Vitals(patient, LaneOptions(slow_sync_ms=10, unready_sync_ms=20))
    task = asyncio.create_task(seen.run())
    with structlog.testing.capture_logs() as said:
        yield patient, seen, said
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is asked about gives no event to wait for
            await asyncio.sleep(0.002)


def events(said):
    return [line["event"] for line in said]


async def test_a_slow_disk_is_logged_once_and_makes_unready_while_it_lasts(felt):
    patient, seen, said = felt
    await until(lambda: seen.pulse is not None)
    assert not seen.is_full
    patient.is_now(slowest_sync_us=1_500_000)
    await until(seen.slow_because)
    assert "the disk of shard 3 took 1.5 s" in seen.slow_because()
    await until(lambda: "disk_slow" in events(said))
    patient.is_now(slowest_sync_us=0)
    await until(lambda: not seen.slow_because())
    lines = [line for line in said if line["event"] == "disk_slow"]
    assert [(line["shard"], line["slowest_sync_ms"]) for line in lines] == [(3, 1_500)]
    assert "slow-disk.md" in lines[0]["do"]


async def test_a_sync_that_is_slow_but_bearable_is_logged_and_no_more(felt):
    patient, seen, said = felt
    patient.is_now(slowest_sync_us=15_000)
    await until(lambda: "disk_slow" in events(said))
    assert "took" not in seen.slow_because()


async def test_a_shard_that_does_not_answer_is_unready_until_it_does(felt):
    patient, seen, said = felt
    await until(lambda: seen.pulse is not None)
    patient.answers.clear()
    await until(lambda: "shard_silent" in events(said))
    assert "has not answered for" in seen.slow_because()
    assert seen.silent_s > 0.02
    patient.answers.set()
    await until(lambda: not seen.slow_because())


async def test_a_full_disk_is_logged_when_it_comes_and_when_it_goes(felt):
    patient, seen, said = felt
    patient.is_now(storage_full=True, free_bytes=5, limit_bytes=9)
    await until(lambda: "disk_nearly_full" in events(said))
    assert seen.is_full
    patient.is_now(storage_full=False, free_bytes=50)
    await until(lambda: "disk_has_room" in events(said))
    assert events(said).count("disk_nearly_full") == 1
    assert not seen.is_full


async def test_the_pulse_of_a_shard_that_died_is_felt_again_when_another_lives(felt):
    patient, seen, _ = felt
    patient.down = True
    await until(lambda: patient.asked_while_down)
    patient.down = False
    patient.is_now(free_bytes=77)
    await until(lambda: seen.pulse is not None and seen.pulse.free_bytes == 77)


def test_the_slowest_commit_of_late_is_remembered_and_then_forgotten(monkeypatch):
    now = 100.0
    monkeypatch.setattr("engine.channels.journal.time.monotonic", lambda: now)
    times = SyncTimes()
    times.add(SLOW_US)
    assert times.slowest_us() == 0
    times.add(SLOW_US + 2)
    now += 1
    times.add(SLOW_US + 1)
    assert times.slowest_us() == SLOW_US + 2
    now += 4.5
    assert times.slowest_us() == SLOW_US + 1
    now += 1
    assert times.slowest_us() == 0
