"""Payments, attempts and routes in words; the fixtures of the conformance tables.

The tables count attempts of `mk` from 0; index 0 is never given and is refused, so here every index
is one higher than in the tables.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from msgspec.structs import replace

from engine.payments import (
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Hop,
    Payment,
    PaymentDB,
    PaymentStatus,
    Query,
    Response,
    Route,
    Settle,
)
from engine.payments.checking import RECORD_OVERHEAD_BYTES
from engine.payments.records import PaymentRecord
from engine.payments.rules import TERMINAL

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
P = b"\x02" + b"\x11" * 32
"""A public key."""

PREIMAGE = b"\x33" * 32
ZERO = bytes(32)
STATUS = {status.name.title().replace("_", ""): status for status in PaymentStatus}
"""The status words of the tables: Initiated, InFlight, Succeeded, Failed."""

_serial = count(1)


def digest(*words: object) -> bytes:
    """Return 32 bytes that stand for `words`."""
    return hashlib.sha256(repr(words).encode()).digest()


def fresh() -> bytes:
    """Return 32 bytes that nothing else in this run is called."""
    return digest("fresh", next(_serial))


def addr(letter: str) -> bytes:
    """Return the payment address that the tables call by a letter."""
    return digest("address", letter)


R2 = Route(
    total_time_lock=123,
    total_amount_msat=1_234_567,
    source_pub_key=P,
    hops=(
        Hop(P, 12_345, 111, 555),
        Hop(
            *(P, 12_345, 111, 555),
            mpp=MPP(b"\x42" + bytes(31), 32),
            metadata=b"\x01\x02\x03",
            custom_records={65_536: b"", 80_001: b""},
        ),
    ),
)
RB = Route(
    total_time_lock=150,
    total_amount_msat=1_000,
    source_pub_key=P,
    hops=(
        Hop(P, 1, 0, 0, encrypted_data=b"\x01\x03\x03", blinding_point=P),
        Hop(P, 2, 0, 0, encrypted_data=b"\x03\x02\x01"),
        Hop(P, 3, 100, 1_000, encrypted_data=b"\x02\x02\x02", blinded_total_msat=1_000),
    ),
)
CREATION_RECORDS = {
    65_537: b"test_record_1",
    65_538: b"test_record_2",
    65_539: b"\x01\x02\x03\x04\x05",
}


def make_info(value_msat: int = 555, **fields: Any) -> CreationInfo:
    """Return the standard creation info C, with another identifier each time."""
    standard = {
        "identifier": fresh(),
        "created_at_ns": NOW,
        "payment_request": b"hola",
        "first_hop_custom_records": CREATION_RECORDS,
    }
    return CreationInfo(value_msat=value_msat, **standard | fields)


def make_attempt(attempt_index: int, route: Route = R2, **fields: Any) -> Attempt:
    """Return an attempt with a session key of its own."""
    standard = {"session_key": fresh(), "attempted_at_ns": NOW + 5, "payment_hash": digest("hash")}
    return Attempt(attempt_index=attempt_index, route=route, **standard | fields)


def last_hop(route: Route, **fields: Any) -> Route:
    """Return `route` with other fields in its last hop."""
    *before, last = route.hops
    return replace(route, hops=(*before, replace(last, **fields)))


def one_hop(amount: int, mpp: MPP | None = None, enc: bytes | None = None, total: int = 0) -> Route:
    """Return the route of h(a; mpp; enc; tot)."""
    hop = Hop(P, 1, 100, amount, mpp=mpp, encrypted_data=enc, blinded_total_msat=total)
    return Route(100, amount, P, (hop,))


def shard(amount: int = 185, total: int = 555, letter: str = "A") -> Route:
    """Return R2 as a part of a payment."""
    return last_hop(R2, amount_to_forward_msat=amount, mpp=MPP(addr(letter), total))


def plain(index: int, value: int = 185) -> Attempt:
    """Return an attempt without custom records, of a part of a payment."""
    route = shard(value)
    hops = tuple(replace(hop, custom_records={}) for hop in route.hops)
    return make_attempt(index, replace(route, hops=hops, first_hop_wire_records={}))


def empty_records(bytes_max: int) -> dict[int, bytes]:
    """Return as many custom records as there may be in so many bytes."""
    return {65_536 + number: b"" for number in range(bytes_max // RECORD_OVERHEAD_BYTES)}


def settle(seconds: int = 1_000, preimage: bytes = PREIMAGE) -> Settle:
    """Return what settles an attempt at this second."""
    return Settle(preimage, seconds * SECOND)


def failure(
    reason: AttemptFailureReason = AttemptFailureReason.UNREADABLE, seconds: int = 2_000
) -> Failure:
    """Return what fails an attempt at this second."""
    return Failure(seconds * SECOND, reason)


def begun(store: PaymentDB, value_msat: int = 555, **fields: Any) -> bytes:
    """Begin a payment; return its identifier."""
    info = make_info(value_msat, **fields)
    store.init_payment(info.identifier, info)
    return info.identifier


def begun_plain(store: PaymentDB, **fields: Any) -> bytes:
    """Begin a payment without custom records."""
    return begun(store, **{"first_hop_custom_records": {}} | fields)


def mk(store: PaymentDB, words: Sequence[str], attempts: int = 2) -> list[bytes]:
    """Make payments of these statuses in order, each of two attempts; return their identifiers."""
    indexes = count(store.counters().attempt_index + 1)
    return [made(store, word, indexes, attempts) for word in words]


def made(store: PaymentDB, word: str, indexes: Iterator[int], attempts: int) -> bytes:
    """Make a payment of one status."""
    identifier = begun(store)
    for _ in range(attempts - 1):
        index = next(indexes)
        store.register_attempt(identifier, make_attempt(index))
        store.fail_attempt(identifier, index, failure())
    index = next(indexes)
    store.register_attempt(identifier, make_attempt(index))
    if word == "Failed":
        store.fail_attempt(identifier, index, failure())
        store.fail_payment(identifier, FailureReason.NO_ROUTE)
    if word == "Succeeded":
        store.settle_attempt(identifier, index, settle())
    return identifier


def make_duplicate(
    identifier: bytes, sequence_number: int, settled: bool = True, **fields: Any
) -> DuplicatePayment:
    """Return a legacy duplicate that is over."""
    standard: dict[str, Any] = {"value_msat": 2_000_000, "created_at_ns": NOW, "settle": settle()}
    if not settled:
        standard |= {"settle": None, "failure_reason": FailureReason.ERROR}
    return DuplicatePayment(sequence_number, identifier, **standard | fields)


def make_record(
    sequence_number: int,
    attempts: Sequence[Attempt] = (),
    duplicates: Sequence[int] = (),
    failure_reason: FailureReason | None = None,
    **fields: Any,
) -> PaymentRecord:
    """Return a payment to be moved in, with settled duplicates of these numbers."""
    info = make_info(**fields)
    return PaymentRecord(
        sequence_number,
        info,
        tuple(attempts),
        failure_reason,
        tuple(make_duplicate(info.identifier, number) for number in duplicates),
    )


# What is read -------------------------------------------------------------------------------------


def everything(store: PaymentDB, **fields: Any) -> Response:
    """Return all payments and duplicates of a store."""
    return store.query_payments(Query(max_payments=2**64 - 1, **fields))


def statuses(store: PaymentDB) -> list[str]:
    """Return the status words of all payments, oldest first."""
    words = {status: word for word, status in STATUS.items()}
    return [words[payment.status] for payment in everything(store).payments]


def attempt_counts(store: PaymentDB) -> list[int]:
    """Return how many attempts each payment has, oldest first."""
    return [len(payment.attempts) for payment in everything(store).payments]


def returned(response: Response) -> list[int]:
    """Return the sequence numbers of a page, payments and duplicates, ascending."""
    payments = [payment.sequence_number for payment in response.payments]
    duplicates = [
        each.sequence_number for some in response.duplicate_payments.values() for each in some
    ]
    assert payments == sorted(payments)
    return sorted(payments + duplicates)


def state_of_store(store: PaymentDB) -> Mapping[str, Any]:
    """Return all that can be seen of a store, after checking it against itself."""
    response = everything(store, count_total=True)
    in_flight = store.fetch_in_flight_payments()
    assert response.total_count == len(response.payments)
    assert in_flight == [each for each in response.payments if each.status not in TERMINAL]
    records = [record for batch in store.read_records(batch_size=3) for record in batch]
    report = store.verify()
    assert report.is_sound, report
    return {"response": response, "records": records}


def paid(payment: Payment) -> tuple[str, int]:
    """Return the status word of a payment and how many attempts it has."""
    return payment.status.name, len(payment.attempts)
