"""Many verifiers behind one call: the least busy is asked, and a bad answer is asked elsewhere.

The one rule: an answer leaves the pool only if it could come from a verifier that works. The pool
holds no seal key; whether the seal is true is for the shard to say.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
import structlog

from engine.ports import VerdictWorker
from engine.verify.batch import (
    PROBE_COUNT,
    are_plausible,
    ends_with_probes,
    item_count,
)
from engine.verify.errors import MalformedBatchError, VerifierUnavailableError
from engine.verify.options import VerifyOptions
from engine.verify.seal import SEAL_BYTES

log: Final = structlog.get_logger()

Result = TypeVar("Result")

SEALS_KEPT: Final = 64
"""Seals of a worker that can still be traced to it; more than it has batches on their way."""


class RetryReason(StrEnum):
    """Why a worker's answer was not taken."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    NONSENSE = "nonsense"
    FOREIGN = "foreign"
    """The shard did not believe the seal: the worker does not hold the key of this engine."""
    MALFORMED = "malformed"
    """The worker could not read the batch. Its builder may be to blame, so it is not restarted."""


class VerifyStatistics(msgspec.Struct, frozen=True):
    """What the pool did since it was made.

    Attributes:
        batches: Batches answered.
        claims: Claims in them.
        bad: Those of the claims with a bad signature.
        retries: Answers not taken, by reason.
        restarts: Restarts begun.
        queue_length: Batches in the pool now, waiting or at a worker.
        workers_up: Workers that may be asked now.
        busy_s: Seconds batches spent at workers, summed over batches.
    """

    batches: int
    claims: int
    bad: int
    retries: dict[RetryReason, int]
    restarts: int
    queue_length: int
    workers_up: int
    busy_s: float


@dataclass(eq=False, slots=True)
class _Seat:
    """A worker's place: how busy it is, which of its lives it is in, and its newest seals."""

    worker: VerdictWorker
    outstanding: int = 0
    up: bool = True
    life: int = 0
    failures_in_row: int = 0
    seals: deque[bytes] = field(default_factory=lambda: deque(maxlen=SEALS_KEPT))


@dataclass(slots=True)
class _Failure:
    reason: RetryReason
    error: BaseException | None = None

    def words(self) -> dict[str, str]:
        """Return what a log line says of it."""
        return {"reason": self.reason.value, "error": repr(self.error) if self.error else ""}


@dataclass(slots=True)
class _Counts:
    batches: int = 0
    claims: int = 0
    bad: int = 0
    restarts: int = 0
    queue_length: int = 0
    busy_s: float = 0.0
    retries: Counter[RetryReason] = field(default_factory=Counter)


class VerifierPool:
    """Spreads batches over workers; use it with `async with`, from one event loop."""

    def __init__(
        self,
        workers: Sequence[VerdictWorker],
        options: VerifyOptions | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not workers:
            raise ValueError("a pool needs a worker")
        self._options = options or VerifyOptions()
        self._sleep = sleep
        self._seats = [_Seat(worker) for worker in workers]
        self._counts = _Counts()
        self._tasks: set[asyncio.Task[object]] = set()
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every task of the pool. Who still waits is told `VerifierUnavailableError`."""
        self._closed = True
        self._wake()
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(tuple(self._tasks), timeout=self._options.verify_timeout_s)

    def statistics(self) -> VerifyStatistics:
        """Return the counts up to now."""
        counts = self._counts
        return VerifyStatistics(
            batches=counts.batches,
            claims=counts.claims,
            bad=counts.bad,
            retries={reason: counts.retries[reason] for reason in RetryReason},
            restarts=counts.restarts,
            queue_length=counts.queue_length,
            workers_up=sum(seat.up for seat in self._seats),
            busy_s=counts.busy_s,
        )

    async def verify(self, blob: bytes, count: int) -> bytes:
        """Return the sealed verdicts on `blob`, from the first worker whose answer is plausible.

        Args:
            blob: What `batch.encode_batch` made, probes at its end.
            count: Claims in it, probes not counted.

        Raises:
            MalformedBatchError: `blob` does not hold `count` claims and two probes.
            VerifierUnavailableError: nobody could answer; the claims are unchecked.
        """
        if item_count(blob) != count + PROBE_COUNT or not ends_with_probes(blob):
            raise MalformedBatchError(f"not {count} claims and {PROBE_COUNT} probes")
        self._counts.queue_length += 1
        try:
            sealed = await self._ask_around(blob, count)
        finally:
            self._counts.queue_length -= 1
        self._count(sealed, count)
        return sealed

    def disbelieve(self, sealed: bytes) -> None:
        """Restart the worker that gave `sealed`, which a shard refused as not its engine's."""
        for seat in self._seats:
            if sealed[-SEAL_BYTES:] in seat.seals:
                seat.seals.clear()
                self._blame(seat, seat.life, _Failure(RetryReason.FOREIGN))

    async def _ask_around(self, blob: bytes, count: int) -> bytes:
        tried: set[_Seat] = set()
        failure = _Failure(RetryReason.RAISED)
        for attempt in range(self._options.attempts_max):
            seat = await self._take(tried, attempt)
            answer = await self._ask(seat, blob, count)
            if isinstance(answer, bytes):
                return answer
            failure = answer
            tried.add(seat)
        raise VerifierUnavailableError(
            self._options.attempts_max, failure.reason
        ) from failure.error

    async def _take(self, tried: set[_Seat], attempt: int) -> _Seat:
        """Return a seat with room, now counted as busier by one batch."""
        try:
            async with asyncio.timeout(self._options.wait_timeout_s):
                while (seat := self._pick(tried)) is None and not self._closed:
                    await self._changed.wait()
        except TimeoutError as error:
            raise VerifierUnavailableError(attempt, "no worker had room in time") from error
        if seat is None or self._closed:
            raise VerifierUnavailableError(attempt, "the pool is closed")
        seat.outstanding += 1
        return seat

    def _pick(self, tried: set[_Seat]) -> _Seat | None:
        up = [seat for seat in self._seats if seat.up]
        # Elsewhere means elsewhere while there is another, even if it must be waited for.
        fresh = [seat for seat in up if seat not in tried] or up
        seat = min(fresh, key=lambda seat: seat.outstanding, default=None)
        if seat is None or seat.outstanding >= self._options.outstanding_per_worker_max:
            return None
        return seat

    async def _ask(self, seat: _Seat, blob: bytes, count: int) -> bytes | _Failure:
        loop = asyncio.get_running_loop()
        life, started = seat.life, loop.time()
        try:
            answer = await self._call(seat.worker, blob)
        finally:
            self._counts.busy_s += loop.time() - started
            seat.outstanding -= 1
            self._wake()
        known = self._options.known_verdicts
        if isinstance(answer, bytes) and are_plausible(answer[:-SEAL_BYTES], count, known):
            seat.failures_in_row = 0
            seat.seals.append(answer[-SEAL_BYTES:])
            return answer
        failure = _Failure(RetryReason.NONSENSE) if isinstance(answer, bytes) else answer
        self._blame(seat, life, failure)
        return failure

    async def _call(self, worker: VerdictWorker, blob: bytes) -> bytes | _Failure:
        call: asyncio.Task[object] = self._own(asyncio.create_task(worker.verify(blob)))
        try:
            await asyncio.wait((call,), timeout=self._options.verify_timeout_s)
            if not call.done():
                return _Failure(RetryReason.TIMED_OUT)
        finally:
            call.cancel()
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        if error is None:
            # What comes from another process is of the promised type only once it is looked at.
            answer = call.result()
            return answer if isinstance(answer, bytes) else _Failure(RetryReason.NONSENSE)
        if isinstance(error, MalformedBatchError):
            return _Failure(RetryReason.MALFORMED, error)
        return _Failure(RetryReason.RAISED, error)

    def _blame(self, seat: _Seat, life: int, failure: _Failure) -> None:
        """Count `failure`, and restart the worker unless it is a new one already."""
        self._counts.retries[failure.reason] += 1
        replaced = not seat.up or seat.life != life
        if failure.reason is RetryReason.MALFORMED or replaced or self._closed:
            return
        seat.up = False
        log.warning("verifier_failed", verifier=self._seats.index(seat), **failure.words())
        self._own(asyncio.create_task(self._restart(seat)))

    async def _restart(self, seat: _Seat) -> None:
        """Try until a fresh worker sits in `seat`; owned by the pool, ended by `aclose`."""
        number = self._seats.index(seat)
        while not seat.up:
            await self._sleep(self._pause_s(seat.failures_in_row))
            seat.failures_in_row += 1
            self._counts.restarts += 1
            try:
                async with asyncio.timeout(self._options.restart_timeout_s):
                    await seat.worker.restart()
            except Exception as error:  # whatever keeps a worker down, only trying again helps
                log.error("verifier_not_started", verifier=number, error=repr(error))
                continue
            seat.life += 1
            seat.seals.clear()
            seat.up = True
        log.info("verifier_started_again", verifier=number)
        self._wake()

    def _pause_s(self, failures_in_row: int) -> float:
        if failures_in_row == 0:
            return 0.0
        doubled = self._options.restart_backoff_s * 2.0 ** min(failures_in_row - 1, 30)
        return min(doubled, self._options.restart_backoff_max_s)

    def _count(self, sealed: bytes, count: int) -> None:
        self._counts.batches += 1
        self._counts.claims += count
        self._counts.bad += sealed.count(0, 0, count)

    def _own(self, task: asyncio.Task[Result]) -> asyncio.Task[Result]:
        self._tasks.add(task)
        task.add_done_callback(self._disown)
        return task

    def _disown(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        # A late error of a call that was given up is known by its time-out already.
        if not task.cancelled():
            task.exception()

    def _wake(self) -> None:
        """Let everyone who waits for a worker look again."""
        self._changed.set()
        self._changed = asyncio.Event()
