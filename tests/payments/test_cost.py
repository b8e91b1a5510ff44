"""Rows 269 and 271: what a read costs is set by what it returns, not by what there is.

Cost is counted in calls of functions, Python's and C's, so no clock decides. What a database does
inside one call is not seen here; the plans of its statements are tested where they are made.
"""

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from engine.payments import PaymentDB, Query
from engine.payments.records import PaymentRecord
from tests.payments.builders import SECOND, failure, make_attempt, make_record, settle
from tests.payments.stores import KINDS, Places

pytestmark = pytest.mark.slow
FEW, MANY = 400, 2_400
IN_FLIGHT = 10
GROWTH_MAX = 1.2

READS: dict[str, Callable[[PaymentDB], int]] = {
    "a page": lambda store: size(store, Query()),
    "a page in the middle": lambda store: size(store, Query(index_offset=150)),
    "the newest": lambda store: size(store, Query(reversed=True)),
    "without hops": lambda store: size(store, Query(omit_hops=True)),
    "with the total": lambda store: size(store, Query(count_total=True)),
    "paid only": lambda store: size(store, Query(include_incomplete=False)),
    "paid only, the newest": lambda store: size(
        store, Query(include_incomplete=False, reversed=True)
    ),
    "a window of dates": lambda store: size(
        store, Query(creation_date_start=200, creation_date_end=299)
    ),
    "what is in flight": lambda store: len(store.fetch_in_flight_payments()) * 10,
}


def size(store: PaymentDB, query: Query) -> int:
    return len(store.query_payments(query).payments)


def record(number: int, count: int) -> PaymentRecord:
    """Return a payment of second `number`; ten, evenly spread, are in flight, a fifth failed."""
    fields = {"created_at_ns": number * SECOND}
    if number % (count // IN_FLIGHT) == 1:
        return make_record(number, [make_attempt(number)], **fields)
    if number % 5 == 0:
        tries = [make_attempt(number, failure=failure())]
        return make_record(number, tries, failure_reason=1, **fields)
    return make_record(number, [make_attempt(number, settle=settle())], **fields)


def fill(store: PaymentDB, count: int) -> None:
    for first in range(1, count + 1, 200):
        store.write_records([record(number, count) for number in range(first, first + 200)])


def calls_of(read: Callable[[], int]) -> int:
    """Return how many functions are called by `read`, the second time it is asked."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    assert read() == 100
    sys.setprofile(count)
    try:
        read()
    finally:
        sys.setprofile(None)
    return calls


def costs(store: PaymentDB, count: int) -> dict[str, int]:
    """Return what each read costs in a store of this size."""
    fill(store, count)
    return {name: calls_of(lambda read=read: read(store)) for name, read in READS.items()}


def grown(kind: str, places: Places) -> dict[str, float]:
    """Return by how much each read costs more in a store ten times as large."""
    found = []
    for count in (FEW, MANY):
        with places.opened(kind) as store:
            found.append(costs(store, count))
    few, many = found
    return {name: round(many[name] / few[name], 2) for name in READS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_costs_what_it_returns(kind, places):
    assert {name: times for name, times in grown(kind, places).items() if times > GROWTH_MAX} == {}


def test_a_scan_would_be_noticed(places):
    """The model looks at everything for every read."""
    assert min(grown("model", places).values()) > 3
