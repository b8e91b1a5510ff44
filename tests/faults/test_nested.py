"""A spread over the calls of a start; every one of them is in `python -m tests.faults nested`."""

import pytest

from tests.faults import nested
from tests.faults.test_syscalls import problems, rows_of


@pytest.mark.slow
def test_a_start_may_be_killed_three_times_in_a_row_or_fail_at_any_call():
    kills, errors = rows_of(nested, 0.03)
    assert problems([kills, errors]) == []
    assert kills.tried > 40
    assert errors.tried > 30
