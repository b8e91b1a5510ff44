"""Commands and reads on their way to a shard: one call under way, the rest gathers."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Generic, TypeVar

import msgspec

from engine.channels.messages import encode
from engine.ports import Shard, ShardDown

Asked = TypeVar("Asked")
Told = TypeVar("Told")


async def ask_in_time(
    shard: Shard, wait_s: float, step: str, *arguments: bytes | int | str
) -> bytes:
    """Return the answer to a step of a shard; a shard that hangs is as good as down.

    Raises:
        ShardDown: it ended, or did not answer in time; whether the step was taken is unknown.
    """
    try:
        async with asyncio.timeout(wait_s):
            return await shard.ask(step, *arguments)
    except TimeoutError as error:
        raise ShardDown(f"no answer to {step} within {wait_s:.0f} s") from error


async def end_all(replies: "Sequence[asyncio.Future[bytes]]", wait_s: float) -> None:
    """Return once no reply is to come; one that was lost on the way is waited for so long."""
    if replies:
        await asyncio.wait(replies, timeout=wait_s)
        for reply in replies:
            reply.cancel()
        await asyncio.gather(*replies, return_exceptions=True)


class CallsFull(Exception):  # noqa: N818  (a state, as queue.Full)
    """As many callers wait as may wait; try again a little later."""


class _Call(Generic[Told]):
    """Items that were asked together, and where their answers go."""

    __slots__ = ("asked", "told")

    def __init__(self, asked: list[msgspec.Raw]) -> None:
        self.asked = asked
        self.told: asyncio.Future[Sequence[Told]] = asyncio.get_running_loop().create_future()


class Calls(Generic[Asked, Told]):
    """Gathers calls of one step of a shard. `run` must be running for anything to move."""

    def __init__(
        self,
        shard: Shard,
        step: str,
        decode: Callable[[bytes], Sequence[Told]],
        queue_max: int,
        batch_max: int = 512,
        answer_max_s: float = 10.0,
    ) -> None:
        self._shard = shard
        self._step = step
        self._decode = decode
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._answer_max_s = answer_max_s
        self._queue: deque[_Call[Told]] = deque()
        self._queued = 0
        self._some = asyncio.Event()
        self._is_over = False

    async def call(self, asked: Asked) -> Told:
        """Return the shard's answer to one item; raises as `call_all`."""
        (told,) = await self._put((asked,))[0].told
        return told

    async def call_all(self, asked: Sequence[Asked]) -> list[Told]:
        """Return the shard's answer to each item.

        Raises:
            CallsFull: too many wait already.
            OverflowError: an item says a number beyond 64 bits.
            ShardDown: the shard ended meanwhile; whether the step was taken is unknown.
        """
        calls = self._put(asked)
        return list(chain.from_iterable(await asyncio.gather(*[one.told for one in calls])))

    def _put(self, asked: Sequence[Asked]) -> list[_Call[Told]]:
        """Queue items, in as many calls as fit into batches."""
        if self._queued >= self._queue_max:  # what is asked together is taken together
            raise CallsFull
        if self._is_over:
            raise ShardDown("no more calls are carried")
        # Encoded one by one: what cannot be sent is its sender's trouble and nobody else's.
        raws = [msgspec.Raw(encode(one)) for one in asked]
        size = self._batch_max
        calls: list[_Call[Told]] = [
            _Call(raws[start : start + size]) for start in range(0, len(raws), size)
        ]
        self._queue.extend(calls)
        self._queued += len(raws)
        self._some.set()
        return calls

    async def run(self) -> None:
        """Send what has gathered, one batch at a time, until cancelled; then nobody waits on."""
        batch: list[_Call[Told]] = []
        try:
            while True:
                await self._some.wait()
                batch = self._pop()
                await self._send(batch)
                if not self._queue:
                    self._some.clear()
        finally:
            self._is_over = True
            _fail([*batch, *self._queue], ShardDown("no more calls are carried"))

    def _pop(self) -> list[_Call[Told]]:
        """Take the oldest calls from the queue, as many as fit into one batch."""
        batch: list[_Call[Told]] = []
        room = self._batch_max
        while self._queue and len(self._queue[0].asked) <= room:
            batch.append(self._queue.popleft())
            room -= len(batch[-1].asked)
        self._queued -= self._batch_max - room
        return batch

    async def _send(self, batch: list[_Call[Told]]) -> None:
        try:
            asked = encode([raw for one in batch for raw in one.asked])
            answer = await ask_in_time(self._shard, self._answer_max_s, self._step, asked)
        except ShardDown as down:
            _fail(batch, down)
            return
        outcomes, start = self._decode(answer), 0
        if len(outcomes) != (count := sum([len(one.asked) for one in batch])):
            raise ValueError(f"{len(outcomes)} answers to {count} items")
        for one in batch:
            end = start + len(one.asked)
            if not one.told.done():
                one.told.set_result(outcomes[start:end])
            start = end


def _fail(calls: "Sequence[_Call[Told]]", down: ShardDown) -> None:
    for one in calls:
        if not one.told.done():
            one.told.set_exception(ShardDown(*down.args))
