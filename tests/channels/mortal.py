"""A real shard that dies when the test says so, and what stands around it in a gateway."""

import asyncio
import gc
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from engine.channels.intake.lane import Lane
from engine.channels.intake.submission import Parcel, Submission
from engine.channels.messages import Answer, Hello, Pulse, decode_commands, decode_ids, encode
from engine.channels.options import LaneOptions
from engine.ports import ShardDown
from engine.verify.batch import Item
from engine.verify.options import VerifyOptions
from engine.verify.pool import VerifierPool
from tests.channels.world import VERIFIER, Desk, words_of

QUICK = LaneOptions(
    gather_ms=1, linger_us=0, unavailable_after_ms=60_000, batch_claims_max=4, commits_max=2
)
POOL = VerifyOptions(verifiers=1, verify_timeout_s=5, wait_timeout_s=0.5, attempts_max=2)

Trouble = Callable[[str, int], str]
"""(step, which call of that step, from 0) → what goes wrong with it: `before` or `after` it is
taken the process dies, `raw:…` is answered instead, `hold` waits until `release`, "" for nothing.
"""


class MortalShard:
    """A shard behind `ports.Shard`: one call at a time, in order, and dead calls stay dead."""

    number = 0

    def __init__(self, directory: Path, trouble: Trouble = lambda step, count: "") -> None:
        self.desk = Desk(directory)
        self.trouble = trouble
        self.down = False
        self.calls: list[str] = []
        self.asked: list[tuple[object, ...]] = []
        self.held = asyncio.Event()
        self.deaths = 0
        self._queue: deque[tuple[str, tuple[object, ...], asyncio.Future[bytes]]] = deque()
        self._released = asyncio.Event()
        self._some = asyncio.Event()

    def ask(self, step: str, *arguments: bytes | int | str) -> Awaitable[bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.append((step, arguments, answer))
        self._some.set()
        return _promised(answer)  # a coroutine, as Ray's is: whoever starts it must end it

    async def run(self) -> None:
        """Take calls until cancelled."""
        while True:
            await self._some.wait()
            while self._queue:
                await asyncio.sleep(0)
                await self._take(*self._queue[0])
            self._some.clear()

    def die(self) -> None:
        """End the process with all that waits for it, and start the next incarnation."""
        self.deaths += 1
        self.desk.restart()
        while self._queue:
            answer = self._queue.popleft()[2]
            if not answer.done():
                answer.set_exception(ShardDown("killed"))

    def release(self) -> None:
        self._released.set()

    async def _take(self, step: str, arguments: tuple[object, ...], answer: object) -> None:
        count = self.calls.count(step)
        self.calls.append(step)
        self.asked.append((step, *arguments))
        fault = "before" if self.down else self.trouble(step, count)
        if fault == "hold":
            self.held.set()
            await self._released.wait()
            fault = ""
        if fault == "before":
            self.die()
            return
        told = fault if isinstance(fault, bytes) else self._step(step, *arguments)
        if fault == "after":
            self.die()
            return
        self._queue.popleft()
        if not answer.done():
            answer.set_result(told)

    def _step(self, step, *arguments):
        shard = self.desk.shard
        match step:
            case "hello":
                shard.greet(*arguments)
                told = Hello(0, shard.epoch, 1, shard.position, shard.channels, 0, 0)
            case "pulse":
                told = Pulse(1 << 40, 0, storage_full=False, slowest_sync_us=0)
            case "execute":
                told = shard.execute(decode_commands(arguments[0]))
            case "read":
                told = shard.read(decode_ids(arguments[0]))
            case _:
                told = getattr(shard, step)(*arguments)
        return encode(told)


async def _promised(answer: "asyncio.Future[bytes]") -> bytes:
    return await answer


class Verifier:
    """A verifier in this process; `answers` are given first, one a call."""

    def __init__(self) -> None:
        self.answers: deque[Callable[[bytes], bytes]] = deque()
        self.calls = 0
        self.alive = asyncio.Event()
        self.alive.set()

    async def verify(self, blob: bytes) -> bytes:
        self.calls += 1
        if not self.alive.is_set():
            raise ConnectionResetError
        if self.answers:
            return self.answers.popleft()(blob)
        return VERIFIER.verify(blob)

    async def restart(self) -> None:
        await self.alive.wait()


class Told:
    """A submission, and all that its owner was told, in order."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.whole = asyncio.Event()
        self.late = asyncio.Queue[list[str]]()
        self.submission = Submission(len(items), self._done, self._late)
        self.times_done = 0
        self.first: list[str] = []

    def _done(self, submission: Submission) -> None:
        self.times_done += 1
        self.first = words_of(submission.answers)
        self.whole.set()

    def _late(self, submission: Submission) -> None:
        self.late.put_nowait(words_of(submission.answers))

    @property
    def parcel(self) -> Parcel:
        return Parcel(list(self.items), list(range(len(self.items))), self.submission)

    async def answers(self) -> list[Answer]:
        await asyncio.wait_for(self.whole.wait(), 20)
        return self.submission.answers

    async def words(self) -> list[str]:
        """Return what was answered first, whatever was decided later."""
        await self.answers()
        return self.first

    async def words_later(self) -> list[str]:
        return await asyncio.wait_for(self.late.get(), 20)


class Office:
    """A lane that runs, with a pool of one verifier and a list of all that the watcher saw."""

    def __init__(self, shard: MortalShard, options: LaneOptions = QUICK) -> None:
        self.shard = shard
        self.verifier = Verifier()
        self.pool = VerifierPool([self.verifier], POOL)
        self.seen: list[tuple[Item, Answer]] = []
        self.lane = Lane("gateway-a", shard, self.pool, options, self._watch)

    def _watch(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        self.seen += zip(items, answers, strict=True)

    def submit(self, *items: Item) -> Told:
        told = Told(items)
        self.lane.put(told.parcel)
        return told

    @asynccontextmanager
    async def open(self):
        """Run shard and lane; at the end every task must be gone, and no error unheard."""
        unheard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: unheard.append(said))
        before = asyncio.all_tasks()
        running = [asyncio.create_task(self.shard.run()), asyncio.create_task(self.lane.run())]
        try:
            async with self.pool:
                yield self
                for task in running:
                    assert not task.done(), task.exception()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self.shard.desk.crash()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before
        gc.collect()
        assert unheard == []
