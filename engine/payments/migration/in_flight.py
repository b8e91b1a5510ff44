"""A hash over the payments in flight of a store: over all that may still become money.

The counters of a store stay as they are when an attempt is settled, fails, or is registered under
an index of a block that was taken before; and so they do when a payment is given up. Each of these
is about a payment in flight, so the hash over those changes. What is over never comes back without
a new number. The hash is the same on every kind of store.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Final

import msgspec

from engine.payments.errors import PaymentDBError
from engine.payments.interface import PaymentDB
from engine.payments.migration.errors import UnacceptableRecordError
from engine.payments.migration.portions import Portion, weight_of
from engine.payments.records import PaymentRecord
from engine.payments.rules import TERMINAL
from engine.payments.state import status_of, tally_of
from engine.payments.values import Payment

NOTHING: Final = bytes(32)
"""The hash where nothing is in flight."""

_encode: Final = msgspec.msgpack.Encoder().encode


def with_moved(digest: bytes, records: Iterable[PaymentRecord]) -> bytes:
    """Return a hash with those of `records` that are in flight after what was hashed before."""
    for record in records:
        if status_of(tally_of(record.attempts), record.failure_reason) not in TERMINAL:
            digest = _chained(digest, record)
    return digest


def listed(store: PaymentDB, name: str) -> bytes:
    """Return the hash over all that a store lists as in flight.

    Raises:
        UnacceptableRecordError: one of these payments cannot be read.
    """
    digest, after, portion = NOTHING, 0, Portion()
    try:
        while payments := store.fetch_in_flight_payments(after, portion.size):
            for payment in payments:
                digest = _chained(digest, payment)
            portion.follow([*map(weight_of, payments)])
            after = payments[-1].sequence_number
    except PaymentDBError as error:
        raise UnacceptableRecordError(
            f"{name}: what is in flight after the number {after} cannot be read: {error}: run "
            "`paychan payments verify` on it"
        ) from error
    return digest


def _chained(digest: bytes, payment: Payment | PaymentRecord) -> bytes:
    return sha256(digest + sha256(_content(payment)).digest()).digest()


def _content(payment: Payment | PaymentRecord) -> bytes:
    """Return all that is stored of a payment but its duplicates, which are over."""
    parts = (payment.sequence_number, payment.info, payment.attempts, payment.failure_reason)
    if any(len(records) > 1 for records in _mappings(payment)):
        return _encode(_in_order(parts))
    return _encode(parts)


def _mappings(payment: Payment | PaymentRecord) -> Iterator[Mapping[int, bytes]]:
    yield payment.info.first_hop_custom_records
    for attempt in payment.attempts:
        yield attempt.route.first_hop_wire_records
        for hop in attempt.route.hops:
            yield hop.custom_records


def _in_order(value: object) -> object:
    """Return a value with its mappings in order: each store has an order of its own."""
    if isinstance(value, msgspec.Struct):
        return [_in_order(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, tuple | list):
        return [_in_order(each) for each in value]
    return value
