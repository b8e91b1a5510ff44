"""The pool: whatever one verifier does, a claim is judged rightly or not at all."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from engine.verify.batch import encode_batch, with_probes
from engine.verify.errors import (
    MalformedBatchError,
    SealRefusedError,
    VerifierUnavailableError,
)
from engine.verify.options import VerifyOptions
from engine.verify.pool import RetryReason, VerifierPool
from engine.verify.seal import open_sealed, seal
from engine.verify.worker import VerifierWorker
from tests.verify.payers import make_item, make_payer

KEY = bytes(range(32))
HONEST = VerifierWorker(KEY)
CLAIMS = [make_item(make_payer("secp256k1"), amount, amount != 2) for amount in (1, 2, 3)]
BLOB = encode_batch(with_probes(CLAIMS))
RIGHT = b"\1\0\1"

Answer = Callable[[bytes], Awaitable[object]]


async def honest(blob: bytes) -> bytes:
    return HONEST.verify(blob)


async def dies(blob: bytes) -> bytes:
    raise ConnectionResetError("the process is gone")


async def hangs(blob: bytes) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def gives_up(blob: bytes) -> bytes:
    raise asyncio.CancelledError


async def cannot_read(blob: bytes) -> bytes:
    raise MalformedBatchError("garbled on the way")


def says(verdicts: bytes) -> Answer:
    """A worker out of its mind that still holds the true key."""

    async def answer(blob: bytes) -> object:
        return seal(KEY, blob, verdicts)

    return answer


def returns(thing: object) -> Answer:
    async def answer(blob: bytes) -> object:
        return thing

    return answer


class Fake:
    """A worker that answers as told until it is restarted, and honestly from then on."""

    def __init__(self, answer: Answer = honest, after: Answer = honest) -> None:
        self.answer, self.after = answer, after
        self.asked = self.restarts = self.inside = self.inside_max = 0

    async def verify(self, blob: bytes) -> object:
        self.asked += 1
        self.inside += 1
        self.inside_max = max(self.inside_max, self.inside)
        try:
            return await self.answer(blob)
        finally:
            self.inside -= 1

    async def restart(self) -> None:
        self.restarts += 1
        self.answer = self.after


class Gate:
    """Lets a test decide when workers answer; `arrived` counts who stands before it."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.arrivals: asyncio.Queue[None] = asyncio.Queue()

    async def honest(self, blob: bytes) -> bytes:
        self.arrivals.put_nowait(None)
        await self.opened.wait()
        return HONEST.verify(blob)

    async def arrived(self, count: int) -> None:
        for _ in range(count):
            await self.arrivals.get()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def make_pool(*workers: Fake, **options: float) -> VerifierPool:
    quick = {"verify_timeout_s": 5.0, "restart_backoff_s": 0.0}
    return VerifierPool(workers, VerifyOptions(**(quick | options)))


FAULTS = {
    "dies": (dies, RetryReason.RAISED),
    "gives up": (gives_up, RetryReason.RAISED),
    "hangs": (hangs, RetryReason.TIMED_OUT),
    "cannot read": (cannot_read, RetryReason.MALFORMED),
    "says all good": (says(b"\1" * 5), RetryReason.NONSENSE),
    "says all bad": (says(b"\0" * 5), RetryReason.NONSENSE),
    "swaps the probes": (says(b"\1\1\1\1\0"), RetryReason.NONSENSE),
    "says too little": (says(b"\1\0\1"), RetryReason.NONSENSE),
    "judges another batch": (says(b"\1\0\1\0\1\0\1"), RetryReason.NONSENSE),
    "says other bytes": (says(b"\7\7\7\0\1"), RetryReason.NONSENSE),
    "returns nothing": (returns(None), RetryReason.NONSENSE),
    "returns no bytes": (returns([1, 0, 1, 0, 1]), RetryReason.NONSENSE),
    "returns empty bytes": (returns(b""), RetryReason.NONSENSE),
    "returns garbage": (returns(b"\1" * 37), RetryReason.NONSENSE),
    "returns a seal alone": (returns(bytes(32)), RetryReason.NONSENSE),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_batch_that_meets_a_faulty_verifier_is_checked_by_another(name: str):
    answer, reason = FAULTS[name]
    faulty, other = Fake(answer), Fake()
    async with make_pool(faulty, other, verify_timeout_s=0.05) as pool:
        sealed = await pool.verify(BLOB, len(CLAIMS))
        await settle()
        assert open_sealed(KEY, BLOB, sealed) == RIGHT
        assert (faulty.asked, other.asked) == (1, 1)
        assert faulty.restarts == (reason is not RetryReason.MALFORMED)
        assert {why: n for why, n in pool.statistics().retries.items() if n} == {reason: 1}
        assert pool.statistics().workers_up == 2


@pytest.mark.parametrize("name", FAULTS)
async def test_when_every_verifier_is_faulty_nobody_gets_an_answer(name: str):
    answer, reason = FAULTS[name]
    workers = [Fake(answer, after=answer) for _ in range(2)]
    async with make_pool(*workers, verify_timeout_s=0.02, attempts_max=3) as pool:
        with pytest.raises(VerifierUnavailableError) as unavailable:
            await pool.verify(BLOB, len(CLAIMS))
    assert unavailable.value.attempts == 3
    assert unavailable.value.reason == reason
    assert sum(worker.asked for worker in workers) == 3


OTHER = encode_batch(with_probes(CLAIMS[::-1]))
FORGED = {
    "no seal": b"\1\1\1\0\1" + bytes(32),
    "sealed with another key": seal(bytes(32), BLOB, b"\1\1\1\0\1"),
    "sealed for another batch": seal(KEY, OTHER, b"\1\1\1\0\1"),
}


@pytest.mark.parametrize("name", FORGED)
async def test_what_a_forger_gets_past_the_pool_the_shard_refuses(name: str):
    async with make_pool(Fake(returns(FORGED[name]))) as pool:
        sealed = await pool.verify(BLOB, len(CLAIMS))
    with pytest.raises(SealRefusedError, match="foreign"):
        open_sealed(KEY, BLOB, sealed)


async def test_a_lone_verifier_is_asked_again_once_it_is_restarted():
    lone = Fake(dies)
    async with make_pool(lone) as pool:
        assert open_sealed(KEY, BLOB, await pool.verify(BLOB, len(CLAIMS))) == RIGHT
    assert (lone.asked, lone.restarts) == (2, 1)


async def test_the_cause_of_the_last_failure_is_told():
    with capture_logs() as lines:
        async with make_pool(Fake(dies, after=dies)) as pool:
            with pytest.raises(VerifierUnavailableError) as unavailable:
                await pool.verify(BLOB, len(CLAIMS))
    assert isinstance(unavailable.value.__cause__, ConnectionResetError)
    assert [line["event"] for line in lines][:2] == ["verifier_failed", "verifier_started_again"]
    assert (lines[0]["verifier"], lines[0]["reason"]) == (0, "raised")
    assert "the process is gone" in lines[0]["error"]


@pytest.mark.parametrize("blob", [b"", b"\x95", BLOB[:-1], BLOB + b"\0", b"\x96" + BLOB[1:]])
async def test_a_blob_that_is_no_batch_bothers_no_verifier(blob: bytes):
    worker = Fake()
    async with make_pool(worker) as pool:
        with pytest.raises(MalformedBatchError):
            await pool.verify(blob, len(CLAIMS))
        with pytest.raises(MalformedBatchError):
            await pool.verify(BLOB, len(CLAIMS) + 2)
    assert worker.asked == 0


# Many batches ----------------------------------------------------------------------------------


async def test_no_verifier_holds_more_batches_than_it_may_and_all_are_answered():
    gate = Gate()
    workers = [Fake(gate.honest), Fake(gate.honest)]
    async with make_pool(*workers, outstanding_per_worker_max=3) as pool:
        callers = [asyncio.create_task(pool.verify(BLOB, len(CLAIMS))) for _ in range(20)]
        await gate.arrived(6)
        await settle()
        assert [worker.inside for worker in workers] == [3, 3]
        assert pool.statistics().queue_length == 20
        gate.opened.set()
        answers = await asyncio.gather(*callers)
    assert {open_sealed(KEY, BLOB, sealed) for sealed in answers} == {RIGHT}
    assert [worker.inside_max for worker in workers] == [3, 3]
    assert sum(worker.asked for worker in workers) == 20


async def test_the_verifier_with_the_fewest_batches_is_asked():
    slow, gate = Gate(), Gate()
    first, second = Fake(slow.honest), Fake(gate.honest)
    async with make_pool(first, second) as pool:
        callers = [asyncio.create_task(pool.verify(BLOB, len(CLAIMS))) for _ in range(2)]
        await slow.arrived(1)
        await gate.arrived(1)
        gate.opened.set()
        await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
        await pool.verify(BLOB, len(CLAIMS))
        assert (first.asked, second.asked) == (1, 2)
        slow.opened.set()
        await asyncio.gather(*callers)


async def test_counts_are_of_batches_claims_and_bad_claims_without_probes():
    async with make_pool(Fake(dies), Fake()) as pool:
        for _ in range(3):
            await pool.verify(BLOB, len(CLAIMS))
        empty = encode_batch(with_probes([]))
        await pool.verify(empty, 0)
        counts = pool.statistics()
    assert (counts.batches, counts.claims, counts.bad) == (4, 9, 3)
    assert counts.queue_length == 0
    assert counts.busy_s > 0


async def test_a_batch_that_finds_no_room_in_time_is_given_up():
    gate = Gate()
    options = {"wait_timeout_s": 0.01, "outstanding_per_worker_max": 1}
    async with make_pool(Fake(gate.honest), **options) as pool:
        caller = asyncio.create_task(pool.verify(BLOB, len(CLAIMS)))
        await gate.arrived(1)
        with pytest.raises(VerifierUnavailableError, match="room"):
            await pool.verify(BLOB, len(CLAIMS))
        gate.opened.set()
        await caller


# Restarts --------------------------------------------------------------------------------------


async def test_many_batches_lost_with_one_verifier_restart_it_once():
    gate = Gate()

    async def dies_late(blob: bytes) -> bytes:
        await gate.honest(blob)
        raise ConnectionResetError

    doomed = Fake(dies_late)
    async with make_pool(doomed, outstanding_per_worker_max=4) as pool:
        callers = [asyncio.create_task(pool.verify(BLOB, len(CLAIMS))) for _ in range(4)]
        await gate.arrived(4)
        gate.opened.set()
        await asyncio.gather(*callers)
        assert pool.statistics().retries[RetryReason.RAISED] == 4
    assert doomed.restarts == 1


async def impostor(blob: bytes) -> bytes:
    """Judges as an honest one does, but holds the key of another engine."""
    return VerifierWorker(bytes(32)).verify(blob)


async def test_a_worker_whose_seal_is_not_believed_is_restarted_and_only_that_one():
    good, bad = Fake(), Fake(impostor)
    async with make_pool(bad, good) as pool:
        foreign = await pool.verify(BLOB, len(CLAIMS))
        pool.disbelieve(foreign)
        pool.disbelieve(foreign)  # another batch of the same life
        await settle()
        sealed = await pool.verify(BLOB, len(CLAIMS))
        pool.disbelieve(b"")
        pool.disbelieve(foreign)  # of a life that is over
        await settle()
        assert open_sealed(KEY, BLOB, sealed) == RIGHT
        assert pool.statistics().retries[RetryReason.FOREIGN] == 1
    assert (bad.restarts, good.restarts) == (1, 0)


async def test_a_failure_from_an_earlier_life_does_not_restart_the_new_worker():
    gate = Gate()
    doomed = Fake()

    async def first_dies_then_late(blob: bytes) -> bytes:
        if doomed.asked == 2:
            raise ConnectionResetError
        await gate.honest(blob)
        raise ConnectionResetError

    doomed.answer = first_dies_then_late
    async with make_pool(doomed) as pool:
        late = asyncio.create_task(pool.verify(BLOB, len(CLAIMS)))
        await gate.arrived(1)
        await pool.verify(BLOB, len(CLAIMS))
        assert doomed.restarts == 1
        gate.opened.set()
        await late
        await settle()
    assert doomed.restarts == 1


async def test_a_verifier_that_will_not_start_is_tried_again_with_growing_pauses():
    pauses: list[float] = []
    tried_enough = asyncio.Event()

    class Stubborn(Fake):
        async def restart(self) -> None:
            self.restarts += 1
            if self.restarts <= 5:
                raise OSError("no process to be had")
            tried_enough.set()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    options = VerifyOptions(restart_backoff_s=0.2, restart_backoff_max_s=1.0)
    with capture_logs() as lines:
        async with VerifierPool([Stubborn(dies), Fake()], options, sleep) as pool:
            await pool.verify(BLOB, len(CLAIMS))
            assert pool.statistics().workers_up == 1
            await tried_enough.wait()
            await settle()
            assert pool.statistics().workers_up == 2
            assert pool.statistics().restarts == 6
    assert pauses == [0.0, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [line["event"] for line in lines] == [
        "verifier_failed",
        *["verifier_not_started"] * 5,
        "verifier_started_again",
    ]
    assert lines[1]["error"] == "OSError('no process to be had')"


async def test_a_verifier_that_comes_up_and_fails_at_once_is_restarted_ever_more_slowly():
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async with VerifierPool([Fake(dies, after=dies)], VerifyOptions(), sleep) as pool:
        with pytest.raises(VerifierUnavailableError):
            await pool.verify(BLOB, len(CLAIMS))
        await settle()
    assert pauses == [0.0, 0.2, 0.4]


async def test_a_good_answer_clears_a_verifier_of_its_past():
    pauses: list[float] = []
    worker = Fake(dies)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async with VerifierPool([worker], VerifyOptions(), sleep) as pool:
        for _ in range(3):
            worker.answer = dies
            await pool.verify(BLOB, len(CLAIMS))
    assert pauses == [0.0, 0.0, 0.0]


async def test_a_restart_that_hangs_is_given_up_and_tried_again():
    class Slow(Fake):
        async def restart(self) -> None:
            self.restarts += 1
            if self.restarts == 1:
                await asyncio.Event().wait()
            self.answer = honest

    slow = Slow(dies)
    async with make_pool(slow, restart_timeout_s=0.01) as pool:
        await pool.verify(BLOB, len(CLAIMS))
    assert slow.restarts == 2


# The end ---------------------------------------------------------------------------------------


async def test_a_closed_pool_leaves_no_task_and_nobody_waiting():
    gate = Gate()
    before = asyncio.all_tasks()
    pool = make_pool(Fake(gate.honest), Fake(hangs), outstanding_per_worker_max=1)
    callers = [asyncio.create_task(pool.verify(BLOB, len(CLAIMS))) for _ in range(5)]
    await gate.arrived(1)
    await settle()
    async with asyncio.timeout(2):
        await pool.aclose()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {VerifierUnavailableError}
    assert asyncio.all_tasks() == before
    with pytest.raises(VerifierUnavailableError, match="closed"):
        await pool.verify(BLOB, len(CLAIMS))


async def test_who_waits_for_a_verifier_that_is_down_hears_of_the_end():
    class Down(Fake):
        async def restart(self) -> None:
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with make_pool(Down(dies)) as pool:
        caller = asyncio.create_task(pool.verify(BLOB, len(CLAIMS)))
        await settle()
        assert pool.statistics().workers_up == 0
    async with asyncio.timeout(2):
        with pytest.raises(VerifierUnavailableError, match="closed"):
            await caller
    assert asyncio.all_tasks() == before


async def test_a_caller_that_goes_away_frees_its_place():
    gate = Gate()
    worker = Fake(gate.honest)
    async with make_pool(worker, outstanding_per_worker_max=1) as pool:
        caller = asyncio.create_task(pool.verify(BLOB, len(CLAIMS)))
        await gate.arrived(1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await settle()
        assert (worker.inside, pool.statistics().queue_length) == (0, 0)
        gate.opened.set()
        assert open_sealed(KEY, BLOB, await pool.verify(BLOB, len(CLAIMS))) == RIGHT
    assert worker.restarts == 0


async def test_a_late_error_of_a_call_that_was_given_up_is_not_left_over():
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))

    async def fails_when_cancelled(blob: bytes) -> bytes:
        try:
            return await hangs(blob)
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    async with make_pool(Fake(fails_when_cancelled), Fake(), verify_timeout_s=0.01) as pool:
        await pool.verify(BLOB, len(CLAIMS))
        await settle()
    assert complaints == []


@pytest.mark.parametrize(
    "options",
    [
        {"verifiers": 0},
        {"attempts_max": 0},
        {"outstanding_per_worker_max": 0},
        {"verify_timeout_s": 0.0},
        {"wait_timeout_s": float("nan")},
        {"restart_timeout_s": -1.0},
        {"key_cache_max": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_with_which_nothing_would_be_checked_are_refused(options: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(options))):
        VerifyOptions(**options)


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="worker"):
        VerifierPool([])
