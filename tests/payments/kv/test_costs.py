"""What a call costs, in keys that LMDB is asked for: set by the answer, not by the store."""

import random
from collections import Counter

import pytest

from engine.payments import Query, pacing
from engine.payments.kv import deletion, layout, pages
from engine.payments.kv.reading import Reading
from tests.payments.builders import SECOND, make_attempt, make_record, one_hop, returned, settle
from tests.payments.model import ModelDB

MANY = 3_000


class CountedCursor:
    """A cursor whose steps are counted."""

    def __init__(self, cursor, count: Counter) -> None:
        self.cursor, self.count = cursor, count

    def set_range(self, key):
        self.count["keys"] += 1
        return self.cursor.set_range(key)

    def __getattr__(self, name):
        return getattr(self.cursor, name)

    def iternext(self, *arguments, **named):
        return self.counted(self.cursor.iternext(*arguments, **named))

    def iterprev(self, *arguments, **named):
        return self.counted(self.cursor.iterprev(*arguments, **named))

    def counted(self, items):
        for item in items:
            self.count["keys"] += 1
            yield item


class CountedTransaction:
    """A transaction whose reads are counted."""

    def __init__(self, transaction, count: Counter) -> None:
        self.transaction, self.count = transaction, count

    def get(self, key):
        self.count["keys"] += 1
        return self.transaction.get(key)

    def cursor(self):
        return CountedCursor(self.transaction.cursor(), self.count)


def cost(store, call) -> int:
    """Return how many keys a call looks at."""
    count: Counter = Counter()
    environment = store._environment
    read = environment.read
    environment.read = lambda work: read(
        lambda transaction: work(CountedTransaction(transaction, count))
    )
    try:
        call()
    finally:
        environment.read = read
    return count["keys"]


def history(count: int, waiting: int = 3) -> list:
    """Return payments a second apart, most of them paid, the middle ones in flight."""
    middle = range(count // 2, count // 2 + waiting)
    records = []
    for number in range(1, count + 1):
        result = None if number in middle else settle()
        attempt = make_attempt(number, one_hop(555), settle=result)
        records.append(make_record(number, [attempt], created_at_ns=number * SECOND))
    return records


@pytest.fixture
def small(store):
    store.write_records(history(200))
    return store


QUERIES = {
    "first": Query(max_payments=10),
    "last": Query(max_payments=10, reversed=True),
    "middle": Query(max_payments=10, index_offset=100),
    "paid": Query(max_payments=10, include_incomplete=False),
    "paid, last": Query(max_payments=10, include_incomplete=False, reversed=True),
    "a short time": Query(max_payments=10, creation_date_start=50, creation_date_end=60),
    "a total": Query(max_payments=10, count_total=True),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_page_costs_the_same_in_a_large_store(small, query):
    few = cost(small, lambda: small.query_payments(query))
    small.write_records(history(MANY, waiting=0)[200:])
    many = cost(small, lambda: small.query_payments(query))
    assert abs(many - few) < 4  # a payment is in flight, and looked at more quickly
    assert few < 10 * 9 + 20


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("paid", [False, True])
def test_a_long_time_at_the_far_end_is_skipped_to(store, backwards, paid):
    store.write_records(history(MANY))
    dates = {"creation_date_end": 1_000} if backwards else {"creation_date_start": 2_000}
    query = Query(max_payments=10, reversed=backwards, include_incomplete=not paid, **dates)
    expected = list(range(991, 1_001)) if backwards else list(range(2_000, 2_010))
    assert returned(store.query_payments(query)) == expected
    looked = cost(store, lambda: store.query_payments(query))
    assert looked < pages.FEW + MANY // 128 + 128 + 10 * 9 + 20


def test_without_hops_no_hops_are_read(small):
    whole = cost(small, lambda: small.query_payments(Query(max_payments=10)))
    lean = cost(small, lambda: small.query_payments(Query(max_payments=10, omit_hops=True)))
    assert lean <= whole
    read = []
    parts = Reading.parts

    def noted(reading, identifier, **named):
        read.append(parts(reading, identifier, **named))
        return read[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "parts", noted)
        small.query_payments(Query(max_payments=10, omit_hops=True))
    assert [len(some[layout.ATTEMPT]) for some in read] == [1] * 10
    assert [len(some[layout.HOPS]) for some in read] == [0] * 10


def test_what_is_in_flight_costs_what_it_is(small):
    few = cost(small, small.fetch_in_flight_payments)
    small.write_records(history(MANY, waiting=0)[200:])
    assert cost(small, small.fetch_in_flight_payments) == few < 40
    assert len(small.fetch_in_flight_payments()) == 3


@pytest.mark.parametrize(
    ("goal_s", "records"), [(60.0, deletion.RECORDS_MAX), (0.0, deletion.RECORDS_MIN)]
)
def test_a_bulk_delete_is_cut_into_small_transactions(store, monkeypatch, goal_s, records):
    """And into smaller ones where they take too long."""
    monkeypatch.setattr(pacing, "GOAL_S", goal_s)
    store.write_records(history(2_000))
    before = store.statistics().transactions
    assert store.delete_payments(failed_only=True) == 0
    assert store.statistics().transactions == before
    assert store.delete_payments() == 1_997
    made = store.statistics().transactions - before
    assert 2 * 1_997 // records <= made <= 6 * 1_997 // records
    assert store.verify().is_sound


@pytest.mark.slow
@pytest.mark.parametrize("few", [0, 5, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_times_in_any_order_give_the_pages_of_the_model(store, monkeypatch, few, seed):
    """Both ways to find what was made between dates, and removal between the questions."""
    monkeypatch.setattr(pages, "FEW", few)
    choice = random.Random(seed)
    model = ModelDB()
    second = 0
    records = []
    for number in sorted(choice.sample(range(1, 40_000), 200)):
        second = choice.choice((second + 1, second, choice.randrange(60)))
        duplicates = [number + 20_000] if choice.randrange(9) == 0 and number < 20_000 else []
        records.append((number, second, duplicates))
    taken = {number for number, *_ in records}
    made = [
        make_record(
            number,
            duplicates=[each for each in duplicates if each not in taken],
            created_at_ns=second * SECOND + choice.randrange(SECOND),
        )
        for number, second, duplicates in records
    ]
    for each in (store, model):
        each.write_records(made)
    for _ in range(4):
        for _ in range(25):
            query = a_query(choice)
            assert store.query_payments(query) == model.query_payments(query)
        for record in choice.sample(made, 30):
            made.remove(record)
            for each in (store, model):
                each.delete_payment(record.info.identifier)
        assert store.verify().is_sound


def a_query(choice: random.Random) -> Query:
    start = choice.randrange(60)
    return Query(
        index_offset=choice.choice((0, choice.randrange(45_000))),
        max_payments=choice.choice((1, 3, 20, 1_000)),
        reversed=choice.random() < 0.5,
        include_incomplete=choice.random() < 0.7,
        creation_date_start=choice.choice((0, start)),
        creation_date_end=choice.choice((0, start + choice.randrange(1, 60))),
    )
