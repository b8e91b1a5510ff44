"""Natural batching: small batches when idle, large ones when busy, never more than may wait."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.channels.intake import batcher as batcher_module
from engine.channels.intake.batcher import COMPANY, Batcher
from engine.channels.intake.submission import Parcel, items_of
from engine.channels.options import LaneOptions

LONG_MS = 60_000
OPTIONS = LaneOptions(
    queue_claims_max=20, batch_claims_max=8, batches_max=3, gather_ms=LONG_MS, linger_us=0
)


def options(**changes):
    return msgspec.structs.replace(OPTIONS, **changes)


def claims(*numbers):
    """Numbers stand for claims: a queue does not look at them."""
    return Parcel(list(numbers), list(range(len(numbers))), None)


def given_back(batcher, *numbers):
    refused = batcher.put(claims(*numbers))
    return [] if refused is None else refused.items


async def taken(batcher):
    return items_of(await batcher.take())


def settled(task):
    """Let the loop turn until nothing can move without a timer; return whether `task` is done."""

    async def turn():
        for _ in range(5):
            await asyncio.sleep(0)
        return task.done()

    return turn()


async def test_what_came_first_is_taken_first():
    batcher = Batcher(OPTIONS)
    assert given_back(batcher, 1, 2, 3) == []
    assert given_back(batcher, 4) == []
    assert await taken(batcher) == [1, 2, 3, 4]


async def test_an_idle_engine_does_not_wait():
    batcher = Batcher(OPTIONS)
    taking = asyncio.create_task(batcher.take())
    assert not await settled(taking)
    batcher.put(claims(1))
    assert await settled(taking)


async def test_a_single_claim_lingers_for_company_and_a_few_do_not():
    batcher = Batcher(options(linger_us=1_000, batch_claims_max=100, queue_claims_max=100))
    batcher.put(claims(*range(COMPANY)))
    assert await settled(asyncio.create_task(batcher.take()))
    batcher.done()
    batcher.put(claims(1))
    assert await asyncio.wait_for(taken(batcher), 10) == [1]


async def test_while_a_batch_is_under_way_the_next_one_gathers():
    batcher = Batcher(OPTIONS)
    batcher.put(claims(1))
    await batcher.take()
    taking = asyncio.create_task(batcher.take())
    for number in range(2, 5):
        batcher.put(claims(number))
        assert not await settled(taking)
    batcher.done()
    assert await settled(taking)
    assert items_of(taking.result()) == [2, 3, 4]


async def test_a_full_batch_never_waits():
    batcher = Batcher(OPTIONS)
    batcher.put(claims(1))
    await batcher.take()
    batcher.put(claims(*range(9)))
    assert await asyncio.wait_for(taken(batcher), 10) == list(range(8))
    assert len(batcher) == 1


async def test_a_small_batch_gathers_for_so_long_only():
    batcher = Batcher(options(gather_ms=1))
    batcher.put(claims(1))
    await batcher.take()
    batcher.put(claims(2))
    assert await asyncio.wait_for(taken(batcher), 10) == [2]


async def test_no_more_batches_than_allowed_are_under_way():
    batcher = Batcher(options(batches_max=2, queue_claims_max=24))
    batcher.put(claims(*range(24)))
    await batcher.take()
    await batcher.take()
    taking = asyncio.create_task(batcher.take())
    assert not await settled(taking)
    assert batcher.under_way == 2
    batcher.done()
    assert await settled(taking)


async def test_what_there_is_no_room_for_is_given_back():
    batcher = Batcher(OPTIONS)
    assert given_back(batcher, *range(25)) == [20, 21, 22, 23, 24]
    assert given_back(batcher, 7) == [7]
    assert len(batcher) == 20
    await batcher.take()
    assert given_back(batcher, 7) == []


async def test_a_queue_that_was_full_is_full_until_an_eighth_is_free():
    batcher = Batcher(options(queue_claims_max=32, batch_claims_max=2))
    batcher.put(claims(*range(31)))
    assert not batcher.is_full
    batcher.put(claims(31))
    assert batcher.is_full
    await batcher.take()
    assert batcher.is_full
    assert given_back(batcher, 32, 33, 34) == [34]
    await batcher.take()
    assert batcher.is_full
    await batcher.take()
    assert not batcher.is_full


@pytest.fixture
def clock(monkeypatch):
    """Hold the time, so that a rate is what the test says."""
    now = [100.0]
    monkeypatch.setattr(batcher_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


PACED = options(queue_claims_max=1_000, batch_claims_max=10, batches_max=2, queue_ms_max=500)


async def busy(batcher, clock, count, seconds=1.0):
    """Let `count` claims be taken in a time in which some always wait."""
    batcher.put(claims(*range(count + 1)))
    batcher.look()
    for _ in range(count // 10):
        await batcher.take()
        batcher.done()
    clock[0] += seconds
    batcher.look()


async def test_a_queue_holds_what_the_shard_clears_in_time(clock):
    batcher = Batcher(PACED)
    assert len(given_back(batcher, *range(1_100))) == 100  # nothing is known of its speed
    batcher.empty()
    await busy(batcher, clock, 200)
    batcher.empty()
    assert len(given_back(batcher, *range(150))) == 50  # half a second of 200 a second
    assert batcher.is_full
    for is_full in (True, False):
        await batcher.take()
        batcher.done()
        assert batcher.is_full is is_full


@pytest.mark.parametrize(("count", "room"), [(10, 20), (3_000, 1_000)])
async def test_a_queue_is_never_too_small_to_work_nor_larger_than_allowed(clock, count, room):
    batcher = Batcher(PACED)
    for _ in range(max(1, count // 900)):
        await busy(batcher, clock, min(count, 900), seconds=min(1.0, 900 / count))
        batcher.empty()
    assert len(given_back(batcher, *range(1_100))) == 1_100 - room


@pytest.mark.parametrize("quiet", ["was empty", "took nothing"])
async def test_a_quiet_time_says_nothing_of_the_speed(clock, quiet):
    batcher = Batcher(PACED)
    batcher.put(claims(*range(10)))
    batcher.look()
    if quiet == "was empty":
        await batcher.take()
        batcher.done()
        batcher.put(claims(1))
    clock[0] += 1.0
    batcher.look()
    batcher.empty()
    assert given_back(batcher, *range(1_000)) == []


async def test_the_best_of_the_last_rates_counts(clock):
    batcher = Batcher(PACED)
    await busy(batcher, clock, 400)
    for taken_of_late, most in ((100, 200), (100, 200), (100, 200), (100, 50)):
        await busy(batcher, clock, taken_of_late)
        assert batcher._claims_max == most


@pytest.mark.parametrize("is_over", [True, False])
async def test_what_was_learnt_in_a_slow_moment_is_forgotten_once_a_flood_is_over(clock, is_over):
    batcher = Batcher(PACED)
    await busy(batcher, clock, 200)
    for _ in range(2):
        given_back(batcher, *range(100))
        assert batcher.is_full
        while len(batcher):
            await batcher.take()
            batcher.done()
    if not is_over:
        batcher.put(claims(*range(50)))
    clock[0] += 1.0
    batcher.look()
    batcher.empty()
    assert len(given_back(batcher, *range(1_000))) == (0 if is_over else 900)


def test_a_queue_that_is_emptied_is_full_no_more():
    batcher = Batcher(OPTIONS)
    batcher.put(claims(*range(20)))
    assert batcher.is_full
    batcher.empty()
    assert not batcher.is_full


async def test_it_is_idle_when_nothing_waits_and_nothing_is_under_way():
    batcher = Batcher(OPTIONS)
    batcher.put(claims())
    await asyncio.wait_for(batcher.idle(), 10)
    batcher.put(claims(1))
    idle = asyncio.create_task(batcher.idle())
    assert not await settled(idle)
    await batcher.take()
    assert not await settled(idle)
    batcher.done()
    assert await settled(idle)


@pytest.mark.parametrize("under_way", [0, 1])
async def test_what_will_not_be_sent_is_handed_back(under_way):
    batcher = Batcher(OPTIONS)
    batcher.put(claims(*range(8)))
    for _ in range(under_way):
        await batcher.take()
        batcher.put(claims(9))
    assert items_of(batcher.empty()) == ([9] if under_way else list(range(8)))
    idle = asyncio.create_task(batcher.idle())
    assert await settled(idle) is not bool(under_way)
    idle.cancel()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 12), max_size=30))
def test_every_claim_is_taken_once_or_given_back(sizes):
    async def play():
        batcher = Batcher(options(gather_ms=1))
        numbers, back, came = iter(range(1_000)), [], []
        for size in sizes:
            back += given_back(batcher, *[next(numbers) for _ in range(size)])
            if size % 3 == 0 and len(batcher):
                came += await taken(batcher)
                batcher.done()
        while len(batcher):
            came += await taken(batcher)
            batcher.done()
        assert came == sorted(came)
        assert sorted(came + back) == list(range(sum(sizes)))

    asyncio.run(play())
