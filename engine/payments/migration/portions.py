"""How many payments to hold at a time: by their size, since one may have thousands of attempts.

Nothing says how large a payment is before it is read. So a read of many begins with one, takes
twice as many each time, and as few as fit once one was large.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from engine.payments.records import PaymentRecord
from engine.payments.values import Attempt, Hop, Payment

PORTION_SIZE_MAX: Final = 64
"""Payments of a read, whatever their size: so many large ones may come after small ones."""

PORTION_BYTES_MAX: Final = 2 << 20
"""What a read may take, as far as the payments before it tell."""

BATCH_BYTES_MAX: Final = 8 << 20
"""A batch of this size takes no further portion."""

PAYMENT_BYTES: Final = 600
ATTEMPT_BYTES: Final = 500
HOP_BYTES: Final = 350
DUPLICATE_BYTES: Final = 1_500
"""What each takes in memory, without what may be long; measured, give or take a fifth."""


def weight_of(payment: PaymentRecord | Payment) -> int:
    """Return about how many bytes of memory a payment takes."""
    weight = PAYMENT_BYTES + len(payment.info.payment_request)
    weight += _bytes_of(payment.info.first_hop_custom_records)
    if isinstance(payment, PaymentRecord):
        weight += DUPLICATE_BYTES * len(payment.duplicates)
    return weight + sum(map(_attempt_bytes, payment.attempts))


def _attempt_bytes(attempt: Attempt) -> int:
    route, failure = attempt.route, attempt.failure
    weight = ATTEMPT_BYTES + _bytes_of(route.first_hop_wire_records)
    if failure is not None and failure.message is not None:
        weight += len(failure.message)
    return weight + sum(map(_hop_bytes, route.hops))


def _hop_bytes(hop: Hop) -> int:
    long = len(hop.metadata or b"") + len(hop.encrypted_data or b"")
    return HOP_BYTES + long + _bytes_of(hop.custom_records)


def _bytes_of(records: Mapping[int, bytes]) -> int:
    return sum(map(len, records.values())) if records else 0


class Portion:
    """How many payments to read next."""

    def __init__(self) -> None:
        self.size = 1

    def follow(self, weights: Sequence[int]) -> None:
        """Grow, as far as payments fit that are all as large as the largest of those just read."""
        fitting = PORTION_BYTES_MAX // max(weights, default=1)
        self.size = max(1, min(2 * self.size, PORTION_SIZE_MAX, fitting))


def pieces(
    records: Sequence[PaymentRecord], weights: Sequence[int]
) -> Iterator[Sequence[PaymentRecord]]:
    """Cut payments into pieces that are no larger than a portion, or one payment."""
    first = weight = 0
    for place, own in enumerate(weights):
        if place > first and weight + own > PORTION_BYTES_MAX:
            yield records[first:place]
            first, weight = place, 0
        weight += own
    if records:
        yield records[first:]
