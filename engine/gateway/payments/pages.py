"""Pages that are bounded in weight too: a payment may have any number of attempts.

How heavy payments are shows when they are read. So a page is read in parts, each as long as those
before let expect, and it ends early where it weighs as much as a long page of usual payments.
"""

from typing import Final

from msgspec.structs import replace

from engine.payments import DuplicatePayment, Payment, Query, Response
from engine.payments.interface import PaymentReader
from engine.payments.memory import weight_of

BYTES_MAX: Final = 2**24
"""About what the payments of a page take in memory, beside what they become as JSON."""

FIRST: Final = 25
"""How many are read before it is known what they weigh."""


class _Room:
    """How much more there may be in a page.

    Attributes:
        size: How many to read next; 0 when the page is whole.
    """

    def __init__(self, count: int) -> None:
        self.size = min(count, FIRST)
        self._count = count
        self._bytes = BYTES_MAX

    def take(self, found: list[Payment | DuplicatePayment]) -> None:
        """Count what was read; fewer than `size` are the last."""
        weight = sum(map(weight_of, found))
        self._count -= len(found)
        self._bytes -= weight
        fitting = self._bytes * len(found) // max(weight, 1)
        is_last = len(found) < self.size
        self.size = 0 if is_last else max(0, min(self._count, 2 * self.size, fitting))


def page_of(payments: PaymentReader, query: Query) -> Response:
    """Return the page that a query asks for, or as much of it as has room: one record at least."""
    room, parts = _Room(query.max_payments), []
    while room.size:
        part = payments.query_payments(replace(query, max_payments=room.size))
        parts.append(part)
        duplicates = (each for some in part.duplicate_payments.values() for each in some)
        room.take([*part.payments, *duplicates])
        offset = part.first_index_offset if query.reversed else part.last_index_offset
        query = replace(query, index_offset=offset, count_total=False)
    return _joined(parts[::-1] if query.reversed else parts)


def _joined(parts: list[Response]) -> Response:
    """Return one page of several, in the order of their numbers."""
    duplicates: dict[bytes, tuple[DuplicatePayment, ...]] = {}
    for part in parts:
        for identifier, some in part.duplicate_payments.items():
            duplicates[identifier] = (*duplicates.get(identifier, ()), *some)
    numbers = [(part.first_index_offset, part.last_index_offset) for part in parts]
    filled = [both for both in numbers if both != (0, 0)]
    return Response(
        payments=tuple(payment for part in parts for payment in part.payments),
        first_index_offset=filled[0][0] if filled else 0,
        last_index_offset=filled[-1][1] if filled else 0,
        total_count=max(part.total_count for part in parts),
        duplicate_payments=duplicates,
    )


def in_flight(payments: PaymentReader, after: int, limit: int) -> tuple[list[Payment], bool]:
    """Return what is in flight, and whether there is more: past the limit, or past the room."""
    room, found, has_more = _Room(limit), [], False
    while room.size:
        part = payments.fetch_in_flight_payments(after, room.size + 1)
        has_more = len(part) > room.size
        found += part[: room.size]
        after = found[-1].sequence_number if found else after
        room.take([*part[: room.size]])
    return found, has_more
