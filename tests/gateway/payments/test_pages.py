"""Lists, what is in flight, and deletion over HTTP."""

import pytest
import pytest_asyncio

from engine.gateway.payments import answers
from engine.payments import Query
from tests.builders import text_table
from tests.gateway.payments.shop import creation
from tests.payments.builders import make_record, mk

# Six payments at the seconds 1 to 6; the second is gone, the sixth has settled (table L).
PAGES = """
    query                                   returned   first last
    index_offset=6&max_payments=7           -          0     0
    index_offset=0&max_payments=2           1,3        1     3
    index_offset=20&max_payments=2          -          0     0
    index_offset=4&max_payments=1000        5,6        5     6
    reversed=true&max_payments=2            5,6        5     6
    index_offset=4&reversed=true            1,3        1     3
    reversed=true                           1,3,4,5,6  1     6
    include_incomplete=false                6          6     6
    index_offset=2&max_payments=2           3,4        3     4
    max_payments=0                          1,3,4,5,6  1     6
    creation_date_start=6                   6          6     6
    creation_date_end=4                     1,3,4      1     4
    creation_date_start=3&creation_date_end=4 3,4      3     4
    index_offset=18446744073709551615       -          0     0
    omit_hops=true&max_payments=1           1          1     1
"""


@pytest_asyncio.fixture(loop_scope="session")
async def six(shop):
    ids = [await shop.begun(created_at=f"1970-01-01T00:00:0{second}.9Z") for second in range(1, 7)]
    assert (await shop.delete(f"/{ids[1]}")).json == {"deleted": 1}
    await shop.settle(ids[5], await shop.tried(ids[5]))
    return shop


def numbers(page) -> str:
    return ",".join(str(each["sequence_number"]) for each in page["payments"]) or "-"


@pytest.mark.parametrize("row", text_table(PAGES), ids=lambda row: row["query"])
async def test_a_page_is_what_the_query_says(six, row):
    answer = await six.door.call("GET", f"/v1/payments?{row['query']}")
    assert answer.status == 200
    page = answer.json
    assert numbers(page) == row["returned"]
    assert page["first_index_offset"] == int(row["first"])
    assert page["last_index_offset"] == int(row["last"])
    assert page["duplicate_payments"] == {}
    assert "total_count" not in page


async def test_all_payments_are_counted_where_it_is_asked_for(six):
    page = (await six.get(count_total="true", include_incomplete="false")).json
    assert (len(page["payments"]), page["total_count"]) == (1, 5)


async def test_a_list_is_of_whole_payments_unless_hops_are_left_out(six):
    (paid,) = (await six.get(include_incomplete="false")).json["payments"]
    assert paid == (await six.get(f"/{paid['identifier']}")).json
    (short,) = (await six.get(include_incomplete="false", omit_hops="true")).json["payments"]
    (one,), (other,) = paid["attempts"], short["attempts"]
    assert "hops" not in other["route"]
    assert (other["receiver_msat"], other["fees_msat"]) == ("555", "1234012")
    del one["route"]["hops"]
    assert short == paid


async def test_duplicates_are_on_the_same_number_line(shop):
    record = make_record(1, duplicates=(2, 3))
    shop.store.write_records([record])
    page = (await shop.get(index_offset=1)).json
    assert (page["payments"], page["first_index_offset"], page["last_index_offset"]) == ([], 2, 3)
    (hashed,) = page["duplicate_payments"]
    assert hashed == record.info.identifier.hex().upper()
    assert page == answers.page(shop.store.query_payments(Query(index_offset=1)))


async def test_a_page_is_no_longer_than_the_limit(shop):
    most = shop.door.state.options.page_max
    assert (await shop.get(max_payments=most)).status == 200
    answer = await shop.get(max_payments=most + 1)
    assert (answer.status, answer.code) == (400, "malformed")
    assert answer.json["param"] == "max_payments"


async def test_what_is_in_flight_comes_in_pages(shop):
    mk(shop.store, ["Failed", "Succeeded", "InFlight", "InFlight"])
    await shop.begun()
    answer = (await shop.get("/in-flight")).json
    assert (numbers(answer), answer["has_more"]) == ("3,4,5", False)
    first = (await shop.get("/in-flight", limit=2)).json
    assert (numbers(first), first["has_more"]) == ("3,4", True)
    rest = (await shop.get("/in-flight", limit=2, starting_after=4)).json
    assert (numbers(rest), rest["has_more"]) == ("5", False)


# Deletion ---------------------------------------------------------------------------------------


async def test_failed_attempts_or_the_whole_payment_are_deleted(shop):
    (one,) = mk(shop.store, ["Succeeded"])
    place = f"/{one.hex()}"
    assert (await shop.delete(place, failed_attempts_only="true")).json == {"deleted": 0}
    assert len((await shop.get(place)).json["attempts"]) == 1
    assert (await shop.delete(place, failed_attempts_only="false")).json == {"deleted": 1}
    again = await shop.delete(place)
    assert (again.status, again.code) == (404, "payment_not_initiated")


async def test_what_is_in_flight_is_not_deleted(shop):
    (one,) = mk(shop.store, ["InFlight"])
    for query in ({}, {"failed_attempts_only": "true"}):
        answer = await shop.delete(f"/{one.hex()}", **query)
        assert (answer.status, answer.code) == (409, "payment_in_flight")


# Row 186 of the tables, and what each choice leaves.
CHOICES = """
    all_payments failed_only failed_attempts_only answer left attempts
    -            -           -                    400    3    6
    false        false       false                400    3    6
    true         true        -                    400    3    6
    true         -           true                 400    3    6
    true         true        true                 400    3    6
    true         -           -                    2      1    2
    -            true        -                    1      2    4
    -            -           true                 0      3    3
    -            true        true                 0      3    4
"""


@pytest.mark.parametrize("row", text_table(CHOICES))
async def test_somebody_must_have_said_what_is_to_go(shop, row):
    mk(shop.store, ["Failed", "Succeeded", "InFlight"])
    flags = ("all_payments", "failed_only", "failed_attempts_only")
    answer = await shop.delete(**{name: row[name] for name in flags if row[name] != "-"})
    if row["answer"] == "400":
        assert (answer.status, answer.code) == (400, "delete_flags")
    else:
        assert (answer.status, answer.json) == (200, {"deleted": int(row["answer"])})
    left = (await shop.get()).json["payments"]
    assert len(left) == int(row["left"])
    assert sum(len(each["attempts"]) for each in left) == int(row["attempts"])


async def test_a_misspelt_choice_deletes_nothing(shop):
    mk(shop.store, ["Failed"])
    answer = await shop.delete(all_payments="true", failed_onyl="true")
    assert (answer.status, answer.code, answer.json["param"]) == (400, "malformed", "failed_onyl")
    assert (await shop.post(body=creation())).json["sequence_number"] == 2
