"""Slow disks, short of the slowest: that one is in `python -m tests.faults slow --full`."""

import pytest

from tests.faults import slow
from tests.faults.test_syscalls import problems, rows_of


@pytest.mark.slow
def test_an_engine_on_a_slow_disk_says_so_refuses_what_it_cannot_take_and_loses_nothing():
    rows = rows_of(slow, 0.02)
    assert problems(rows) == []
    assert min(row.acknowledged_checked for row in rows) > 100


LABELS = 'shard="0"'


def test_what_an_engine_says_of_itself_is_read():
    page = f"""# TYPE paychan_claims counter
paychan_claims_total{{result="rejected",code="overloaded"}} 3.0
paychan_claims_total{{result="rejected",code="unavailable"}} 4.0
paychan_claims_total{{result="accepted",code=""}} 9.0
# TYPE {slow.SYNCS} histogram
{slow.SYNCS}_bucket{{{LABELS},le="0.05"}} 5.0
{slow.SYNCS}_bucket{{{LABELS},le="+Inf"}} 7.0
{slow.SYNCS}_count{{{LABELS}}} 7.0
{slow.SYNCS}_sum{{{LABELS}}} 1.0
"""
    found = slow.samples(page)
    assert (sum(found["refused"]), sum(found["slow syncs"])) == (7.0, 2.0)


GOOD = slow.Look(True, 1.0, 0.0, 0.0, 5.0, 0.0, 100.0)


@pytest.mark.parametrize(
    ("delay_s", "changes", "words"),
    [
        (0.1, {"slowest_s": 0.1, "refused": 6.0}, []),
        (1.0, {"slowest_s": 1.1, "refused": 6.0, "ready": False}, []),
        (30.0, {"silent_s": 20.0, "refused": 6.0, "ready": False}, []),
        (1.0, {"slowest_s": 1.1, "refused": 6.0}, ["it was ready"]),
        (0.1, {"slowest_s": 0.1, "refused": 6.0, "ready": False}, ["it was not ready"]),
        (0.1, {"refused": 6.0}, ["it did not say how slow it is"]),
        (0.1, {"slowest_s": 0.1}, ["no claim was refused"]),
        (0.1, {"slowest_s": 0.1, "refused": 6.0, "queued": 65.0}, ["more than 64 claims waited"]),
        (0.1, {"slowest_s": 0.1, "refused": 6.0, "memory_mb": 130.0}, ["it took 30 MB more"]),
    ],
)
def test_each_failing_of_an_engine_on_a_slow_disk_is_named(delay_s, changes, words):
    found = slow.troubles(delay_s, GOOD, [GOOD._replace(**changes)])
    assert [one.partition(": ")[2] for one in found] == words
