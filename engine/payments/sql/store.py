"""The payments database on SQL: checks what comes in, then hands it to a transaction.

What each call promises stands in `engine.payments.interface`.
"""

from collections.abc import Callable, Iterator, Sequence

from engine.payments import checking
from engine.payments.interface import PaymentDB
from engine.payments.pacing import Steps
from engine.payments.paging import window_of
from engine.payments.records import (
    Counters,
    PaymentRecord,
    VerifyReport,
    check_record,
)
from engine.payments.sql.control import Control
from engine.payments.sql.database import Database
from engine.payments.sql.deletion import Deletion
from engine.payments.sql.indexes import Indexes
from engine.payments.sql.moving import Batch, Moving
from engine.payments.sql.reading import Reading
from engine.payments.sql.verifying import Verification
from engine.payments.values import (
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Payment,
    Query,
    Response,
    Settle,
)


class SQLPaymentDB(PaymentDB):
    """A store in a SQLite file or a PostgreSQL database, whose tables are there."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reading = Reading(database)
        self._indexes = Indexes(database)
        self._control = Control(database, self._reading, self._indexes)
        self._deletion = Deletion(database)
        self._moving = Moving(database, self._reading)

    # PaymentReader ------------------------------------------------------------------------------

    def query_payments(self, query: Query) -> Response:
        """Return a page."""
        window = window_of(query)
        return self._database.read(self._reading.page, query, window)

    def fetch_payment(self, identifier: bytes) -> Payment:
        """Return a payment."""
        checking.check_identifier(identifier)
        return self._database.read(self._reading.fetch, identifier)

    def fetch_in_flight_payments(
        self, after: int = 0, max_payments: int | None = None
    ) -> list[Payment]:
        """Return what is not over."""
        window = checking.check_in_flight(after, max_payments)
        return self._database.read(self._reading.in_flight, *window)

    def fetch_by_number(
        self, identifier: bytes, sequence_number: int
    ) -> Payment | DuplicatePayment:
        """Return a payment or a duplicate."""
        checking.check_identifier(identifier)
        checking.check_sequence_number(sequence_number)
        return self._database.read(self._reading.fetch_by_number, identifier, sequence_number)

    # PaymentControl -----------------------------------------------------------------------------

    def init_payment(self, identifier: bytes, info: CreationInfo) -> None:
        """Begin a payment."""
        checking.check_creation(identifier, info)
        self._database.write(self._control.init, identifier, info)

    def register_attempt(self, identifier: bytes, attempt: Attempt) -> Payment:
        """Keep an attempt."""
        checking.check_identifier(identifier)
        checking.check_new_attempt(attempt)
        payment = self._database.write(self._control.register, identifier, attempt)
        self._indexes.skip(attempt.attempt_index)
        return payment

    def settle_attempt(self, identifier: bytes, attempt_index: int, settle: Settle) -> Payment:
        """Let an attempt settle."""
        checking.check_identifier(identifier)
        checking.check_attempt_index(attempt_index)
        checking.check_settle(settle)
        return self._database.write(self._control.settle, identifier, attempt_index, settle)

    def fail_attempt(self, identifier: bytes, attempt_index: int, failure: Failure) -> Payment:
        """Let an attempt fail."""
        checking.check_identifier(identifier)
        checking.check_attempt_index(attempt_index)
        checking.check_failure(failure)
        return self._database.write(self._control.fail_attempt, identifier, attempt_index, failure)

    def fail_payment(self, identifier: bytes, reason: FailureReason) -> Payment:
        """Give a payment up."""
        checking.check_identifier(identifier)
        checking.check_reason(reason)
        return self._database.write(self._control.fail, identifier, FailureReason(reason))

    def delete_failed_attempts(self, identifier: bytes) -> None:
        """Remove failed attempts of a payment."""
        self.delete_payment(identifier, failed_attempts_only=True)

    # PaymentWriter ------------------------------------------------------------------------------

    def delete_payment(self, identifier: bytes, failed_attempts_only: bool = False) -> None:
        """Remove a payment."""
        checking.check_identifier(identifier)
        checking.check_flags(failed_attempts_only=failed_attempts_only)
        self._database.write(self._deletion.delete, identifier, failed_attempts_only)

    def delete_payments(
        self,
        failed_only: bool = False,
        failed_attempts_only: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Remove what may go."""
        checking.check_flags(failed_only=failed_only, failed_attempts_only=failed_attempts_only)
        steps = Steps(self.counters().payments, progress)
        removed = self._deletion.delete_many(failed_only, failed_attempts_only, steps)
        steps.end()
        return removed

    # Sequencer ----------------------------------------------------------------------------------

    def next_attempt_index(self) -> int:
        """Return an index that was never given."""
        self._database.check_open()
        return self._indexes.next()

    # RecordMover --------------------------------------------------------------------------------

    def read_records(self, after: int = 0, batch_size: int = 500) -> Iterator[Batch]:
        """Walk all payments."""
        checking.check_batch(after, batch_size)
        return self._batches(after, batch_size)

    def _batches(self, after: int, batch_size: int) -> Iterator[Batch]:
        while batch := self._database.read(self._moving.read, after, batch_size):
            yield batch
            after = batch[-1].sequence_number

    def write_records(self, records: Sequence[PaymentRecord], note: bytes | None = None) -> None:
        """Add whole payments."""
        checking.check_note(note)
        for record in records:
            check_record(record)
        highest = self._database.write(self._moving.write, records, note, is_bulk=True)
        self._indexes.skip(highest)

    def note(self) -> bytes | None:
        """Return the note of a migration."""
        return self._database.read(self._moving.note)

    def counters(self) -> Counters:
        """Return all counters."""
        return self._database.read(self._moving.counters)

    def raise_counters(self, sequence_number: int = 0, attempt_index: int = 0) -> None:
        """Let counters rise."""
        checking.check_counters(sequence_number, attempt_index)
        self._database.write(self._moving.raise_counters, sequence_number, attempt_index)
        self._indexes.skip(attempt_index)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Recompute what is kept."""

        def run(work: object) -> VerifyReport:
            return Verification(self._database, self._reading).run(work, progress)  # type: ignore[arg-type]

        return self._database.read(run)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()
