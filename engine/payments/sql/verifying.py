"""Recomputes from the attempts what is kept for speed, in bounded memory, on one state."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from engine.payments.errors import PaymentDBError
from engine.payments.records import PROBLEMS_MAX, Problem, VerifyReport
from engine.payments.sql.database import Database, Work
from engine.payments.sql.headers import Header
from engine.payments.sql.reading import Reading
from engine.payments.sql.rows import header_of, unsigned
from engine.payments.state import state_of, status_of, tally_of
from engine.payments.values import Attempt

BATCH: Final = 500
STORE: Final = b""
"""The identifier of a problem that is of no payment."""

Progress = Callable[[int, int], None] | None


class Verification:
    """One walk over everything."""

    def __init__(self, database: Database, reading: Reading) -> None:
        self._database = database
        self._statements = database.statements
        self._reading = reading
        self._payments = 0
        self._attempts = 0
        self._count = 0
        self._problems: list[Problem] = []

    def run(self, work: Work, progress: Progress) -> VerifyReport:
        """Look at every payment, then at the counters."""
        total = work.rows(self._statements.counters)[0][2]
        after = 0
        while headers := [*map(header_of, work.rows(self._statements.walk, after, BATCH))]:
            self._look_at(work, headers)
            after = headers[-1].number
            if progress is not None:
                progress(self._payments, max(total, self._payments))
        duplicates = self._look_at_counters(work)
        if progress is not None:
            progress(self._payments, self._payments)
        return VerifyReport(
            self._payments, self._attempts, duplicates, self._count, tuple(self._problems)
        )

    def _look_at(self, work: Work, headers: Sequence[Header]) -> None:
        attempts = self._reading.attempts(work, headers, distrust=True)
        listing = self._database.listing(header.number for header in headers)
        receivers = {index: unsigned(kept) for index, kept in
                     work.rows(self._statements.receivers, listing)}  # fmt: skip
        for header in headers:
            own = attempts.get(header.number, ())
            self._payments += 1
            self._attempts += len(own)
            for what, kept, computed in differences(header, own, receivers):
                self._report(header.identifier, what, kept, computed)

    def _look_at_counters(self, work: Work) -> int:
        number, index, payments, duplicates = work.rows(self._statements.counters)[0]
        highest, highest_duplicate, highest_index, attempts, found, shared = work.rows(
            self._statements.totals
        )[0]
        for what, kept, computed in (
            ("payments", payments, self._payments),
            ("duplicates", duplicates, found),
            ("attempts of a payment", self._attempts, attempts),
            ("numbers of a payment and a duplicate", 0, shared),
        ):
            if kept != computed:
                self._report(STORE, what, kept, computed)
        for what, kept, lowest in (
            ("last sequence number", number, max(highest, highest_duplicate)),
            ("last attempt index", index, highest_index),
        ):
            if kept < lowest:
                self._report(STORE, what, kept, lowest)
        return int(found)

    def _report(self, identifier: bytes, what: str, kept: object, computed: object) -> None:
        self._count += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(identifier, what, str(kept), str(computed)))


def differences(
    header: Header, attempts: Sequence[Attempt], receivers: dict[int, int]
) -> Iterator[tuple[str, object, object]]:
    """Yield what is kept of a payment and is not what its attempts say, with both."""
    tally = tally_of(attempts)
    status = status_of(tally, header.failure_reason)
    if header.status != status:
        yield "status", int(header.status), int(status)
    for name in tally.__struct_fields__:
        kept, computed = getattr(header.tally, name), getattr(tally, name)
        if kept != computed:
            yield name, kept, computed
    for attempt in attempts:
        kept, computed = receivers.get(attempt.attempt_index), attempt.route.receiver_msat
        if kept != computed:
            yield f"receiver_msat of attempt {attempt.attempt_index}", kept, computed
        if not attempt.route.hops:
            yield f"hops of attempt {attempt.attempt_index}", 0, "1 or more"
    try:
        state_of(header.value_msat, tally, header.failure_reason)
    except PaymentDBError as error:
        yield "amounts", header.value_msat, error
