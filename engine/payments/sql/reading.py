"""Reads payments with all that hangs on them: a fixed number of statements, however many there are.

A page costs a statement for its payments, one for attempts, one for hops, and one more for each
kind of custom record that anything of the page has: the rows say so.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.paging import Window
from engine.payments.sql.database import Database, Row, Work
from engine.payments.sql.headers import Header
from engine.payments.sql.rows import (
    Records,
    attempt_of,
    by_first,
    by_first_two,
    duplicate_of,
    grouped,
    header_of,
    hop_of,
)
from engine.payments.state import payment_of
from engine.payments.values import (
    NO_RECORDS,
    NUMBER_MAX,
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Hop,
    Payment,
    Query,
    Response,
)

LOOK_MIN: Final = 1_000
LOOK_FACTOR: Final = 4
"""How many entries of the index of dates, or numbers, a page may look at for one that it returns,
before the other way is tried."""


class Reading:
    """Looks things up in a transaction that is under way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = database.statements

    # Whole payments -----------------------------------------------------------------------------

    def payments(
        self, work: Work, headers: Sequence[Header], *, omit_hops: bool = False
    ) -> list[Payment]:
        """Return payments whole, in the order of their headers.

        Raises:
            PaymentDBError: sent_exceeds_total.
        """
        attempts = self.attempts(work, headers, omit_hops=omit_hops)
        infos = self.infos(work, headers)
        return [
            payment_of(header.number, info, attempts.get(header.number, ()), header.failure_reason)
            for header, info in zip(headers, infos, strict=True)
        ]

    def info(self, work: Work, header: Header) -> CreationInfo:
        """Return what a payment was begun with."""
        return self.infos(work, [header])[0] if header.has_records else header.info(NO_RECORDS)

    def infos(self, work: Work, headers: Sequence[Header]) -> list[CreationInfo]:
        """Return what payments were begun with."""
        owners = [header.number for header in headers if header.has_records]
        records: Mapping[int, Records] = {}
        if owners:
            listing = self._database.listing(owners)
            records = grouped(work.rows(self._statements.payment_records, listing), by_first)
        return [header.info(records.get(header.number, NO_RECORDS)) for header in headers]

    def attempts(
        self,
        work: Work,
        headers: Sequence[Header],
        *,
        omit_hops: bool = False,
        distrust: bool = False,
    ) -> dict[int, tuple[Attempt, ...]]:
        """Return the attempts of payments by number, each ascending by index.

        Args:
            work: The transaction.
            headers: The payments.
            omit_hops: Whether routes are to be without hops.
            distrust: Look even where none are counted.
        """
        statements = self._statements
        owners = [header.number for header in headers if distrust or has_attempts(header)]
        if not owners:
            return {}
        listing = self._database.listing(owners)
        questions = [(statements.attempts, listing), (statements.hops, listing)]
        if len(owners) == 1:
            questions = [
                (statements.attempts_of_one, owners[0]),
                (statements.hops_of_one, owners[0]),
            ]
        rows, *hop_rows = work.ask(*questions[: 1 if omit_hops else 2])
        hops = None if omit_hops else self._hops(work, hop_rows[0], listing)
        wire: Mapping[int, Records] = {}
        if any(row[-1] for row in rows):
            wire = grouped(work.rows(statements.wire_records, listing), by_first)
        found: dict[int, list[Attempt]] = defaultdict(list)
        for row in sorted(rows, key=by_first):
            own = None if hops is None else hops.get(row[0], ())
            found[row[1]].append(attempt_of(row, own, wire.get(row[0], NO_RECORDS)))
        return {number: tuple(attempts) for number, attempts in found.items()}

    def _hops(self, work: Work, rows: list[Row], listing: object) -> Mapping[int, Sequence[Hop]]:
        records: Mapping[tuple[int, int], Records] = {}
        if any(row[-1] for row in rows):
            records = grouped(work.rows(self._statements.hop_records, listing), by_first_two)
        found: dict[int, tuple[Hop, ...]] = {}
        for row in sorted(rows, key=by_first_two):
            hop = hop_of(row, records.get((row[0], row[1]), NO_RECORDS) if row[-1] else NO_RECORDS)
            found[row[0]] = (*found.get(row[0], ()), hop)
        return found

    # One payment --------------------------------------------------------------------------------

    def header(self, work: Work, identifier: bytes) -> Header:
        """Return the payment that has this identifier.

        Raises:
            PaymentDBError: payment_not_initiated.
        """
        return the_only(work.rows(self._statements.header, identifier))

    def fetch(self, work: Work, identifier: bytes) -> Payment:
        """Return a payment whole."""
        return self.payments(work, [self.header(work, identifier)])[0]

    def fetch_by_number(
        self, work: Work, identifier: bytes, number: int
    ) -> Payment | DuplicatePayment:
        """Return the payment or its duplicate of this number; see `PaymentReader`."""
        header = self.header(work, identifier)
        if header.number == number:
            return self.payments(work, [header])[0]
        rows = work.rows(self._statements.duplicates, identifier)
        if not rows:
            raise PaymentDBError(PaymentDBCode.NO_DUPLICATE_BUCKET, actual=number)
        for duplicate in map(duplicate_of, rows):
            if duplicate.sequence_number == number:
                return duplicate
        raise PaymentDBError(PaymentDBCode.DUPLICATE_NOT_FOUND, actual=number)

    # Pages --------------------------------------------------------------------------------------

    def in_flight(self, work: Work, after: int, limit: int) -> list[Payment]:
        """Return payments that are not over; the index of statuses has two runs of them."""
        rows = work.rows(self._statements.in_flight, after, limit, after, limit, limit)
        return self.payments(work, [*map(header_of, rows)])

    def page(self, work: Work, query: Query, window: Window) -> Response:
        """Return the page that `query` asks for."""
        last, _, payment_count, duplicate_count = work.rows(self._statements.counters)[0]
        window = replace(window, highest=min(window.highest, last))
        headers: Sequence[Header] = ()
        duplicates: Sequence[DuplicatePayment] = ()
        if not window.is_empty:
            headers = self._page_headers(work, window)
            if duplicate_count:
                duplicates = self._page_duplicates(work, window)
        numbers = sorted(
            [header.number for header in headers] + [each.sequence_number for each in duplicates],
            reverse=window.descending,
        )[: window.limit]
        first, end = (min(numbers), max(numbers)) if numbers else (0, 0)
        headers = sorted(
            (header for header in headers if first <= header.number <= end),
            key=lambda header: header.number,
        )
        kept = (each for each in duplicates if first <= each.sequence_number <= end)
        return Response(
            payments=tuple(self.payments(work, headers, omit_hops=query.omit_hops)),
            first_index_offset=first,
            last_index_offset=end,
            total_count=payment_count if query.count_total else 0,
            duplicate_payments=by_identifier(kept),
        )

    def _page_headers(self, work: Work, window: Window) -> list[Header]:
        statement = self._statements.page(
            descending=window.descending, dated=is_dated(window), paid=window.status is not None
        )
        if not is_dated(window):
            bounds = (window.lowest, window.highest)
            return [*map(header_of, work.rows(statement, *bounds, window.limit))]
        return self._dated_headers(work, window, statement)

    def _dated_headers(self, work: Work, window: Window, statement: str) -> list[Header]:
        """Walk the dates when few are inside, the numbers when a page is found soon.

        When neither is so, all dates inside are looked at in their index, and not the payments.
        """
        dates = (window.created_from_ns, window.created_until_ns)
        look = min(LOOK_MIN + LOOK_FACTOR * window.limit, NUMBER_MAX)
        if work.rows(self._statements.window_size, *dates, look)[0][0] == look:
            rows = work.rows(statement, *nearest(window, look), *dates, window.limit)
            if len(rows) == window.limit:
                return [*map(header_of, rows)]
        numbers = work.rows(
            self._statements.numbers_by_date(
                descending=window.descending, paid=window.status is not None
            ),
            *(window.lowest, window.highest, *dates, window.limit),
        )
        listing = self._database.listing(number for (number,) in numbers)
        return [*map(header_of, work.rows(self._statements.headers, listing))]

    def _page_duplicates(self, work: Work, window: Window) -> list[DuplicatePayment]:
        statement = self._statements.duplicate_page(
            descending=window.descending, paid=window.status is not None
        )
        bounds = (window.lowest, window.highest)
        dates = (window.created_from_ns, window.created_until_ns)
        return [*map(duplicate_of, work.rows(statement, *bounds, *dates, window.limit))]


def the_only(rows: Sequence[Row]) -> Header:
    """Return the payment that was looked for.

    Raises:
        PaymentDBError: payment_not_initiated.
    """
    if not rows:
        raise PaymentDBError(PaymentDBCode.PAYMENT_NOT_INITIATED)
    return header_of(rows[0])


def has_attempts(header: Header) -> bool:
    """Say whether a payment has any."""
    return bool(header.tally.in_flight or header.tally.settled or header.tally.failed)


def is_dated(window: Window) -> bool:
    """Say whether there is a bound of time."""
    return window.created_from_ns > 0 or window.created_until_ns < NUMBER_MAX


def nearest(window: Window, count: int) -> tuple[int, int]:
    """Return the part of a window's numbers that a walk comes through first."""
    if window.descending:
        return max(window.lowest, window.highest - count), window.highest
    return window.lowest, min(window.highest, window.lowest + count)


def by_identifier(
    duplicates: Iterable[DuplicatePayment],
) -> dict[bytes, tuple[DuplicatePayment, ...]]:
    """Gather duplicates by payment, ascending."""
    found: dict[bytes, tuple[DuplicatePayment, ...]] = {}
    for each in sorted(duplicates, key=lambda each: each.sequence_number):
        found[each.identifier] = (*found.get(each.identifier, ()), each)
    return found
