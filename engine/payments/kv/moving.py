"""Whole payments in and out."""

from collections.abc import Sequence
from itertools import islice

from msgspec.structs import replace

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.kv import layout, life, rows
from engine.payments.kv.layout import LINE, part_key
from engine.payments.kv.reading import Reading, found_of, status_of_header
from engine.payments.kv.writing import Writing
from engine.payments.records import PaymentRecord
from engine.payments.state import tally_of
from engine.payments.values import NUMBER_MAX, Attempt


def read_batch(after: int, batch_size: int, reading: Reading) -> tuple[PaymentRecord, ...]:
    """Return the payments that follow a number, with their duplicates."""
    identifiers = (
        identifier
        for _, line in reading.walk(LINE, after + 1, NUMBER_MAX)
        for kind, _, identifier in [layout.line_of(line)]
        if kind == layout.IS_PAYMENT
    )
    return tuple([_record(reading, each) for each in islice(identifiers, batch_size)])


def _record(reading: Reading, identifier: bytes) -> PaymentRecord:
    parts = reading.parts(identifier, with_duplicates=True)
    found = found_of(identifier, parts) or reading.find_listed(identifier)
    duplicates = tuple(
        rows.duplicate_of(identifier, layout.number_of(number), row)
        for number, row in parts[layout.DUPLICATE]
    )
    header = found.header
    return PaymentRecord(
        header.sequence_number, found.info, found.attempts, header.reason, duplicates
    )


class Batch:
    """Payments to be added together: all are judged before the first is written."""

    def __init__(self, writing: Writing, records: Sequence[PaymentRecord]) -> None:
        self._writing = writing
        self._records = records
        self._identifiers: set[bytes] = set()
        self._numbers: set[int] = set()
        self._indexes: set[int] = set()
        self._keys: dict[bytes, int] = {}

    def judge(self) -> None:
        """Allow the payments beside what the store has, and beside another.

        Raises:
            PaymentDBError: as `RecordMover.write_records`.
        """
        for record in self._records:
            self._judge_payment(record)
            for attempt in record.attempts:
                self._judge_attempt(attempt)

    def _judge_payment(self, record: PaymentRecord) -> None:
        identifier = record.info.identifier
        if identifier in self._identifiers or self._writing.header(identifier) is not None:
            raise PaymentDBError(PaymentDBCode.PAYMENT_EXISTS)
        self._identifiers.add(identifier)
        for number in _numbers(record):
            if number in self._numbers or self._writing.line(number) is not None:
                raise PaymentDBError(PaymentDBCode.SEQUENCE_NUMBER_EXISTS, actual=number)
            self._numbers.add(number)

    def _judge_attempt(self, attempt: Attempt) -> None:
        index, key = attempt.attempt_index, attempt.session_key
        if index in self._indexes:
            raise PaymentDBError(PaymentDBCode.ATTEMPT_EXISTS, actual=index)
        life.check_is_new(self._writing, attempt)
        if key in self._keys:
            raise PaymentDBError(
                PaymentDBCode.SESSION_KEY_EXISTS, expected=self._keys[key], actual=index
            )
        self._indexes.add(index)
        self._keys[key] = index

    def write(self) -> None:
        """Write them, and let the counters follow."""
        for record in self._records:
            _add(self._writing, record)
        counters = self._writing.counters()
        moved_index = max(counters.moved_index, *self._indexes, 0)
        self._writing.put_counters(
            rows.CountersRow(
                max(counters.sequence_number, *self._numbers, 0),
                max(counters.attempt_index, moved_index),
                counters.payments + len(self._identifiers),
                counters.duplicates + len(self._numbers) - len(self._identifiers),
                moved_index,
            )
        )


def write_batch(writing: Writing, records: Sequence[PaymentRecord], note: bytes | None) -> None:
    """Add whole payments, and replace the note."""
    batch = Batch(writing, records)
    batch.judge()
    batch.write()
    writing.put_note(note)


def _numbers(record: PaymentRecord) -> list[int]:
    return [record.sequence_number, *(each.sequence_number for each in record.duplicates)]


def _add(writing: Writing, record: PaymentRecord) -> None:
    identifier = record.info.identifier
    header = rows.header_row(
        *(record.sequence_number, record.info),
        *(tally_of(record.attempts), record.failure_reason),
    )
    writing.put_record(part_key(identifier, layout.HEADER), header)
    writing.put_record(part_key(identifier, layout.INFO), rows.info_row(record.info))
    writing.add_line(
        *(record.sequence_number, layout.IS_PAYMENT, record.info.created_at_ns, identifier),
        status_of_header(header),
    )
    for attempt in record.attempts:
        writing.add_attempt(identifier, attempt)
    for duplicate in record.duplicates:
        writing.add_duplicate(duplicate)


def raise_counters(writing: Writing, sequence_number: int, attempt_index: int) -> None:
    """Let the next number and index be above these."""
    counters = writing.counters()
    writing.put_counters(
        replace(
            counters,
            sequence_number=max(counters.sequence_number, sequence_number),
            attempt_index=max(counters.attempt_index, attempt_index),
            moved_index=max(counters.moved_index, attempt_index),
        )
    )
