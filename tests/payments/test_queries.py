"""Sections L and M, and what R says of queries: pages, filters and legacy duplicates."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from engine.payments import PaymentDBError, Query, Response
from tests.payments.builders import (
    SECOND,
    STATUS,
    begun,
    everything,
    make_attempt,
    make_duplicate,
    make_info,
    make_record,
    mk,
    returned,
    settle,
)
from tests.payments.tables import named_rows, number, numbers

# L. Pagination ------------------------------------------------------------------------------------

PAGES = """
    no.   offset  max     reversed  incomplete  start  end     count  numbers    first  last
    129   6       7       no        yes         -      -       no     -          0      0
    130   0       2       no        yes         -      -       no     1,3        1      3
    131   0       2^64-1  no        yes         -      -       no     1,3,4,5,6  1      6
    132   20      2       no        yes         -      -       no     -          0      0
    133   4       2^64-1  no        yes         -      -       no     5,6        5      6
    135   0       2       yes       yes         -      -       no     5,6        5      6
    136   20      2       yes       yes         -      -       no     5,6        5      6
    137   4       5       yes       yes         -      -       no     1,3        1      3
    138   0       7       yes       yes         -      -       no     1,3,4,5,6  1      6
    139   0       7       no        no          -      -       no     6          6      6
    139b  0       1       yes       no          -      -       no     6          6      6
    140   1       7       no        yes         -      -       no     3,4,5,6    3      6
    141   1       7       yes       yes         -      -       no     -          0      0
    142   2       7       yes       yes         -      -       no     1          1      1
    143   2       2       no        yes         -      -       no     3,4        3      4
    145   0       2       no        yes         6      -       no     6          6      6
    146   0       2       no        yes         3      5       no     3,4        3      4
    146b  0       2       yes       yes         3      5       no     4,5        4      5
    146c  0       9       no        yes         3      3       no     3          3      3
    147   0       2^64-1  no        yes         -      4       no     1,3,4      1      4
    148   3       9       no        yes         2      5       no     4,5        4      5
    149   0       2       no        yes         -      -       yes    1,3        1      3
    150   0       2       yes       yes         -      -       yes    5,6        5      6
    151   20      2       no        yes         -      -       yes    -          0      0
    262   0       0       no        yes         -      -       no     1,3,4,5,6  1      6
    263   2^64-1  5       no        yes         -      -       no     -          0      0
    263b  2^63    5       no        yes         -      -       no     -          0      0
    263c  2^63-1  5       no        yes         -      -       no     -          0      0
    263d  2^64-1  2       yes       yes         -      -       no     5,6        5      6
    263e  2^63    2       yes       yes         -      -       no     5,6        5      6
    263f  2^63-2  2       no        yes         -      -       no     -          0      0
    264   0       9       no        yes         2^64-1  -      no     -          0      0
    264b  0       9       no        yes         -      2^64-1  no     1,3,4,5,6  1      6
    264c  0       9       no        yes         2^63   2^63    no     -          0      0
    264d  0       9       no        yes         7      2^64-1  no     -          0      0
"""


def query_of(row: Mapping[str, str]) -> Query:
    """Return the query that a row asks."""
    return Query(
        index_offset=number(row["offset"]),
        max_payments=number(row["max"]),
        reversed=row["reversed"] == "yes",
        include_incomplete=row["incomplete"] == "yes",
        creation_date_start=number(row.get("start", "-")),
        creation_date_end=number(row.get("end", "-")),
        count_total=row.get("count") == "yes",
    )


def check_page(response: Response, row: Mapping[str, str]) -> None:
    """Compare an answer with what the row says."""
    assert returned(response) == numbers(row["numbers"])
    ends = response.first_index_offset, response.last_index_offset
    assert ends == (int(row["first"]), int(row["last"]))


def six(store) -> None:
    """Make the payments of section L: 1, 3, 4, 5, 6, of which 6 is paid."""
    made = [begun(store, created_at_ns=second * SECOND) for second in range(1, 7)]
    store.delete_payment(made[1])
    store.register_attempt(made[5], make_attempt(1))
    store.settle_attempt(made[5], 1, settle())


@pytest.mark.parametrize("row", named_rows(PAGES))
def test_a_page(store, row):
    query = query_of(row)
    nothing = store.query_payments(query)
    assert (nothing.payments, nothing.total_count) == ((), 0)
    six(store)
    response = store.query_payments(query)
    check_page(response, row)
    assert response.total_count == (5 if row["count"] == "yes" else 0)
    assert response.duplicate_payments == {}


def test_a_deleted_payment_is_gone_from_look_up_and_list(store):
    kept, gone = begun(store), begun(store)
    store.delete_payment(gone)
    with pytest.raises(PaymentDBError) as refusal:
        store.fetch_payment(gone)
    assert refusal.value.code == "payment_not_initiated"
    assert [payment.info.identifier for payment in everything(store).payments] == [kept]
    assert store.counters().payments == 1


@pytest.mark.parametrize("backwards", [False, True])
def test_a_walk_by_pages_sees_everything_once(store, backwards):
    words = ["Failed", "Succeeded", "InFlight"] * 5
    mk(store, words)
    for size in (1, 2, 7, 15, 16):
        seen: list[int] = []
        offset = 0
        while True:
            page = store.query_payments(
                Query(index_offset=offset, max_payments=size, reversed=backwards)
            )
            if not page.payments:
                break
            assert len(page.payments) <= size
            seen = returned(page) + seen if backwards else seen + returned(page)
            offset = page.first_index_offset if backwards else page.last_index_offset
        assert seen == list(range(1, 16))


def test_the_count_is_of_what_is_returned_not_of_what_is_looked_at(store):
    mk(store, ["Failed", "Succeeded", "Failed", "InFlight", "Succeeded", "Succeeded"])
    page = store.query_payments(Query(max_payments=2, include_incomplete=False))
    assert returned(page) == [2, 5]
    assert {payment.status for payment in page.payments} == {STATUS["Succeeded"]}
    page = store.query_payments(Query(max_payments=2, include_incomplete=False, reversed=True))
    assert returned(page) == [5, 6]


def test_the_default_page_is_a_hundred(store):  # row 262
    store.write_records([make_record(number) for number in range(1, 131)])
    for query in (Query(), Query(max_payments=0)):
        assert returned(store.query_payments(query)) == list(range(1, 101))
    backwards = Query(max_payments=0, reversed=True)
    assert returned(store.query_payments(backwards)) == list(range(31, 131))


def test_dates_are_floored_to_seconds(store):  # row 260, D7
    begun(store, created_at_ns=5 * SECOND + 900_000_000)
    begun(store, created_at_ns=6 * SECOND - 1)
    begun(store, created_at_ns=6 * SECOND)
    for start, end, expected in ((0, 5, [1, 2]), (5, 5, [1, 2]), (6, 6, [3]), (6, 0, [3])):
        query = Query(creation_date_start=start, creation_date_end=end)
        assert returned(store.query_payments(query)) == expected


def test_a_payment_without_a_time_is_listed_and_deleted_like_any_other(store):  # row 265, D13
    begun(store, created_at_ns=0)
    begun(store, created_at_ns=7 * SECOND)
    for dates, expected in (((0, 0), [1, 2]), ((0, 6), [1]), ((1, 0), [2])):
        query = Query(creation_date_start=dates[0], creation_date_end=dates[1])
        assert returned(store.query_payments(query)) == expected
    assert store.delete_payments() == 2
    assert returned(everything(store)) == []


def test_dates_may_run_against_the_numbers(store):
    for second in (9, 3, 6, 1, 7):
        begun(store, created_at_ns=second * SECOND)
    for backwards in (False, True):
        query = Query(
            creation_date_start=2, creation_date_end=7, max_payments=2, reversed=backwards
        )
        assert returned(store.query_payments(query)) == ([3, 5] if backwards else [2, 3])


def test_a_total_counts_all_whatever_the_filter(store):  # D12
    mk(store, ["Failed", "Succeeded", "InFlight"])
    query = Query(include_incomplete=False, max_payments=1, count_total=True)
    assert store.query_payments(query).total_count == 3


# M. Legacy duplicates -----------------------------------------------------------------------------

DUPLICATE_PAGES = """
    no.   offset  max     reversed  incomplete  numbers      first  last
    152   5       3       no        yes         6,7          6      7
    153   0       7       no        yes         1,3,4,5,6,7  1      7
    154   0       2       yes       yes         6,7          6      7
    155   0       2^64-1  no        yes         1,3,4,5,6,7  1      7
    156   0       9       no        no          7            7      7
    156b  6       1       no        yes         7            7      7
    156c  7       1       yes       yes         6            6      6
    156d  0       1       yes       yes         7            7      7
"""


def with_duplicate(store) -> None:
    """Move in the payments of section M: 1, 3, 4, 5, 6, and the duplicate 7 of 6."""
    store.write_records(
        [
            make_record(
                number, duplicates=[7] if number == 6 else [], created_at_ns=number * SECOND
            )
            for number in (1, 3, 4, 5, 6)
        ]
    )


@pytest.mark.parametrize("row", named_rows(DUPLICATE_PAGES))
def test_a_page_with_duplicates(store, row):
    with_duplicate(store)
    response = store.query_payments(replace(query_of(row), count_total=True))
    check_page(response, row)
    assert response.total_count == 5
    for identifier, duplicates in response.duplicate_payments.items():
        assert [each.sequence_number for each in duplicates] == [7]
        assert store.fetch_payment(identifier).sequence_number == 6


def test_a_duplicate_has_its_own_date(store):
    identifier = begun(store, created_at_ns=9 * SECOND)
    record = next(store.read_records())[0]
    store.delete_payment(identifier)
    duplicates = (
        make_duplicate(identifier, 12, created_at_ns=3 * SECOND),
        make_duplicate(identifier, 15, settled=False, created_at_ns=4 * SECOND),
    )
    moved = replace(record, sequence_number=10, duplicates=duplicates)
    store.write_records([make_record(20), moved])
    page = store.query_payments(Query(creation_date_start=2, creation_date_end=4))
    assert returned(page) == [12, 15]
    assert page.payments == ()
    assert page.duplicate_payments == {identifier: duplicates}
    assert returned(store.query_payments(Query(max_payments=2))) == [10, 12]
    paid_only = store.query_payments(Query(include_incomplete=False))
    assert returned(paid_only) == [12]


def test_a_duplicate_is_no_payment(store):
    with_duplicate(store)
    assert [each.sequence_number for each in store.fetch_in_flight_payments()] == [1, 3, 4, 5, 6]
    assert store.counters().payments == 5
    assert store.counters().duplicates == 1
    (six,) = (each for each in everything(store).payments if each.sequence_number == 6)
    assert store.fetch_payment(six.info.identifier) == six


def test_a_payment_and_its_duplicates_are_found_by_number(store):  # rows 157 to 162
    alone = make_record(10)
    doubled = make_record(20, duplicates=[21, 22])
    store.write_records([alone, doubled])
    single, double = alone.info.identifier, doubled.info.identifier
    assert store.fetch_by_number(single, 10) == store.fetch_payment(single)
    assert store.fetch_by_number(double, 20) == store.fetch_payment(double)
    for duplicate in doubled.duplicates:
        assert store.fetch_by_number(double, duplicate.sequence_number) == duplicate
    for identifier, wanted, code in (
        (double, 999_999, "duplicate_not_found"),
        (double, 10, "duplicate_not_found"),
        (single, 11, "no_duplicate_bucket"),
        (single, 21, "no_duplicate_bucket"),
        (make_info().identifier, 10, "payment_not_initiated"),
    ):
        with pytest.raises(PaymentDBError) as refusal:
            store.fetch_by_number(identifier, wanted)
        assert refusal.value.code == code


def test_duplicates_go_with_their_payment(store):  # row 164
    parent = make_record(5, [make_attempt(1, settle=settle())], duplicates=[1_005, 1_006])
    store.write_records([parent])
    assert returned(everything(store)) == [5, 1_005, 1_006]
    assert store.delete_payments() == 1
    assert returned(everything(store)) == []
    assert store.counters().duplicates == 0
    assert list(store.read_records()) == []


def test_duplicates_are_kept_when_their_payment_is_begun_again(store):  # D11
    record = make_record(5, duplicates=[6, 8], failure_reason=2)
    store.write_records([record])
    identifier = record.info.identifier
    store.init_payment(identifier, make_info(identifier=identifier))
    response = everything(store)
    assert returned(response) == [6, 8, 9]
    counters = store.counters()
    assert (counters.payments, counters.duplicates) == (1, 2)
    assert response.duplicate_payments == {identifier: record.duplicates}
    store.delete_payment(identifier, failed_attempts_only=True)
    assert returned(everything(store)) == [6, 8, 9]
    store.delete_payment(identifier)
    assert returned(everything(store)) == []
