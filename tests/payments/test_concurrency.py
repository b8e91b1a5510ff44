"""Many callers on one payment: one wins, the others get a code, nothing is half-written."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Barrier

import pytest

from engine.payments import FailureReason, PaymentDBError, open_payment_db
from tests.payments.builders import (
    begun,
    digest,
    everything,
    failure,
    make_attempt,
    make_info,
    settle,
    shard,
    state_of_store,
)
from tests.payments.victim import Call, calls, do

THREADS = 8


def at_once(count: int, call: Callable[[int], object]) -> Counter[str]:
    """Let threads make a call at the same moment; count outcomes: "ok" or a code."""
    barrier = Barrier(count)

    def one(number: int) -> str:
        barrier.wait()
        try:
            call(number)
        except PaymentDBError as refusal:
            return refusal.code.value
        return "ok"

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(one, range(count)))


def test_a_payment_is_begun_by_one(store):
    for _ in range(5):
        info = make_info()
        outcomes = at_once(THREADS, lambda _, info=info: store.init_payment(info.identifier, info))
        assert outcomes == {"ok": 1, "payment_exists": THREADS - 1}
    numbers = [payment.sequence_number for payment in everything(store).payments]
    assert numbers == [1, 2, 3, 4, 5]


def test_an_index_is_taken_by_one(store):
    identifier = begun(store, 555 * THREADS)
    outcomes = at_once(THREADS, lambda _: store.register_attempt(identifier, make_attempt(1)))
    assert outcomes == {"ok": 1, "attempt_exists": THREADS - 1}
    assert len(store.fetch_payment(identifier).attempts) == 1


def test_an_index_is_taken_by_one_payment(store):
    identifiers = [begun(store) for _ in range(THREADS)]
    outcomes = at_once(
        THREADS, lambda number: store.register_attempt(identifiers[number], make_attempt(1))
    )
    assert outcomes == {"ok": 1, "attempt_exists": THREADS - 1}
    assert sum(len(payment.attempts) for payment in everything(store).payments) == 1
    state_of_store(store)


def test_no_more_is_sent_than_the_value(store):
    identifier = begun(store)
    outcomes = at_once(
        THREADS,
        lambda number: store.register_attempt(identifier, make_attempt(number + 1, shard())),
    )
    assert outcomes == {"ok": 3, "value_exceeds_amt": THREADS - 3}
    assert store.fetch_payment(identifier).state.remaining_msat == 0


def test_an_attempt_ends_once(store):
    identifier = begun(store, 1_110)
    store.register_attempt(identifier, make_attempt(1))
    store.register_attempt(identifier, make_attempt(2))

    def end(number: int) -> None:
        if number % 2:
            store.settle_attempt(identifier, 1, settle(number))
        else:
            store.fail_attempt(identifier, 1, failure(seconds=number))

    outcomes = at_once(THREADS, end)
    assert outcomes.pop("ok") == 1
    (code,) = outcomes
    attempt = store.fetch_payment(identifier).attempts[0]
    ended = "settled" if attempt.settle else "failed"
    assert code == f"attempt_already_{ended}"
    assert not attempt.is_in_flight
    state_of_store(store)


def test_a_failed_payment_is_begun_again_by_one(store):
    identifier = begun(store)
    store.fail_payment(identifier, FailureReason.TIMEOUT)
    info = make_info(identifier=identifier)
    outcomes = at_once(THREADS, lambda _: store.init_payment(identifier, info))
    assert outcomes == {"ok": 1, "payment_exists": THREADS - 1}
    assert store.fetch_payment(identifier).sequence_number == 2


def test_a_payment_is_deleted_by_one(store):
    identifier = begun(store)
    outcomes = at_once(THREADS, lambda _: store.delete_payment(identifier))
    assert outcomes == {"ok": 1, "payment_not_initiated": THREADS - 1}
    assert everything(store).payments == ()


def test_indexes_of_many_threads_differ(store):
    given: list[int] = []
    at_once(THREADS, lambda _: given.extend(store.next_attempt_index() for _ in range(50)))
    assert len(set(given)) == THREADS * 50


@pytest.mark.slow
def test_threads_that_do_anything_leave_a_sound_store(store):
    def work(number: int) -> None:
        sequence = calls(number)
        for _ in range(60):
            do(next(sequence), store)

    at_once(THREADS, work)
    state_of_store(store)
    numbers = [payment.sequence_number for payment in everything(store).payments]
    assert len(set(numbers)) == len(numbers) > 3


# Processes ----------------------------------------------------------------------------------------

ROUNDS = 25


def contest(url: str) -> list[str]:
    """Run through payments that other processes run through as well; return all outcomes."""
    with open_payment_db(url) as store:
        return [
            do(call, store)
            for number in range(1, ROUNDS + 1)
            for call in whole_life(digest("contest", number), number)
        ]


def whole_life(identifier: bytes, number: int) -> tuple[Call, ...]:
    """Return the calls that begin and pay a payment."""
    info = make_info(identifier=identifier)
    attempt = make_attempt(number, session_key=digest("contest key", number))
    return (
        lambda store: store.init_payment(identifier, info),
        lambda store: store.register_attempt(identifier, attempt),
        lambda store: store.settle_attempt(identifier, number, settle()),
    )


def draw(url: str) -> list[int]:
    """Return attempt indexes."""
    with open_payment_db(url) as store:
        return [store.next_attempt_index() for _ in range(300)]


@pytest.mark.slow
def test_one_process_wins(url):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(contest, [url] * 3))
        given = [index for indexes in pool.map(draw, [url] * 3) for index in indexes]
    for outcomes in zip(*results, strict=True):
        assert Counter(outcomes)["ok"] == 1
    assert len(set(given)) == len(given) == 900
    assert min(given) > ROUNDS
    with open_payment_db(url) as store:
        payments = everything(store).payments
        assert len(payments) == ROUNDS
        assert [payment.sequence_number for payment in payments] == list(range(1, ROUNDS + 1))
        assert {payment.status.name for payment in payments} == {"SUCCEEDED"}
        state_of_store(store)
