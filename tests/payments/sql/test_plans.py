"""The plans of the two databases show that the indexes are used, on a store of some size."""

import re
from itertools import count

import pytest
from psycopg import sql

from bench.payment_places import postgres_server
from engine.payments import PaymentStatus, Query, open_payment_db
from engine.payments.sql import SQLPaymentDB
from tests.payments.sql.looking import ask, fill, run, watched

COUNT = 3_000
BY_STATUS = "payments_by_status_sequence_number"
BY_DATE = "payments_by_created_at_ns_sequence_number"
LARGE = {"payments", "payment_htlc_attempts", "payment_route_hops"}


def plan(store, statement: str, *arguments: object) -> list[str]:
    """Return the steps of a plan: "TABLE by INDEX", "TABLE by its key", "scan TABLE", "sort"."""
    if store._database.statements.kind == "sqlite":
        rows = ask(store, f"EXPLAIN QUERY PLAN {statement}", *arguments)
        return [step for row in rows if (step := sqlite_step(row[3]))]
    with store._database._connection() as connection:
        return list(postgres_steps(generic_plan(connection, statement, arguments)))


def generic_plan(connection, statement: str, arguments: tuple[object, ...]) -> dict:
    """Return the plan that a prepared statement gets: it does not know the arguments."""
    numbers = count(1)
    text = re.sub("%s", lambda _: f"${next(numbers)}", statement)
    values = sql.SQL(", ").join(map(sql.Literal, arguments))
    connection.execute(f"PREPARE shown AS {text}")
    shown = sql.SQL("EXECUTE shown({})" if arguments else "EXECUTE shown").format(values)
    ((tree,),) = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + shown).fetchall()
    connection.execute("DEALLOCATE shown")
    return tree[0]["Plan"]


def sqlite_step(detail: str) -> str | None:
    words = detail.split()
    if "USE TEMP B-TREE FOR ORDER BY" in detail:
        return "sort"
    if words[0] == "SEARCH" and "INDEX" in words and "PRIMARY" not in words:
        return f"{words[1]} by {words[words.index('INDEX') + 1]}"
    if words[0] == "SEARCH":
        return f"{words[1]} by its key"
    return f"scan {words[1]}" if words[0] == "SCAN" else None


def postgres_steps(node: dict):
    name, table = node["Node Type"], node.get("Relation Name", "")
    index = node.get("Index Name", "")
    if name in ("Sort", "Incremental Sort"):
        yield "sort"
    if name == "Seq Scan":
        yield f"scan {table}"
    if index:
        owner = index.partition("_by_")[0].removesuffix("_pk")
        yield f"{owner} by its key" if index.endswith("_pk") else f"{owner} by {index}"
    for part in node.get("Plans", ()):
        yield from postgres_steps(part)


@pytest.fixture(scope="module", params=("sqlite", "postgresql"))
def filled(places, request):
    """A store of thousands: ten are in flight, few have succeeded, most have failed."""
    with places.opened(request.param) as store:
        fill(store, COUNT, parts=2)
        analyze(store)
        yield store


def analyze(store: SQLPaymentDB) -> None:
    """Let PostgreSQL count, as it does on its own now and then."""
    if store._database.statements.kind == "postgresql":
        with store._database._connection() as connection:
            connection.execute("ANALYZE")


def plans(store, call) -> list[list[str]]:
    """Return the plans of all statements of a call."""
    with watched(store) as log:
        call()
    return [plan(store, *entry) for entry in log]


def read_whole(node: dict):
    """Yield the indexes that a plan of PostgreSQL goes through from end to end."""
    if node.get("Index Name") and "Index Cond" not in node:
        yield node["Index Name"]
    for part in node.get("Plans", ()):
        yield from read_whole(part)


@pytest.mark.slow
def test_no_table_is_read_whole_before_it_is_counted():
    server = postgres_server()  # of its own: nobody has counted anything there
    try:
        with open_payment_db(server.get_uri()) as store:
            fill(store, COUNT)
            with watched(store) as log:
                assert len(store.fetch_in_flight_payments()) == 10
            assert len(log) == 5  # with those of custom records
            with store._database._connection() as connection:
                for statement, *arguments in log:
                    tree = generic_plan(connection, statement, tuple(arguments))
                    assert [*read_whole(tree)] == [], statement
    finally:
        server.cleanup()


def steps(store, call) -> set[str]:
    return {step for each in plans(store, call) for step in each}


def check_no_scan(found: set[str]) -> None:
    assert not {f"scan {table}" for table in LARGE} & found


QUERIES = {
    "forward": (Query(index_offset=1_000), "payments by its key"),
    "reversed": (Query(index_offset=2_900, reversed=True), "payments by its key"),
    "omit hops": (Query(index_offset=1_000, omit_hops=True), "payments by its key"),
    "dates": (
        Query(creation_date_start=2_000, creation_date_end=2_060),
        f"payments by {BY_DATE}",
    ),
}


@pytest.mark.parametrize(("query", "index"), QUERIES.values(), ids=QUERIES)
def test_a_page_is_found_by_an_index(filled, query, index):
    found = steps(filled, lambda: filled.query_payments(query))
    check_no_scan(found)
    assert index in found
    assert any(step.startswith("payment_htlc_attempts by ") for step in found)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_few_that_succeeded_are_found_by_their_status(filled, backwards):  # D16
    query = Query(include_incomplete=False, reversed=backwards, max_payments=3)
    found = steps(filled, lambda: filled.query_payments(query))
    check_no_scan(found)
    assert f"payments by {BY_STATUS}" in found


@pytest.mark.parametrize("backwards", [False, True])
def test_a_walk_along_the_numbers_sorts_nothing(filled, backwards):
    with watched(filled) as log:
        filled.query_payments(Query(index_offset=2_000, reversed=backwards))
    assert "sort" not in plan(filled, *log[1])


def test_a_window_of_many_far_away_is_looked_up_in_the_index_of_dates(filled):
    query = Query(creation_date_start=2_500, max_payments=5)
    with watched(filled) as log:
        page = filled.query_payments(query)
    assert [payment.sequence_number for payment in page.payments] == [*range(2_500, 2_505)]
    found = {step for entry in log for step in plan(filled, *entry)}
    check_no_scan(found)
    assert any(BY_DATE in step for step in found)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_window_of_nearly_all_is_walked_along_the_numbers(filled, backwards):
    query = Query(creation_date_start=2, reversed=backwards)
    with watched(filled) as log:
        page = filled.query_payments(query)
    assert len(page.payments) == 100
    by_date = {filled._database.statements.numbers_by_date(descending=backwards, paid=False)}
    assert not by_date & {entry[0] for entry in log}


def test_what_is_in_flight_is_found_by_its_status(filled):  # D20
    found = steps(filled, filled.fetch_in_flight_payments)
    check_no_scan(found)
    assert any(BY_STATUS in step for step in found)


def test_what_may_go_is_found_by_its_status(filled):
    statements = filled._database.statements
    found = plan(filled, statements.removable(PaymentStatus.INITIATED), 1_000, 50)
    assert f"payments by {BY_STATUS}" in found
    assert "sort" not in found


def test_a_payment_and_its_parts_are_deleted_by_their_keys(filled):
    statements = filled._database.statements
    listing = filled._database.listing([7, 8])
    for statement in (
        *(statements.delete_payments, statements.delete_failed, statements.count_duplicates),
        *(statements.lock_listed, statements.forget_failed),
    ):
        check_no_scan(set(plan_of_change(filled, statement, listing)))


def plan_of_change(store, statement: str, *arguments: object) -> list[str]:
    """Return the plan of a statement that a reader may not even explain."""
    found: list[str] = []

    def look(work):
        kind = store._database.statements.kind
        if kind == "sqlite":
            rows = work.rows(f"EXPLAIN QUERY PLAN {statement}", *arguments)
            found.extend(step for row in rows if (step := sqlite_step(row[3])))
        else:
            found.extend(plan(store, statement, *arguments))

    store._database.write(look)
    return found


def test_without_the_index_the_plan_is_another(places):
    """The tests above can fail."""
    with places.opened("sqlite") as store:
        fill(store, 50)
        run(store, f"DROP INDEX {BY_STATUS}")
        run(store, f"DROP INDEX {BY_DATE}")
        assert not any(BY_STATUS in step for step in steps(store, store.fetch_in_flight_payments))
        dates, index = QUERIES["dates"]
        found = steps(store, lambda: store.query_payments(dates))
        assert "scan payments" in found
        assert index not in found
