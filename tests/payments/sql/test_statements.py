"""How many statements a call takes does not depend on how much it is about."""

import pytest
from msgspec.structs import replace

from engine.payments import Hop, Query
from engine.payments.records import PaymentRecord
from tests.payments.builders import (
    RB,
    P,
    begun,
    failure,
    make_attempt,
    make_info,
    make_record,
    settle,
    shard,
)
from tests.payments.sql.looking import watched

WIRE = {65_600: b"wire"}


def many_parts(number: int) -> PaymentRecord:
    """Return a payment of three parts, each with five hops and every kind of record."""
    route = shard()
    route = replace(
        route,
        hops=(*(Hop(P, step, 1, 190) for step in range(3)), *route.hops),
        first_hop_wire_records=WIRE,
    )
    attempts = [make_attempt(3 * number + step, route, settle=settle()) for step in range(3)]
    return make_record(number, attempts, duplicates=[100_000 + number])


@pytest.mark.parametrize("omit_hops", [False, True])
def test_a_page_takes_as_many_statements_whatever_its_size(sql, omit_hops):
    sql.write_records([many_parts(number) for number in range(1, 1_101)])
    taken = {}
    for size in (1, 100, 1_000):
        with watched(sql) as log:
            query = Query(max_payments=size, omit_hops=omit_hops)
            page = sql.query_payments(query)
        assert len(page.payments) == size
        assert len(page.payments[-1].attempts) == 3
        taken[size] = len(log)
    # counters, payments, duplicates; attempts, wire records, custom records; hops, hop records
    assert set(taken.values()) == {6 if omit_hops else 8}


def test_a_page_of_plain_payments_takes_four(sql):
    route = shard()
    route = replace(route, hops=(replace(route.hops[-1], custom_records={}),))
    sql.write_records(
        [
            make_record(number, [make_attempt(number, route)], first_hop_custom_records={})
            for number in range(1, 101)
        ]
    )
    with watched(sql) as log:
        assert len(sql.query_payments(Query()).payments) == 100
    assert len(log) == 4  # counters, payments, attempts, hops
    with watched(sql) as log:
        assert len(sql.fetch_in_flight_payments()) == 100
    assert len(log) == 3


def test_a_page_reads_the_details_of_what_it_returns_and_of_nothing_else(sql):  # D15, D16
    sql.write_records([many_parts(number) for number in range(1, 201)])
    waiting = [make_record(number, [make_attempt(number)]) for number in range(1_001, 1_101)]
    sql.write_records(waiting)
    read = []
    attempts_of = sql._reading.attempts

    def noted(work, headers, **options):
        read.extend(header.number for header in headers)
        return attempts_of(work, headers, **options)

    sql._reading.attempts = noted
    sql.query_payments(Query(max_payments=2, index_offset=7))
    assert read == [8, 9]
    read.clear()
    sql.query_payments(Query(max_payments=201, reversed=True, include_incomplete=False))
    assert read == [200]  # the other 200 of the page are duplicates


def test_a_call_that_writes_takes_as_many_statements_in_a_large_store(sql):
    def life() -> list[int]:
        sizes = []
        identifier = begun(sql, 555)
        for index in (sql.next_attempt_index(), sql.next_attempt_index()):
            with watched(sql) as log:
                sql.register_attempt(identifier, make_attempt(index, shard()))
            sizes.append(len(log))
        with watched(sql) as log:
            sql.fail_attempt(identifier, index, failure())
        sizes.append(len(log))
        with watched(sql) as log:
            sql.init_payment(*(lambda info: (info.identifier, info))(make_info()))
        return [*sizes, len(log)]

    small = life()
    sql.write_records([many_parts(number) for number in range(2_000, 2_500)])
    assert life() == small
    assert max(small) <= 14


def test_a_refused_attempt_reads_no_route(sql):  # D17
    identifier = begun(sql)
    sql.register_attempt(identifier, make_attempt(1))
    sql.settle_attempt(identifier, 1, settle())
    statements = sql._database.statements
    for call in (
        lambda: sql.register_attempt(identifier, make_attempt(2, RB)),
        lambda: sql.settle_attempt(identifier, 1, settle()),
        lambda: sql.delete_payment(make_info().identifier),
    ):
        with watched(sql) as log, pytest.raises(Exception, match="payment_"):
            call()
        texts = {entry[0] for entry in log}
        assert texts
        assert not texts & {statements.attempts_of_one, statements.hops_of_one}
