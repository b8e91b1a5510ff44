"""The records of the LMDB store, and the way from values to records and back.

Records are msgpack arrays. A field that is added goes to the end and has a default; none is removed
or moved. They are apart from the values of the interface, so each may change without the other.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from engine.payments.state import FAILED, SETTLED, Tally
from engine.payments.values import (
    AMP,
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Hop,
    Route,
    Settle,
)

_FEES_BASE: Final = 2**63
"""Fees may be below 0 and above 64 bits; they are kept as two numbers."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Anything that is stored."""


class CountersRow(Row, frozen=True):
    """The counters of the store.

    Attributes:
        attempt_index: The end of the last block of indexes given to a handle, or above.
        moved_index: The highest index that was moved in, or that counters were raised to.
    """

    sequence_number: int = 0
    attempt_index: int = 0
    payments: int = 0
    duplicates: int = 0
    moved_index: int = 0


class HeaderRow(Row, frozen=True):
    """What changes in the life of a payment, and what decides about a call."""

    sequence_number: int
    value_msat: int
    created_at_ns: int
    failure_reason: int | None = None
    in_flight: int = 0
    settled: int = 0
    failed: int = 0
    sent_msat: int = 0
    fees_high: int = 0
    fees_low: int = 0

    @property
    def tally(self) -> Tally:
        """The attempts, counted."""
        fees_msat = self.fees_high * _FEES_BASE + self.fees_low
        return Tally(self.in_flight, self.settled, self.failed, self.sent_msat, fees_msat)

    @property
    def reason(self) -> FailureReason | None:
        """The failure reason, or none."""
        return None if self.failure_reason is None else FailureReason(self.failure_reason)


class InfoRow(Row, frozen=True):
    """What never changes in the life of a payment."""

    payment_request: bytes
    first_hop_custom_records: dict[int, bytes]


class AttemptRow(Row, frozen=True):
    """An attempt without its hops and its result."""

    session_key: bytes
    attempted_at_ns: int
    payment_hash: bytes | None
    total_time_lock: int
    total_amount_msat: int
    source_pub_key: bytes
    first_hop_amount_msat: int
    first_hop_wire_records: dict[int, bytes]
    receiver_msat: int


class ResultRow(Row, frozen=True):
    """How an attempt ended: `code` is SETTLED or FAILED."""

    code: int
    at_ns: int
    preimage: bytes | None = None
    reason: int = 0
    source_index: int = 0
    message: bytes | None = None


class MppRow(Row, frozen=True):
    """See `MPP`."""

    payment_addr: bytes
    total_msat: int


class AmpRow(Row, frozen=True):
    """See `AMP`."""

    root_share: bytes
    set_id: bytes
    child_index: int


class HopRow(Row, frozen=True):
    """See `Hop`; the same fields in the same order."""

    pub_key: bytes
    channel_id: int
    outgoing_time_lock: int
    amount_to_forward_msat: int
    legacy_payload: bool
    mpp: MppRow | None
    amp: AmpRow | None
    encrypted_data: bytes | None
    blinding_point: bytes | None
    blinded_total_msat: int
    metadata: bytes | None
    custom_records: dict[int, bytes]


class OldAttemptRow(Row, frozen=True):
    """The attempt of a duplicate."""

    attempt_index: int
    attempt: AttemptRow
    hops: list[HopRow]
    results: list[ResultRow]


class DuplicateRow(Row, frozen=True):
    """See `DuplicatePayment`."""

    value_msat: int
    created_at_ns: int
    payment_request: bytes
    failure_reason: int | None
    settle: ResultRow | None
    attempt: OldAttemptRow | None


encode: Final = msgspec.msgpack.Encoder().encode
decode_counters: Final = msgspec.msgpack.Decoder(CountersRow).decode
decode_header: Final = msgspec.msgpack.Decoder(HeaderRow).decode
decode_info: Final = msgspec.msgpack.Decoder(InfoRow).decode
decode_attempt: Final = msgspec.msgpack.Decoder(AttemptRow).decode
decode_result: Final = msgspec.msgpack.Decoder(ResultRow).decode
decode_hops: Final = msgspec.msgpack.Decoder(list[HopRow]).decode
decode_duplicate: Final = msgspec.msgpack.Decoder(DuplicateRow).decode


# To records ---------------------------------------------------------------------------------------


def header_row(
    number: int,
    info: CreationInfo,
    tally: Tally,
    failure_reason: FailureReason | None,
) -> HeaderRow:
    """Return the header of a payment."""
    high, low = divmod(tally.fees_msat, _FEES_BASE)
    reason = None if failure_reason is None else int(failure_reason)
    return HeaderRow(
        number,
        info.value_msat,
        info.created_at_ns,
        reason,
        tally.in_flight,
        tally.settled,
        tally.failed,
        tally.sent_msat,
        high,
        low,
    )


def info_row(info: CreationInfo) -> InfoRow:
    """Return the unchanging part of a payment."""
    return InfoRow(info.payment_request, _records(info.first_hop_custom_records))


def attempt_row(attempt: Attempt) -> AttemptRow:
    """Return an attempt without hops and result."""
    route = attempt.route
    return AttemptRow(
        attempt.session_key,
        attempt.attempted_at_ns,
        attempt.payment_hash,
        route.total_time_lock,
        route.total_amount_msat,
        route.source_pub_key,
        route.first_hop_amount_msat,
        _records(route.first_hop_wire_records),
        route.receiver_msat,
    )


def hop_rows(route: Route) -> list[HopRow]:
    """Return the hops of a route."""
    return [_hop_row(hop) for hop in route.hops]


def _hop_row(hop: Hop) -> HopRow:
    mpp, amp = hop.mpp, hop.amp
    return HopRow(
        hop.pub_key,
        hop.channel_id,
        hop.outgoing_time_lock,
        hop.amount_to_forward_msat,
        hop.legacy_payload,
        None if mpp is None else MppRow(mpp.payment_addr, mpp.total_msat),
        None if amp is None else AmpRow(amp.root_share, amp.set_id, amp.child_index),
        hop.encrypted_data,
        hop.blinding_point,
        hop.blinded_total_msat,
        hop.metadata,
        _records(hop.custom_records),
    )


def result_row(result: Settle | Failure) -> ResultRow:
    """Return how an attempt ended."""
    if isinstance(result, Settle):
        return ResultRow(SETTLED, result.settled_at_ns, result.preimage)
    return ResultRow(
        *(FAILED, result.failed_at_ns, None),
        *(int(result.reason), result.source_index, result.message),
    )


def duplicate_row(duplicate: DuplicatePayment) -> DuplicateRow:
    """Return a duplicate without what its key says."""
    reason, settle, attempt = duplicate.failure_reason, duplicate.settle, duplicate.attempt
    return DuplicateRow(
        *(duplicate.value_msat, duplicate.created_at_ns, duplicate.payment_request),
        None if reason is None else int(reason),
        None if settle is None else result_row(settle),
        None if attempt is None else _old_attempt_row(attempt),
    )


def _old_attempt_row(attempt: Attempt) -> OldAttemptRow:
    results = [result_row(each) for each in (attempt.settle, attempt.failure) if each is not None]
    return OldAttemptRow(
        attempt.attempt_index, attempt_row(attempt), hop_rows(attempt.route), results
    )


def _records(records: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return custom records in the order of their types, so that equal ones are equal bytes."""
    return dict(sorted(records.items())) if len(records) > 1 else dict(records)


# From records -------------------------------------------------------------------------------------


def info_of(identifier: bytes, header: HeaderRow, info: InfoRow) -> CreationInfo:
    """Return what is to be paid."""
    return CreationInfo(
        *(identifier, header.value_msat, header.created_at_ns),
        *(info.payment_request, info.first_hop_custom_records),
    )


def attempt_of(
    index: int, row: AttemptRow, hops: list[HopRow] | None, result: ResultRow | None
) -> Attempt:
    """Return an attempt; `hops` is None when they were left out."""
    route = Route(
        *(row.total_time_lock, row.total_amount_msat, row.source_pub_key),
        () if hops is None else tuple([_hop_of(hop) for hop in hops]),
        *(row.first_hop_amount_msat, row.first_hop_wire_records),
        row.receiver_msat if hops is None else None,
    )
    settle = failure = None
    if result is not None:
        if result.code == SETTLED:
            settle = settle_of(result)
        else:
            failure = failure_of(result)
    return Attempt(
        *(index, row.session_key, route, row.attempted_at_ns, row.payment_hash, settle, failure)
    )


def _hop_of(row: HopRow) -> Hop:
    if row.mpp is None and row.amp is None:
        return Hop(*astuple(row))
    fields: list[Any] = list(astuple(row))
    fields[5] = None if row.mpp is None else MPP(*astuple(row.mpp))
    fields[6] = None if row.amp is None else AMP(*astuple(row.amp))
    return Hop(*fields)


def settle_of(row: ResultRow) -> Settle:
    """Return what settled an attempt."""
    return Settle(row.preimage or b"", row.at_ns)


def failure_of(row: ResultRow) -> Failure:
    """Return what failed an attempt."""
    return Failure(row.at_ns, AttemptFailureReason(row.reason), row.source_index, row.message)


def duplicate_of(identifier: bytes, number: int, row: DuplicateRow) -> DuplicatePayment:
    """Return a duplicate."""
    return DuplicatePayment(
        *(number, identifier, row.value_msat, row.created_at_ns, row.payment_request),
        None if row.failure_reason is None else FailureReason(row.failure_reason),
        None if row.settle is None else settle_of(row.settle),
        None if row.attempt is None else _old_attempt_of(row.attempt),
    )


def _old_attempt_of(row: OldAttemptRow) -> Attempt:
    attempt = attempt_of(row.attempt_index, row.attempt, row.hops, None)
    settles = [settle_of(each) for each in row.results if each.code == SETTLED]
    failures = [failure_of(each) for each in row.results if each.code == FAILED]
    return msgspec.structs.replace(
        attempt,
        settle=settles[0] if settles else None,
        failure=failures[0] if failures else None,
    )
