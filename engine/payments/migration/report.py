"""What a migration says about itself: sums kept as it goes, progress, and the report at the end."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from engine.payments.migration.source import SourceBatch
from engine.payments.records import PaymentRecord
from engine.payments.state import status_of, tally_of
from engine.payments.values import PaymentStatus

WARNINGS_MAX: Final = 50
"""How many warnings a report quotes; it counts them all."""

WINDOW_S: Final = 30.0
"""The rate is that of so many seconds, so that it follows a disk that slows down."""


class Totals(msgspec.Struct, forbid_unknown_fields=True):
    """What was moved so far. Lies in the note of the destination, so that it outlives a kill."""

    payments: int = 0
    initiated: int = 0
    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    attempts: int = 0
    hops: int = 0
    duplicates: int = 0
    repaired: int = 0
    highest_sequence_number: int = 0
    highest_attempt_index: int = 0
    warning_count: int = 0
    warnings: list[str] = []

    def with_batch(self, batch: SourceBatch) -> "Totals":
        """Return the totals of this and `batch`; these here stay as they are."""
        totals = msgspec.structs.replace(self, warnings=[*self.warnings])
        totals.add(batch)
        return totals

    def add(self, batch: SourceBatch) -> None:
        """Count a batch, and what was noticed in it."""
        self.warn(batch.warnings, batch.unquoted)
        self.repaired += batch.repaired
        for record in batch.records:
            self.payments += 1
            self.duplicates += len(record.duplicates)
            self.attempts += len(record.attempts)
            self.hops += sum(len(attempt.route.hops) for attempt in record.attempts)
            self._reach(record)
            self._count(status_of(tally_of(record.attempts), record.failure_reason))

    def warn(self, warnings: Iterable[str], unquoted: int = 0) -> None:
        """Keep the first warnings, and count all, also those that nobody kept."""
        self.warning_count += unquoted
        for warning in warnings:
            self.warning_count += 1
            if len(self.warnings) < WARNINGS_MAX:
                self.warnings.append(warning)

    def _reach(self, record: PaymentRecord) -> None:
        """Keep the highest numbers; both lists ascend."""
        numbers = [record.sequence_number, *(each.sequence_number for each in record.duplicates)]
        self.highest_sequence_number = max(self.highest_sequence_number, *numbers)
        if record.attempts:
            last = record.attempts[-1].attempt_index
            self.highest_attempt_index = max(self.highest_attempt_index, last)

    def _count(self, status: PaymentStatus) -> None:
        match status:
            case PaymentStatus.INITIATED:
                self.initiated += 1
            case PaymentStatus.IN_FLIGHT:
                self.in_flight += 1
            case PaymentStatus.SUCCEEDED:
                self.succeeded += 1
            case PaymentStatus.FAILED:
                self.failed += 1


class Progress(msgspec.Struct, frozen=True):
    """How far a migration is.

    Attributes:
        done: payments moved and compared, those of an earlier run too.
        total: payments of the source.
        rate: payments a second of late; 0 before the first batch.
        seconds_left: at that rate; None while it is not known.
    """

    done: int
    total: int
    rate: float
    seconds_left: float | None


class Report(msgspec.Struct, frozen=True):
    """What a migration did.

    Attributes:
        resumed_at: payments that an earlier run had moved; 0 without one.
        seconds: of this run.
        next_sequence_number: what the destination gives to the next payment.
        next_attempt_index: the lowest attempt index it may give next.
        is_dry_run: nothing was written or compared; the source was read and checked.
    """

    source: str
    destination: str
    totals: Totals
    resumed_at: int
    seconds: float
    next_sequence_number: int
    next_attempt_index: int
    is_dry_run: bool = False

    @property
    def rate(self) -> float:
        """Payments a second of this run, 0 for one without any."""
        moved = self.totals.payments - self.resumed_at
        return moved / self.seconds if moved and self.seconds > 0 else 0.0

    def lines(self) -> list[str]:
        """Return the report for a person, line by line."""
        totals = self.totals
        verb = "would move" if self.is_dry_run else "moved and compared"
        lines = [
            f"{verb} {totals.payments:,} payments from {self.source} to {self.destination}",
            f"  {totals.succeeded:,} succeeded, {totals.failed:,} failed, "
            f"{totals.in_flight:,} in flight, {totals.initiated:,} initiated",
            f"  {totals.attempts:,} attempts over {totals.hops:,} hops, "
            f"{totals.duplicates:,} duplicates",
            f"  next sequence number {self.next_sequence_number:,}, "
            f"next attempt index {self.next_attempt_index:,}",
            f"  {self.seconds:.1f} s, {self.rate:,.0f} payments a second",
        ]
        if self.resumed_at:
            lines.append(f"  went on after {self.resumed_at:,} payments of an earlier run")
        if totals.repaired:
            lines.append(f"  {totals.repaired:,} attempts without an index were given one")
        return [*lines, *self._warnings()]

    def _warnings(self) -> list[str]:
        count, quoted = self.totals.warning_count, self.totals.warnings
        if not count:
            return ["  no warnings"]
        more = [f"    and {count - len(quoted):,} more"] if count > len(quoted) else []
        return [f"  {count:,} warnings:", *(f"    {text}" for text in quoted), *more]


class Pace:
    """Turns counts into a rate and a time left, over the last `WINDOW_S` seconds.

    Args:
        total: payments to move in all.
        clock: seconds that never go back.
    """

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self._total = total
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> Progress:
        """Note that `done` payments are done, and say how it goes."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        began, before = self._seen[0]
        rate = (done - before) / (now - began) if now > began else 0.0
        left = max(self._total - done, 0) / rate if rate else None
        return Progress(done, self._total, rate, left)
