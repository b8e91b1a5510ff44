"""A spread over the calls of packing and merging; every one is in `tests.faults beside --full`."""

import pytest

from tests.faults import beside
from tests.faults.test_syscalls import problems, rows_of


@pytest.mark.slow
def test_a_shard_goes_on_whatever_becomes_of_the_processes_beside_it():
    rows = rows_of(beside, 0.04)
    assert problems(rows) == []
    assert [row.tried >= 4 for row in rows] == [True, True]
