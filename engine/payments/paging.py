"""What a query asks of an index of numbers, without wrap-around. Pure.

Every store turns a `Query` into a `Window` here, so that offsets and dates at the ends of their
ranges mean the same everywhere.
"""

from typing import Final

import msgspec

from engine.core.types import NS_PER_S
from engine.payments.checking import check_query
from engine.payments.values import NUMBER_MAX, PaymentStatus, Query

PAGE_DEFAULT: Final = 100


class Window(msgspec.Struct, frozen=True):
    """A query in terms of stored numbers; each fits a signed 64-bit integer.

    Payments and duplicates share one number line: the page is the first `limit` records, either
    kind, whose number, time and status are inside, walking up from `lowest` or down from `highest`.

    Attributes:
        lowest: Sequence number, inclusive.
        highest: Sequence number, inclusive; below `lowest` when nothing can match.
        descending: Whether to walk down; the answer ascends all the same.
        limit: How many records to return.
        created_from_ns: Inclusive.
        created_until_ns: Inclusive.
        status: The only one to return; None = any.
    """

    lowest: int
    highest: int
    descending: bool
    limit: int
    created_from_ns: int
    created_until_ns: int
    status: PaymentStatus | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be in it, so that a store need not look."""
        return self.lowest > self.highest or self.created_from_ns > self.created_until_ns


def window_of(query: Query) -> Window:
    """Check `query` and say what it asks for.

    Raises:
        PaymentDBError: wrong_type, out_of_range, dates_reversed.
    """
    check_query(query)
    lowest, highest = 1, NUMBER_MAX
    if query.reversed and query.index_offset:
        highest = min(query.index_offset - 1, NUMBER_MAX)
    elif query.index_offset >= NUMBER_MAX:
        highest = 0
    elif not query.reversed:
        lowest = query.index_offset + 1
    created_from_ns, created_until_ns = _seconds(query.creation_date_start, query.creation_date_end)
    return Window(
        lowest=lowest,
        highest=highest,
        descending=query.reversed,
        limit=min(query.max_payments or PAGE_DEFAULT, NUMBER_MAX),
        created_from_ns=created_from_ns,
        created_until_ns=created_until_ns,
        status=None if query.include_incomplete else PaymentStatus.SUCCEEDED,
    )


def _seconds(start: int, end: int) -> tuple[int, int]:
    """Return the nanoseconds of whole seconds, both ends inclusive; 0 = no bound."""
    if start * NS_PER_S > NUMBER_MAX:
        return 1, 0
    until_ns = (end + 1) * NS_PER_S - 1 if end else NUMBER_MAX
    return start * NS_PER_S, min(until_ns, NUMBER_MAX)
