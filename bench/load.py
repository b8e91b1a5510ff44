"""The load: a process of its own that sends ready-made frames and times the answers.

Closed loop: a window of frames is always under way. Open loop (`rate`): frames are due at fixed
times and latency counts from when a frame was due, so a stall is charged to every frame it delayed.
Reads a `Job` as JSON on standard input and writes a `Tally` as JSON on standard output.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal

import aiohttp
import msgspec
import uvloop

from bench.signing import read_frames

Transport = Literal["ws", "ws-single", "http", "http-single", "inprocess"]


class Job(msgspec.Struct, frozen=True):
    """What to send where: one file of frames per connection, `rate` in claims a second over all."""

    url: str
    transport: Transport
    files: list[str]
    window: int
    seconds: float
    rate: float = 0.0
    claims_per_frame: int = 1


class Tally(msgspec.Struct):
    """What came back: answers by status or code, and latencies per frame in milliseconds."""

    answered: dict[str, int]
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_s: float
    frames: int
    exhausted: bool


class _Answer(msgspec.Struct, array_like=True, gc=False):
    """What of an answer is counted; more may follow."""

    status: int
    code: str | None = None


Answers = tuple[int, list[_Answer]]
WORDS = ("accepted", "duplicate", "buffered", "rejected")
_decode_answers = msgspec.msgpack.Decoder(Answers).decode
_decode_frame = msgspec.msgpack.Decoder(tuple[int, list[tuple[bytes, int, int, bytes]]]).decode


class _Result(msgspec.Struct):
    status: str
    code: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


_decode_results = msgspec.msgpack.Decoder(_Results).decode
_decode_result = msgspec.json.Decoder(_Result).decode


class Watch:
    """One connection's frames: when each was due, and what came back."""

    def __init__(self, window: int, begins_s: float) -> None:
        self._begins_s = begins_s
        self.answered: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.last = 0.0
        self.exhausted = False
        self._due: dict[int, float] = {}
        self._room = asyncio.Semaphore(window)
        self._empty = asyncio.Event()

    async def due_times(
        self, frames: int, seconds: float, pause: float
    ) -> AsyncIterator[tuple[int, float]]:
        """Yield frames as they may be sent: at fixed times, or while there is room."""
        started = time.perf_counter() + self._begins_s
        for number in range(frames):
            due = started + number * pause
            if not pause:
                await self._room.acquire()
                due = time.perf_counter()
            elif due > (now := time.perf_counter()):
                await asyncio.sleep(due - now)
            if due - started > seconds:
                return
            self._due[number] = due
            yield number, due
        self.exhausted = True

    def answer(self, number: int, words: list[str]) -> None:
        """Take in the answers to a frame."""
        due = self._due.pop(number, None)
        self.answered.update(words)
        if due is None:
            return
        self.last = time.perf_counter()
        self.latencies.append((self.last - due) * 1_000)
        self._room.release()
        self._empty.set()

    async def all_answered(self) -> None:
        """Return once nothing is under way."""
        while self._due:
            self._empty.clear()
            await self._empty.wait()


async def _over_websocket(job: Job, frames: list[bytes], watch: Watch, pause: float) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(job.url + "/v1/ws", max_msg_size=0, compress=0) as socket,
    ):

        async def receive() -> None:
            async for message in socket:
                number, answers = _decode_answers(message.data)
                watch.answer(number, [one.code or WORDS[one.status] for one in answers])

        receiving = asyncio.create_task(receive())
        async for number, _ in watch.due_times(len(frames), job.seconds, pause):
            await socket.send_bytes(frames[number])
        await watch.all_answered()
        receiving.cancel()


async def _over_http(job: Job, frames: list[bytes], watch: Watch, pause: float) -> None:
    """One request at a time, so that a channel's claims stay in order."""
    single = job.transport == "http-single"
    async with aiohttp.ClientSession() as session:
        async for number, _ in watch.due_times(len(frames), job.seconds, pause):
            _, claims = _decode_frame(frames[number])
            words = await (_post_one if single else _post_many)(session, job.url, claims)
            watch.answer(number, words)


async def _post_one(
    session: aiohttp.ClientSession, url: str, claims: list[tuple[bytes, int, int, bytes]]
) -> list[str]:
    ((channel_id, sequence, amount, signature),) = claims
    body = {"amount": str(amount), "signature": signature.hex(), "sequence": sequence}
    path = f"{url}/v1/channels/{channel_id.hex()}/claims"
    body["channel_id"] = channel_id.hex()
    async with session.post(path, data=msgspec.json.encode(body), headers=_JSON) as response:
        result = _decode_result(await response.read()) if response.status < 300 else None
        return [result.status if result is not None else f"http_{response.status}"]


async def _post_many(
    session: aiohttp.ClientSession, url: str, claims: list[tuple[bytes, int, int, bytes]]
) -> list[str]:
    names = ("channel_id", "sequence", "amount", "signature")
    body = {"claims": [dict(zip(names, claim, strict=True)) for claim in claims]}
    data = msgspec.msgpack.encode(body)
    async with session.post(f"{url}/v1/claims", data=data, headers=_MSGPACK) as response:
        if response.status != 200:
            return [f"http_{response.status}"] * len(claims)
        results = _decode_results(await response.read()).results
        return [result.code or result.status for result in results]


_JSON = {"content-type": "application/json"}
_MSGPACK = {"content-type": "application/msgpack", "accept": "application/msgpack"}


def _percentile(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3) if ordered else 0.0


async def drive(job: Job) -> Tally:
    """Send every file over a connection of its own and sum up."""
    over = _over_websocket if job.transport.startswith("ws") else _over_http
    loads = [read_frames(path) for path in job.files]
    pause = job.claims_per_frame * len(loads) / job.rate if job.rate else 0.0
    # Connections take turns, so that a rate is a rate and not a row of bursts.
    watches = [Watch(job.window, number * pause / len(loads)) for number in range(len(loads))]
    started, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for frames, watch in zip(loads, watches, strict=True):
            tasks.create_task(over(job, frames, watch, pause))
    return summed_up(watches, started, time.process_time() - cpu)


def summed_up(watches: list[Watch], started: float, cpu_s: float) -> Tally:
    """Return what all connections saw together."""
    latencies = sorted(latency for watch in watches for latency in watch.latencies)
    answered: Counter[str] = sum((watch.answered for watch in watches), Counter())
    return Tally(
        answered=dict(answered),
        seconds=max(watch.last for watch in watches) - started,
        p50_ms=_percentile(latencies, 0.5),
        p99_ms=_percentile(latencies, 0.99),
        p999_ms=_percentile(latencies, 0.999),
        max_ms=_percentile(latencies, 1.0),
        cpu_s=cpu_s,
        frames=len(latencies),
        exhausted=any(watch.exhausted for watch in watches),
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        tally = uvloop.run(drive(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
        sys.stdout.write(msgspec.json.encode(tally).decode() + "\n")
