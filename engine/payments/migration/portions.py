"""How many payments to hold at a time: by their size, since one may have thousands of attempts.

Nothing says how large a payment is before it is read. So a read of many begins with one, takes
twice as many each time, and as few as fit once one was large.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from engine.payments import memory
from engine.payments.records import PaymentRecord
from engine.payments.values import Payment

PORTION_SIZE_MAX: Final = 64
"""Payments of a read, whatever their size: so many large ones may come after small ones."""

PORTION_BYTES_MAX: Final = 2 << 20
"""What a read may take, as far as the payments before it tell."""

BATCH_BYTES_MAX: Final = 8 << 20
"""A batch of this size takes no further portion."""

READ: Final = memory.Sizes(payment=600, attempt=500, hop=350, record=100)
DUPLICATE_BYTES: Final = 1_500
"""What each takes as it is read, where much is shared; measured, give or take a fifth."""


def weight_of(payment: PaymentRecord | Payment) -> int:
    """Return about how many bytes of memory a payment takes."""
    weight = memory.weight_of(payment, READ)
    if isinstance(payment, PaymentRecord):
        weight += DUPLICATE_BYTES * len(payment.duplicates)
    return weight


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
