"""Section O: what a node asks for when it starts."""

import random

import pytest

from engine.payments import FailureReason, PaymentDBError, PaymentStatus
from tests.payments.builders import (
    R2,
    begun,
    failure,
    make_attempt,
    make_info,
    make_record,
    mk,
    one_hop,
    settle,
)


def in_flight(store) -> list[int]:
    return [payment.sequence_number for payment in store.fetch_in_flight_payments()]


def test_nothing_is_in_flight_in_an_empty_store(store):  # row 196
    assert store.fetch_in_flight_payments() == []


def test_what_is_over_is_not_in_flight(store):  # row 188
    mk(store, ["Failed", "Succeeded", "InFlight", "InFlight"])
    found = store.fetch_in_flight_payments()
    assert [payment.sequence_number for payment in found] == [3, 4]
    assert {payment.status for payment in found} == {PaymentStatus.IN_FLIGHT}


def test_what_is_in_flight_can_be_had_in_pages(store):
    mk(store, ["InFlight", "Failed", "InFlight"])
    begun(store)
    assert in_flight(store) == [1, 3, 4]
    for after, limit, expected in (
        *((0, 2, [1, 3]), (3, 2, [4]), (1, 1, [3]), (4, 9, []), (2, 0, []), (0, None, [1, 3, 4])),
        *((2**63 - 1, 5, []), (2**64 - 1, 2**64 - 1, []), (2, 2**64 - 1, [3, 4])),
    ):
        found = store.fetch_in_flight_payments(after, limit)
        assert [payment.sequence_number for payment in found] == expected
    for wrong in ((-1, 1), (0, -1), (2**64, 1), (0, 2**64), ("1", 1), (0, True)):
        with pytest.raises(PaymentDBError):
            store.fetch_in_flight_payments(*wrong)


def test_a_payment_in_parts_is_returned_once(store):  # row 190
    identifier = begun(store, 1_110)
    store.register_attempt(identifier, make_attempt(1))
    store.register_attempt(identifier, make_attempt(2))
    (found,) = store.fetch_in_flight_payments()
    assert found == store.fetch_payment(identifier)
    assert len(found.attempts) == 2


def test_a_payment_that_may_be_tried_again_is_in_flight(store):  # row 191
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    store.fail_attempt(identifier, 1, failure())
    (found,) = store.fetch_in_flight_payments()
    assert found.status is PaymentStatus.IN_FLIGHT


def test_a_payment_without_attempts_is_in_flight(store):  # row 192
    begun(store)
    (found,) = store.fetch_in_flight_payments()
    assert found.status is PaymentStatus.INITIATED


def test_settled_and_unresolved_is_in_flight(store):  # row 194
    identifier = begun(store, 1_110)
    store.register_attempt(identifier, make_attempt(1))
    store.register_attempt(identifier, make_attempt(2))
    store.settle_attempt(identifier, 1, settle())
    assert in_flight(store) == [1]
    store.fail_attempt(identifier, 2, failure())
    assert in_flight(store) == []


def test_a_payment_leaves_and_comes_back(store):
    identifier = begun(store)
    assert in_flight(store) == [1]
    store.register_attempt(identifier, make_attempt(1))
    store.fail_payment(identifier, FailureReason.TIMEOUT)
    assert in_flight(store) == [1]
    store.fail_attempt(identifier, 1, failure())
    assert in_flight(store) == []
    store.init_payment(identifier, make_info(identifier=identifier))
    assert in_flight(store) == [2]
    store.delete_payment(identifier)
    assert in_flight(store) == []


def test_many_are_returned_once_each_in_order(store):  # row 195
    records = [make_record(number) for number in range(1, 251)]
    random.Random(7).shuffle(records)
    store.write_records(records)
    assert in_flight(store) == list(range(1, 251))


def record(number: int, kind: str):
    """Return a payment of value 2000 with attempts of one hop and 1000 each."""
    index = 2 * number
    failed = make_attempt(index, one_hop(1_000, R2.hops[1].mpp), failure=failure())
    if kind == "failed":
        return make_record(number, [failed], failure_reason=FailureReason.NO_ROUTE, value_msat=2000)
    settled = make_attempt(index, one_hop(1_000, R2.hops[1].mpp), settle=settle())
    if kind == "settled":
        return make_record(number, [settled], value_msat=2000)
    if number % 2 == 0:
        return make_record(number, [failed], value_msat=2000)
    waiting = make_attempt(index + 1, one_hop(1_000, R2.hops[1].mpp))
    return make_record(number, [settled, waiting], value_msat=2000)


SHAPES = {
    "all in flight": ["waiting"] * 60,
    "all failed": ["failed"] * 60,
    "all settled": ["settled"] * 60,
    "the oldest fifth": ["waiting"] * 12 + ["settled"] * 48,
    "the newest fifth": ["settled"] * 48 + ["waiting"] * 12,
    "a shuffled tenth": random.Random(3).sample(
        ["failed"] * 6 + ["waiting"] * 6 + ["settled"] * 48, 60
    ),
}


@pytest.mark.parametrize("kinds", SHAPES.values(), ids=SHAPES)
def test_the_shapes_of_the_benchmark(store, kinds):
    store.write_records([record(number, kind) for number, kind in enumerate(kinds, start=1)])
    waiting = [number for number, kind in enumerate(kinds, start=1) if kind == "waiting"]
    assert in_flight(store) == waiting
    assert store.verify().is_sound
