"""`paychan payments list`, `show` and `in-flight`."""

from collections.abc import Iterator
from typing import Any, Final

import click
from msgspec.structs import replace

from engine.cli.output import Output
from engine.cli.payments.arguments import COUNT, OFFSET, SECOND, payment_argument
from engine.cli.payments.stores import Place, on_store
from engine.cli.payments.views import in_order, write_duplicate, write_many, write_payment
from engine.payments.interface import PaymentReader
from engine.payments.values import DuplicatePayment, Payment, Query, Response

PAGE: Final = 1_000
"""Payments that are asked for at once; a longer list need not fit in memory."""


class Seen:
    """What a list came to: its ends, and how many payments there are in all."""

    def __init__(self) -> None:
        self.first = self.last = self.total = 0

    def add(self, page: Response) -> None:
        """Take note of a page."""
        self.first = self.first or page.first_index_offset
        self.last = page.last_index_offset or self.last
        self.total = page.total_count or self.total


@click.command("list")
@click.option(
    "--index-offset", type=OFFSET, default="0", help="Begin behind this number; 0: at the end."
)
@click.option(
    "--max", "--max-payments", "max_payments", type=COUNT, default="100", show_default=True,
    help="At most so many; 0 is the default.",
)  # fmt: skip
@click.option(
    "--reversed", "reversed_", is_flag=True, help="The newest, or those below --index-offset."
)
@click.option("--include-incomplete", is_flag=True, help="Not only those that succeeded.")
@click.option("--creation-date-start", type=SECOND, default="0", help="Not older than this second.")
@click.option("--creation-date-end", type=SECOND, default="0", help="Not newer than this second.")
@click.option("--count-total", is_flag=True, help="Say how many payments there are in all, too.")
@click.option("--omit-hops", is_flag=True, help="Leave the hops of routes out; it is faster.")
@on_store
def list_(place: Place, output: Output, **asked: Any) -> None:
    """List payments by sequence number, oldest first.

    Only those that succeeded, as with lncli, unless --include-incomplete is given. In JSON,
    --count-total adds a last line with the ends of the list and the number of all payments.
    """
    asked["reversed"] = asked.pop("reversed_")
    query, seen = Query(**asked), Seen()
    with place.reading() as store:
        write_many(output, _found(store, query, seen))
        is_hiding = not (seen.first or query.include_incomplete) and _has_any(store)
    if query.count_total:
        _tell_total(output, seen)
    if is_hiding:
        click.echo("none of these has succeeded; --include-incomplete shows the others", err=True)


def _found(store: PaymentReader, query: Query, seen: Seen) -> Iterator[Payment | DuplicatePayment]:
    """Yield what a query finds, a page at a time."""
    left = query.max_payments or Query().max_payments
    if query.reversed and left > PAGE:
        query, left = _turned(store, query, left)
    while left:
        size = min(left, PAGE)
        page = store.query_payments(replace(query, max_payments=size))
        seen.add(page)
        duplicates = _duplicates(page)
        yield from in_order(page.payments, duplicates)
        found = len(page.payments) + len(duplicates)
        left -= found
        if found < size:
            return
        query = replace(query, index_offset=page.last_index_offset, count_total=False)


def _turned(store: PaymentReader, query: Query, left: int) -> tuple[Query, int]:
    """Return the query that walks up through what a longer walk down finds, and how much that is.

    Downward, pages come newest first, and the list is to ascend: its beginning is looked for first.
    """
    found, offset = 0, query.index_offset
    while found < left:
        size = min(left - found, PAGE)
        page = store.query_payments(
            replace(query, index_offset=offset, max_payments=size, omit_hops=True)
        )
        count = len(page.payments) + len(_duplicates(page))
        found += count
        offset = page.first_index_offset or offset
        if count < size:
            break
    if not found:
        return query, 1  # to be asked again, for what it says besides
    return replace(query, reversed=False, index_offset=offset - 1), found


def _duplicates(page: Response) -> list[DuplicatePayment]:
    return [each for some in page.duplicate_payments.values() for each in some]


def _has_any(store: PaymentReader) -> bool:
    return bool(store.query_payments(Query(max_payments=1, omit_hops=True)).payments)


def _tell_total(output: Output, seen: Seen) -> None:
    if output.is_json:
        output.record(
            {
                "first_index_offset": seen.first,
                "last_index_offset": seen.last,
                "total_count": seen.total,
            }
        )
    else:
        click.echo(f"numbers {seen.first} to {seen.last}; {seen.total} payments in all", err=True)


@click.command("show")
@payment_argument
@click.option("--sequence-number", type=OFFSET, help="The duplicate of it that has this number.")
@on_store
def show(place: Place, output: Output, identifier: bytes, sequence_number: int | None) -> None:
    """Show one payment with its attempts."""
    with place.reading() as store:
        if sequence_number is None:
            write_payment(output, store.fetch_payment(identifier))
            return
        found = store.fetch_by_number(identifier, sequence_number)
        if isinstance(found, Payment):
            write_payment(output, found)
        else:
            write_duplicate(output, found)


@click.command("in-flight")
@on_store
def in_flight(place: Place, output: Output) -> None:
    """List the payments that are not over.

    Those that were begun, those with an attempt in flight and those that may be tried again.
    """
    with place.reading() as store:
        write_many(output, _every_in_flight(store))


def _every_in_flight(store: PaymentReader) -> Iterator[Payment]:
    """Yield what is not over, a page at a time."""
    page = store.fetch_in_flight_payments(0, PAGE)
    while page:
        yield from page
        page = store.fetch_in_flight_payments(page[-1].sequence_number, PAGE)
