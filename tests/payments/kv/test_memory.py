"""What the writer of LMDB remembers of payments under way is what the file says, or nothing."""

from multiprocessing import get_context

import lmdb
import pytest
from msgspec.structs import replace

from engine.payments import FailureReason, PaymentDBError, StoreError, open_payment_db
from engine.payments.kv import life
from engine.payments.kv.commits import Waiting
from engine.payments.kv.reading import Reading
from engine.payments.kv.writing import Writing
from engine.payments.memory import Memory
from engine.payments.values import NO_RECORDS
from tests.payments.builders import (
    begun,
    begun_plain,
    failure,
    make_attempt,
    make_info,
    make_record,
    plain,
    settle,
    shard,
)


@pytest.fixture
def looks(monkeypatch) -> list[bytes]:
    """The payments that were read from the file."""
    found = []
    find = Reading.find

    def noted(reading, identifier, **named):
        found.append(identifier)
        return find(reading, identifier, **named)

    monkeypatch.setattr(Reading, "find", noted)
    return found


def elsewhere(store, *changes: tuple) -> None:
    """Let another process call methods of the store, each with its arguments."""
    with get_context("spawn").Pool(1) as pool:
        pool.apply(_call_all, (str(store._environment.place), changes))


def _call_all(place: str, changes: tuple) -> None:
    with open_payment_db(f"lmdb:///{place}") as beside:
        for name, *arguments in changes:
            getattr(beside, name)(*arguments)


def at_once(store, *calls: tuple) -> list[Waiting]:
    """Make calls in one transaction, each a function of `life` with its arguments."""
    group = store._shared.commits

    def waiting(work, *arguments) -> Waiting:
        return Waiting(lambda transaction: work(Writing(transaction, group.memory), *arguments))

    batch = [waiting(*call) for call in calls]
    group._lead(batch)
    return batch


def is_known(store, identifier: bytes) -> bool:
    return store._shared.commits.memory.recall(identifier) is not None


def test_a_payment_under_way_is_not_read_and_says_what_the_file_says(store, looks):
    identifier = begun_plain(store)
    answer = store.register_attempt(identifier, plain(2))
    assert (answer, looks) == (store.fetch_payment(identifier), [identifier])
    store.register_attempt(identifier, plain(1))
    store.fail_attempt(identifier, 2, failure())
    answer = store.settle_attempt(identifier, 1, settle())
    assert looks == [identifier]
    assert answer == store.fetch_payment(identifier)
    assert not is_known(store, identifier)  # it is over


def test_a_payment_that_was_read_is_remembered(store, looks):
    identifier = begun_plain(store)
    store._shared.commits.memory.forget()
    store.register_attempt(identifier, plain(1))
    payment = store.register_attempt(identifier, plain(2))
    assert looks == [identifier]
    assert payment == store.fetch_payment(identifier)
    route = payment.attempts[0].route
    mappings = [payment.info.first_hop_custom_records, route.first_hop_wire_records]
    mappings += [hop.custom_records for hop in route.hops]
    assert all(mapping is NO_RECORDS for mapping in mappings)


OTHERS = {
    "resolved": lambda key: [("fail_attempt", key, 1, failure())],
    "given up": lambda key: [("fail_payment", key, FailureReason.TIMEOUT)],
    "begun anew": lambda key: [
        ("fail_attempt", key, 1, failure()),
        ("fail_payment", key, FailureReason.TIMEOUT),
        ("delete_payment", key),
        ("init_payment", key, make_info(777, identifier=key)),
    ],
    "another": lambda _: [("init_payment", b"n" * 32, make_info(identifier=b"n" * 32))],
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("last", ["a change", "a refusal"])
def test_what_another_process_did_is_seen(store, changes, last):
    identifier = begun_plain(store)
    store.register_attempt(identifier, plain(1))
    if last == "a refusal":  # its transaction makes no version
        with pytest.raises(PaymentDBError, match="attempt_exists"):
            store.register_attempt(identifier, plain(1))
    elsewhere(store, *changes(identifier))
    expected = store.fetch_payment(identifier)
    payment = store.fail_payment(identifier, FailureReason.ERROR)
    assert payment.attempts == expected.attempts
    assert payment.info == expected.info
    assert payment == store.fetch_payment(identifier)


def test_what_was_deleted_is_gone(store):
    identifier = begun_plain(store)
    init = (life.init, make_info(identifier=identifier, first_hop_custom_records={}))
    batch = at_once(
        *(store, (life.delete, identifier), (life.register, identifier, plain(1)), init),
        *((life.register, identifier, plain(2)), (life.fail, identifier, FailureReason.ERROR)),
    )
    with pytest.raises(PaymentDBError, match="payment_not_initiated"):
        batch[1].answer()
    assert batch[3].answer().sequence_number == 2
    assert [each.attempt_index for each in store.fetch_payment(identifier).attempts] == [2]
    assert batch[4].answer() == store.fetch_payment(identifier)


def test_each_delete_is_seen_by_the_next_call(store):
    for index, delete in enumerate(
        [
            lambda key: store.delete_payment(key),
            lambda key: store.delete_payments(),
            lambda key: at_once(store, (life.delete, key)),
        ],
        start=1,
    ):
        identifier = begun_plain(store)
        delete(identifier)
        with pytest.raises(PaymentDBError, match="payment_not_initiated"):
            store.register_attempt(identifier, plain(index))


def test_calls_of_one_transaction_see_what_the_ones_before_left(store, looks):
    identifier = begun_plain(store)
    first, again, second, settled = at_once(
        *(store, (life.register, identifier, plain(1)), (life.register, identifier, plain(1))),
        (life.register, identifier, plain(2)),
        (life.resolve, identifier, 1, settle()),
    )
    with pytest.raises(PaymentDBError, match="attempt_exists"):
        again.answer()
    assert [len(each.answer().attempts) for each in (first, second)] == [1, 2]
    assert looks == []
    assert is_known(store, identifier)
    assert settled.answer() == store.fetch_payment(identifier)
    answer = store.settle_attempt(identifier, 2, settle())
    assert answer == store.fetch_payment(identifier)


def broken(writing) -> None:
    _ = 1 // 0


def full(writing) -> None:
    raise lmdb.DiskError("No space left on device")


@pytest.mark.parametrize("fault", [broken, full])
def test_what_a_transaction_that_was_given_up_left_is_forgotten(store, fault):
    identifier = begun_plain(store)
    registered, _ = at_once(store, (life.register, identifier, plain(1)), (fault,))
    if fault is full:
        with pytest.raises(StoreError):
            registered.answer()
        with pytest.raises(PaymentDBError, match="attempt_not_found"):
            store.settle_attempt(identifier, 1, settle())
    else:
        assert registered.answer() == store.fetch_payment(identifier)
    assert len(store.register_attempt(identifier, plain(2)).attempts) == 1 + (fault is broken)


def test_a_commit_that_fails_leaves_nothing_in_memory(store, monkeypatch):
    identifier = begun_plain(store)

    def refuse(transaction) -> None:
        transaction.abort()
        raise StoreError("the disk")

    with monkeypatch.context() as patch:
        patch.setattr(store._environment, "_commit", refuse)
        with pytest.raises(StoreError, match="the disk"):
            store.register_attempt(identifier, plain(1))
    assert store.register_attempt(identifier, plain(2)) == store.fetch_payment(identifier)
    assert [each.attempt_index for each in store.fetch_payment(identifier).attempts] == [2]


def test_a_transaction_that_needs_a_larger_map_begins_with_nothing(store):
    identifier = begun_plain(store)
    place = store._environment
    before = place._lmdb.info()["map_size"]

    def fill(writing) -> None:
        if place._lmdb.info()["map_size"] == before:
            writing.transaction.put(b"\x09", bytes(before))

    registered, _ = at_once(store, (life.register, identifier, plain(1)), (fill,))
    assert place._lmdb.info()["map_size"] > before
    assert registered.answer() == store.fetch_payment(identifier)
    assert store.fail_attempt(identifier, 1, failure()) == store.fetch_payment(identifier)


def test_what_was_moved_in_is_seen(store):
    identifier = begun_plain(store)
    store.delete_payment(identifier)
    record = make_record(9, [plain(1)], identifier=identifier)
    store.write_records([record])
    assert store.fail_payment(identifier, FailureReason.ERROR).attempts == record.attempts


def test_what_a_caller_keeps_is_not_what_is_remembered(store):
    info = make_info(first_hop_custom_records={})
    attempt = plain(1)
    store.init_payment(info.identifier, info)
    info.first_hop_custom_records[70_000] = b"later"
    store.register_attempt(info.identifier, attempt)
    attempt.route.hops[0].custom_records[70_000] = b"later"
    attempt.route.first_hop_wire_records[70_000] = b"later"
    store.fail_attempt(info.identifier, 1, replace(failure(), reason=1))
    assert is_known(store, info.identifier)
    payment = store.register_attempt(info.identifier, plain(2))
    assert payment == store.fetch_payment(info.identifier)
    assert payment.attempts[0].failure.reason.name == "UNREADABLE"


def test_payments_with_custom_records_are_not_remembered(store):
    assert not is_known(store, begun(store))
    identifier = begun_plain(store)
    store.register_attempt(identifier, make_attempt(1, shard()))  # its last hop has some
    assert not is_known(store, identifier)
    store.register_attempt(identifier, plain(2))
    assert not is_known(store, identifier)
    assert store.settle_attempt(identifier, 2, settle()) == store.fetch_payment(identifier)


def test_a_version_counts_only_once_something_was_written():
    memory: Memory[str] = Memory()
    memory.begin(1, 2)
    memory.leave(b"a", "payment")
    memory.commit()
    for found, expected in ((2, "payment"), (2, None), (3, None)):
        memory.begin(found, found + 1)  # the first writes nothing, and another process makes 3
        assert memory.recall(b"a") == expected
        memory.commit()
