"""Commands and reads: gathered, bounded, and nobody waits for a shard that is gone."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from msgspec.msgpack import Decoder, decode

from engine.channels.intake.calls import Calls, CallsFull
from engine.channels.messages import encode
from engine.ports import ShardDown
from engine.verify.batch import Item  # any struct will do

NUMBERS = Decoder(list[int]).decode


class Script:
    """A shard that answers each number with its double, or does what the test says."""

    number = 0

    def __init__(self):
        self.asked = []
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.dies = False

    async def ask(self, step, *arguments):
        self.asked.append(decode(arguments[0]))
        self.reached.set()
        await self.gate.wait()
        if self.dies:
            raise ShardDown("killed")
        return encode([number * 2 for number in self.asked[-1]])


@asynccontextmanager
async def running(queue_max=100, batch_max=4):
    shard = Script()
    calls = Calls(shard, "double", NUMBERS, queue_max, batch_max)
    task = asyncio.create_task(calls.run())
    try:
        yield calls, shard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask_all(calls, numbers):
    return await asyncio.gather(*map(calls.call, numbers), return_exceptions=True)


async def test_each_caller_gets_its_own_answer():
    async with running() as (calls, _):
        assert await ask_all(calls, range(10)) == [number * 2 for number in range(10)]


async def test_while_a_call_is_under_way_the_rest_gathers_up_to_a_batch():
    async with running() as (calls, shard):
        shard.gate.clear()
        first = asyncio.create_task(calls.call(0))
        await shard.reached.wait()
        others = asyncio.create_task(ask_all(calls, range(1, 8)))
        await asyncio.sleep(0)
        shard.gate.set()
        await asyncio.gather(first, others)
        assert shard.asked == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_what_is_asked_together_is_told_together_in_batches_that_are_full():
    async with running(queue_max=7) as (calls, shard):
        shard.gate.clear()
        first = asyncio.create_task(calls.call_all(range(3)))
        await shard.reached.wait()
        others = [asyncio.create_task(calls.call_all(two)) for two in (range(3, 9), range(9, 10))]
        await asyncio.sleep(0)
        with pytest.raises(CallsFull):  # seven wait, and no more may
            await calls.call_all([10])
        shard.gate.set()
        told = await asyncio.gather(first, *others)
        assert told == [[0, 2, 4], [6, 8, 10, 12, 14, 16], [18]]
        assert shard.asked == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]
        assert await calls.call_all([]) == []
        assert await calls.call_all([10]) == [20]


async def test_no_more_wait_than_may_wait():
    async with running(queue_max=2) as (calls, shard):
        shard.gate.clear()
        first = asyncio.create_task(calls.call(0))
        await shard.reached.wait()
        waiting = [asyncio.create_task(calls.call(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(CallsFull):
            await asyncio.wait_for(calls.call(3), 1)
        shard.gate.set()
        assert await asyncio.gather(first, *waiting) == [0, 2, 4]


async def test_a_shard_that_ends_fails_those_it_was_asked_for_and_not_those_after():
    async with running() as (calls, shard):
        shard.dies = True
        assert [type(told) for told in await ask_all(calls, [1, 2])] == [ShardDown, ShardDown]
        shard.dies = False
        assert await calls.call(3) == 6


async def test_a_caller_that_leaves_takes_nobody_with_it():
    async with running() as (calls, shard):
        shard.gate.clear()
        leaving, staying = (asyncio.create_task(calls.call(number)) for number in (1, 2))
        await shard.reached.wait()
        leaving.cancel()
        shard.gate.set()
        assert await staying == 4


async def test_what_cannot_be_sent_is_its_senders_trouble_alone():
    async with running() as (calls, _):
        too_large = Item(bytes(32), bytes(33), 2**64, b"")
        told = await ask_all(calls, [1, too_large, 2])
        assert [told[0], type(told[1]), told[2]] == [2, OverflowError, 4]


async def test_nobody_waits_for_calls_that_are_no_longer_carried():
    """One is at the shard and one in the queue when the lane is stopped; one comes later."""
    async with running(batch_max=1) as (calls, shard):
        shard.gate.clear()
        waiting = [asyncio.create_task(calls.call(number)) for number in (1, 2)]
        await shard.reached.wait()
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert [type(one) for one in told] == [ShardDown, ShardDown]
    with pytest.raises(ShardDown):
        await calls.call(3)
