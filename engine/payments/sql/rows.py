"""Values to rows and back. Columns stand in the order of the tables."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from engine.payments.sql.database import Database, Row
from engine.payments.sql.headers import Header
from engine.payments.sql.statements import Statements
from engine.payments.state import FAILED, SETTLED, Tally, status_of
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

TWO_TO_64: Final = 2**64
BOLT_11: Final = 0

Records = Mapping[int, bytes]
by_first: Final = itemgetter(0)
by_first_two: Final = itemgetter(0, 1)

encode_attempt: Final = msgspec.msgpack.Encoder().encode
decode_attempt: Final = msgspec.msgpack.Decoder(Attempt).decode


def unsigned(stored: int) -> int:
    """Return what `Database.unsigned` was given."""
    return stored if stored >= 0 else stored + TWO_TO_64


# To rows ------------------------------------------------------------------------------------------


def kept_row(
    database: Database, tally: Tally, failure_reason: FailureReason | None
) -> tuple[Any, ...]:
    """Return what is computed of a payment, from `failure_reason` on."""
    return (
        failure_reason,
        status_of(tally, failure_reason),
        *(tally.in_flight, tally.settled, tally.failed),
        database.unsigned(tally.sent_msat),
        database.whole(tally.fees_msat),
    )


def payment_row(
    database: Database,
    number: int,
    info: CreationInfo,
    tally: Tally = Tally(),  # noqa: B008  (frozen)
    failure_reason: FailureReason | None = None,
) -> Row:
    """Return the row of a payment."""
    return (
        *(number, info.identifier, database.unsigned(info.value_msat), info.created_at_ns),
        *kept_row(database, tally, failure_reason),
    )


class AttemptRows:
    """The rows of attempts, table by table, to be added at once."""

    def __init__(self, database: Database) -> None:
        self._unsigned = database.unsigned
        self.attempts: list[Row] = []
        self.resolutions: list[Row] = []
        self.wire_records: list[Row] = []
        self.hops: list[Row] = []
        self.mpps: list[Row] = []
        self.amps: list[Row] = []
        self.blinded: list[Row] = []
        self.hop_records: list[Row] = []

    def add(self, number: int, attempt: Attempt) -> None:
        """Add an attempt of the payment that has this number."""
        index, route, unsigned = attempt.attempt_index, attempt.route, self._unsigned
        self.attempts.append(
            (
                *(index, number, attempt.session_key, attempt.attempted_at_ns),
                *(attempt.payment_hash, route.total_time_lock, unsigned(route.total_amount_msat)),
                *(route.source_pub_key, unsigned(route.first_hop_amount_msat)),
                unsigned(route.receiver_msat),
            )
        )
        for key, value in route.first_hop_wire_records.items():
            self.wire_records.append((index, unsigned(key), value))
        for place, hop in enumerate(route.hops):
            self._add_hop(index, place, hop)
        if not attempt.is_in_flight:
            self.resolutions.append(resolution_row(attempt))

    def _add_hop(self, index: int, place: int, hop: Hop) -> None:
        unsigned = self._unsigned
        self.hops.append(
            (
                *(index, place, hop.pub_key, unsigned(hop.channel_id), hop.outgoing_time_lock),
                *(unsigned(hop.amount_to_forward_msat), int(hop.legacy_payload), hop.metadata),
            )
        )
        if hop.mpp is not None:
            self.mpps.append((index, place, hop.mpp.payment_addr, unsigned(hop.mpp.total_msat)))
        if hop.amp is not None:
            amp = hop.amp
            self.amps.append((index, place, amp.root_share, amp.set_id, amp.child_index))
        if hop.encrypted_data is not None:
            total_msat = unsigned(hop.blinded_total_msat)
            self.blinded.append((index, place, hop.encrypted_data, hop.blinding_point, total_msat))
        for key, value in hop.custom_records.items():
            self.hop_records.append((index, place, unsigned(key), value))

    def by_table(self, statements: Statements) -> Iterator[tuple[str, str, list[Row]]]:
        """Yield the table, the statement and the rows of each kind, parents before children."""
        yield "payment_htlc_attempts", statements.add_attempt, self.attempts
        yield "payment_route_hops", statements.add_hop, self.hops
        yield "payment_route_hop_mpp", statements.add_mpp, self.mpps
        yield "payment_route_hop_amp", statements.add_amp, self.amps
        yield "payment_route_hop_blinded", statements.add_blinded, self.blinded
        yield "payment_hop_custom_records", statements.add_hop_record, self.hop_records
        yield (
            *("payment_attempt_first_hop_custom_records", statements.add_wire_record),
            self.wire_records,
        )
        yield "payment_htlc_attempt_resolutions", statements.add_resolution, self.resolutions


def resolution_row(attempt: Attempt) -> Row:
    """Return how an attempt ended."""
    index, settle, failure = attempt.attempt_index, attempt.settle, attempt.failure
    if settle is not None:
        return (index, SETTLED, settle.settled_at_ns, settle.preimage, None, None, None)
    assert failure is not None
    return (
        *(index, FAILED, failure.failed_at_ns, None),
        *(failure.reason, failure.source_index, failure.message),
    )


def duplicate_row(database: Database, number: int, duplicate: DuplicatePayment) -> Row:
    """Return the row of a duplicate of the payment that has this number."""
    settle, attempt = duplicate.settle, duplicate.attempt
    return (
        *(duplicate.sequence_number, number, database.unsigned(duplicate.value_msat)),
        *(duplicate.created_at_ns, duplicate.payment_request, duplicate.failure_reason),
        *((None, None) if settle is None else (settle.preimage, settle.settled_at_ns)),
        None if attempt is None else encode_attempt(attempt),
    )


# From rows ----------------------------------------------------------------------------------------

REASONS: Final[Mapping[int | None, FailureReason | None]] = {
    None: None,
    **{int(reason): reason for reason in FailureReason},
}
ATTEMPT_REASONS: Final = {int(reason): reason for reason in AttemptFailureReason}


def header_of(row: Row) -> Header:
    """Read a row of the statements that begin with a payment."""
    number, identifier, value, created_at_ns, reason, status, *counts, request, has_records = row
    in_flight, settled, failed, sent, fees = counts
    return Header(
        *(number, identifier, unsigned(value), created_at_ns, REASONS[reason], status),
        Tally(in_flight, settled, failed, unsigned(sent), int(fees)),
        request or b"",
        has_records,
    )


def attempt_of(row: Row, hops: Sequence[Hop] | None, wire_records: Records) -> Attempt:
    """Read a row of `Statements.attempts`.

    Args:
        row: An attempt with its resolution.
        hops: None = they are omitted.
        wire_records: For its first hop.
    """
    index, _, session_key, attempted_at_ns, payment_hash, lock, total, source, first, receiver = (
        row[:10]
    )
    kind, resolved_at_ns, preimage, reason, source_index, message = row[10:16]
    settle = Settle(preimage, resolved_at_ns) if kind == SETTLED else None
    failure = None
    if kind == FAILED:
        failure = Failure(resolved_at_ns, ATTEMPT_REASONS[reason], source_index, message)
    route = Route(
        *(lock, unsigned(total), source, hops or (), unsigned(first), wire_records),
        omitted_receiver_msat=unsigned(receiver) if hops is None else None,
    )
    return Attempt(index, session_key, route, attempted_at_ns, payment_hash, settle, failure)


def hop_of(row: Row, records: Records) -> Hop:
    """Read a row of `Statements.hops`."""
    _, _, pub_key, channel, lock, amount, legacy, metadata, *sides, _ = row
    address, total, root_share, set_id, child, data, point, blinded_total = sides
    return Hop(
        *(pub_key, unsigned(channel), lock, unsigned(amount), bool(legacy)),
        None if address is None else MPP(address, unsigned(total)),
        None if root_share is None else AMP(root_share, set_id, child),
        *(data, point, unsigned(blinded_total or 0), metadata, records),
    )


def duplicate_of(row: Row) -> DuplicatePayment:
    """Read a row of the statements that begin with a duplicate."""
    identifier, sequence, _, value, created_at_ns, request, reason, preimage, at_ns, attempt = row
    return DuplicatePayment(
        *(sequence, identifier, unsigned(value), created_at_ns, request, REASONS[reason]),
        None if preimage is None else Settle(preimage, at_ns),
        None if attempt is None else decode_attempt(attempt),
    )


def grouped(rows: Iterable[Row], key_of: Callable[[Row], Any]) -> Mapping[Any, Records]:
    """Gather custom records (type and value come last) by whose they are, ascending by type."""
    found: dict[Any, dict[int, bytes]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: unsigned(row[-2])):
        found[key_of(row)][unsigned(row[-2])] = row[-1]
    return found
