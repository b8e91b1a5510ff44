"""What a payment weighs is about what Python takes for it, and little that is heavy is kept."""

import tracemalloc

import msgspec
import pytest
from msgspec.structs import replace

from engine.payments import AttemptFailureReason, Failure, Hop, Payment
from engine.payments.memory import ATTEMPTS_BYTES_MAX, ATTEMPTS_MAX, may_be_kept, weight_of
from engine.payments.values import PaymentStatus
from tests.payments.builders import (
    NOW,
    R2,
    RB,
    P,
    begun,
    begun_plain,
    empty_records,
    last_hop,
    make_attempt,
    make_duplicate,
    plain,
    shard,
)
from tests.payments.model import ModelDB

LARGE = Failure(NOW, AttemptFailureReason.MESSAGE, message=bytes(65_535))
MANY = replace(R2, first_hop_wire_records=empty_records(65_535))
HOPS = tuple(Hop(P, step, 1, 190) for step in range(26))
LONG = replace(R2, hops=(*(replace(hop, metadata=bytes(900)) for hop in HOPS), RB.hops[2]))
OF_HOP = last_hop(R2, custom_records=empty_records(1_300) | {2**64 - 1: b""})


def payment_of(*attempts) -> Payment:
    """Return a payment with these attempts, of which no part is shared with anything."""
    store = ModelDB()
    payment = store.fetch_payment(begun(store))
    packed = msgspec.msgpack.encode(replace(payment, attempts=attempts))
    return msgspec.msgpack.decode(packed, type=Payment)


PAYMENTS = {
    "new": [],
    "usual": [make_attempt(1), make_attempt(2)],
    "retried": [make_attempt(index, failure=LARGE) for index in range(5)],
    "blinded": [make_attempt(index, RB) for index in range(20)],
    "long": [make_attempt(1, LONG)],
    "records": [make_attempt(1, MANY)],
    "records of hops": [make_attempt(index, OF_HOP) for index in range(10)],
}


@pytest.mark.parametrize("attempts", PAYMENTS.values(), ids=PAYMENTS)
def test_a_weight_is_about_what_is_taken(attempts):
    weight = weight_of(payment_of(*attempts))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [payment_of(*attempts) for _ in range(20)]
        taken = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()
    assert 0.5 < taken / weight < 2, (taken, weight)


def test_a_duplicate_has_a_weight_too():
    light = make_duplicate(bytes(32), 1)
    assert weight_of(replace(light, payment_request=bytes(5_000))) == weight_of(light) + 5_000
    heavy = replace(light, attempt=make_attempt(1, MANY))
    assert weight_of(heavy) > weight_of(light) + 32_767


def test_what_is_heavy_is_not_remembered():
    attempts = [replace(plain(index), failure=LARGE) for index in range(ATTEMPTS_MAX)]
    kept = [
        may_be_kept(PaymentStatus.IN_FLIGHT, attempts[:count], has_records=False)
        for count in range(ATTEMPTS_MAX + 1)
    ]
    assert kept == [True, True, *[False] * (ATTEMPTS_MAX - 1)]
    assert ATTEMPTS_BYTES_MAX < 2 * 65_535 + 2_000


def test_usual_payments_are_remembered():
    route = shard()
    hops = (
        *(Hop(P, step, 1, 190) for step in range(8)),
        replace(route.hops[-1], custom_records={}),
    )
    attempts = [make_attempt(index, replace(route, hops=hops)) for index in range(ATTEMPTS_MAX)]
    assert may_be_kept(PaymentStatus.IN_FLIGHT, attempts, has_records=False)


def test_a_payment_that_got_heavy_is_not_remembered_by_its_store(places):
    with places.opened("sqlite") as store:
        identifier = begun_plain(store)
        known = store._database._memory._known
        for index in (1, 2, 3):
            assert (identifier in known) is (index < 3)
            store.register_attempt(identifier, plain(index))
            read = store.fail_attempt(identifier, index, LARGE)
            assert read == store.fetch_payment(identifier)
