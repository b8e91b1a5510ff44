"""The payments database in its simplest form: dictionaries, the pure rules and one lock.

Every store must give the answers that this gives. It is also the store `model` of the suite, so the
tables are known to be right before a store is blamed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import islice
from threading import RLock
from typing import Any

from msgspec.structs import replace

from engine.payments import (
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Payment,
    PaymentDB,
    PaymentDBCode,
    PaymentDBError,
    Query,
    Response,
    Settle,
    StoreError,
    checking,
    rules,
)
from engine.payments.compatibility import check_compatible, terms_of
from engine.payments.errors import StoreFullError
from engine.payments.paging import Window, window_of
from engine.payments.records import Counters, PaymentRecord, VerifyReport, check_record
from engine.payments.state import payment_of, tally_of
from engine.payments.values import NUMBER_MAX


def one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make `method` hold the lock and refuse a closed store."""

    @wraps(method)
    def alone(self: "ModelDB", *arguments: Any, **named: Any) -> Any:
        with self.lock:
            if self.is_closed:
                raise StoreError("the model is closed")
            return method(self, *arguments, **named)

    return alone


def payment(record: PaymentRecord) -> Payment:
    """Return `record` as it is read."""
    return payment_of(record.sequence_number, record.info, record.attempts, record.failure_reason)


def without_hops(read: Payment) -> Payment:
    """Return `read` as a query that omits hops returns it."""
    return replace(
        read,
        attempts=tuple(
            replace(
                attempt,
                route=replace(
                    attempt.route, hops=(), omitted_receiver_msat=attempt.route.receiver_msat
                ),
            )
            for attempt in read.attempts
        ),
    )


class ModelDB(PaymentDB):
    """All payments, in memory."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.is_closed = False
        self.records: dict[bytes, PaymentRecord] = {}
        self.sequence_number = 0
        self.attempt_index = 0
        self.left_note: bytes | None = None

    # Reading ------------------------------------------------------------------------------------

    def ordered(self) -> list[PaymentRecord]:
        """Return all records, ascending by sequence number."""
        return sorted(self.records.values(), key=lambda record: record.sequence_number)

    def record(self, identifier: bytes) -> PaymentRecord:
        """Return the record of a payment there is."""
        checking.check_identifier(identifier)
        if identifier not in self.records:
            raise PaymentDBError(PaymentDBCode.PAYMENT_NOT_INITIATED)
        return self.records[identifier]

    @one_at_a_time
    def query_payments(self, query: Query) -> Response:
        window = window_of(query)
        everything: dict[int, Payment | DuplicatePayment] = {}
        for record in self.records.values():
            everything[record.sequence_number] = payment(record)
            everything |= {each.sequence_number: each for each in record.duplicates}
        wanted = [
            number for number in sorted(everything) if is_inside(window, number, everything[number])
        ]
        page = wanted[-window.limit :] if window.descending else wanted[: window.limit]
        duplicates: dict[bytes, tuple[DuplicatePayment, ...]] = {}
        payments = []
        for number in page:
            found = everything[number]
            if isinstance(found, Payment):
                payments.append(without_hops(found) if query.omit_hops else found)
            else:
                duplicates[found.identifier] = (*duplicates.get(found.identifier, ()), found)
        return Response(
            payments=tuple(payments),
            first_index_offset=page[0] if page else 0,
            last_index_offset=page[-1] if page else 0,
            total_count=len(self.records) if query.count_total else 0,
            duplicate_payments=duplicates,
        )

    @one_at_a_time
    def fetch_payment(self, identifier: bytes) -> Payment:
        return payment(self.record(identifier))

    @one_at_a_time
    def fetch_in_flight_payments(
        self, after: int = 0, max_payments: int | None = None
    ) -> list[Payment]:
        checking.check_in_flight(after, max_payments)
        everything = map(payment, self.ordered())
        waiting = [each for each in everything if each.status not in rules.TERMINAL]
        return [each for each in waiting if each.sequence_number > after][:max_payments]

    @one_at_a_time
    def fetch_by_number(
        self, identifier: bytes, sequence_number: int
    ) -> Payment | DuplicatePayment:
        checking.check_sequence_number(sequence_number)
        record = self.record(identifier)
        if record.sequence_number == sequence_number:
            return payment(record)
        if not record.duplicates:
            raise PaymentDBError(PaymentDBCode.NO_DUPLICATE_BUCKET, actual=sequence_number)
        for duplicate in record.duplicates:
            if duplicate.sequence_number == sequence_number:
                return duplicate
        raise PaymentDBError(PaymentDBCode.DUPLICATE_NOT_FOUND, actual=sequence_number)

    # The life of a payment ----------------------------------------------------------------------

    @one_at_a_time
    def init_payment(self, identifier: bytes, info: CreationInfo) -> None:
        checking.check_creation(identifier, info)
        duplicates: tuple[DuplicatePayment, ...] = ()
        if identifier in self.records:
            before = self.records[identifier]
            rules.check_init_again(payment(before).status)
            duplicates = before.duplicates
        self.sequence_number = following(self.sequence_number)
        self.records[identifier] = PaymentRecord(self.sequence_number, info, duplicates=duplicates)

    @one_at_a_time
    def register_attempt(self, identifier: bytes, attempt: Attempt) -> Payment:
        checking.check_identifier(identifier)
        checking.check_new_attempt(attempt)
        record = self.record(identifier)
        before = payment(record)
        rules.check_registrable(
            before.status,
            has_settled=before.state.has_settled,
            has_failure_reason=before.state.has_failure_reason,
        )
        self.check_is_new(attempt)
        check_compatible(
            record.info.value_msat,
            tally_of(record.attempts).sent_msat,
            [terms_of(each.route) for each in record.attempts if each.is_in_flight],
            attempt.route,
        )
        self.attempt_index = max(self.attempt_index, attempt.attempt_index)
        return self.keep(record, [*record.attempts, attempt])

    def check_is_new(self, attempt: Attempt) -> None:
        """Refuse an attempt of which another has the index or the session key."""
        everything = [each for record in self.records.values() for each in record.attempts]
        if any(each.attempt_index == attempt.attempt_index for each in everything):
            raise PaymentDBError(PaymentDBCode.ATTEMPT_EXISTS, actual=attempt.attempt_index)
        for each in everything:
            if each.session_key == attempt.session_key:
                raise PaymentDBError(
                    PaymentDBCode.SESSION_KEY_EXISTS,
                    expected=each.attempt_index,
                    actual=attempt.attempt_index,
                )

    def keep(self, record: PaymentRecord, attempts: Sequence[Attempt]) -> Payment:
        """Let the payment have these attempts; return it."""
        ordered = tuple(sorted(attempts, key=lambda attempt: attempt.attempt_index))
        self.records[record.info.identifier] = replace(record, attempts=ordered)
        return payment(self.records[record.info.identifier])

    @one_at_a_time
    def settle_attempt(self, identifier: bytes, attempt_index: int, settle: Settle) -> Payment:
        checking.check_identifier(identifier)
        checking.check_attempt_index(attempt_index)
        checking.check_settle(settle)
        return self.resolve(identifier, attempt_index, settle=settle)

    @one_at_a_time
    def fail_attempt(self, identifier: bytes, attempt_index: int, failure: Failure) -> Payment:
        checking.check_identifier(identifier)
        checking.check_attempt_index(attempt_index)
        checking.check_failure(failure)
        return self.resolve(identifier, attempt_index, failure=failure)

    def resolve(self, identifier: bytes, attempt_index: int, **result: Any) -> Payment:
        """Let an attempt in flight end."""
        record = self.record(identifier)
        rules.check_update(payment(record).status)
        attempts = {attempt.attempt_index: attempt for attempt in record.attempts}
        if attempt_index not in attempts:
            raise PaymentDBError(PaymentDBCode.ATTEMPT_NOT_FOUND, actual=attempt_index)
        attempt = attempts[attempt_index]
        rules.check_resolvable(
            attempt_index, settled=attempt.settle is not None, failed=attempt.failure is not None
        )
        attempts[attempt_index] = replace(attempt, **result)
        return self.keep(record, list(attempts.values()))

    @one_at_a_time
    def fail_payment(self, identifier: bytes, reason: FailureReason) -> Payment:
        checking.check_identifier(identifier)
        checking.check_reason(reason)
        record = replace(self.record(identifier), failure_reason=FailureReason(reason))
        return self.keep(record, record.attempts)

    # Deletion -----------------------------------------------------------------------------------

    @one_at_a_time
    def delete_failed_attempts(self, identifier: bytes) -> None:
        record = self.record(identifier)
        rules.check_remove(payment(record).status)
        self.keep(record, [each for each in record.attempts if each.failure is None])

    @one_at_a_time
    def delete_payment(self, identifier: bytes, failed_attempts_only: bool = False) -> None:
        checking.check_flags(failed_attempts_only=failed_attempts_only)
        if failed_attempts_only:
            self.delete_failed_attempts(identifier)
            return
        rules.check_remove(payment(self.record(identifier)).status)
        del self.records[identifier]

    @one_at_a_time
    def delete_payments(
        self,
        failed_only: bool = False,
        failed_attempts_only: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        checking.check_flags(failed_only=failed_only, failed_attempts_only=failed_attempts_only)
        removable = [
            each.info.identifier
            for each in map(payment, self.ordered())
            if rules.is_removable(each.status, failed_only=failed_only)
        ]
        for identifier in removable:
            self.delete_payment(identifier, failed_attempts_only)
        if progress is not None:
            progress(len(removable), len(removable))
        return 0 if failed_attempts_only else len(removable)

    # Counters and moving ------------------------------------------------------------------------

    @one_at_a_time
    def next_attempt_index(self) -> int:
        self.attempt_index = following(self.attempt_index)
        return self.attempt_index

    @one_at_a_time
    def counters(self) -> Counters:
        duplicates = sum(len(record.duplicates) for record in self.records.values())
        return Counters(self.sequence_number, self.attempt_index, len(self.records), duplicates)

    @one_at_a_time
    def raise_counters(self, sequence_number: int = 0, attempt_index: int = 0) -> None:
        checking.check_counters(sequence_number, attempt_index)
        self.sequence_number = max(self.sequence_number, sequence_number)
        self.attempt_index = max(self.attempt_index, attempt_index)

    @one_at_a_time
    def note(self) -> bytes | None:
        return self.left_note

    def read_records(
        self, after: int = 0, batch_size: int = 500
    ) -> Iterator[tuple[PaymentRecord, ...]]:
        checking.check_batch(after, batch_size)
        return self.batches(after, batch_size)

    def batches(self, after: int, batch_size: int) -> Iterator[tuple[PaymentRecord, ...]]:
        """Yield batches, each of one look."""
        while True:
            with self.lock:
                wanted = (each for each in self.ordered() if each.sequence_number > after)
                batch = tuple(islice(wanted, batch_size))
            if not batch:
                return
            yield batch
            after = batch[-1].sequence_number

    @one_at_a_time
    def write_records(self, records: Sequence[PaymentRecord], note: bytes | None = None) -> None:
        checking.check_note(note)
        before = dict(self.records), self.sequence_number, self.attempt_index
        try:
            for record in records:
                self.add(record)
        except PaymentDBError:
            self.records, self.sequence_number, self.attempt_index = before
            raise
        self.left_note = note

    def add(self, record: PaymentRecord) -> None:
        """Take a whole payment in."""
        check_record(record)
        if record.info.identifier in self.records:
            raise PaymentDBError(PaymentDBCode.PAYMENT_EXISTS)
        taken = {number for each in self.records.values() for number in numbers_of(each)}
        for number in numbers_of(record):
            if number in taken:
                raise PaymentDBError(PaymentDBCode.SEQUENCE_NUMBER_EXISTS, actual=number)
        for attempt in record.attempts:
            self.check_is_new(attempt)
        self.records[record.info.identifier] = record
        self.sequence_number = max(self.sequence_number, *numbers_of(record))
        indexes = [each.attempt_index for each in record.attempts]
        self.attempt_index = max(self.attempt_index, *indexes, 0)

    @one_at_a_time
    def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        attempts = sum(len(record.attempts) for record in self.records.values())
        if progress is not None:
            progress(len(self.records), len(self.records))
        return VerifyReport(len(self.records), attempts, self.counters().duplicates, 0, ())

    def close(self) -> None:
        self.is_closed = True


def following(number: int) -> int:
    """Return the next number, if there is one."""
    if number >= NUMBER_MAX:
        raise StoreFullError("no number is left")
    return number + 1


def numbers_of(record: PaymentRecord) -> list[int]:
    """Return all sequence numbers that the record takes."""
    return [record.sequence_number, *(each.sequence_number for each in record.duplicates)]


def is_inside(window: Window, number: int, found: Payment | DuplicatePayment) -> bool:
    """Say whether a record belongs to what was asked for."""
    created_at_ns = found.info.created_at_ns if isinstance(found, Payment) else found.created_at_ns
    return (
        window.lowest <= number <= window.highest
        and window.created_from_ns <= created_at_ns <= window.created_until_ns
        and window.status in (None, found.status)
    )
