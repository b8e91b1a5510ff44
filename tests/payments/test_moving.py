"""What migration and verification rest on: whole payments in and out, counters, the note."""

import pytest

from engine.payments import FailureReason, PaymentDBError, open_payment_db
from engine.payments.errors import StoreFullError
from engine.payments.records import Counters, record_of
from engine.payments.values import NUMBER_MAX
from tests.payments.builders import (
    RB,
    begun,
    everything,
    failure,
    make_attempt,
    make_duplicate,
    make_info,
    make_record,
    one_hop,
    returned,
    settle,
    shard,
    state_of_store,
)


def some_records():
    """Return payments of every kind, some with duplicates, ascending by number."""
    parts = [
        make_attempt(3, shard(), settle=settle()),
        make_attempt(9, shard(), failure=failure()),
        make_attempt(2**63 - 2, shard()),
    ]
    doubled = make_record(7, duplicates=[8, 30], failure_reason=FailureReason.ERROR)
    old = make_duplicate(
        doubled.info.identifier, 31, settled=False, attempt=make_attempt(0, one_hop(5))
    )
    return [
        make_record(2),
        make_record(5, parts, failure_reason=FailureReason.TIMEOUT),
        type(doubled)(7, doubled.info, (), doubled.failure_reason, (*doubled.duplicates, old)),
        make_record(1_000, [make_attempt(10, RB, payment_hash=None)], value_msat=1_000),
        make_record(1_001, created_at_ns=0, duplicates=[1_002]),
    ]


def test_what_is_moved_in_is_moved_out(store):
    records = some_records()
    store.write_records(records)
    assert [each for batch in store.read_records() for each in batch] == records
    payments = everything(store).payments
    for payment, record in zip(payments, records, strict=True):
        assert record_of(payment, record.duplicates) == record
    state_of_store(store)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 10_000])
def test_records_come_in_batches(store, size):
    records = some_records()
    store.write_records(records)
    batches = list(store.read_records(batch_size=size))
    assert [each for batch in batches for each in batch] == records
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size
    rest = [each for batch in store.read_records(after=7, batch_size=size) for each in batch]
    assert rest == records[3:]
    assert list(store.read_records(after=1_001)) == []


def test_the_counters_go_on_above_what_is_moved_in(store):
    store.write_records([make_record(40, [make_attempt(600)], duplicates=[41])])
    counters = store.counters()
    assert (counters.payments, counters.duplicates, counters.sequence_number) == (1, 1, 41)
    assert counters.attempt_index >= 600
    assert store.next_attempt_index() > 600
    assert store.fetch_payment(begun(store)).sequence_number == 42


def test_a_new_store_has_counted_nothing(store):
    assert store.counters() == Counters()
    assert store.note() is None
    assert list(store.read_records()) == []
    assert store.verify().is_sound


def test_counters_rise_and_never_fall(store):
    store.raise_counters(sequence_number=50, attempt_index=7_000)
    store.raise_counters(sequence_number=3, attempt_index=4)
    store.raise_counters()
    assert store.counters().sequence_number == 50
    assert store.next_attempt_index() > 7_000
    assert store.fetch_payment(begun(store)).sequence_number == 51


def test_a_batch_is_whole_or_not_at_all(store):
    there = make_record(5, [make_attempt(50)], duplicates=[6])
    store.write_records([there], note=b"begun")
    key = there.attempts[0].session_key
    new = make_record(10, [make_attempt(100)])
    for bad, code in (
        (make_record(11, identifier=there.info.identifier), "payment_exists"),
        (make_record(5), "sequence_number_exists"),
        (make_record(6), "sequence_number_exists"),
        (make_record(11, duplicates=[5]), "sequence_number_exists"),
        (make_record(11, duplicates=[6]), "sequence_number_exists"),
        (make_record(11, [make_attempt(50)]), "attempt_exists"),
        (make_record(11, [make_attempt(51, session_key=key)]), "session_key_exists"),
        (make_record(10), "sequence_number_exists"),
        (make_record(11, [make_attempt(100)]), "attempt_exists"),
    ):
        before = state_of_store(store), store.counters()
        with pytest.raises(PaymentDBError) as refusal:
            store.write_records([new, bad], note=b"other")
        assert refusal.value.code == code
        assert (state_of_store(store), store.counters()) == before
        assert store.note() == b"begun"


def test_a_note_lies_beside_the_payments_until_it_is_taken_away(store):
    store.write_records([make_record(1)], note=b"half\x00way")
    assert store.note() == b"half\x00way"
    store.write_records([], note=b"")
    assert store.note() == b""
    store.write_records([make_record(2)])
    assert store.note() is None
    assert returned(everything(store)) == [1, 2]


def test_what_was_moved_in_lives_on(store):
    record = make_record(9, [make_attempt(1, shard()), make_attempt(2, shard(), settle=settle())])
    store.write_records([record])
    identifier = record.info.identifier
    with pytest.raises(PaymentDBError) as refusal:
        store.register_attempt(identifier, make_attempt(3, shard()))
    assert refusal.value.code == "payment_pending_settled"
    assert store.fail_attempt(identifier, 1, failure()).status.name == "SUCCEEDED"
    store.delete_payment(identifier)
    assert store.counters().payments == 0
    assert store.fetch_payment(begun(store)).sequence_number == 10


# Attempt indexes ----------------------------------------------------------------------------------


def test_indexes_ascend_from_one_and_are_never_given_again(store):
    given = [store.next_attempt_index() for _ in range(1_500)]
    assert given[0] >= 1
    assert given == sorted(set(given))


def test_who_takes_one_index_and_closes_leaves_no_gap(url):
    given = []
    for _ in range(3):
        with open_payment_db(url) as store:
            given.append(store.next_attempt_index())
    assert given == [1, 2, 3]


def test_who_takes_many_indexes_writes_seldom(url):
    with open_payment_db(url) as store:
        for _ in range(1_100):
            store.next_attempt_index()
        assert 1_100 <= store.counters().attempt_index <= 2_100


def test_an_index_that_is_given_can_be_registered(store):
    for round_ in range(3):
        identifier = begun(store)
        store.register_attempt(identifier, make_attempt(store.next_attempt_index()))
        other = begun(store)
        taken = store.next_attempt_index() + 1 + round_
        store.register_attempt(other, make_attempt(taken))
        assert store.next_attempt_index() > taken


@pytest.mark.parametrize("given_before", [0, 1, 30])
def test_the_last_indexes_are_given_too(store, given_before):
    for _ in range(given_before):  # the more, the larger the blocks
        store.next_attempt_index()
    store.raise_counters(attempt_index=NUMBER_MAX - 5)
    given = [store.next_attempt_index() for _ in range(5)]
    assert given == [*range(NUMBER_MAX - 4, NUMBER_MAX + 1)]
    for _ in range(2):
        with pytest.raises(StoreFullError, match="left"):
            store.next_attempt_index()
    assert store.register_attempt(begun(store), make_attempt(given[-1])).attempts
    assert store.counters().attempt_index == NUMBER_MAX


def outcome(store, identifier, index) -> str:
    """Register an attempt; return what came of it."""
    try:
        store.register_attempt(identifier, make_attempt(index, shard(1)))
    except PaymentDBError as refusal:
        return refusal.code.value
    return "ok"


def test_what_another_handle_moves_in_is_below_the_next_block(url):
    with open_payment_db(url) as store, open_payment_db(url) as other:
        given = [store.next_attempt_index() for _ in range(7)]  # blocks of 1, 2 and 4
        other.write_records([make_record(1, [make_attempt(given[-1] + 2_000)])])
        assert store.next_attempt_index() > given[-1] + 2_000
        with open_payment_db(url) as third:
            assert third.next_attempt_index() > given[-1] + 2_000


def test_an_index_that_another_handle_moved_into_a_block_is_refused_and_the_next_is_not(url):
    with open_payment_db(url) as store, open_payment_db(url) as other:
        given = [store.next_attempt_index() for _ in range(4)]  # the block of 4 goes up to 7
        there = make_record(1, [make_attempt(given[-1] + 1)])
        other.write_records([there])
        identifier = begun(store)
        outcomes = [outcome(store, identifier, store.next_attempt_index()) for _ in range(2)]
        assert outcomes in (["ok", "ok"], ["attempt_exists", "ok"])
        assert store.fetch_payment(there.info.identifier).attempts == there.attempts
        state_of_store(store)


def test_an_index_of_an_attempt_that_was_deleted_can_be_registered_but_is_not_given(store):
    for _ in range(2):
        identifier = begun(store)
        assert outcome(store, identifier, 5) == "ok"
        store.fail_attempt(identifier, 5, failure())
        store.fail_payment(identifier, FailureReason.ERROR)
        store.delete_payment(identifier)
    assert store.next_attempt_index() > 5


def test_an_index_is_not_given_again_after_its_attempt_is_deleted(store):
    identifier = begun(store)
    index = store.next_attempt_index()
    store.register_attempt(identifier, make_attempt(index))
    store.fail_attempt(identifier, index, failure())
    store.fail_payment(identifier, FailureReason.ERROR)
    store.init_payment(identifier, make_info(identifier=identifier))
    store.delete_payment(identifier)
    assert store.next_attempt_index() > index


def test_progress_is_told(store):
    store.write_records([make_record(number) for number in range(1, 6)])
    told = []
    report = store.verify(lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5)
    assert (report.payments, report.attempts, report.duplicates) == (5, 0, 0)


def test_verification_counts_what_there_is(store):
    store.write_records(some_records())
    report = store.verify()
    assert (report.payments, report.attempts, report.duplicates) == (5, 4, 4)
    assert report.is_sound
    assert report.problem_count == len(report.problems) == 0
