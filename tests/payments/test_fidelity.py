"""Section K: what goes in comes out, to the bit and the nanosecond."""

import pytest
from msgspec.structs import replace

from engine.payments import (
    AMP,
    MPP,
    AttemptFailureReason,
    Failure,
    FailureReason,
    Hop,
    Query,
    Route,
    Settle,
)
from tests.payments.builders import (
    NOW,
    R2,
    RB,
    P,
    addr,
    begun,
    digest,
    everything,
    fresh,
    last_hop,
    make_attempt,
    make_info,
    one_hop,
    settle,
)

EVERY_HOP = tuple(
    Hop(P, 2**64 - 1 - i, 2**32 - 1 - i, 27 - i, legacy_payload=i % 2 == 0) for i in range(26)
)

ROUTES = {
    "117 first hop": replace(
        R2,
        first_hop_amount_msat=1_234,
        first_hop_wire_records={65_546: b"wire_record_1", 65_556: b"wire_record_2"},
    ),
    "118 amp": last_hop(
        R2, mpp=None, amp=AMP(bytes([1, 2, 3, 4] * 8), bytes([5, 6, 7, 8] * 8), 42)
    ),
    "119 amp and mpp": last_hop(R2, amp=AMP(digest("r"), digest("s"), 2**32 - 1)),
    "119b amp child of the upper half": last_hop(R2, amp=AMP(digest(1), digest(2), 0x80000001)),
    "120 blinded": RB,
    "122 empty record": R2,
    "125 wire record": replace(
        R2, first_hop_amount_msat=1_234, first_hop_wire_records={65_539: b"\x04\x05\x06"}
    ),
    "legacy hop": Route(1, 555, P, (Hop(P, 1, 1, 555, legacy_payload=True),)),
    "27 hops": Route(2**32 - 1, 2**64 - 1, P, (*EVERY_HOP, R2.hops[-1]), 2**64 - 1),
    "all at once": last_hop(
        R2,
        mpp=None,
        amp=AMP(digest("r"), digest("s"), 0),
        encrypted_data=b"\x00",
        blinding_point=P,
        blinded_total_msat=2**64 - 1,
        metadata=bytes(range(256)),
        custom_records={65_536: b"", 2**64 - 1: b"\xff" * 500, 2**63: b"a"},
    ),
    "largest MPP total": last_hop(R2, mpp=MPP(addr("A"), 2**64 - 1)),
    "blinded without point or metadata": one_hop(555, enc=b"\x01", total=1),
    "empty metadata": last_hop(R2, metadata=b""),
    "no metadata": last_hop(R2, metadata=None),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_route_is_kept(store, route):
    identifier = begun(store, 1_000)
    if route.hops[-1].mpp is None and not route.hops[-1].encrypted_data:
        route = last_hop(route, amount_to_forward_msat=1_000)
    attempt = make_attempt(7, route)  # not the number of its payment
    registered = store.register_attempt(identifier, attempt)
    read = store.fetch_payment(identifier)
    (listed,) = everything(store).payments
    assert registered == read == listed
    assert read.attempts == (attempt,)
    assert store.fetch_in_flight_payments() == [read]


@pytest.mark.parametrize(
    "records", [{}, {65_536: b"\x01\x02\x03"}, {2**64 - 1: b"", 65_537: b"\0"}]
)
@pytest.mark.parametrize("request_", [b"", b"hola", bytes(range(256)) * 16])
@pytest.mark.parametrize("value", [0, 555, 2**63, 2**64 - 1])
def test_creation_info_is_kept(store, value, request_, records):  # rows 98, 123, 124
    info = make_info(value, payment_request=request_, first_hop_custom_records=records)
    store.init_payment(info.identifier, info)
    assert store.fetch_payment(info.identifier).info == info
    assert everything(store).payments[0].info == info


def test_records_come_in_the_order_of_their_types(store):
    kinds = [2**64 - 1, 65_536, 2**63, 70_000, 2**63 - 1]
    records = {kind: str(kind).encode() for kind in kinds}
    identifier = begun(store, first_hop_custom_records=records)
    route = replace(last_hop(R2, custom_records=records), first_hop_wire_records=records)
    store.register_attempt(identifier, make_attempt(1, route))
    read = store.fetch_payment(identifier)
    route = read.attempts[0].route
    for kept in (
        read.info.first_hop_custom_records,
        route.first_hop_wire_records,
        route.hops[-1].custom_records,
    ):
        assert dict(kept) == records


@pytest.mark.parametrize("payment_hash", [None, bytes(32), digest("shard")])
def test_the_hash_of_an_attempt_is_kept_and_so_is_its_absence(store, payment_hash):  # row 126
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1, payment_hash=payment_hash))
    assert store.fetch_payment(identifier).attempts[0].payment_hash == payment_hash


def test_a_session_key_is_bytes(store):  # row 128
    identifier, key = begun(store), b"\x00" + fresh()[1:]
    store.register_attempt(identifier, make_attempt(1, session_key=key))
    assert store.fetch_payment(identifier).attempts[0].session_key == key


@pytest.mark.parametrize("ns", [0, 1, 999_999_999, NOW + 123_456_789, 2**63 - 1])
def test_times_are_kept_to_the_nanosecond(store, ns):  # row 274, D9
    identifier = begun(store, 1_110, created_at_ns=ns)
    store.register_attempt(identifier, make_attempt(1, attempted_at_ns=ns))
    store.register_attempt(identifier, make_attempt(2, attempted_at_ns=ns))
    store.settle_attempt(identifier, 1, Settle(digest("preimage"), ns))
    store.fail_attempt(identifier, 2, Failure(ns, AttemptFailureReason.INTERNAL))
    read = store.fetch_payment(identifier)
    assert read.info.created_at_ns == ns
    assert [attempt.attempted_at_ns for attempt in read.attempts] == [ns, ns]
    assert read.attempts[0].settle == Settle(digest("preimage"), ns)
    assert read.attempts[1].failure == Failure(ns, AttemptFailureReason.INTERNAL)


@pytest.mark.parametrize("reason", AttemptFailureReason)
@pytest.mark.parametrize("message", [None, b"", b"\x10\x07\x00\x00", b"\xff" * 65_535])
def test_a_failure_is_kept_whatever_its_message_is(store, reason, message):  # D19
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    why = Failure(NOW, reason, source_index=2**32 - 1, message=message)
    assert store.fail_attempt(identifier, 1, why).attempts[0].failure == why
    assert store.fetch_payment(identifier).attempts[0].failure == why


@pytest.mark.parametrize("reason", FailureReason)
def test_a_reason_is_kept(store, reason):
    identifier = begun(store)
    store.fail_payment(identifier, int(reason))
    read = store.fetch_payment(identifier)
    assert read.failure_reason is reason


def test_without_hops_every_sum_stays_right(store):  # D10
    identifier = begun(store, 1_110)
    wire = replace(R2, first_hop_amount_msat=9, first_hop_wire_records={65_536: b"w"})
    store.register_attempt(identifier, make_attempt(1, wire))
    store.register_attempt(identifier, make_attempt(2))
    store.settle_attempt(identifier, 2, settle())
    whole = store.fetch_payment(identifier)
    (lean,) = store.query_payments(Query(omit_hops=True)).payments
    assert (lean.state, lean.status, lean.info) == (whole.state, whole.status, whole.info)
    assert (lean.state.remaining_msat, lean.state.fees_msat) == (0, 2 * 1_234_012)
    for one, other in zip(lean.attempts, whole.attempts, strict=True):
        assert one.route.hops == ()
        assert one.route.receiver_msat == other.route.receiver_msat == 555
        assert one.route.fees_msat == other.route.fees_msat == 1_234_012
        assert replace(one, route=other.route) == other
        stripped = replace(one.route, hops=other.route.hops, omitted_receiver_msat=None)
        assert stripped == other.route


def test_what_is_sent_may_go_beyond_64_bits_and_is_refused_all_the_same(store):
    identifier = begun(store, 2**64 - 1)
    mpp = MPP(addr("A"), 2**64 - 1)
    store.register_attempt(identifier, make_attempt(1, one_hop(2**64 - 2, mpp)))
    read = store.register_attempt(identifier, make_attempt(2, one_hop(1, mpp)))
    assert (read.state.remaining_msat, read.state.attempts_in_flight) == (0, 2)


def test_fees_may_add_up_to_more_than_64_bits(store):
    identifier = begun(store, 1_110)
    dear = replace(R2, total_amount_msat=2**64 - 1)
    store.register_attempt(identifier, make_attempt(1, dear))
    store.register_attempt(identifier, make_attempt(2, dear))
    expected = 2 * (2**64 - 1 - 555)
    assert store.fetch_payment(identifier).state.fees_msat == expected
    assert everything(store, omit_hops=True).payments[0].state.fees_msat == expected


def test_a_route_may_cost_less_than_nothing(store):
    """Nothing in lnd compares the total of a route with what its last hop forwards."""
    identifier = begun(store, 1_110)
    cheap = replace(R2, total_amount_msat=0)
    store.register_attempt(identifier, make_attempt(1, cheap))
    assert store.fetch_payment(identifier).state.fees_msat == -555
