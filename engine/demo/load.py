"""The payers of the demo: a process of their own that signs, sends, and writes down every yes.

Each payer task owns some channels and has one submission under way. A few percent of the load is
bad on purpose, on channels of its own: forged signatures, gaps, replays, claims over the capacity
and claims that do not rise. Reads a `DemoJob` as JSON on standard input; prints a `Progress` as one
line of JSON every half second.
"""

import asyncio
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path

import msgspec
import uvloop

from bench.signing import STEP_DROPS, Payer, make_payer, sign
from engine.client import Client, Result
from engine.core.claim import Claim
from engine.demo.acknowledged import Acknowledged, AckWriter

PAYER_TASKS = 8
ROUNDS_PER_SUBMISSION = 2
REPORT_EVERY_S = 0.5
TROUBLE_EVERY_S = 0.1
TROUBLE_EACH = 8
GAP = 1_000
LATENCIES_KEPT = 2_000


class DemoJob(msgspec.Struct, frozen=True):
    """What to do: good payers are 0 to before `good`, trouble comes on `good` to `channels`."""

    url: str
    series: str
    good: int
    channels: int
    capacity: int
    seconds: float
    ledger: str


class Progress(msgspec.Struct):
    """Totals so far; latencies (ms, from sending to answer) of the newest submissions."""

    acknowledged: int
    sent: int
    answers: dict[str, int]
    p50_ms: float
    p99_ms: float
    unexpected: int
    seconds: float
    done: bool = False


class Payers:
    """All payers, good and bad, and what they were answered."""

    def __init__(self, job: DemoJob, client: Client) -> None:
        self._job = job
        self._client = client
        self._payers = [make_payer(n, "mixed", job.series) for n in range(job.channels)]
        self._ledger = AckWriter(Path(job.ledger))
        self._ends_at = time.monotonic() + job.seconds
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._old: list[Claim] = []
        self._random = random.Random(job.series)
        self._started = time.monotonic()
        self.answers: Counter[str] = Counter()
        self.acknowledged = self.sent = self.unexpected = 0

    async def run(self) -> None:
        """Send until time is up; every submission is answered when this returns."""
        async with asyncio.TaskGroup() as tasks:
            for task in range(PAYER_TASKS):
                mine = self._payers[: self._job.good][task::PAYER_TASKS]
                tasks.create_task(self._pay(mine))
            tasks.create_task(self._make_trouble(tasks))
        self._ledger.close()

    async def _pay(self, payers: list[Payer]) -> None:
        sequence = 0
        while time.monotonic() < self._ends_at:
            claims = [
                _claim(payer, sequence + later)
                for later in range(1, ROUNDS_PER_SUBMISSION + 1)
                for payer in payers
            ]
            sequence += ROUNDS_PER_SUBMISSION
            started = time.perf_counter()
            results = await self._send(claims)
            self._latencies.append((time.perf_counter() - started) * 1_000)
            self.unexpected += sum(not result.is_durable for result in results)
            self._old = claims

    async def _make_trouble(self, tasks: asyncio.TaskGroup) -> None:
        while time.monotonic() < self._ends_at:
            await asyncio.sleep(TROUBLE_EVERY_S)
            tasks.create_task(self._send(self._bad_claims()))

    def _bad_claims(self) -> list[Claim]:
        """Return some of each kind; none of them may be accepted as new."""
        payers = self._random.sample(
            self._payers[self._job.good :], min(TROUBLE_EACH, self._job.channels - self._job.good)
        )
        bad: list[Claim] = self._old[:TROUBLE_EACH]
        for payer in payers:
            good = _claim(payer, 1)
            forged = bytes((*good.signature[:-1], good.signature[-1] ^ 1))
            bad.append(msgspec.structs.replace(good, signature=forged))
            bad.append(_claim(payer, 1, self._job.capacity + 1))
            bad.append(_claim(payer, GAP + self._random.randrange(GAP)))
        return bad

    async def _send(self, claims: list[Claim]) -> list[Result]:
        self.sent += len(claims)
        results = await self._client.submit(claims)
        acknowledged = [
            Acknowledged(result.channel_id, result.sequence or 0, result.amount, result.position)
            for result in results
            if result.is_durable and result.position
        ]
        self._ledger.write(acknowledged)
        self.acknowledged += len(acknowledged)
        self.answers.update(result.code or result.status for result in results)
        return results

    def progress(self, *, done: bool = False) -> Progress:
        """Return the totals as of now."""
        ordered = sorted(self._latencies) or [0.0]
        return Progress(
            acknowledged=self.acknowledged,
            sent=self.sent,
            answers=dict(self.answers),
            p50_ms=round(ordered[len(ordered) // 2], 1),
            p99_ms=round(ordered[len(ordered) * 99 // 100], 1),
            unexpected=self.unexpected,
            seconds=round(time.monotonic() - self._started, 2),
            done=done,
        )


def _claim(payer: Payer, sequence: int, amount: int | None = None) -> Claim:
    amount = sequence * STEP_DROPS if amount is None else amount
    return Claim(payer.channel_id, amount, sign(payer, amount), sequence)


def _say(progress: Progress) -> None:
    sys.stdout.write(msgspec.json.encode(progress).decode() + "\n")
    sys.stdout.flush()


async def _report(payers: Payers) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        _say(payers.progress())


async def main(job: DemoJob) -> None:
    """Run the job."""
    async with Client(job.url) as client:
        payers = Payers(job, client)
        reporting = asyncio.create_task(_report(payers))
        await payers.run()
        reporting.cancel()
        _say(payers.progress(done=True))


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.stdin.buffer.read(), type=DemoJob)))
