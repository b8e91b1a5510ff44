"""Pages that are put together from parts are those of the store, and end early where they weigh."""

import itertools

import pytest

from engine.gateway.payments import pages
from engine.payments import Query
from engine.payments.memory import weight_of
from tests.payments.builders import make_attempt, make_record, returned, settle, shard
from tests.payments.model import ModelDB

QUERIES = [
    Query(offset, most, backward, incomplete, start, end, count_total=True)
    for offset, most, backward, incomplete, (start, end) in itertools.product(
        (0, 1, 7, 11, 40, 2**64 - 1), (1, 3, 5, 100), (False, True), (False, True), ((0, 0), (4, 9))
    )
]


def some_payments() -> ModelDB:
    """Return a store with payments of every second, some paid, some with duplicates."""
    store = ModelDB()
    store.write_records(
        [
            make_record(
                3 * number,
                [make_attempt(number, shard(), **({"settle": settle()} if number % 3 else {}))],
                duplicates=[3 * number + 1] if number % 4 == 0 else [],
                created_at_ns=number * 1_000_000_000,
            )
            for number in range(1, 13)
        ]
    )
    return store


@pytest.mark.parametrize("first", [1, 2, 25])
def test_a_page_in_parts_is_the_page(monkeypatch, first):
    monkeypatch.setattr(pages, "FIRST", first)
    store = some_payments()
    for query in QUERIES:
        assert pages.page_of(store, query) == store.query_payments(query), query


@pytest.mark.parametrize("first", [1, 2, 25])
@pytest.mark.parametrize("limit", [1, 2, 4, 5, 100])
def test_what_is_in_flight_in_parts_is_all_of_it(monkeypatch, first, limit):
    monkeypatch.setattr(pages, "FIRST", first)
    store = some_payments()
    everything = store.fetch_in_flight_payments()
    found, has_more = pages.in_flight(store, 0, limit)
    assert (found, has_more) == (everything[:limit], len(everything) > limit)
    assert pages.in_flight(store, 2**63 - 1, limit) == ([], False)


class Asked(ModelDB):
    """A store that notes how much was asked for at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def query_payments(self, query):
        self.sizes.append(query.max_payments)
        return super().query_payments(query)


def filled(store: ModelDB, payments: int, attempts: int) -> None:
    """Move in payments with many attempts each."""
    indexes = itertools.count(1)
    store.write_records(
        [
            make_record(
                number, [make_attempt(next(indexes), shard(1, 555)) for _ in range(attempts)]
            )
            for number in range(1, payments + 1)
        ]
    )


def test_usual_pages_are_whole_and_asked_for_in_few_parts():
    store = Asked()
    filled(store, 500, attempts=2)
    assert len(pages.page_of(store, Query(max_payments=400)).payments) == 400
    assert store.sizes == [25, 50, 100, 200, 25]


@pytest.mark.parametrize("backward", [False, True])
def test_a_page_that_is_heavy_ends_early_and_the_next_goes_on(monkeypatch, backward):
    monkeypatch.setattr(pages, "BYTES_MAX", 2**20)
    store = ModelDB()
    filled(store, 100, attempts=20)
    seen, offset = [], 0
    while True:
        query = Query(index_offset=offset, max_payments=100, reversed=backward)
        page = pages.page_of(store, query)
        if not page.payments:
            break
        assert sum(map(weight_of, page.payments)) <= 2**20
        assert len(page.payments) < 60
        seen += returned(page)
        offset = page.first_index_offset if backward else page.last_index_offset
    assert sorted(seen) == [*range(1, 101)]


def test_one_payment_is_never_too_heavy(monkeypatch):
    monkeypatch.setattr(pages, "BYTES_MAX", 1)
    monkeypatch.setattr(pages, "FIRST", 1)
    store = ModelDB()
    filled(store, 3, attempts=5)
    assert returned(pages.page_of(store, Query(max_payments=100))) == [1]
    found, has_more = pages.in_flight(store, 1, 100)
    assert ([each.sequence_number for each in found], has_more) == ([2], True)


async def test_a_heavy_page_over_http_says_where_to_go_on(shop, monkeypatch):
    monkeypatch.setattr(pages, "BYTES_MAX", 60_000)
    filled(shop.store, 40, attempts=2)
    page = (await shop.get(max_payments=40)).json
    assert page["last_index_offset"] == len(page["payments"]) == 25
    rest = (await shop.get(max_payments=40, index_offset=25)).json
    assert [each["sequence_number"] for each in rest["payments"]] == [*range(26, 41)]
    first = (await shop.get("/in-flight", limit=40)).json
    assert (len(first["payments"]), first["has_more"]) == (25, True)
