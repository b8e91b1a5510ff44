"""Deletes: whole sets in a statement, many payments in transactions of bounded length.

What may go is looked up in a reading transaction, so writers wait only while rows are removed, and
looked at again under the lock.
"""

import time
from typing import Final

from engine.payments import rules
from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.pacing import Pace, Steps
from engine.payments.sql.database import Database, Row, Work
from engine.payments.values import PaymentStatus

BATCH_MIN: Final = 50
BATCH_MAX: Final = 2_000

LOOK: Final = 5_000
"""How many payments are looked up at a time."""

Found = list[tuple[int, int]]
"""Sequence numbers, each with how many attempts go with it."""


class Deletion:
    """Removes payments and attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = database.statements

    # One payment --------------------------------------------------------------------------------

    def delete(self, work: Work, identifier: bytes, failed_attempts_only: bool) -> None:
        """Remove a payment, or its failed attempts; see `PaymentWriter.delete_payment`."""
        found = work.rows(self._statements.lock, identifier)
        if not found:
            raise PaymentDBError(PaymentDBCode.PAYMENT_NOT_INITIATED)
        number, status = found[0]
        rules.check_remove(status)
        if failed_attempts_only:
            self._remove_attempts(work, [number])
        else:
            self._remove(work, [number])

    def _remove(self, work: Work, numbers: list[int]) -> None:
        """Remove payments; all that hangs on them follows."""
        statements, listing = self._statements, self._database.listing(numbers)
        duplicates = work.rows(statements.count_duplicates, listing)[0][0]
        work.run(statements.count_less, len(numbers), duplicates)
        work.run(statements.delete_payments, listing)

    def _remove_attempts(self, work: Work, numbers: list[int]) -> None:
        listing = self._database.listing(numbers)
        work.run(self._statements.delete_failed, listing)
        work.run(self._statements.forget_failed, listing)

    # Many ---------------------------------------------------------------------------------------

    def delete_many(self, failed_only: bool, failed_attempts_only: bool, steps: Steps) -> int:
        """Remove all that may go, status by status; return how many payments went."""
        statuses = [
            status
            for status in PaymentStatus
            if rules.is_removable(status, failed_only=failed_only)
        ]
        return sum(self._delete_status(status, failed_attempts_only, steps) for status in statuses)

    def _delete_status(
        self, status: PaymentStatus, failed_attempts_only: bool, steps: Steps
    ) -> int:
        removed, after, pace = 0, 0, Pace(BATCH_MIN, BATCH_MAX)
        while True:
            rows = self._database.read(self._find, status, after)
            if not rows:
                return removed
            after = rows[-1][0]
            found = [(number, weight) for number, weight, _ in rows]
            if failed_attempts_only:
                found = [(number, failed) for number, _, failed in rows if failed]
            while found:
                batch, found = cut(found, pace.size)
                began = time.perf_counter()
                removed += self._database.write(
                    self._remove_batch, status, batch, failed_attempts_only
                )
                pace.follow(time.perf_counter() - began)
                steps.add(len(batch))

    def _find(self, work: Work, status: PaymentStatus, after: int) -> list[Row]:
        return work.rows(self._statements.removable(status), after, LOOK)

    def _remove_batch(
        self, work: Work, status: PaymentStatus, numbers: list[int], failed_attempts_only: bool
    ) -> int:
        """Remove those of `numbers` that still have this status."""
        rows = work.rows(self._statements.lock_listed, self._database.listing(numbers))
        still = [number for number, now in rows if now == status]
        if not still:
            return 0
        if failed_attempts_only:
            self._remove_attempts(work, still)
            return 0
        self._remove(work, still)
        return len(still)


def cut(found: Found, size: int) -> tuple[list[int], Found]:
    """Split off the payments of one transaction: `size` payments and attempts together, or one."""
    weight = 0
    for place, (_, attempts) in enumerate(found):
        weight += 1 + attempts
        if weight > size and place:
            return [number for number, _ in found[:place]], found[place:]
    return [number for number, _ in found], []
