"""The look of every value that comes in: type, length, range. Pure; nothing is looked up.

Each store calls these first thing, so that bad input is refused with the same code everywhere and
never reaches a driver.
"""

from collections.abc import Mapping
from typing import Any, Final

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.values import (
    AMOUNT_MSAT_MAX,
    AMP,
    MPP,
    NUMBER_MAX,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Hop,
    Query,
    Route,
    Settle,
)

HASH_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 33
U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1
CUSTOM_RECORD_TYPE_MIN: Final = 65_536

HOPS_MAX: Final = 27
"""An onion has 1,300 bytes for its hops. The smallest payload takes 47 (length 1, amount 2, lock 2,
channel 10, MAC 32) and the last one, without a channel, 37: (1300 - 37) // 47 + 1 = 27. BOLT 4."""

HOP_BYTES_MAX: Final = 1_300
"""What one hop can carry in an onion; each of its byte strings, and its custom records together."""

MESSAGE_BYTES_MAX: Final = 65_535
"""The largest message of the protocol: first-hop records and failure messages travel in one."""

BATCH_MAX: Final = 10_000

RECORD_OVERHEAD_BYTES: Final = 2
"""A custom record takes at least a byte for its type and one for its length, so even empty ones
are bounded."""


def refuse_type(name: str, wanted: str, value: object) -> PaymentDBError:
    """Return the refusal of a value that is of another type than `wanted`."""
    detail = f"{name} must be {wanted}, not {type(value).__name__}"
    return PaymentDBError(PaymentDBCode.WRONG_TYPE, detail=detail)


def check_is(name: str, value: object, wanted: type) -> None:
    """Allow only a value of the type `wanted`."""
    if not isinstance(value, wanted):
        raise refuse_type(name, wanted.__name__, value)


def check_number(name: str, value: object, highest: int) -> None:
    """Allow a whole number from 0 to `highest`; True and False are not numbers here."""
    if type(value) is int and 0 <= value <= highest:
        return  # nearly always; what is not so is looked at more closely
    if not isinstance(value, int) or isinstance(value, bool):
        raise refuse_type(name, "int", value)
    if not 0 <= value <= highest:
        raise PaymentDBError(
            PaymentDBCode.OUT_OF_RANGE, expected=highest, actual=int(value), detail=name
        )


def check_bytes(name: str, value: object, length: int) -> None:
    """Allow bytes of exactly this length."""
    if type(value) is bytes and len(value) == length:
        return
    if not isinstance(value, bytes):
        raise refuse_type(name, "bytes", value)
    if len(value) != length:
        raise PaymentDBError(
            PaymentDBCode.WRONG_LENGTH, expected=length, actual=len(value), detail=name
        )


def check_blob(name: str, value: object, longest: int) -> None:
    """Allow bytes of at most this length."""
    if type(value) is bytes and len(value) <= longest:
        return
    if not isinstance(value, bytes):
        raise refuse_type(name, "bytes", value)
    if len(value) > longest:
        raise PaymentDBError(
            PaymentDBCode.RECORDS_TOO_LARGE, expected=longest, actual=len(value), detail=name
        )


def check_records(name: str, records: object, bytes_max: int) -> None:
    """Allow custom records: types from 65,536, values that together fit in `bytes_max`."""
    if type(records) is dict and not records:
        return
    if not isinstance(records, Mapping):
        raise refuse_type(name, "a mapping", records)
    size = 0
    for kind, value in records.items():
        check_number(f"a type of {name}", kind, U64_MAX)
        if kind < CUSTOM_RECORD_TYPE_MIN:
            raise PaymentDBError(
                PaymentDBCode.CUSTOM_RECORD_TYPE,
                expected=CUSTOM_RECORD_TYPE_MIN,
                actual=kind,
                detail=name,
            )
        check_blob(f"record {kind} of {name}", value, bytes_max)
        size += len(value) + RECORD_OVERHEAD_BYTES
    if size > bytes_max:
        raise PaymentDBError(
            PaymentDBCode.RECORDS_TOO_LARGE, expected=bytes_max, actual=size, detail=name
        )


# The values of the calls --------------------------------------------------------------------------


def check_identifier(identifier: object) -> None:
    """Allow 32 bytes."""
    check_bytes("identifier", identifier, HASH_BYTES)


def check_creation(identifier: object, info: object) -> None:
    """Allow creation info of the payment `identifier`."""
    check_identifier(identifier)
    if not isinstance(info, CreationInfo):
        raise refuse_type("info", "CreationInfo", info)
    check_identifier(info.identifier)
    if info.identifier != identifier:
        raise PaymentDBError(PaymentDBCode.IDENTIFIER_MISMATCH)
    check_number("value_msat", info.value_msat, AMOUNT_MSAT_MAX)
    check_number("created_at_ns", info.created_at_ns, NUMBER_MAX)
    check_blob("payment_request", info.payment_request, MESSAGE_BYTES_MAX)
    check_records("first_hop_custom_records", info.first_hop_custom_records, MESSAGE_BYTES_MAX)


def check_attempt_index(attempt_index: object) -> None:
    """Allow 1 to 2^63-1."""
    check_number("attempt_index", attempt_index, NUMBER_MAX)
    if attempt_index == 0:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_INDEX_ZERO)


def check_new_attempt(attempt: object) -> None:
    """Allow an attempt that is about to be made: nothing came back yet."""
    check_attempt(attempt)
    assert isinstance(attempt, Attempt)
    if attempt.settle is not None:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_ALREADY_SETTLED, actual=attempt.attempt_index)
    if attempt.failure is not None:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_ALREADY_FAILED, actual=attempt.attempt_index)


def check_attempt(attempt: object) -> None:
    """Allow an attempt, resolved or not."""
    if not isinstance(attempt, Attempt):
        raise refuse_type("attempt", "Attempt", attempt)
    check_attempt_index(attempt.attempt_index)
    check_bytes("session_key", attempt.session_key, HASH_BYTES)
    check_number("attempted_at_ns", attempt.attempted_at_ns, NUMBER_MAX)
    if attempt.payment_hash is not None:
        check_bytes("payment_hash", attempt.payment_hash, HASH_BYTES)
    check_route(attempt.route)
    if attempt.settle is not None:
        check_settle(attempt.settle)
    if attempt.failure is not None:
        check_failure(attempt.failure)
    if attempt.settle is not None and attempt.failure is not None:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_ALREADY_SETTLED, actual=attempt.attempt_index)


def check_route(route: object) -> None:
    """Allow a whole route of 1 to 27 hops."""
    if not isinstance(route, Route):
        raise refuse_type("route", "Route", route)
    check_number("total_time_lock", route.total_time_lock, U32_MAX)
    check_number("total_amount_msat", route.total_amount_msat, AMOUNT_MSAT_MAX)
    check_number("first_hop_amount_msat", route.first_hop_amount_msat, AMOUNT_MSAT_MAX)
    check_bytes("source_pub_key", route.source_pub_key, PUBLIC_KEY_BYTES)
    check_records("first_hop_wire_records", route.first_hop_wire_records, MESSAGE_BYTES_MAX)
    check_is("hops", route.hops, tuple)
    if not route.hops or route.omitted_receiver_msat is not None:
        raise PaymentDBError(PaymentDBCode.NO_ROUTE_HOPS)
    if len(route.hops) > HOPS_MAX:
        raise PaymentDBError(PaymentDBCode.TOO_MANY_HOPS, expected=HOPS_MAX, actual=len(route.hops))
    for hop in route.hops:
        check_hop(hop)


def check_hop(hop: object) -> None:
    """Allow a hop of a route."""
    if not isinstance(hop, Hop):
        raise refuse_type("a hop", "Hop", hop)
    check_bytes("pub_key", hop.pub_key, PUBLIC_KEY_BYTES)
    check_number("channel_id", hop.channel_id, U64_MAX)
    check_number("outgoing_time_lock", hop.outgoing_time_lock, U32_MAX)
    check_number("amount_to_forward_msat", hop.amount_to_forward_msat, AMOUNT_MSAT_MAX)
    check_is("legacy_payload", hop.legacy_payload, bool)
    if hop.mpp is not None:
        check_mpp(hop.mpp)
    if hop.amp is not None:
        check_amp(hop.amp)
    check_blinding(hop)
    if hop.metadata is not None:
        check_blob("metadata", hop.metadata, HOP_BYTES_MAX)
    check_records("custom_records", hop.custom_records, HOP_BYTES_MAX)


def check_blinding(hop: Hop) -> None:
    """Allow the blinded fields of a hop: all of them rest on encrypted data."""
    check_number("blinded_total_msat", hop.blinded_total_msat, AMOUNT_MSAT_MAX)
    if hop.blinding_point is not None:
        check_bytes("blinding_point", hop.blinding_point, PUBLIC_KEY_BYTES)
    if hop.encrypted_data is None:
        if hop.blinding_point is not None or hop.blinded_total_msat:
            raise PaymentDBError(PaymentDBCode.BLINDING_WITHOUT_DATA)
        return
    check_blob("encrypted_data", hop.encrypted_data, HOP_BYTES_MAX)
    if not hop.encrypted_data:
        raise PaymentDBError(PaymentDBCode.BLINDING_WITHOUT_DATA)


def check_mpp(mpp: object) -> None:
    """Allow the record of a part."""
    if not isinstance(mpp, MPP):
        raise refuse_type("mpp", "MPP", mpp)
    check_bytes("payment_addr", mpp.payment_addr, HASH_BYTES)
    check_number("total_msat", mpp.total_msat, AMOUNT_MSAT_MAX)


def check_amp(amp: object) -> None:
    """Allow the record of an AMP shard."""
    if not isinstance(amp, AMP):
        raise refuse_type("amp", "AMP", amp)
    check_bytes("root_share", amp.root_share, HASH_BYTES)
    check_bytes("set_id", amp.set_id, HASH_BYTES)
    check_number("child_index", amp.child_index, U32_MAX)


def check_settle(settle: object) -> None:
    """Allow what settles an attempt."""
    if not isinstance(settle, Settle):
        raise refuse_type("settle", "Settle", settle)
    check_bytes("preimage", settle.preimage, HASH_BYTES)
    check_number("settled_at_ns", settle.settled_at_ns, NUMBER_MAX)


def check_failure(failure: object) -> None:
    """Allow what fails an attempt."""
    if not isinstance(failure, Failure):
        raise refuse_type("failure", "Failure", failure)
    check_number("failed_at_ns", failure.failed_at_ns, NUMBER_MAX)
    check_number("reason", failure.reason, max(AttemptFailureReason))
    check_number("source_index", failure.source_index, U32_MAX)
    if failure.message is not None:
        check_blob("message", failure.message, MESSAGE_BYTES_MAX)


def check_reason(reason: object) -> None:
    """Allow a failure reason of a payment, or its number."""
    check_number("reason", reason, max(FailureReason))


def check_query(query: object) -> None:
    """Allow a query whose dates are in order."""
    if not isinstance(query, Query):
        raise refuse_type("query", "Query", query)
    for name in ("index_offset", "max_payments", "creation_date_start", "creation_date_end"):
        check_number(name, getattr(query, name), U64_MAX)
    for name in ("reversed", "include_incomplete", "count_total", "omit_hops"):
        check_is(name, getattr(query, name), bool)
    start, end = query.creation_date_start, query.creation_date_end
    if end and start > end:
        raise PaymentDBError(PaymentDBCode.DATES_REVERSED, expected=start, actual=end)


def check_in_flight(after: object, max_payments: object) -> tuple[int, int]:
    """Allow unsigned 64-bit numbers, or None for the second; return both cut to 2^63-1."""
    limit = NUMBER_MAX if max_payments is None else max_payments
    check_number("after", after, U64_MAX)
    check_number("max_payments", limit, U64_MAX)
    assert isinstance(after, int)
    assert isinstance(limit, int)
    return min(after, NUMBER_MAX), min(limit, NUMBER_MAX)


def check_sequence_number(sequence_number: object) -> None:
    """Allow 0 to 2^63-1; 0 is the number of no payment."""
    check_number("sequence_number", sequence_number, NUMBER_MAX)


def check_counters(sequence_number: object, attempt_index: object) -> None:
    """Allow what counters may be raised to."""
    check_sequence_number(sequence_number)
    check_number("attempt_index", attempt_index, NUMBER_MAX)


def check_batch(after: object, batch_size: object) -> None:
    """Allow a walk over all records: 1 to 10,000 at a time."""
    check_sequence_number(after)
    check_number("batch_size", batch_size, BATCH_MAX)
    if batch_size == 0:
        raise PaymentDBError(
            PaymentDBCode.OUT_OF_RANGE, expected=BATCH_MAX, actual=0, detail="batch_size"
        )


def check_note(note: object) -> None:
    """Allow the note of a migration: at most 65,535 bytes, or None."""
    if note is not None:
        check_blob("note", note, MESSAGE_BYTES_MAX)


def check_flags(**flags: Any) -> None:
    """Allow only True and False."""
    for name, value in flags.items():
        check_is(name, value, bool)
