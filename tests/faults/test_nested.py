"""A spread over the calls of a start; every one of them is in `python -m tests.faults nested`."""

import pytest

from tests.faults import nested
from tests.faults.scorecard import Budget, CannotRun
from tests.faults.test_syscalls import problems, silent
from tests.faults.tracer import require_strace

try:
    require_strace()
except CannotRun as error:
    pytestmark = pytest.mark.skip(str(error))


@pytest.mark.slow
def test_a_start_may_be_killed_three_times_in_a_row_or_fail_at_any_call():
    kills, errors = nested.run(Budget(share=0.03), silent)
    assert problems([kills, errors]) == []
    assert kills.tried > 50
    assert errors.tried > 50
