"""Read the values of a payment as lnd keeps them; the layouts are drawn above each function.

Numbers are big-endian, times nanoseconds since 1970 and 0 when unset.
"""

import struct
from typing import Final

import msgspec

from engine.core.types import NS_PER_S
from engine.payments.checking import CUSTOM_RECORD_TYPE_MIN, HASH_BYTES, MESSAGE_BYTES_MAX
from engine.payments.lnd.fields import Fields, MalformedError, big_size
from engine.payments.lnd.routes import Warn, read_route
from engine.payments.values import (
    NUMBER_MAX,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Settle,
)

_CREATION: Final = struct.Struct(">32sQqI")
_TIME: Final = struct.Struct(">q")
_SESSION_KEY: Final = struct.Struct(">32s")
_OLD_ATTEMPT: Final = struct.Struct(">Q32s")
_FAILURE_END: Final = struct.Struct(">BI")
_INDEX_ENTRY: Final = struct.Struct(">BB32s")
_NUMBER: Final = struct.Struct(">Q")

_FAILURE_REASONS: Final = {int(reason): reason for reason in AttemptFailureReason}
_PAYMENT_REASONS: Final = {int(reason): reason for reason in FailureReason}

_YEAR_ONE: Final = frozenset({-62_135_596_800, -6_795_364_578_871_345_152})
"""How Go says that a time is unset, in seconds and, with overflow, in nanoseconds."""

_FIRST_HOP_AMOUNT: Final = 0


def read_number(value: bytes) -> int:
    """Read a number of 8 bytes."""
    fields = Fields(value)
    number = int(fields.unpack(_NUMBER)[0])
    fields.end()
    return number


def read_index_entry(value: bytes) -> bytes:
    """Read what the index says of a number, kind 0 u8 · 32 · hash; return the hash."""
    fields = Fields(value)
    kind, size, identifier = fields.unpack(_INDEX_ENTRY)
    fields.end()
    if kind or size != HASH_BYTES:
        raise MalformedError(f"an entry of kind {kind} with {size} bytes is none that lnd writes")
    return bytes(identifier)


def read_creation(value: bytes) -> CreationInfo:
    """Read hash 32 · value u64 · time i64 · size u32 · request · TLV stream of custom records."""
    fields = Fields(value)
    identifier, amount, created, size = fields.unpack(_CREATION)
    request = fields.take(size)
    records = dict(fields.stream())
    _check_custom(records)
    return CreationInfo(identifier, amount, _time(created), request, records)


def read_old_creation(value: bytes) -> CreationInfo:
    """Read the same of before 2020: the time in seconds, and no records."""
    fields = Fields(value)
    identifier, amount, created, size = fields.unpack(_CREATION)
    request = fields.take(size)
    fields.end()
    seconds = 0 if created in _YEAR_ONE else created
    return CreationInfo(identifier, amount, _time(seconds * NS_PER_S), request)


def read_attempt(index: int, value: bytes, warn: Warn) -> Attempt:
    """Read session key 32 · route · time i64 · optional: hash 32 · TLV stream.

    Record 0 of the stream is the amount of the first hop; from 65536 on they go to its peer.
    """
    fields = Fields(value)
    (session_key,) = fields.unpack(_SESSION_KEY)
    route = read_route(fields, warn)
    attempted = _time(fields.unpack(_TIME)[0])
    payment_hash = fields.take(HASH_BYTES) if len(fields) else None
    records = dict(fields.stream())
    amount = records.pop(_FIRST_HOP_AMOUNT, None)
    _check_custom(records)
    if records or amount is not None:
        route = msgspec.structs.replace(
            route,
            first_hop_amount_msat=0 if amount is None else big_size(amount),
            first_hop_wire_records=records,
        )
    return Attempt(index, session_key, route, attempted, payment_hash)


def read_old_attempt(value: bytes, warn: Warn) -> Attempt:
    """Read the attempt of a duplicate: index u64 · session key 32 · route."""
    fields = Fields(value)
    index, session_key = fields.unpack(_OLD_ATTEMPT)
    route = read_route(fields, warn)
    fields.end()
    if not route.hops or index > NUMBER_MAX:
        raise MalformedError("it has no hops, or an index that no store takes")
    return Attempt(index, session_key, route, 0)


def read_settle(value: bytes) -> Settle:
    """Read preimage 32 · time i64."""
    fields = Fields(value)
    preimage = fields.take(HASH_BYTES)
    settled = _time(fields.unpack(_TIME)[0])
    fields.end()
    return Settle(preimage, settled)


def read_old_settle(value: bytes) -> Settle:
    """Read the settlement of a duplicate: the preimage alone, or as `read_settle`."""
    return Settle(value, 0) if len(value) == HASH_BYTES else read_settle(value)


def read_failure(value: bytes) -> Failure:
    """Read time i64 · compact size · message · reason u8 · source u32.

    The message stays as it came off the wire, so whatever follows in it is kept and never parsed.
    """
    fields = Fields(value)
    failed = _time(fields.unpack(_TIME)[0])
    message = fields.counted(MESSAGE_BYTES_MAX)
    reason, source = fields.unpack(_FAILURE_END)
    fields.end()
    if reason not in _FAILURE_REASONS:
        raise MalformedError(f"attempts do not fail for reason {reason}")
    return Failure(failed, _FAILURE_REASONS[reason], source, message or None)


def read_reason(value: bytes) -> FailureReason:
    """Read the one byte that says why a payment failed."""
    if len(value) != 1 or value[0] not in _PAYMENT_REASONS:
        raise MalformedError(f"payments do not fail for reason {value[:8].hex() or 'nothing'}")
    return _PAYMENT_REASONS[value[0]]


def _time(nanoseconds: int) -> int:
    if nanoseconds in _YEAR_ONE:
        return 0
    if not 0 <= nanoseconds <= NUMBER_MAX:
        raise MalformedError(f"a time of {nanoseconds} ns since 1970 is none that lnd writes")
    return nanoseconds


def _check_custom(records: dict[int, bytes]) -> None:
    if any(kind < CUSTOM_RECORD_TYPE_MIN for kind in records):
        raise MalformedError(f"record {min(records)} is not a custom one")
