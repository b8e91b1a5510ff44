"""A call may carry as many custom records as the limits allow, and every store takes it whole."""

import pytest
from msgspec.structs import replace

from engine.payments import Failure, FailureReason, Hop, PaymentDB, PaymentDBError, Route
from engine.payments.checking import HOP_BYTES_MAX, HOPS_MAX, MESSAGE_BYTES_MAX
from tests.payments.builders import (
    NOW,
    P,
    begun,
    empty_records,
    failure,
    make_attempt,
    settle,
    shard,
    state_of_store,
)

MANY = empty_records(MESSAGE_BYTES_MAX)
LARGE = {2**64 - 1: bytes(MESSAGE_BYTES_MAX - 2)}
OF_HOP = empty_records(HOP_BYTES_MAX)
WIRE = replace(shard(), first_hop_wire_records=MANY)
"""A route of two hops."""


def with_records_everywhere() -> Route:
    """Return the longest route, with as many records as there may be."""
    *_, last = shard().hops
    hops = (*(Hop(P, step, 1, 190) for step in range(HOPS_MAX - 1)), last)
    hops = tuple(replace(hop, custom_records=OF_HOP, metadata=b"") for hop in hops)
    return replace(shard(), hops=hops, first_hop_wire_records=MANY)


def ended(store: PaymentDB, identifier: bytes, route: Route) -> None:
    """Make two attempts along a route, one that settles and one that fails; then delete all."""
    attempts = [make_attempt(index, route) for index in (1, 2)]
    store.register_attempt(identifier, attempts[0])
    read = store.register_attempt(identifier, attempts[1])
    assert read.attempts == (*attempts,)
    assert store.fetch_payment(identifier) == read
    assert store.fetch_in_flight_payments() == [read]
    store.fail_attempt(identifier, 1, Failure(NOW, 3, message=b"\xff" * MESSAGE_BYTES_MAX))
    paid = store.settle_attempt(identifier, 2, settle())
    assert store.fetch_payment(identifier) == paid
    assert [each.route for each in paid.attempts] == [route, route]
    state_of_store(store)
    store.delete_failed_attempts(identifier)
    assert [each.attempt_index for each in store.fetch_payment(identifier).attempts] == [2]
    store.delete_payment(identifier)
    assert store.counters().payments == 0


@pytest.mark.slow
@pytest.mark.parametrize("records", [MANY, LARGE, {}], ids=["many", "large", "none"])
def test_a_payment_lives_with_all_the_records_there_may_be(store, records):
    identifier = begun(store, first_hop_custom_records=records)
    assert store.fetch_payment(identifier).info.first_hop_custom_records == records
    ended(store, identifier, replace(WIRE, first_hop_wire_records=records or MANY))


@pytest.mark.slow
def test_every_hop_may_have_all_the_records_it_can_carry(store):
    ended(store, begun(store, first_hop_custom_records={}), with_records_everywhere())


@pytest.mark.slow
def test_a_payment_with_many_records_is_begun_again(store):
    identifier = begun(store, first_hop_custom_records=MANY)
    info = store.fetch_payment(identifier).info
    store.register_attempt(identifier, make_attempt(1))
    store.fail_attempt(identifier, 1, failure())
    store.fail_payment(identifier, FailureReason.ERROR)
    store.init_payment(identifier, info)
    read = store.fetch_payment(identifier)
    assert (read.info, read.attempts, read.sequence_number) == (info, (), 2)
    state_of_store(store)


def test_one_record_more_is_refused(store):
    identifier = begun(store)
    route = replace(WIRE, first_hop_wire_records=MANY | {2**64 - 1: b""})
    with pytest.raises(PaymentDBError) as refusal:
        store.register_attempt(identifier, make_attempt(1, route))
    assert refusal.value.code == "records_too_large"
    assert store.fetch_payment(identifier).attempts == ()
