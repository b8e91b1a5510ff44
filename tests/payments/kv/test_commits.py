"""Calls that wait share a transaction; each is judged, answered and failed as if alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import lmdb
import pytest

from engine.payments.errors import PaymentDBCode, PaymentDBError, StoreError, StoreFullError
from engine.payments.kv.commits import GroupCommit, Waiting

KEY = b"\x09key"


class Held:
    """A call that says when it began, and ends when it is let go."""

    def __init__(self) -> None:
        self.began = Event()
        self.goes_on = Event()

    def __call__(self, transaction) -> str:
        self.began.set()
        assert self.goes_on.wait(30)
        return "first"


def together(group: GroupCommit, calls: list[Callable]) -> list[object]:
    """Let all calls wait behind another; return what each returned or raised."""

    def run(call):
        try:
            return group.run(call)
        except (PaymentDBError, StoreError, ZeroDivisionError) as error:
            return error

    held = Held()
    with ThreadPoolExecutor(len(calls) + 1) as pool:
        first = pool.submit(run, held)
        assert held.began.wait(30)
        rest = []
        for waiting, call in enumerate(calls, start=1):
            rest.append(pool.submit(run, call))
            while len(group._queue) < waiting:
                pass
        held.goes_on.set()
        assert first.result(30) == "first"
        return [each.result(30) for each in rest]


def add(amount: int, highest: int = 1_000) -> Callable:
    """Return a call that adds to a number, and refuses to go beyond `highest`."""

    def call(transaction) -> int:
        total = int(transaction.get(KEY) or b"0") + amount
        if total > highest:
            raise PaymentDBError(PaymentDBCode.VALUE_EXCEEDS_AMT, expected=highest, actual=total)
        transaction.put(KEY, b"%d" % total)
        return total

    return call


def value(environment) -> int:
    return int(environment.read(lambda transaction: transaction.get(KEY)) or b"0")


def test_calls_that_wait_share_a_transaction(environment):
    group = GroupCommit(environment)
    assert together(group, [add(1) for _ in range(8)]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert value(environment) == 8
    statistics = group.statistics()
    assert (statistics.calls, statistics.transactions) == (9, 2)


def test_each_is_judged_on_what_the_ones_before_it_left(environment):
    group = GroupCommit(environment)
    answers = together(group, [add(4, 10), add(4, 10), add(4, 10), add(2, 10)])
    assert answers[:2] + answers[3:] == [4, 8, 10]
    assert isinstance(answers[2], PaymentDBError)
    assert (answers[2].expected, answers[2].actual) == (10, 12)
    assert value(environment) == 10


def test_a_call_that_breaks_takes_nobody_with_it(environment):
    def broken(transaction) -> None:
        transaction.put(KEY, b"500")
        _ = 1 // 0

    answers = together(GroupCommit(environment), [add(1), broken, add(1)])
    assert (answers[0], answers[2], value(environment)) == (1, 2, 2)
    assert isinstance(answers[1], ZeroDivisionError)


def test_a_fault_fails_all_and_nothing_is_written(environment):
    def full(transaction) -> None:
        transaction.put(KEY, b"500")
        raise lmdb.DiskError("No space left on device")

    group = GroupCommit(environment)
    answers = together(group, [add(1), full, add(1)])
    assert {type(answer) for answer in answers} == {StoreFullError}
    assert len({id(answer) for answer in answers}) == 3
    assert value(environment) == 0
    assert group.run(add(1)) == 1


def test_one_who_is_alone_waits_for_nobody(environment):
    group = GroupCommit(environment)
    together(group, [add(1) for _ in range(8)])
    group.run(add(1))  # may wait a moment for the eight
    for _ in range(3):
        group.run(add(1))
        assert group._expected == 1


@pytest.mark.parametrize("is_called", [False, True])
def test_a_caller_who_is_interrupted_holds_up_nobody(environment, is_called):
    group = GroupCommit(environment)
    interrupted = Waiting(add(1))
    interrupted.is_called = is_called
    group._queue.append(interrupted)
    group._is_led = True
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(group.run, add(1))
        while len(group._queue) < 2:
            pass
        group._leave(interrupted)
        if not is_called:  # then somebody else leads, and calls the next
            group._call_next()
        assert other.result(30) == 1


def test_who_leads_gathers_those_who_were_just_answered(environment):
    group = GroupCommit(environment)
    group._expected, group._patience_s, group._idle_from = 2, 30.0, float("inf")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(group.run, add(1))
        while group._gathers is None:
            pass
        assert group.run(add(1)) == 2
        assert first.result(30) == 1
    assert group.statistics().transactions == 1


def test_who_gathered_too_long_leaves_the_lead_to_who_took_it(environment):
    group = GroupCommit(environment)
    group._expected, group._patience_s, group._idle_from = 2, 30.0, float("inf")
    first, last, later = (Waiting(add(1)) for _ in range(3))

    class Wake:
        """The wake of the first, whose patience ends just after the last one came."""

        def acquire(self, timeout: float) -> bool:
            if timeout < 0:
                first.is_done = True
                return True
            assert group._enter(last) == [first, last]
            assert group._enter(later) == []
            return False

    assert group._enter(first) == []
    first.wake = Wake()
    assert group._wait(first) == []
    assert group._queue == [later]


def test_nobody_is_answered_before_the_commit(environment, monkeypatch):
    group = GroupCommit(environment)
    is_made, goes_on = Event(), Event()
    commit = environment._commit

    def slow_commit(transaction) -> None:
        is_made.set()
        assert goes_on.wait(30)
        commit(transaction)

    def refuse(transaction) -> None:
        raise PaymentDBError(PaymentDBCode.PAYMENT_EXISTS)

    monkeypatch.setattr(environment, "_commit", slow_commit)
    with ThreadPoolExecutor(2) as pool:
        group._expected, group._patience_s, group._idle_from = 2, 30.0, float("inf")
        calls = [pool.submit(group.run, call) for call in (add(1), refuse)]
        assert is_made.wait(30)
        assert not any(call.done() for call in calls)
        assert environment.read(lambda transaction: transaction.get(KEY)) is None
        goes_on.set()
        assert sorted(str(call.exception(30)) for call in calls)[0] == "None"
    assert value(environment) == 1


def test_each_commit_is_synced(environment):
    flags = environment._lmdb.flags()
    assert (flags["sync"], flags["metasync"], flags["lock"]) == (True, True, True)
    assert (flags["writemap"], flags["map_async"]) == (False, False)
