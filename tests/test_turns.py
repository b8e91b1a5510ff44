"""Tests side by side take turns, and one that wants the machine for itself has it."""

import threading

import pytest

from tests.turns import Turns

SOON_S = 0.2
WAIT_S = 30.0


class Test(threading.Thread):
    """What stands for a test of another process."""

    __test__ = False

    def __init__(self, folder, *, alone):
        super().__init__()
        self._turns, self._alone = Turns(folder), alone
        self.began, self.may_end = threading.Event(), threading.Event()

    def run(self):
        with self._turns.taken(alone=self._alone):
            self.began.set()
            assert self.may_end.wait(WAIT_S)


@pytest.fixture
def begin(tmp_path):
    """`begin(alone=True)` lets a test begin as soon as it may."""
    tests = []

    def start(*, alone=False):
        tests.append(Test(tmp_path, alone=alone))
        tests[-1].start()
        return tests[-1]

    yield start
    for test in tests:
        test.may_end.set()
    for test in tests:
        test.join(WAIT_S)


def test_tests_run_side_by_side(begin):
    assert begin().began.wait(WAIT_S)
    assert begin().began.wait(WAIT_S)


def test_one_that_wants_to_be_alone_waits_for_the_others(begin):
    other = begin()
    assert other.began.wait(WAIT_S)
    alone = begin(alone=True)
    assert not alone.began.wait(SOON_S)
    other.may_end.set()
    assert alone.began.wait(WAIT_S)


def test_nobody_begins_beside_one_that_is_alone(begin):
    alone = begin(alone=True)
    assert alone.began.wait(WAIT_S)
    others = [begin(), begin(alone=True)]
    assert not any(other.began.wait(SOON_S) for other in others)
    alone.may_end.set()
    assert any(other.began.wait(WAIT_S) for other in others)


def test_nobody_passes_one_that_waits(begin):
    first = begin()
    assert first.began.wait(WAIT_S)
    alone = begin(alone=True)
    assert not alone.began.wait(SOON_S)
    late = begin()
    assert not late.began.wait(SOON_S)
    first.may_end.set()
    assert alone.began.wait(WAIT_S)
    assert not late.began.wait(SOON_S)
    alone.may_end.set()
    assert late.began.wait(WAIT_S)
