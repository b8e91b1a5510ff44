"""Sections I, J and R: what a store does with one payment, step by step."""

import pytest

from engine.payments import (
    MPP,
    AttemptFailureReason,
    Failure,
    FailureReason,
    PaymentDBCode,
    PaymentDBError,
    PaymentStatus,
    Settle,
)
from tests.payments.builders import (
    CREATION_RECORDS,
    NOW,
    PREIMAGE,
    R2,
    SECOND,
    addr,
    begun,
    everything,
    failure,
    fresh,
    last_hop,
    make_attempt,
    make_info,
    one_hop,
    paid,
    returned,
    settle,
    shard,
    state_of_store,
)


def refused(code: str) -> pytest.RaisesExc:
    """Expect a refusal with this code."""
    return pytest.raises(PaymentDBError, check=lambda refusal: refusal.code == code)


# I. Compatibility through the store ---------------------------------------------------------------

PARTS = {
    "91": (None, "mpp_payment"),
    "92": (MPP(addr("B"), 555), "mpp_payment_addr_mismatch"),
    "93": (MPP(addr("A"), 277), "mpp_total_amount_mismatch"),
}


@pytest.mark.parametrize(("mpp", "code"), PARTS.values(), ids=PARTS)
def test_a_part_that_does_not_fit_is_refused(store, mpp, code):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1, shard()))
    before = state_of_store(store)
    with refused(code):
        store.register_attempt(identifier, make_attempt(2, last_hop(shard(), mpp=mpp)))
    assert state_of_store(store) == before


def test_only_attempts_in_flight_must_be_fitted(store):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1, shard(letter="A")))
    store.fail_attempt(identifier, 1, failure())
    read = store.register_attempt(identifier, make_attempt(2, shard(letter="B")))
    assert paid(read) == ("IN_FLIGHT", 2)


# J. Control flow ----------------------------------------------------------------------------------


def test_an_unknown_payment_is_not_initiated(store):  # rows 95 to 97, 253, 256
    unknown = fresh()
    calls = [
        lambda: store.settle_attempt(unknown, 1, settle()),
        lambda: store.fail_attempt(unknown, 1, failure()),
        lambda: store.fail_payment(unknown, FailureReason.NO_ROUTE),
        lambda: store.fetch_payment(unknown),
        lambda: store.register_attempt(unknown, make_attempt(1)),
        lambda: store.delete_failed_attempts(unknown),
        lambda: store.delete_payment(unknown),
        lambda: store.delete_payment(unknown, failed_attempts_only=True),
        lambda: store.fetch_by_number(unknown, 1),
    ]
    for existing in (0, 1):
        for call in calls:
            with refused("payment_not_initiated"):
                call()
        assert len(everything(store).payments) == existing
        begun(store)


def test_a_new_payment_is_initiated(store):  # row 98
    info = make_info()
    store.init_payment(info.identifier, info)
    read = store.fetch_payment(info.identifier)
    assert (read.status, read.attempts, read.failure_reason) == (PaymentStatus.INITIATED, (), None)
    assert read.info == info
    assert read.info.first_hop_custom_records == CREATION_RECORDS
    assert (read.state.remaining_msat, read.state.attempts_in_flight) == (555, 0)


def test_a_payment_is_begun_once(store):  # row 99
    info = make_info()
    store.init_payment(info.identifier, info)
    with refused("payment_exists"):
        store.init_payment(info.identifier, info)


def test_a_payment_in_flight_and_a_paid_one_are_not_begun_again(store):  # rows 100, 101
    info = make_info()
    store.init_payment(info.identifier, info)
    attempt = make_attempt(1)
    assert store.register_attempt(info.identifier, attempt).attempts == (attempt,)
    with refused("payment_in_flight"):
        store.init_payment(info.identifier, info)
    settled = store.settle_attempt(info.identifier, 1, settle())
    assert settled.status is PaymentStatus.SUCCEEDED
    assert settled.attempts[0].settle == Settle(PREIMAGE, 1_000 * SECOND)
    with refused("already_paid"):
        store.init_payment(info.identifier, info)
    assert store.fetch_payment(info.identifier) == settled


def test_a_failed_payment_is_begun_again_and_paid(store):  # rows 102 to 107
    info = make_info()
    store.init_payment(info.identifier, info)
    failed = store.fail_payment(info.identifier, FailureReason.NO_ROUTE)
    assert paid(failed) == ("FAILED", 0)
    assert failed.failure_reason is FailureReason.NO_ROUTE
    assert store.fetch_payment(info.identifier) == failed

    store.init_payment(info.identifier, info)
    again = store.fetch_payment(info.identifier)
    assert (again.status, again.failure_reason) == (PaymentStatus.INITIATED, None)
    assert again.sequence_number > failed.sequence_number

    store.register_attempt(info.identifier, make_attempt(1))
    why = Failure(5_000 * SECOND, AttemptFailureReason.UNREADABLE)
    retryable = store.fail_attempt(info.identifier, 1, why)
    assert retryable.status is PaymentStatus.IN_FLIGHT
    assert retryable.attempts[0].failure == why

    assert paid(store.register_attempt(info.identifier, make_attempt(2))) == ("IN_FLIGHT", 2)
    assert paid(store.settle_attempt(info.identifier, 2, settle())) == ("SUCCEEDED", 2)
    with refused("already_paid"):
        store.init_payment(info.identifier, info)


def test_what_a_failed_run_left_is_gone_after_the_next_begins(store):
    info = make_info()
    store.init_payment(info.identifier, info)
    store.register_attempt(info.identifier, make_attempt(1))
    store.fail_attempt(info.identifier, 1, failure())
    store.fail_payment(info.identifier, FailureReason.TIMEOUT)
    store.init_payment(info.identifier, make_info(777, identifier=info.identifier))
    read = store.fetch_payment(info.identifier)
    assert paid(read) == ("INITIATED", 0)
    assert read.info.value_msat == 777
    assert returned(everything(store)) == [read.sequence_number]


def test_a_settled_attempt_is_not_failed(store):  # row 108
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    store.settle_attempt(identifier, 1, settle())
    with refused("payment_already_succeeded"):
        store.fail_attempt(identifier, 1, failure())


def test_who_failed_an_attempt_is_kept(store):  # row 109
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    why = Failure(2_000 * SECOND, AttemptFailureReason.UNREADABLE, source_index=2)
    (attempt,) = store.fail_attempt(identifier, 1, why).attempts
    assert attempt.failure == why
    assert attempt.failure.message is None
    assert attempt.failure.reason is AttemptFailureReason.UNREADABLE


def test_times_are_those_of_the_caller(store):  # row 111
    identifier = begun(store, 1_110)
    for index, seconds in enumerate((1_000, 2_000), start=1):
        store.register_attempt(identifier, make_attempt(index, attempted_at_ns=seconds * SECOND))
    store.fail_attempt(identifier, 1, failure(seconds=6_000))
    first, second = store.settle_attempt(identifier, 2, settle(4_000)).attempts
    assert (first.attempted_at_ns, second.attempted_at_ns) == (1_000 * SECOND, 2_000 * SECOND)
    assert first.failure.failed_at_ns == 6_000 * SECOND
    assert second.settle.settled_at_ns == 4_000 * SECOND


def test_a_payment_is_split(store):  # row 112
    identifier = begun(store, 1_110)
    store.register_attempt(identifier, make_attempt(1))
    read = store.register_attempt(identifier, make_attempt(2))
    assert paid(read) == ("IN_FLIGHT", 2)
    assert (read.state.attempts_in_flight, read.state.remaining_msat) == (2, 0)
    assert read.state.fees_msat == 2 * 1_234_012


def test_a_reason_stays_on_what_has_settled_and_the_last_one_holds(store):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    assert paid(store.fail_payment(identifier, FailureReason.TIMEOUT)) == ("IN_FLIGHT", 1)
    store.settle_attempt(identifier, 1, settle())
    read = store.fail_payment(identifier, FailureReason.CANCELED)
    assert (read.status, read.failure_reason) == (PaymentStatus.SUCCEEDED, FailureReason.CANCELED)
    assert read.state.has_failure_reason


# J2. Three shards ---------------------------------------------------------------------------------


@pytest.mark.parametrize("third", ["settled", "failed"])
@pytest.mark.parametrize("first", ["settled", "failed"])
def test_three_shards_of_which_one_fails(store, first, third):  # rows 113 to 116
    identifier = begun(store)
    for index in (1, 2, 3):
        store.register_attempt(identifier, make_attempt(index, shard()))
    with refused("value_exceeds_amt"):
        store.register_attempt(identifier, make_attempt(4, shard()))
    read = store.fail_attempt(identifier, 2, failure(seconds=6_000))
    assert read.status is PaymentStatus.IN_FLIGHT

    end(store, identifier, 1, first, FailureReason.NO_ROUTE, (1_000, 2_000))
    assert store.fetch_payment(identifier).status is PaymentStatus.IN_FLIGHT
    pending = "payment_pending_settled" if first == "settled" else "payment_pending_failed"
    with refused(pending):
        store.register_attempt(identifier, make_attempt(4, shard()))

    why = FailureReason.INCORRECT_PAYMENT_DETAILS
    end(store, identifier, 3, third, why, (3_000, 4_000))
    read = store.fetch_payment(identifier)
    is_paid = "settled" in (first, third)
    assert read.status is (PaymentStatus.SUCCEEDED if is_paid else PaymentStatus.FAILED)
    if third == "failed":
        assert read.failure_reason is why
    over = "payment_already_succeeded" if is_paid else "payment_already_failed"
    with refused(over):
        store.register_attempt(identifier, make_attempt(4, shard()))


def end(store, identifier, index, word, reason, seconds):
    """Settle an attempt, or fail it and the payment."""
    if word == "settled":
        store.settle_attempt(identifier, index, settle(seconds[0]))
    else:
        store.fail_attempt(identifier, index, failure(seconds=seconds[1]))
        store.fail_payment(identifier, reason)


# R. The better rules ------------------------------------------------------------------------------


def in_parts(store):
    """Begin a payment with two attempts in flight, 1 and 2."""
    identifier = begun(store, 1_110)
    store.register_attempt(identifier, make_attempt(1))
    store.register_attempt(identifier, make_attempt(2))
    return identifier


def test_an_attempt_that_was_never_made_is_not_found(store):  # row 248, D1
    identifier = in_parts(store)
    other = begun(store)
    before = state_of_store(store)
    for where, index in ((identifier, 3), (other, 1), (other, 2)):
        with refused("attempt_not_found"):
            store.settle_attempt(where, index, settle())
        with refused("attempt_not_found"):
            store.fail_attempt(where, index, failure())
    assert state_of_store(store) == before


def test_an_attempt_is_resolved_once(store):  # rows 250 to 252, D2
    identifier = in_parts(store)
    store.settle_attempt(identifier, 1, settle())
    for again in (store.settle_attempt, store.fail_attempt):
        result = settle(9) if again == store.settle_attempt else failure()
        with refused("attempt_already_settled"):
            again(identifier, 1, result)
    assert store.fetch_payment(identifier).attempts[0].settle == settle()


def test_a_failed_attempt_stays_failed(store):
    identifier = in_parts(store)
    store.fail_attempt(identifier, 1, failure())
    with refused("attempt_already_failed"):
        store.settle_attempt(identifier, 1, settle())
    with refused("attempt_already_failed"):
        store.fail_attempt(identifier, 1, failure(seconds=9))
    assert store.fetch_payment(identifier).attempts[0].failure == failure()


def test_an_index_is_taken_once(store):  # row 254, D3
    identifier = in_parts(store)
    other = begun(store, 1_110)
    before = state_of_store(store)
    for where in (identifier, other):
        with refused("attempt_exists"):
            store.register_attempt(where, make_attempt(1, shard()))
    assert state_of_store(store) == before


def test_a_session_key_is_used_once(store):  # D3
    identifier, other = begun(store, 1_110), begun(store)
    key = fresh()
    store.register_attempt(identifier, make_attempt(1, session_key=key))
    for where in (identifier, other):
        with pytest.raises(PaymentDBError) as refusal:
            store.register_attempt(where, make_attempt(2, session_key=key))
        assert refusal.value.code is PaymentDBCode.SESSION_KEY_EXISTS
        assert (refusal.value.expected, refusal.value.actual) == (1, 2)
    assert paid(store.register_attempt(other, make_attempt(2))) == ("IN_FLIGHT", 1)


def test_the_status_is_looked_at_before_the_index_and_the_index_before_the_parts(store):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    with refused("attempt_exists"):
        store.register_attempt(identifier, make_attempt(1, one_hop(5)))
    store.settle_attempt(identifier, 1, settle())
    with refused("payment_already_succeeded"):
        store.register_attempt(identifier, make_attempt(1))


def test_a_number_is_never_given_again(store):  # row 257, D6
    used = [store.fetch_payment(begun(store)).sequence_number for _ in range(3)]
    newest = begun(store)
    for _ in range(3):
        used.append(store.fetch_payment(newest).sequence_number)
        assert used == sorted(set(used))
        store.fail_payment(newest, FailureReason.ERROR)
        store.init_payment(newest, make_info(identifier=newest))
    store.delete_payment(newest)
    assert store.fetch_payment(begun(store)).sequence_number > max(used)


def test_a_refused_beginning_takes_no_number(store):  # row 259
    info = make_info()
    store.init_payment(info.identifier, info)
    for _ in range(5):
        with refused("payment_exists"):
            store.init_payment(info.identifier, info)
    other = begun(store)
    first, second = everything(store).payments
    assert second.info.identifier == other
    assert second.sequence_number == first.sequence_number + 1 == 2


def test_attempts_are_in_the_order_of_their_indexes(store):  # row 267, D8
    identifier = begun(store, 4 * 185)
    for index, seconds in ((30, 9), (1, 7), (200, 7), (9, 8)):
        route = last_hop(shard(), mpp=MPP(addr("A"), 4 * 185))
        attempt = make_attempt(index, route, attempted_at_ns=NOW + seconds)
        store.register_attempt(identifier, attempt)
    read = store.fetch_payment(identifier)
    assert [attempt.attempt_index for attempt in read.attempts] == [1, 9, 30, 200]
    (page,) = everything(store).payments
    assert page == read


def test_a_crash_of_nothing_changes_nothing(store):  # row 273, in small; see test_kill.py
    identifier = in_parts(store)
    before = state_of_store(store)
    for code, call in (
        ("attempt_not_found", lambda: store.settle_attempt(identifier, 7, settle())),
        ("payment_in_flight", lambda: store.delete_payment(identifier)),
        ("payment_in_flight", lambda: store.delete_failed_attempts(identifier)),
        ("value_exceeds_amt", lambda: store.register_attempt(identifier, make_attempt(3, R2))),
    ):
        with refused(code):
            call()
        assert state_of_store(store) == before
