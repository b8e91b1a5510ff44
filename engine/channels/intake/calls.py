"""Commands and reads on their way to a shard: one call under way, the rest gathers."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
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
        self._queue: deque[tuple[msgspec.Raw, asyncio.Future[Told]]] = deque()
        self._some = asyncio.Event()
        self._is_over = False

    async def call(self, asked: Asked) -> Told:
        """Return the shard's answer to one item.

        Raises:
            CallsFull: too many wait already.
            OverflowError: `asked` says a number beyond 64 bits.
            ShardDown: the shard ended meanwhile; whether the step was taken is unknown.
        """
        if len(self._queue) >= self._queue_max:
            raise CallsFull
        if self._is_over:
            raise ShardDown("no more calls are carried")
        # Encoded one by one: what cannot be sent is its sender's trouble and nobody else's.
        raw = msgspec.Raw(encode(asked))
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._queue.append((raw, told))
        self._some.set()
        return await told

    async def run(self) -> None:
        """Send what has gathered, one batch at a time, until cancelled; then nobody waits on."""
        batch: list[tuple[msgspec.Raw, asyncio.Future[Told]]] = []
        try:
            while True:
                await self._some.wait()
                count = min(len(self._queue), self._batch_max)
                batch = [self._queue.popleft() for _ in range(count)]
                await self._send(batch)
                if not self._queue:
                    self._some.clear()
        finally:
            self._is_over = True
            _fail([*batch, *self._queue], ShardDown("no more calls are carried"))

    async def _send(self, batch: list[tuple[msgspec.Raw, "asyncio.Future[Told]"]]) -> None:
        try:
            asked = encode([raw for raw, _ in batch])
            answer = await ask_in_time(self._shard, self._answer_max_s, self._step, asked)
        except ShardDown as down:
            _fail(batch, down)
            return
        for (_, told), outcome in zip(batch, self._decode(answer), strict=True):
            if not told.done():
                told.set_result(outcome)


def _fail(calls: "Sequence[tuple[msgspec.Raw, asyncio.Future[Told]]]", down: ShardDown) -> None:
    for _, told in calls:
        if not told.done():
            told.set_exception(ShardDown(*down.args))
