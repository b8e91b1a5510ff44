"""A spread over what may run out; all of it is in `python -m tests.faults shortage --full`."""

import pytest

from tests.faults import shortage
from tests.faults.test_syscalls import problems, rows_of


@pytest.mark.slow
def test_what_cannot_be_had_is_refused_or_ends_the_process_before_an_answer():
    rows = rows_of(shortage, 0.01)
    assert problems(rows) == []
    assert min(row.acknowledged_checked for row in rows) > 100
