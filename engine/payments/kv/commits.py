"""Group commit: calls that come while another commits share the next transaction and its sync.

There is no thread of its own. The first caller to come leads: it makes the calls of all who wait,
each judged on what the ones before it left, commits once and tells everybody. Whoever came
meanwhile waits, and the first of them leads next.

    leads    makes calls A, syncs     gathers A    makes calls B C D A, syncs
    waits         B C D come                            E F come

Whoever leads next gathers for a moment those who were just answered: they are likely to be back at
once, and otherwise half of them would miss every sync. The last of them leads instead. A caller who
is alone waits for nobody but the disk.

Nobody is answered before the sync, not even with a refusal: it may rest on what is not durable yet.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

import lmdb
import msgspec

from engine.payments.errors import PaymentDBError, StoreError, StoreOutcomeUnknownError
from engine.payments.kv.environment import Environment
from engine.payments.kv.reading import Found
from engine.payments.kv.transaction import Transaction
from engine.payments.memory import Memory

CALLS_MAX: Final = 256
"""How many calls one transaction may hold."""

PATIENCE: Final = 0.25
"""How long a leader gathers at most, as a part of what the last commit took."""

PATIENCE_S_MAX: Final = 0.002

Call = Callable[[Transaction], Any]
"""Judges first, then writes: one that raises a refusal has written nothing."""


class Waiting:
    """A call that somebody waits for."""

    __slots__ = ("call", "error", "is_called", "is_done", "refusal", "result", "wake")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.result: Any = None
        self.refusal: PaymentDBError | None = None
        self.error: BaseException | None = None
        self.is_done = False
        self.is_called = False
        self.wake = Lock()
        self.wake.acquire()

    def answer(self) -> Any:
        """Return or raise what came of the call."""
        # A fault first: a refusal may rest on what was never kept.
        error = self.error or self.refusal
        if error is not None:
            raise error
        return self.result


Batch = list[Waiting]


class CommitStatistics(msgspec.Struct, frozen=True):
    """How many calls were answered, with how many transactions."""

    calls: int
    transactions: int


class GroupCommit:
    """The one who writes to an environment.

    Attributes:
        memory: What a call need not read again, see `Memory`; only for a call under way.
    """

    def __init__(self, environment: Environment) -> None:
        self.memory: Memory[Found] = Memory()
        self._environment = environment
        self._lock = Lock()
        self._queue: Batch = []
        self._is_led = False
        self._gathers: Waiting | None = None
        self._expected = 0
        self._patience_s = 0.0
        self._idle_from = 0.0
        self._calls = 0
        self._transactions = 0

    def statistics(self) -> CommitStatistics:
        """Return the counts since the store was opened."""
        return CommitStatistics(self._calls, self._transactions)

    def run(self, call: Call) -> Any:
        """Make `call` in a transaction; return its result once that is durable.

        Raises:
            PaymentDBError: what `call` raised; it changed nothing.
            StoreError: the store is at fault, for all calls of the transaction.
        """
        waiting = Waiting(call)
        with self._lock:
            batch = self._enter(waiting)
        if not batch:
            batch = self._wait(waiting)
        if batch:
            self._lead(batch)
        return waiting.answer()

    def _enter(self, waiting: Waiting) -> Batch:
        """Stand in line; return the batch to lead, if there is one. Holds the lock, as all here."""
        self._queue.append(waiting)
        if not self._is_led:
            self._is_led = waiting.is_called = True
            return self._take_or_gather(waiting)
        if self._gathers is not None and len(self._queue) >= self._expected:
            # Whoever comes last leads: to wake the one who gathers would take longer.
            return self._take()
        return []

    def _take(self) -> Batch:
        """Take the calls that wait, to lead them."""
        self._gathers = None
        batch, self._queue = self._queue[:CALLS_MAX], self._queue[CALLS_MAX:]
        return batch

    def _take_or_gather(self, waiting: Waiting) -> Batch:
        """Take them, unless those who were just answered are worth a moment's wait.

        Not for long, and not after an idle moment.
        """
        if len(self._queue) >= self._expected or time.perf_counter() > self._idle_from:
            return self._take()
        self._gathers = waiting
        return []

    def _wait(self, waiting: Waiting) -> Batch:
        """Return when the call is answered, or with the batch that it is its turn to lead."""
        batch: Batch = []
        try:
            while not batch:
                gathers = self._gathers is waiting
                is_woken = waiting.wake.acquire(timeout=self._patience_s if gathers else -1)
                if waiting.is_done:
                    break
                with self._lock:
                    if is_woken:
                        batch = self._take_or_gather(waiting)
                    elif self._gathers is waiting:
                        batch = self._take()
        except BaseException:
            self._leave(waiting)
            raise
        return batch

    def _leave(self, waiting: Waiting) -> None:
        """Somebody interrupts the caller: let nobody wait for it."""
        with self._lock:
            if self._gathers is waiting:
                self._gathers = None
            if waiting in self._queue:
                self._queue.remove(waiting)
                if waiting.is_called:
                    self._call_next()

    def _call_next(self) -> None:
        """Let the first who waits lead, if there is one."""
        self._is_led = bool(self._queue)
        if self._queue:
            self._queue[0].is_called = True
            self._queue[0].wake.release()

    def _lead(self, batch: Batch) -> None:
        """Make the calls of a batch, our own among them, and let the next one lead."""
        began = time.perf_counter()
        try:
            self._commit(batch)
        except BaseException as error:  # whatever it is, nobody may be left waiting
            for waiting in batch:
                waiting.error = waiting.error or _again(error)
            if not isinstance(error, StoreError):
                raise
        finally:
            self._end(batch, began)

    def _end(self, batch: Batch, began: float) -> None:
        """Wake all of a batch, and who leads next."""
        self._calls += len(batch)
        for waiting in batch:
            waiting.is_done = True
        with self._lock:
            self._expected = min(len(batch) + len(self._queue), CALLS_MAX)
            if self._expected > 1:
                ended = time.perf_counter()
                self._patience_s = min(PATIENCE * (ended - began), PATIENCE_S_MAX)
                self._idle_from = ended + self._patience_s
            self._call_next()
        if len(batch) > 1:
            for waiting in batch:
                if waiting.wake.locked():
                    waiting.wake.release()

    def _commit(self, batch: Batch) -> None:
        left = batch
        while left:
            try:
                self._environment.write(self._make, left)
            except _CallFailed as failed:
                # Its writes went with the transaction; the others begin anew without it.
                failed.waiting.error = failed.error
                left = [waiting for waiting in left if waiting is not failed.waiting]
            else:
                self.memory.commit()
                self._transactions += 1
                return

    def _make(self, transaction: Transaction, batch: Batch) -> None:
        """Make the calls of a batch in order; again is fine."""
        memory = self.memory
        version = transaction.id()
        memory.begin(version - 1, version)
        for waiting in batch:
            waiting.refusal = None
            count_left = memory.count_left
            try:
                waiting.result = waiting.call(transaction)
            except PaymentDBError as refusal:
                waiting.refusal = refusal
                continue
            except lmdb.Error:
                raise
            except Exception as error:  # a fault of one call is not one of its neighbours
                raise _CallFailed(waiting, error) from error
            if memory.count_left == count_left:
                memory.forget()


class _CallFailed(Exception):  # noqa: N818  (not an error of anybody but one caller)
    """A call raised what is not a refusal and may have written something."""

    def __init__(self, waiting: Waiting, error: Exception) -> None:
        super().__init__(str(error))
        self.waiting = waiting
        self.error = error


def _again(error: BaseException) -> BaseException:
    """Return the same fault for another caller; a trace belongs to one thread."""
    if isinstance(error, StoreError):
        return type(error)(*error.args)
    return StoreOutcomeUnknownError(
        f"the commit was cut off ({error!r}): the call is whole or not at all; fetch and see"
    )
