"""Shards and verifiers as real Ray actors: killed, hung, refused, placed one by one."""

import asyncio
import fcntl
import os
import signal
from pathlib import Path

import msgspec
import pytest

from engine.app import running
from engine.channels.messages import decode_hello, decode_statistics
from engine.channels.options import LaneOptions, PlacementOptions, ShardOptions
from engine.config import Config
from engine.core.events import ClaimReceived
from engine.core.types import Sequencing
from engine.verify.options import VerifyOptions
from tests.channels.processes import descendants, named, until
from tests.channels.test_engine import NAMES, open_all, spoil, start, start_failed, submit
from tests.channels.world import channel_id, item, opening

pytestmark = pytest.mark.slow

CLAIMS = 600
CAPACITY = 10**9


def config_for(directory, **placement):
    fields = {"runtime": "ray", "shards": 2} | placement
    return Config(
        datadir=str(directory),
        placement=PlacementOptions(**fields),
        lane=LaneOptions(unavailable_after_ms=60_000, queue_wait_max_ms=60_000),
        shard=ShardOptions(segment_bytes=1 << 20),
        verify=VerifyOptions(verifiers=2, verify_timeout_s=2),
    )


def waits_for_a_lock():
    """Say whether a thread of ours is in line for a file lock."""
    lines = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any(words[1] == "->" and words[5] == str(os.getpid()) for words in lines)


@pytest.fixture(autouse=True)
def no_process_stays():
    """Whatever a test starts, Ray's own processes too, is gone when it ends."""
    yield
    asyncio.run(until(lambda: not named("ray"), 30))


def pid_of(engine, number):
    return engine.router.lanes[number].hello.pid


def claims(name, count, start=1):
    """Return claims of a channel; amounts say their number, and `by amount` ones only that."""
    numbers = range(start, start + count)
    return [item(name, n * 3, None if name.startswith("amount") else n) for n in numbers]


AMOUNT = ["amount 1", "amount 2"]
STRICT = ["strict 1", "strict 2", "strict 3", "strict 4"]


async def open_for_load(engine):
    for name in [*STRICT, *AMOUNT]:
        order = Sequencing.AMOUNT if name in AMOUNT else Sequencing.STRICT
        outcome = await engine.router.execute(opening(name, capacity=CAPACITY, sequencing=order))
        assert outcome.rejected is None


async def load(engine, disturb):
    """Send claims of all channels in small frames, with a disturbance midway; return all told."""
    told = []
    for begin in range(1, CLAIMS, 20):
        names = [*STRICT, *AMOUNT]
        told += [submit(engine, *claims(name, 20, begin)) for name in names]
        if begin > CLAIMS / 2 and disturb is not None:
            disturb()
            disturb = None
        await asyncio.sleep(0.01)
    return told


async def judge(engine, told):
    """Every claim was taken once, in order, and stands where its answer said."""
    words = {word for one in told for word in await one.words()}
    assert words <= {"accepted", "duplicate"}
    logs = {}
    for number, lane in enumerate(engine.router.lanes):
        last = decode_statistics(await lane.shard.ask("statistics")).position
        # A follower sees the newest frame as soon as a later one proves it durable.
        await until(lambda n=number, p=last: len(list(engine.feed.events(n))) == p)
        logs[number] = list(engine.feed.events(number))
    for one in told:
        for claim, answer in zip(one.items, await one.answers(), strict=True):
            number, _ = await engine.router.read(claim.channel_id)
            position, event = logs[number][answer.position - 1]
            assert (position, event.amount) == (answer.position, claim.amount)
    for name in [*STRICT, *AMOUNT]:
        amounts = [
            event.amount
            for log in logs.values()
            for _, event in log
            if type(event) is ClaimReceived and event.channel_id == channel_id(name)
        ]
        assert amounts == [n * 3 for n in range(1, CLAIMS + 1)]


async def test_a_life_with_every_fault(tmp_path):
    """One start of Ray for all of them: each costs seconds."""
    async with running(config_for(tmp_path)) as engine:
        await open_for_load(engine)
        assert lines_up(engine) == [True] * 4
        await reads_go_over_the_line(engine)
        first = pid_of(engine, 0)
        told = await load(engine, lambda: os.kill(first, signal.SIGKILL))
        await judge(engine, told)
        assert pid_of(engine, 0) != first
        again = [submit(engine, *one.items[-5:]) for one in told[-6:]]
        assert {word for one in again for word in await one.words()} == {"duplicate"}
        await a_verifier_is_killed(engine)
        await a_verifier_hangs(engine)
        await a_shard_is_killed_while_idle(engine)
        await every_process_is_killed(engine)
        assert True in lines_up(engine)[:2]  # a line comes back with the first batch after


def lines_up(engine):
    """Say of each shard and verifier whether batches go to it over a line, and not over Ray."""
    lines = [lane.shard._line for lane in engine.router.lanes]
    lines += [seat.worker._line for seat in engine.pool._seats]
    return [line is not None and line.is_up for line in lines]


async def reads_go_over_the_line(engine):
    """The first claim of a channel waits for a read."""
    lanes = engine.router.lanes
    before = [lane.shard._line._number for lane in lanes]
    for name in STRICT:
        number, view = await engine.router.read(channel_id(name))
        assert view.channel.terms.channel_id == channel_id(name)
        before[number] += 1
    assert [lane.shard._line._number for lane in lanes] == before


async def test_without_lines_ray_carries_the_batches_through_a_kill(tmp_path, monkeypatch):
    """So it is between machines; here no line can be opened."""

    async def refused(address):
        raise ConnectionRefusedError(address)

    monkeypatch.setattr("engine.channels.cluster.connect", refused)
    async with running(config_for(tmp_path)) as engine:
        await open_for_load(engine)
        told = await load(engine, lambda: os.kill(pid_of(engine, 0), signal.SIGKILL))
        await judge(engine, told)
        assert lines_up(engine) == [False] * 4


async def a_verifier_is_killed(engine):
    before = named("VerifierHost")
    os.kill(before[0], signal.SIGKILL)
    told = [submit(engine, *claims("strict 1", 20, CLAIMS + 1 + n * 20)) for n in range(10)]
    assert {word for one in told for word in await one.words()} == {"accepted"}
    await until(lambda: before[0] not in named("VerifierHost"), 60)
    await until(lambda: engine.pool.statistics().workers_up == 2, 60)  # asked, not only alive


async def a_verifier_hangs(engine):
    hung = named("VerifierHost")[0]
    retries = engine.pool.statistics().retries["timed_out"]
    os.kill(hung, signal.SIGSTOP)
    try:
        # Enough for several batches at once, so that both verifiers are asked.
        told = [submit(engine, *claims("strict 2", 20, CLAIMS + 1 + n * 20)) for n in range(80)]
        assert {word for one in told for word in await one.words()} == {"accepted"}
        assert engine.pool.statistics().retries["timed_out"] > retries
        await until(lambda: engine.pool.statistics().workers_up == 2, 60)
        assert hung not in named("VerifierHost")
    finally:
        if hung in descendants():
            os.kill(hung, signal.SIGKILL)


async def a_shard_is_killed_while_idle(engine):
    before = pid_of(engine, 1)
    os.kill(before, signal.SIGKILL)
    for name in STRICT:
        assert (await engine.router.read(channel_id(name)))[1].channel.sequence >= CLAIMS
    told = [submit(engine, *claims(name, 5, CLAIMS + 1)) for name in ("strict 3", "strict 4")]
    assert {word for one in told for word in await one.words()} == {"accepted"}
    _, view = await engine.router.read(channel_id("strict 3"))
    assert view.channel.sequence == CLAIMS + 5


async def every_process_is_killed(engine):
    for pid in [*named("ShardHost"), *named("VerifierHost")]:
        os.kill(pid, signal.SIGKILL)
    told = [submit(engine, *claims(name, 5, CLAIMS + 6)) for name in ("strict 3", "strict 4")]
    assert {word for one in told for word in await one.words()} == {"accepted"}


async def test_each_channel_has_a_process_of_its_own_and_finds_it_again(tmp_path):
    config = config_for(tmp_path, placement="dedicated")
    names = NAMES[:3]
    async with running(config) as engine:
        await open_all(engine, names)
        hosts = named("ShardHost")
        assert len(hosts) == 3
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in hosts} == {os.nice(0)}
        told = submit(engine, *(item(name, 10, 1) for name in names))
        assert await told.words() == ["accepted"] * 3
        os.kill(pid_of(engine, 1), signal.SIGKILL)
        told = submit(engine, *(item(name, 20, 2) for name in names))
        assert await told.words() == ["accepted"] * 3
    async with running(config) as engine:
        told = submit(engine, *(item(name, 20, 2) for name in names))
        assert await told.words() == ["duplicate"] * 3
        shards = [(await engine.router.read(channel_id(name)))[0] for name in names]
        assert sorted(shards) == [0, 1, 2]


async def submit_until_known(engine, *items):
    """Send claims again, as a client does, until each answer says what became of it."""
    async with asyncio.timeout(60):
        while "unavailable" in (words := await submit(engine, *items).words()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return words


async def test_a_shard_that_hangs_or_cannot_recover_comes_back(tmp_path):
    impatient = LaneOptions(silent_after_ms=1_000, unavailable_after_ms=1_000)
    config = msgspec.structs.replace(config_for(tmp_path, shards=1), lane=impatient)
    async with running(config) as engine:
        await open_all(engine, NAMES[:1])
        lane, first = engine.router.lanes[0], pid_of(engine, 0)
        os.kill(first, signal.SIGSTOP)
        assert await submit(engine, item(NAMES[0], 1, 1)).words() == ["unavailable"]
        await until(lambda: "has not answered" in lane.vitals.slow_because(), 60)
        os.kill(first, signal.SIGKILL)
        assert await submit_until_known(engine, item(NAMES[0], 1, 1)) == ["accepted"]
        second = pid_of(engine, 0)
        assert second != first
        lock = os.open(tmp_path / "shard-0000" / "LOCK", os.O_RDWR)
        taking = asyncio.create_task(asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX))
        await until(waits_for_a_lock, 60)  # and nobody is before it
        os.kill(second, signal.SIGKILL)
        await taking
        await until(lambda: lane.shard.starts == 2, 60)
        os.close(lock)
        assert await submit_until_known(engine, item(NAMES[0], 2, 2)) == ["accepted"]
        assert decode_hello(await lane.shard.ask("hello", "test", 0)).epoch == 3


async def test_what_cannot_start_says_why(tmp_path):
    config = config_for(tmp_path, shards=1)
    async with running(config) as engine:
        await open_all(engine)
        with start_failed(r"another writer holds .*pid=\d+ epoch=\d+"):
            await start(config_for(tmp_path, shards=1, runtime="inline"))
        assert await submit(engine, item(NAMES[0], 1, 1)).words() == ["accepted"]
    spoil(tmp_path / "shard-0000")
    with start_failed(r"^shard 0 does not start: [^\n]*\.wal at byte \d+[^\n]*\Z"):
        await start(config)
