"""How one transaction changes the store: each change with all the indexes that go with it."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from engine.core.types import NS_PER_S
from engine.payments.errors import StoreFullError
from engine.payments.kv import layout, rows
from engine.payments.kv.layout import LINE, OWNER, SESSION_KEY, number_bytes, part_key, seal
from engine.payments.kv.reading import Found, Reading, status_of_header
from engine.payments.kv.transaction import Transaction
from engine.payments.memory import Memory, may_be_kept, without_foreign
from engine.payments.state import Tally
from engine.payments.values import (
    NO_RECORDS,
    NUMBER_MAX,
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Failure,
    PaymentStatus,
    Settle,
)

INDEX_BLOCK_MAX: Final = 1_000
"""How many attempt indexes a handle takes at a time; the first time one, then twice as many."""


class Writing(Reading):
    """Reads and writes within one write transaction. Judges nothing.

    Args:
        transaction: begun by the caller, who also ends it.
        memory: what is known of payments in that transaction without a look.
    """

    def __init__(self, transaction: Transaction, memory: Memory[Found]) -> None:
        Reading.__init__(self, transaction)
        self._memory = memory

    def find(self, identifier: bytes, *, with_hops: bool = True) -> Found | None:
        """Return a payment, without a look at it where it is known."""
        found = self._memory.recall(identifier)
        if found is None:
            found = super().find(identifier, with_hops=with_hops)
            if found is not None:
                return _own(found)
        return found

    def leave(self, found: Found) -> None:
        """Say what a call leaves of the only payment that it changes."""
        info = found.info
        keeps = may_be_kept(
            found.status, found.attempts, has_records=bool(info.first_hop_custom_records)
        )
        self._memory.leave(info.identifier, found if keeps else None)

    def put_record(self, key: bytes, row: rows.Row | list[rows.HopRow]) -> None:
        """Write a record."""
        self.transaction.put(key, seal(key, rows.encode(row)))

    # Counters -------------------------------------------------------------------------------------

    def put_counters(self, counters: rows.CountersRow) -> None:
        """Write the counters."""
        self.put_record(layout.COUNTERS_KEY, counters)

    def put_note(self, note: bytes | None) -> None:
        """Write the note, or take it away."""
        if note is None:
            self.transaction.delete(layout.NOTE_KEY)
        else:
            self.transaction.put(layout.NOTE_KEY, seal(layout.NOTE_KEY, note))

    def take_number(self) -> int:
        """Count a new payment; return its sequence number."""
        counters = self.counters()
        number = counters.sequence_number + 1
        if number > NUMBER_MAX:
            raise StoreFullError("no sequence number is left in this store; begin a new one")
        self.put_counters(replace(counters, sequence_number=number, payments=counters.payments + 1))
        return number

    def take_indexes(self, count: int) -> tuple[int, int]:
        """Take a block of attempt indexes; return the first and the last."""
        counters = self.counters()
        first = counters.attempt_index + 1
        if first > NUMBER_MAX:
            raise StoreFullError("no attempt index is left in this store; begin a new one")
        last = min(counters.attempt_index + count, NUMBER_MAX)
        self.put_counters(replace(counters, attempt_index=last))
        return first, last

    def count_attempt(self, index: int) -> None:
        """Let no index up to this be given again."""
        counters = self.counters()
        if index > counters.attempt_index:
            self.put_counters(replace(counters, attempt_index=index))

    def count_removed(self, payments: int, duplicates: int) -> None:
        """Count what was removed."""
        counters = self.counters()
        self.put_counters(
            replace(
                counters,
                payments=counters.payments - payments,
                duplicates=counters.duplicates - duplicates,
            )
        )

    # The number line ------------------------------------------------------------------------------

    def add_line(
        self, number: int, kind: int, created_at_ns: int, identifier: bytes, status: PaymentStatus
    ) -> None:
        """Enter a number into the line and the indexes over it."""
        line = layout.line_bytes(kind, created_at_ns, identifier)
        second = created_at_ns // NS_PER_S
        self.transaction.put(LINE + number_bytes(number), line)
        self.transaction.put(layout.status_key(status, number), line)
        self.transaction.put(layout.created_key(second, number), b"")
        for level in range(len(layout.ZONE_SHIFTS)):
            self._widen(layout.zone_key(level, number), second)

    def _widen(self, key: bytes, second: int) -> None:
        """Let a zone reach to a second."""
        stored = self.transaction.get(key)
        if stored is None:
            self.transaction.put(key, layout.span_bytes(second, second))
            return
        first, last = layout.span_of(stored)
        if not first <= second <= last:
            span = layout.span_bytes(min(first, second), max(last, second))
            self.transaction.put(key, span)

    def remove_line(self, number: int, created_at_ns: int, status: PaymentStatus) -> None:
        """Take a number out of the line and the indexes over it."""
        self.transaction.delete(LINE + number_bytes(number))
        self.transaction.delete(layout.status_key(status, number))
        self.transaction.delete(layout.created_key(created_at_ns // NS_PER_S, number))
        for level, shift in enumerate(layout.ZONE_SHIFTS):
            first = number >> shift << shift
            if next(self.walk(LINE, first, first + (1 << shift) - 1), None) is not None:
                return
            self.transaction.delete(layout.zone_key(level, number))

    # Payments -------------------------------------------------------------------------------------

    def add_payment(self, number: int, info: CreationInfo) -> rows.HeaderRow:
        """Enter a payment without attempts; return its header."""
        header = rows.header_row(number, info, Tally(), None)
        self.put_record(part_key(info.identifier, layout.HEADER), header)
        self.put_record(part_key(info.identifier, layout.INFO), rows.info_row(info))
        self.add_line(
            *(number, layout.IS_PAYMENT, info.created_at_ns, info.identifier),
            status_of_header(header),
        )
        return header

    def move_header(
        self,
        identifier: bytes,
        before: rows.HeaderRow,
        after: rows.HeaderRow,
        status: PaymentStatus,
    ) -> None:
        """Replace a header; the payment has `status` by the new one, and its entry moves."""
        self.put_record(part_key(identifier, layout.HEADER), after)
        old = status_of_header(before)
        if old is not status:
            number = after.sequence_number
            line = layout.line_bytes(layout.IS_PAYMENT, after.created_at_ns, identifier)
            self.transaction.delete(layout.status_key(old, number))
            self.transaction.put(layout.status_key(status, number), line)

    def add_attempt(self, identifier: bytes, attempt: Attempt) -> None:
        """Enter an attempt, resolved or not; the header is another matter."""
        index = attempt.attempt_index
        number = number_bytes(index)
        self.put_record(part_key(identifier, layout.ATTEMPT, index), rows.attempt_row(attempt))
        self.put_record(part_key(identifier, layout.HOPS, index), rows.hop_rows(attempt.route))
        self.transaction.put(OWNER + number, identifier)
        self.transaction.put(SESSION_KEY + attempt.session_key, number)
        result = attempt.settle or attempt.failure
        if result is not None:
            self.add_result(identifier, index, result)

    def add_result(self, identifier: bytes, index: int, result: Settle | Failure) -> None:
        """Enter how an attempt ended."""
        self.put_record(part_key(identifier, layout.RESULT, index), rows.result_row(result))

    def add_duplicate(self, duplicate: DuplicatePayment) -> None:
        """Enter a duplicate."""
        identifier, number = duplicate.identifier, duplicate.sequence_number
        key = part_key(identifier, layout.DUPLICATE, number)
        self.put_record(key, rows.duplicate_row(duplicate))
        self.add_line(
            *(number, layout.IS_DUPLICATE, duplicate.created_at_ns, identifier), duplicate.status
        )

    # Removal --------------------------------------------------------------------------------------

    def remove_attempts(
        self, identifier: bytes, attempts: Sequence[tuple[int, rows.AttemptRow, bool]]
    ) -> int:
        """Remove attempts with all that belongs to them; return how many."""
        for index, row, _ in attempts:
            for kind in (layout.ATTEMPT, layout.RESULT, layout.HOPS):
                self.transaction.delete(part_key(identifier, kind, index))
            self.transaction.delete(OWNER + number_bytes(index))
            self.transaction.delete(SESSION_KEY + row.session_key)
        return len(attempts)

    def remove_run(self, identifier: bytes, header: rows.HeaderRow) -> int:
        """Remove a payment but not its duplicates; return how many attempts it had."""
        count = self.remove_attempts(identifier, self.attempt_rows(identifier))
        self.transaction.delete(part_key(identifier, layout.HEADER))
        self.transaction.delete(part_key(identifier, layout.INFO))
        self.remove_line(header.sequence_number, header.created_at_ns, status_of_header(header))
        return count

    def remove_duplicates(self, identifier: bytes) -> int:
        """Remove the duplicates of a payment; return how many."""
        duplicates = self.duplicates(identifier)
        for each in duplicates:
            number = each.sequence_number
            self.transaction.delete(part_key(identifier, layout.DUPLICATE, number))
            self.remove_line(number, each.created_at_ns, each.status)
        return len(duplicates)


def own_info(info: CreationInfo) -> CreationInfo:
    """Return it with a mapping that is ours, if that is empty."""
    if info.first_hop_custom_records:
        return info
    return replace(info, first_hop_custom_records=NO_RECORDS)


def _own(found: Found) -> Found:
    """Return a payment in which nobody changes what it has no records in."""
    attempts = tuple([without_foreign(attempt) for attempt in found.attempts])
    return replace(found, info=own_info(found.info), attempts=attempts)
