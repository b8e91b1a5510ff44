"""The life of a payment, in transactions: look, check by the pure rules, write.

Order of locks, so that two calls never wait for one another: the payment, then the counters, then
what is new.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from engine.payments import rules
from engine.payments.compatibility import check_compatible, terms_of
from engine.payments.errors import (
    PaymentDBCode,
    PaymentDBError,
    StoreDamagedError,
    StoreFullError,
)
from engine.payments.memory import without_foreign
from engine.payments.sql.database import Database, Row, Work
from engine.payments.sql.headers import Header, header_of_new
from engine.payments.sql.indexes import Indexes
from engine.payments.sql.reading import Reading, the_only
from engine.payments.sql.rows import (
    BOLT_11,
    AttemptRows,
    kept_row,
    payment_row,
    resolution_row,
)
from engine.payments.state import state_of, tally_of
from engine.payments.values import (
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Payment,
    Settle,
)

TRIES_MAX: Final = 3
"""What is in an attempt's way may be deleted before it is looked at; then it is added again."""


class Control:
    """What changes one payment. Each method runs in a transaction of its caller."""

    def __init__(self, database: Database, reading: Reading, indexes: Indexes) -> None:
        self._database = database
        self._statements = database.statements
        self._reading = reading
        self._indexes = indexes

    def init(self, work: Work, identifier: bytes, info: CreationInfo) -> None:
        """Begin a payment; see `PaymentControl`, as for all below."""
        statements = self._statements
        found, taken = work.begin(statements.lock, identifier, statements.take_number)
        if not taken:
            raise StoreFullError(f"{self._database.name}: no sequence number is left")
        number = taken[0][0]
        row = payment_row(self._database, number, info)
        if found:
            before, status = found[0]
            rules.check_init_again(status)
            self._clear(work, before)
            work.leave(header_of_new(number, info), statements.begin_again, *row, before)
        else:
            work.leave(header_of_new(number, info), statements.add_payment, *row)
        add_info(work, self._database, number, info)

    def _clear(self, work: Work, number: int) -> None:
        """Remove what a former run left, all but the duplicates."""
        statements, listing = self._statements, self._database.listing([number])
        work.run(statements.delete_attempts, listing)
        work.run(statements.delete_intents, listing)
        work.run(statements.delete_payment_records, listing)
        work.run(statements.count_less, 1, 0)  # taking a number counted it once more

    def register(self, work: Work, identifier: bytes, attempt: Attempt) -> Payment:
        """Keep an attempt."""
        header = self._locked(work, identifier)
        rules.check_registrable(
            header.status,
            has_settled=header.tally.settled > 0,
            has_failure_reason=header.failure_reason is not None,
        )
        before = self._attempts(work, header)
        self._indexes.raise_to(work, attempt.attempt_index)
        self._add_attempt(work, header.number, attempt)
        check_compatible(
            header.value_msat,
            header.tally.sent_msat,
            [terms_of(each.route) for each in before if each.is_in_flight],
            attempt.route,
        )
        attempts = sorted((*before, without_foreign(attempt)), key=lambda each: each.attempt_index)
        return self._keep(work, header, attempts, header.failure_reason)

    def _add_attempt(self, work: Work, number: int, attempt: Attempt) -> None:
        """Add an attempt whose index and session key are new; what is wrong with it ends it all."""
        rows = AttemptRows(self._database)
        rows.add(number, attempt)
        parts = [*rows.by_table(self._statements)]
        if not work.is_hopeful:
            self._add_if_new(work, attempt, rows.attempts[0])
            del parts[0]
        for _, statement, some in parts:
            if len(some) == 1:
                work.run(statement, *some[0])
            elif some:
                work.run_many(statement, some)

    def _add_if_new(self, work: Work, attempt: Attempt, row: Row) -> None:
        """Add the row of an attempt, or say what is in its way."""
        for _ in range(TRIES_MAX):
            if work.rows(self._statements.add_new_attempt, *row):
                return
            self._refuse_taken(work, attempt)
        raise StoreDamagedError(
            f"{self._database.name}: something other than its index and its session key keeps an "
            "attempt out: see whether the row ids of payment_htlc_attempts were restored"
        )

    def _refuse_taken(self, work: Work, attempt: Attempt) -> None:
        """Say what is there already; return if it was deleted meanwhile."""
        index = attempt.attempt_index
        taken = work.rows(self._statements.taken, index, attempt.session_key)
        if (index,) in taken:
            raise PaymentDBError(PaymentDBCode.ATTEMPT_EXISTS, actual=index)
        if taken:
            raise PaymentDBError(
                PaymentDBCode.SESSION_KEY_EXISTS, expected=taken[0][0], actual=index
            )

    def settle(self, work: Work, identifier: bytes, index: int, settle: Settle) -> Payment:
        """Let an attempt settle."""
        return self._resolve(work, identifier, index, settle, None)

    def fail_attempt(self, work: Work, identifier: bytes, index: int, failure: Failure) -> Payment:
        """Let an attempt fail."""
        reason = AttemptFailureReason(failure.reason)
        return self._resolve(work, identifier, index, None, replace(failure, reason=reason))

    def _resolve(
        self,
        work: Work,
        identifier: bytes,
        index: int,
        settle: Settle | None,
        failure: Failure | None,
    ) -> Payment:
        header = self._locked(work, identifier)
        rules.check_update(header.status)
        attempts = self._attempts(work, header)
        by_index = {attempt.attempt_index: attempt for attempt in attempts}
        if index not in by_index:
            raise PaymentDBError(PaymentDBCode.ATTEMPT_NOT_FOUND, actual=index)
        attempt = by_index[index]
        rules.check_resolvable(
            index, settled=attempt.settle is not None, failed=attempt.failure is not None
        )
        by_index[index] = replace(attempt, settle=settle, failure=failure)
        work.run(self._statements.add_resolution, *resolution_row(by_index[index]))
        return self._keep(work, header, [*by_index.values()], header.failure_reason)

    def fail(self, work: Work, identifier: bytes, reason: FailureReason) -> Payment:
        """Give a payment up."""
        header = self._locked(work, identifier)
        return self._keep(work, header, self._attempts(work, header), reason)

    def _locked(self, work: Work, identifier: bytes) -> Header:
        """Return a payment that nobody else changes before this transaction ends.

        It is read behind the lock: what a read that waits finds may be older than what it waited
        for.
        """
        statements = self._statements
        if (known := work.recall(identifier)) is not None:
            return known
        if not self._database.has_row_locks:
            return self._reading.header(work, identifier)
        _, rows = work.ask((statements.lock, identifier), (statements.header, identifier))
        return the_only(rows)

    def _attempts(self, work: Work, header: Header) -> tuple[Attempt, ...]:
        if header.attempts is not None:
            return header.attempts
        return self._reading.attempts(work, [header]).get(header.number, ())

    def _keep(
        self,
        work: Work,
        header: Header,
        attempts: Sequence[Attempt],
        reason: FailureReason | None,
    ) -> Payment:
        """Write what follows from the attempts beside the payment; return it."""
        info = self._reading.info(work, header)
        tally = tally_of(attempts)
        kept = kept_row(self._database, tally, reason)
        status, state = kept[1], state_of(header.value_msat, tally, reason)
        left = replace(
            *(header,), failure_reason=reason, status=status, tally=tally, attempts=tuple(attempts)
        )
        work.leave(left, self._statements.keep, *kept, header.number)
        return Payment(header.number, info, tuple(attempts), reason, status, state)


def add_info(work: Work, database: Database, number: int, info: CreationInfo) -> None:
    """Add what hangs on a new payment."""
    if info.payment_request:
        work.run(database.statements.add_intent, number, BOLT_11, info.payment_request)
    if info.first_hop_custom_records:
        work.run_many(database.statements.add_payment_record, info_records(database, number, info))


def info_records(database: Database, number: int, info: CreationInfo) -> list[Row]:
    """Return the rows of the custom records of a payment."""
    records = info.first_hop_custom_records.items()
    return [(number, database.unsigned(key), value) for key, value in records]
