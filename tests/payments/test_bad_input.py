"""Bad input gets a named refusal, the same on every store, and changes nothing."""

import pytest
from msgspec.structs import replace

from engine.payments import (
    AMP,
    MPP,
    FailureReason,
    Hop,
    PaymentDBError,
    Query,
    Route,
    Settle,
    StoreError,
)
from engine.payments.checking import HOPS_MAX
from tests.payments.builders import (
    R2,
    P,
    begun,
    digest,
    failure,
    fresh,
    last_hop,
    make_attempt,
    make_duplicate,
    make_info,
    make_record,
    settle,
    state_of_store,
)

U64 = 2**64

IDENTIFIERS = {
    "short": (b"\x01" * 31, "wrong_length"),
    "long": (b"\x01" * 33, "wrong_length"),
    "empty": (b"", "wrong_length"),
    "text": ("01" * 16, "wrong_type"),
    "none": (None, "wrong_type"),
    "number": (7, "wrong_type"),
}


def check_refused(store, call, code):
    """Expect this code, and that nothing is different afterwards."""
    before = state_of_store(store)
    counters = store.counters()
    with pytest.raises(PaymentDBError) as refusal:
        call()
    assert refusal.value.code == code
    assert str(refusal.value).startswith(f"{code}: ")
    assert state_of_store(store) == before
    assert store.counters() == counters


@pytest.mark.parametrize(("identifier", "code"), IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_what_is_no_identifier(store, identifier, code):
    calls = [
        lambda: store.fetch_payment(identifier),
        lambda: store.fetch_by_number(identifier, 1),
        lambda: store.init_payment(identifier, make_info()),
        lambda: store.register_attempt(identifier, make_attempt(1)),
        lambda: store.settle_attempt(identifier, 1, settle()),
        lambda: store.fail_attempt(identifier, 1, failure()),
        lambda: store.fail_payment(identifier, FailureReason.ERROR),
        lambda: store.delete_failed_attempts(identifier),
        lambda: store.delete_payment(identifier),
        lambda: store.delete_payment(identifier, failed_attempts_only=True),
    ]
    for call in calls:
        check_refused(store, call, code)


LARGE = {number: bytes(1_000) for number in range(65_536, 65_536 + 66)}
INFOS = {
    "negative value": ({"value_msat": -1}, "out_of_range"),
    "value over 64 bits": ({"value_msat": U64}, "out_of_range"),
    "fractional value": ({"value_msat": 1.0}, "wrong_type"),
    "truth as value": ({"value_msat": True}, "wrong_type"),
    "negative time": ({"created_at_ns": -1}, "out_of_range"),
    "time over 63 bits": ({"created_at_ns": 2**63}, "out_of_range"),
    "request in text": ({"payment_request": "lnbc1"}, "wrong_type"),
    "request too long": ({"payment_request": bytes(65_536)}, "records_too_large"),
    "record of the protocol": (
        {"first_hop_custom_records": {65_535: b"x"}},
        "custom_record_type",
    ),
    "record zero": ({"first_hop_custom_records": {0: b"x"}}, "custom_record_type"),
    "negative record": ({"first_hop_custom_records": {-1: b"x"}}, "out_of_range"),
    "record over 64 bits": ({"first_hop_custom_records": {U64: b"x"}}, "out_of_range"),
    "record in text": ({"first_hop_custom_records": {65_536: "x"}}, "wrong_type"),
    "record named in text": ({"first_hop_custom_records": {"65536": b"x"}}, "wrong_type"),
    "records in a list": ({"first_hop_custom_records": [(65_536, b"x")]}, "wrong_type"),
    "records too large": ({"first_hop_custom_records": LARGE}, "records_too_large"),
    "another identifier": ({"identifier": bytes(32)}, "identifier_mismatch"),
}


@pytest.mark.parametrize(("fields", "code"), INFOS.values(), ids=INFOS)
def test_what_is_no_creation_info(store, fields, code):
    info = make_info()
    begun(store)
    bad = replace(info, **fields)
    check_refused(store, lambda: store.init_payment(info.identifier, bad), code)


ROUTES = {
    "no hops": (replace(R2, hops=()), "no_route_hops"),
    "28 hops": (replace(R2, hops=(Hop(P, 1, 1, 1),) * (HOPS_MAX + 1)), "too_many_hops"),
    "hops of an omitting query": (replace(R2, omitted_receiver_msat=555), "no_route_hops"),
    "hops in a set": (replace(R2, hops=frozenset()), "wrong_type"),
    "a hop that is none": (replace(R2, hops=(None,)), "wrong_type"),
    "negative lock": (replace(R2, total_time_lock=-1), "out_of_range"),
    "lock over 32 bits": (replace(R2, total_time_lock=2**32), "out_of_range"),
    "negative total": (replace(R2, total_amount_msat=-1), "out_of_range"),
    "total over 64 bits": (replace(R2, total_amount_msat=U64), "out_of_range"),
    "first hop over 64 bits": (replace(R2, first_hop_amount_msat=U64), "out_of_range"),
    "short source": (replace(R2, source_pub_key=P[1:]), "wrong_length"),
    "wire record": (replace(R2, first_hop_wire_records={1: b""}), "custom_record_type"),
    "short key": (last_hop(R2, pub_key=P[1:]), "wrong_length"),
    "channel over 64 bits": (last_hop(R2, channel_id=U64), "out_of_range"),
    "negative channel": (last_hop(R2, channel_id=-1), "out_of_range"),
    "hop lock over 32 bits": (last_hop(R2, outgoing_time_lock=2**32), "out_of_range"),
    "negative amount": (last_hop(R2, amount_to_forward_msat=-1), "out_of_range"),
    "amount over 64 bits": (last_hop(R2, amount_to_forward_msat=U64), "out_of_range"),
    "legacy as a number": (last_hop(R2, legacy_payload=1), "wrong_type"),
    "short address": (last_hop(R2, mpp=MPP(b"\x01", 5)), "wrong_length"),
    "negative MPP total": (last_hop(R2, mpp=MPP(digest(1), -1)), "out_of_range"),
    "MPP total over 64 bits": (last_hop(R2, mpp=MPP(digest(1), U64)), "out_of_range"),
    "MPP in a tuple": (last_hop(R2, mpp=(digest(1), 5)), "wrong_type"),
    "short share": (last_hop(R2, amp=AMP(b"", digest(1), 5)), "wrong_length"),
    "short set": (last_hop(R2, amp=AMP(digest(1), b"", 5)), "wrong_length"),
    "child over 32 bits": (last_hop(R2, amp=AMP(digest(1), digest(2), 2**32)), "out_of_range"),
    "hop record": (last_hop(R2, custom_records={65_535: b""}), "custom_record_type"),
    "hop record too large": (
        last_hop(R2, custom_records={65_536: bytes(1_301)}),
        "records_too_large",
    ),
    "hop records too many": (
        last_hop(R2, custom_records=dict.fromkeys(range(65_536, 65_536 + 651), b"")),
        "records_too_large",
    ),
    "metadata too large": (last_hop(R2, metadata=bytes(1_301)), "records_too_large"),
    "metadata in text": (last_hop(R2, metadata="x"), "wrong_type"),
    "empty blinded data": (last_hop(R2, encrypted_data=b""), "blinding_without_data"),
    "blinded data too large": (last_hop(R2, encrypted_data=bytes(1_301)), "records_too_large"),
    "point without data": (last_hop(R2, blinding_point=P), "blinding_without_data"),
    "total without data": (last_hop(R2, blinded_total_msat=1), "blinding_without_data"),
    "short point": (
        last_hop(R2, encrypted_data=b"\x01", blinding_point=b"\x02"),
        "wrong_length",
    ),
    "negative blinded total": (
        last_hop(R2, encrypted_data=b"\x01", blinded_total_msat=-1),
        "out_of_range",
    ),
}
ATTEMPTS = {
    "index 0": ({"attempt_index": 0}, "attempt_index_zero"),
    "negative index": ({"attempt_index": -1}, "out_of_range"),
    "index over 63 bits": ({"attempt_index": 2**63}, "out_of_range"),
    "short session key": ({"session_key": bytes(31)}, "wrong_length"),
    "negative time": ({"attempted_at_ns": -1}, "out_of_range"),
    "time over 63 bits": ({"attempted_at_ns": 2**63}, "out_of_range"),
    "short hash": ({"payment_hash": b""}, "wrong_length"),
    "settled already": ({"settle": settle()}, "attempt_already_settled"),
    "failed already": ({"failure": failure()}, "attempt_already_failed"),
    "no route": ({"route": None}, "wrong_type"),
    **{name: ({"route": route}, code) for name, (route, code) in ROUTES.items()},
}


@pytest.mark.parametrize(("fields", "code"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_what_is_no_attempt(store, fields, code):
    identifier = begun(store)
    attempt = replace(make_attempt(1), **fields)
    check_refused(store, lambda: store.register_attempt(identifier, attempt), code)


RESULTS = {
    "short preimage": (settle(preimage=b"\x01"), "wrong_length"),
    "preimage in text": (settle(preimage="01" * 32), "wrong_type"),
    "settled before all time": (settle(-1), "out_of_range"),
    "settled after all time": (Settle(digest(1), 2**63), "out_of_range"),
    "failed before all time": (failure(seconds=-1), "out_of_range"),
    "unknown reason": (failure(4), "out_of_range"),
    "negative reason": (failure(-1), "out_of_range"),
    "reason in text": (failure("MESSAGE"), "wrong_type"),
    "negative source": (replace(failure(), source_index=-1), "out_of_range"),
    "source over 32 bits": (replace(failure(), source_index=2**32), "out_of_range"),
    "message too long": (replace(failure(), message=bytes(65_536)), "records_too_large"),
    "message in text": (replace(failure(), message="no"), "wrong_type"),
}


@pytest.mark.parametrize(("result", "code"), RESULTS.values(), ids=RESULTS)
def test_what_is_no_result(store, result, code):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    call = store.settle_attempt if isinstance(result, Settle) else store.fail_attempt
    check_refused(store, lambda: call(identifier, 1, result), code)


def test_a_result_of_the_other_kind_is_none(store):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    for call in (
        lambda: store.settle_attempt(identifier, 1, failure()),
        lambda: store.fail_attempt(identifier, 1, settle()),
        lambda: store.init_payment(identifier, None),
        lambda: store.register_attempt(identifier, None),
        lambda: store.query_payments(None),
        lambda: store.write_records([None]),
    ):
        check_refused(store, call, "wrong_type")


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (0, "attempt_index_zero"),
        (-1, "out_of_range"),
        (2**63, "out_of_range"),
        (U64, "out_of_range"),
        ("1", "wrong_type"),
        (True, "wrong_type"),
    ],
)
def test_what_is_no_index(store, index, code):
    identifier = begun(store)
    store.register_attempt(identifier, make_attempt(1))
    check_refused(store, lambda: store.settle_attempt(identifier, index, settle()), code)
    check_refused(store, lambda: store.fail_attempt(identifier, index, failure()), code)


@pytest.mark.parametrize(
    ("reason", "code"),
    [(6, "out_of_range"), (-1, "out_of_range"), (None, "wrong_type"), ("ERROR", "wrong_type")],
)
def test_what_is_no_reason(store, reason, code):
    identifier = begun(store)
    check_refused(store, lambda: store.fail_payment(identifier, reason), code)


QUERIES = {
    "negative offset": ({"index_offset": -1}, "out_of_range"),
    "offset over 64 bits": ({"index_offset": U64}, "out_of_range"),
    "negative max": ({"max_payments": -1}, "out_of_range"),
    "max over 64 bits": ({"max_payments": U64}, "out_of_range"),
    "offset in text": ({"index_offset": "0"}, "wrong_type"),
    "direction in a number": ({"reversed": 1}, "wrong_type"),
    "direction absent": ({"omit_hops": None}, "wrong_type"),
    "negative start": ({"creation_date_start": -1}, "out_of_range"),
    "end over 64 bits": ({"creation_date_end": U64}, "out_of_range"),
    "dates reversed": (
        {"creation_date_start": 6, "creation_date_end": 5},
        "dates_reversed",
    ),
}


@pytest.mark.parametrize(("fields", "code"), QUERIES.values(), ids=QUERIES)
def test_what_is_no_query(store, fields, code):
    begun(store)
    check_refused(store, lambda: store.query_payments(Query(**fields)), code)


def test_what_is_no_flag(store):
    identifier = begun(store)
    for call in (
        lambda: store.delete_payment(identifier, None),
        lambda: store.delete_payments(1),
        lambda: store.delete_payments(False, "no"),
    ):
        check_refused(store, call, "wrong_type")


ONE = make_attempt(5)
RECORDS = {
    "no number": (make_record(0), "no_sequence_number"),
    "number over 63 bits": (make_record(2**63), "out_of_range"),
    "attempt 0": (make_record(1, [replace(ONE, attempt_index=0)]), "attempt_index_zero"),
    "attempt over 63 bits": (make_record(1, [replace(ONE, attempt_index=2**63)]), "out_of_range"),
    "attempt twice": (
        make_record(1, [ONE, replace(ONE, session_key=fresh())], value_msat=2_000),
        "attempt_exists",
    ),
    "attempts out of order": (
        make_record(1, [ONE, make_attempt(4)], value_msat=2_000),
        "attempt_exists",
    ),
    "session key twice": (
        make_record(1, [ONE, replace(ONE, attempt_index=6)], value_msat=2_000),
        "session_key_exists",
    ),
    "settled and failed": (
        make_record(1, [replace(ONE, settle=settle(), failure=failure())]),
        "attempt_already_settled",
    ),
    "sent too much": (make_record(1, [ONE, make_attempt(6)]), "sent_exceeds_total"),
    "unknown reason": (make_record(1, failure_reason=6), "out_of_range"),
    "duplicate of the same number": (make_record(1, duplicates=[1]), "sequence_number_exists"),
    "duplicate twice": (make_record(1, duplicates=[2, 2]), "sequence_number_exists"),
    "duplicate without number": (make_record(1, duplicates=[0]), "no_sequence_number"),
    "duplicate of another": (
        replace(make_record(1), duplicates=(make_duplicate(bytes(32), 2),)),
        "identifier_mismatch",
    ),
}


@pytest.mark.parametrize(("record", "code"), RECORDS.values(), ids=RECORDS)
def test_what_is_no_record(store, record, code):
    store.write_records([make_record(77)])
    good = make_record(70, [make_attempt(70)])
    check_refused(store, lambda: store.write_records([good, record]), code)


@pytest.mark.parametrize(
    "fields",
    [{"failure_reason": FailureReason.ERROR}, {"settle": None}],
    ids=["settled and failed", "neither"],
)
def test_a_duplicate_is_over(store, fields):  # rows 211, and D18
    record = make_record(1)
    duplicate = make_duplicate(record.info.identifier, 2, **fields)
    bad = replace(record, duplicates=(duplicate,))
    check_refused(store, lambda: store.write_records([bad]), "duplicate_not_over")


def test_what_moves_is_checked_too(store):
    for call, code in (
        (lambda: store.raise_counters(-1), "out_of_range"),
        (lambda: store.raise_counters(attempt_index=2**63), "out_of_range"),
        (lambda: store.read_records(after=-1), "out_of_range"),
        (lambda: store.read_records(batch_size=0), "out_of_range"),
        (lambda: store.read_records(batch_size=10_001), "out_of_range"),
        (lambda: store.write_records([], note="text"), "wrong_type"),
        (lambda: store.write_records([], note=bytes(65_536)), "records_too_large"),
        (lambda: store.fetch_by_number(fresh(), 2**63), "out_of_range"),
    ):
        check_refused(store, call, code)


def test_a_closed_store_says_so(store):
    identifier = begun(store)
    store.close()
    store.close()
    for call in (
        lambda: store.fetch_payment(identifier),
        lambda: store.init_payment(identifier, make_info(identifier=identifier)),
        lambda: store.query_payments(Query()),
        store.next_attempt_index,
        store.counters,
    ):
        with pytest.raises(StoreError):
            call()


def test_a_list_of_hops_is_as_good_as_a_tuple(store):
    identifier = begun(store)
    route = Route(1, 555, P, [Hop(P, 1, 1, 555)])
    assert store.register_attempt(identifier, make_attempt(1, route)).attempts[0].route == route
