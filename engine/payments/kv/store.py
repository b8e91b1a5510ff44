"""The LMDB store: every call of the interface as one transaction."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import islice
from threading import Lock
from typing import TypeVar

from engine.payments import checking
from engine.payments.errors import (
    PaymentDBCode,
    PaymentDBError,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from engine.payments.interface import PaymentDB
from engine.payments.kv import life, moving
from engine.payments.kv.commits import CommitStatistics
from engine.payments.kv.deletion import (
    RECORDS_MAX,
    RECORDS_MIN,
    Choice,
    candidates,
    delete_some,
)
from engine.payments.kv.layout import STATUS, line_of
from engine.payments.kv.pages import Entry, page_of
from engine.payments.kv.reading import Reading
from engine.payments.kv.sharing import REGISTRY, Shared
from engine.payments.kv.verification import verify
from engine.payments.kv.writing import INDEX_BLOCK_MAX, Writing
from engine.payments.pacing import Pace, Steps
from engine.payments.paging import window_of
from engine.payments.records import Counters, PaymentRecord, VerifyReport, check_record
from engine.payments.values import (
    NUMBER_MAX,
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Payment,
    PaymentStatus,
    Query,
    Response,
    Settle,
)

T = TypeVar("T")


class LmdbDB(PaymentDB):
    """A handle of a store in a directory; any number of threads may use it.

    Args:
        shared: the environment, which this handle gives back when it closes.
        read_only: whether this handle may write.
    """

    def __init__(self, shared: Shared, *, read_only: bool) -> None:
        self._shared = shared
        self._environment = shared.environment
        self._read_only = read_only
        self._is_closed = False
        self._index_lock = Lock()
        self._next_index = 1
        self._last_index = 0
        self._block = 1

    # Transactions ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError(f"this handle of {self._environment.place} is closed; open another")
        if self._environment.is_inherited:
            raise StoreUnavailableError(
                f"{self._environment.place} was opened before this process was forked: open it "
                "after the fork"
            )

    def _read(self, work: Callable[[Reading], T]) -> T:
        self._check_open()
        return self._environment.read(lambda transaction: work(Reading(transaction)))

    def _write(self, work: Callable[..., T], *arguments: object) -> T:
        self._check_open()
        if self._read_only:
            raise StoreReadOnlyError(
                f"{self._environment.place} was opened read-only: open it without that to write"
            )
        commits = self._shared.commits
        result: T = commits.run(
            lambda transaction: work(Writing(transaction, commits.memory), *arguments)
        )
        return result

    def statistics(self) -> CommitStatistics:
        """Return how many calls of this process were written with how many transactions."""
        return self._shared.commits.statistics()

    # Reading --------------------------------------------------------------------------------------

    def query_payments(self, query: Query) -> Response:
        """Return a page; the cost is set by what it holds."""
        window = window_of(query)

        def look(reading: Reading) -> Response:
            total = reading.counters().payments if query.count_total else 0
            return _response(reading, page_of(reading, window), total, not query.omit_hops)

        return self._read(look)

    def fetch_payment(self, identifier: bytes) -> Payment:
        """Return a payment, in one walk over its parts."""
        checking.check_identifier(identifier)
        return self._read(lambda reading: life.existing(reading, identifier).payment)

    def fetch_in_flight_payments(
        self, after: int = 0, max_payments: int | None = None
    ) -> list[Payment]:
        """Return what the index over statuses has of two statuses."""
        after, limit = checking.check_in_flight(after, max_payments)
        return self._read(lambda reading: _in_flight(reading, after, limit))

    def fetch_by_number(
        self, identifier: bytes, sequence_number: int
    ) -> Payment | DuplicatePayment:
        """Return a payment or a duplicate of it."""
        checking.check_identifier(identifier)
        checking.check_sequence_number(sequence_number)
        return self._read(lambda reading: _by_number(reading, identifier, sequence_number))

    # The life of a payment ------------------------------------------------------------------------

    def init_payment(self, identifier: bytes, info: CreationInfo) -> None:
        """Begin a payment."""
        checking.check_creation(identifier, info)
        self._write(life.init, info)

    def register_attempt(self, identifier: bytes, attempt: Attempt) -> Payment:
        """Keep an attempt; `next_attempt_index` goes on above it."""
        checking.check_identifier(identifier)
        checking.check_new_attempt(attempt)
        payment = self._write(life.register, identifier, attempt)
        with self._index_lock:
            self._next_index = max(self._next_index, attempt.attempt_index + 1)
        return payment

    def settle_attempt(self, identifier: bytes, attempt_index: int, settle: Settle) -> Payment:
        """Keep the preimage of an attempt."""
        checking.check_identifier(identifier)
        checking.check_attempt_index(attempt_index)
        checking.check_settle(settle)
        return self._write(life.resolve, identifier, attempt_index, settle)

    def fail_attempt(self, identifier: bytes, attempt_index: int, failure: Failure) -> Payment:
        """Keep why an attempt failed."""
        checking.check_identifier(identifier)
        checking.check_attempt_index(attempt_index)
        checking.check_failure(failure)
        return self._write(life.resolve, identifier, attempt_index, failure)

    def fail_payment(self, identifier: bytes, reason: FailureReason) -> Payment:
        """Give a payment up."""
        checking.check_identifier(identifier)
        checking.check_reason(reason)
        return self._write(life.fail, identifier, FailureReason(reason))

    # Deletion -------------------------------------------------------------------------------------

    def delete_failed_attempts(self, identifier: bytes) -> None:
        """Remove failed attempts."""
        checking.check_identifier(identifier)
        self._write(life.delete_failed_attempts, identifier)

    def delete_payment(self, identifier: bytes, failed_attempts_only: bool = False) -> None:
        """Remove a payment, or its failed attempts."""
        checking.check_identifier(identifier)
        checking.check_flags(failed_attempts_only=failed_attempts_only)
        if failed_attempts_only:
            self.delete_failed_attempts(identifier)
        else:
            self._write(life.delete, identifier)

    def delete_payments(
        self,
        failed_only: bool = False,
        failed_attempts_only: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Remove payments in transactions of at most about 100 payments and attempts."""
        checking.check_flags(failed_only=failed_only, failed_attempts_only=failed_attempts_only)
        choice = Choice(failed_only, failed_attempts_only)
        steps = Steps(self.counters().payments, progress)
        removed = sum(self._delete_all(choice, status, steps) for status in choice.statuses)
        steps.end()
        return removed

    def _delete_all(self, choice: Choice, status: PaymentStatus, steps: Steps) -> int:
        """Delete what there is of one status; return how many payments went."""
        removed, after, pace = 0, 0, Pace(RECORDS_MIN, RECORDS_MAX)
        while True:
            found, after = self._read(partial(candidates, choice, status, after))
            while found:
                began = time.perf_counter()
                done, gone = self._write(delete_some, choice, found, pace.size)
                pace.follow(time.perf_counter() - began)
                removed += gone
                steps.add(done)
                found = found[done:]
            if not after:
                return removed

    # Counters and moving --------------------------------------------------------------------------

    def next_attempt_index(self) -> int:
        """Return the next of a block, or take a new one."""
        # Read before the lock: others would queue for it behind the read.
        moved_index = self._read(Reading.counters).moved_index
        with self._index_lock:
            self._next_index = max(self._next_index, moved_index + 1)
            if self._next_index > self._last_index:
                self._next_index, self._last_index = self._write(Writing.take_indexes, self._block)
                self._block = min(2 * self._block, INDEX_BLOCK_MAX)
            self._next_index += 1
            return self._next_index - 1

    def counters(self) -> Counters:
        """Return the counters."""
        counters = self._read(Reading.counters)
        return Counters(
            *(counters.sequence_number, counters.attempt_index),
            *(counters.payments, counters.duplicates),
        )

    def raise_counters(self, sequence_number: int = 0, attempt_index: int = 0) -> None:
        """Let the next number and index be above these."""
        checking.check_counters(sequence_number, attempt_index)
        self._write(moving.raise_counters, sequence_number, attempt_index)

    def note(self) -> bytes | None:
        """Return the note of a migration."""
        return self._read(Reading.note)

    def read_records(
        self, after: int = 0, batch_size: int = 500
    ) -> Iterator[tuple[PaymentRecord, ...]]:
        """Walk the number line; each batch is a read of its own."""
        checking.check_batch(after, batch_size)
        return self._batches(after, batch_size)

    def _batches(self, after: int, batch_size: int) -> Iterator[tuple[PaymentRecord, ...]]:
        while batch := self._read(partial(moving.read_batch, after, batch_size)):
            yield batch
            after = batch[-1].sequence_number

    def write_records(self, records: Sequence[PaymentRecord], note: bytes | None = None) -> None:
        """Add whole payments."""
        checking.check_note(note)
        for record in records:
            check_record(record)
        self._write(moving.write_batch, records, note)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Look at everything, in one consistent read."""
        return self._read(lambda reading: verify(reading, progress))

    def close(self) -> None:
        """Give the environment back; the last handle of the process closes it."""
        if not self._is_closed:
            self._is_closed = True
            REGISTRY.give_back(self._shared)


# What a call reads --------------------------------------------------------------------------------


def _response(reading: Reading, page: list[Entry], total: int, with_hops: bool) -> Response:
    payments = []
    duplicates: dict[bytes, tuple[DuplicatePayment, ...]] = {}
    for entry in page:
        identifier = entry.identifier
        if not entry.is_duplicate:
            found = reading.find_listed(identifier, with_hops=with_hops)
            payments.append(found.payment)
        else:
            duplicate = reading.listed_duplicate(identifier, entry.number)
            duplicates[identifier] = (*duplicates.get(identifier, ()), duplicate)
    return Response(
        payments=tuple(payments),
        first_index_offset=page[0].number if page else 0,
        last_index_offset=page[-1].number if page else 0,
        total_count=total,
        duplicate_payments=duplicates,
    )


def _in_flight(reading: Reading, after: int, limit: int) -> list[Payment]:
    if after == NUMBER_MAX:
        return []
    runs = (
        reading.walk(b"%b%c" % (STATUS, status), after + 1, NUMBER_MAX)
        for status in (PaymentStatus.INITIATED, PaymentStatus.IN_FLIGHT)
    )
    lines = islice(merge(*runs), limit)
    return [reading.find_listed(line_of(line)[2]).payment for _, line in lines]


def _by_number(
    reading: Reading, identifier: bytes, sequence_number: int
) -> Payment | DuplicatePayment:
    header = life.existing_header(reading, identifier)
    if header.sequence_number == sequence_number:
        return life.existing(reading, identifier).payment
    duplicate = reading.duplicate(identifier, sequence_number)
    if duplicate is not None:
        return duplicate
    has_some = bool(reading.duplicates(identifier))
    code = PaymentDBCode.DUPLICATE_NOT_FOUND if has_some else PaymentDBCode.NO_DUPLICATE_BUCKET
    raise PaymentDBError(code, actual=sequence_number)
