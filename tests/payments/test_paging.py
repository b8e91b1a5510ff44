"""A query becomes numbers that every store can hold, whatever is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.payments import Query
from engine.payments.paging import window_of
from engine.payments.values import NUMBER_MAX
from tests.payments.tables import number, rows

LIMITS = st.sampled_from([0, 1, 2, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1])
EDGES = LIMITS | st.integers(0, 2**64 - 1) | st.integers(0, 20 * 10**9)

NUMBERS = """
    no.  offset  reversed  lowest  highest
    1    0       no        1       2^63-1
    2    1       no        2       2^63-1
    3    2^63-2  no        2^63-1  2^63-1
    4    2^63-1  no        1       0
    5    2^64-1  no        1       0
    6    0       yes       1       2^63-1
    7    1       yes       1       0
    8    2       yes       1       1
    9    2^63-1  yes       1       2^63-2
    10   2^63    yes       1       2^63-1
    11   2^64-1  yes       1       2^63-1
"""


@pytest.mark.parametrize(("offset", "backwards", "lowest", "highest"), rows(NUMBERS))
def test_an_offset_is_a_range_of_numbers(offset, backwards, lowest, highest):
    window = window_of(Query(index_offset=number(offset), reversed=backwards == "yes"))
    assert (window.lowest, window.highest) == (number(lowest), number(highest))
    assert window.is_empty == (number(lowest) > number(highest))
    assert window.descending == (backwards == "yes")


@pytest.mark.parametrize(
    ("start", "end", "first_ns", "last_ns", "is_empty"),
    [
        (0, 0, 0, NUMBER_MAX, False),
        (5, 5, 5 * 10**9, 6 * 10**9 - 1, False),
        (0, 1, 0, 2 * 10**9 - 1, False),
        (9_223_372_036, 0, 9_223_372_036 * 10**9, NUMBER_MAX, False),
        (0, 9_223_372_036, 0, NUMBER_MAX, False),
        (9_223_372_037, 0, 1, 0, True),
        (2**64 - 1, 2**64 - 1, 1, 0, True),
    ],
)
def test_a_date_is_a_range_of_nanoseconds(start, end, first_ns, last_ns, is_empty):
    window = window_of(Query(creation_date_start=start, creation_date_end=end))
    found = window.created_from_ns, window.created_until_ns
    if is_empty:
        assert found[0] > found[1]
    else:
        assert found == (first_ns, last_ns)
    assert window.is_empty is is_empty


@given(EDGES, EDGES, EDGES, EDGES, st.booleans())
def test_every_number_fits_in_63_bits_and_an_empty_window_says_so(
    offset, most, one, two, backwards
):
    start, end = (one, two) if not two or one <= two else (two, one)
    window = window_of(Query(offset, most, backwards, True, start, end))
    parts = (
        window.lowest,
        window.highest,
        window.limit,
        window.created_from_ns,
        window.created_until_ns,
    )
    assert all(0 <= part <= NUMBER_MAX for part in parts)
    assert window.limit == min(most or 100, NUMBER_MAX)
    assert window.is_empty == (
        window.lowest > window.highest or window.created_from_ns > window.created_until_ns
    )
    for second in {start, end, start + 1, max(end - 1, 0)}:
        at_ns = second * 10**9 + 999_999_999
        if at_ns <= NUMBER_MAX:
            is_inside = start <= second and (not end or second <= end)
            assert (window.created_from_ns <= at_ns <= window.created_until_ns) == is_inside
