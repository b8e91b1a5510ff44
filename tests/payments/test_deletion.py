"""Section N: what is deleted, what is not, and what is left."""

import pytest

from engine.payments import FailureReason, PaymentDBError
from tests.payments.builders import (
    ZERO,
    attempt_counts,
    begun,
    everything,
    failure,
    make_attempt,
    mk,
    state_of_store,
    statuses,
)


def code_of(call, *arguments) -> str:
    with pytest.raises(PaymentDBError) as refusal:
        call(*arguments)
    return refusal.value.code.value


def test_a_long_deletion_says_how_far_it_is(store):
    mk(store, ["Failed", "InFlight", "Succeeded", "Failed"])
    said = []
    assert store.delete_payments(progress=lambda *seen: said.append(seen)) == 3
    assert said[-1] == (3, 3)
    assert all(done <= total for done, total in said)
    assert [done for done, _ in said] == sorted(done for done, _ in said)


def test_failed_attempts_go(store):  # rows 165 to 168
    words = ["Failed", "InFlight", "Succeeded"]
    first, second, third = mk(store, words)
    store.delete_failed_attempts(first)
    assert attempt_counts(store) == [0, 2, 2]
    assert statuses(store) == words
    assert code_of(store.delete_failed_attempts, second) == "payment_in_flight"
    store.delete_failed_attempts(third)
    assert attempt_counts(store) == [0, 2, 1]
    assert everything(store).payments[2].attempts[0].settle is not None
    before = state_of_store(store)
    assert code_of(store.delete_failed_attempts, ZERO) == "payment_not_initiated"
    for again in (first, third):
        store.delete_failed_attempts(again)
    assert state_of_store(store) == before


def test_one_payment_goes(store):  # rows 169 to 175
    first, second, third, fourth = mk(store, ["Failed", "Failed", "Succeeded", "InFlight"])
    store.delete_payment(first, failed_attempts_only=True)
    assert attempt_counts(store) == [0, 2, 2, 2]
    for left, identifier in ((3, first), (2, second), (1, third)):
        store.delete_payment(identifier)
        assert len(everything(store).payments) == left
        assert code_of(store.fetch_payment, identifier) == "payment_not_initiated"
    before = state_of_store(store)
    assert code_of(store.delete_payment, fourth, True) == "payment_in_flight"
    assert code_of(store.delete_payment, fourth) == "payment_in_flight"
    assert state_of_store(store) == before


def test_many_payments_go(store):  # rows 176 to 179
    mk(store, ["Failed", "Succeeded", "InFlight"])
    assert store.delete_payments(failed_only=True, failed_attempts_only=True) == 0
    assert attempt_counts(store) == [0, 2, 2]
    assert store.delete_payments(failed_only=True) == 1
    assert statuses(store) == ["Succeeded", "InFlight"]
    assert attempt_counts(store) == [2, 2]
    assert store.delete_payments() == 1
    assert statuses(store) == ["InFlight"]
    assert store.delete_payments() == 0


def test_failed_attempts_of_all_that_are_over_go(store):
    words = ["Failed", "Succeeded", "InFlight", "Succeeded"]
    mk(store, words)
    assert store.delete_payments(failed_attempts_only=True) == 0
    assert attempt_counts(store) == [0, 1, 2, 1]
    assert statuses(store) == words


def test_only_failed_ones_go(store):  # row 180
    mk(store, ["Failed", "Succeeded", "InFlight", "Succeeded"], attempts=1)
    assert store.delete_payments(failed_only=True) == 1
    assert statuses(store) == ["Succeeded", "InFlight", "Succeeded"]


def test_a_payment_of_which_nothing_was_sent_goes(store):  # row 182
    identifier = begun(store)
    store.delete_payment(identifier, failed_attempts_only=True)
    assert statuses(store) == ["Initiated"]
    store.delete_payment(identifier)
    assert statuses(store) == []
    begun(store)
    assert store.delete_payments(failed_only=True) == 0
    assert store.delete_payments() == 1
    assert store.fetch_in_flight_payments() == []


def test_a_payment_that_may_be_tried_again_stays(store):  # row 183
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    store.fail_attempt(identifier, 1, failure())
    assert code_of(store.delete_payment, identifier) == "payment_in_flight"
    assert code_of(store.delete_payment, identifier, True) == "payment_in_flight"
    assert store.delete_payments() == 0
    assert attempt_counts(store) == [1]
    store.fail_payment(identifier, FailureReason.TIMEOUT)
    assert store.delete_payments() == 1


def test_an_attempt_goes_with_all_that_belongs_to_it(store):
    """Its index and its session key are free in the store again, though never given again."""
    identifier = begun(store)
    attempt = make_attempt(1)
    store.register_attempt(identifier, attempt)
    store.fail_attempt(identifier, 1, failure())
    store.fail_payment(identifier, FailureReason.TIMEOUT)
    store.delete_payment(identifier)
    other = begun(store)
    assert store.register_attempt(other, attempt).attempts == (attempt,)
    assert store.next_attempt_index() > 1


def test_many_are_deleted_in_several_turns(store):
    """More than one transaction of any store takes."""
    identifiers = mk(store, ["Failed", "InFlight", "Succeeded"] * 4, attempts=1)
    waiting = [begun(store) for _ in range(700)]
    assert store.delete_payments(failed_only=True) == 4
    assert store.delete_payments() == 4 + 700
    left = {payment.info.identifier for payment in everything(store).payments}
    assert left == set(identifiers[1::3])
    assert not left & set(waiting)
    state_of_store(store)
