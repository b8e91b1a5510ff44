"""Whole payments in and out, counters, and the verification of what is kept."""

from collections.abc import Iterator, Sequence

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.records import Counters, PaymentRecord
from engine.payments.sql.control import info_records
from engine.payments.sql.database import Database, Row, Work
from engine.payments.sql.reading import Reading
from engine.payments.sql.rows import (
    BOLT_11,
    AttemptRows,
    duplicate_of,
    duplicate_row,
    header_of,
    payment_row,
)
from engine.payments.state import tally_of
from engine.payments.values import Attempt, DuplicatePayment

Batch = tuple[PaymentRecord, ...]


class Moving:
    """Reads and writes records."""

    def __init__(self, database: Database, reading: Reading) -> None:
        self._database = database
        self._statements = database.statements
        self._reading = reading

    # Out ----------------------------------------------------------------------------------------

    def read(self, work: Work, after: int, size: int) -> Batch:
        """Return the next payments whole, ascending by number."""
        headers = [*map(header_of, work.rows(self._statements.walk, after, size))]
        duplicates: dict[int, list[DuplicatePayment]] = {}
        if work.rows(self._statements.counters)[0][3]:
            listing = self._database.listing(header.number for header in headers)
            rows = work.rows(self._statements.duplicates_of, listing)
            for row in sorted(rows, key=lambda row: row[1]):
                duplicates.setdefault(row[2], []).append(duplicate_of(row))
        attempts = self._reading.attempts(work, headers)
        infos = self._reading.infos(work, headers)
        return tuple(
            PaymentRecord(
                *(header.number, info, attempts.get(header.number, ()), header.failure_reason),
                tuple(duplicates.get(header.number, ())),
            )
            for header, info in zip(headers, infos, strict=True)
        )

    # In -----------------------------------------------------------------------------------------

    def write(self, work: Work, records: Sequence[PaymentRecord], note: bytes | None) -> int:
        """Add whole payments; return the highest attempt index of them."""
        statements = self._statements
        number, index, payments, duplicates = work.rows(statements.lock_counters)[0]
        there = There(self._database, work, records)
        for record in records:
            there.take(record)
        self._add(work, records)
        highest = max((each.attempt_index for one in records for each in one.attempts), default=0)
        work.run(
            statements.set_counters,
            max(number, *(max(numbers_of(record)) for record in records), 0),
            max(index, highest),
            payments + len(records),
            duplicates + sum(len(record.duplicates) for record in records),
        )
        work.run(statements.set_note, note)
        return highest

    def _add(self, work: Work, records: Sequence[PaymentRecord]) -> None:
        for table, statement, rows in self._rows(records):
            if rows:
                work.load(table, statement, rows)

    def _rows(self, records: Sequence[PaymentRecord]) -> Iterator[tuple[str, str, list[Row]]]:
        """Yield the table, the statement and the rows of each kind, parents before children."""
        database, statements = self._database, self._statements
        yield (
            *("payments", statements.add_payment),
            [
                payment_row(
                    *(database, record.sequence_number, record.info),
                    *(tally_of(record.attempts), record.failure_reason),
                )
                for record in records
            ],
        )
        yield (
            *("payment_intents", statements.add_intent),
            [
                (record.sequence_number, BOLT_11, record.info.payment_request)
                for record in records
                if record.info.payment_request
            ],
        )
        yield (
            *("payment_first_hop_custom_records", statements.add_payment_record),
            [
                row
                for record in records
                for row in info_records(database, record.sequence_number, record.info)
            ],
        )
        yield (
            *("payment_duplicates", statements.add_duplicate),
            [
                duplicate_row(database, record.sequence_number, duplicate)
                for record in records
                for duplicate in record.duplicates
            ],
        )
        rows = AttemptRows(database)
        for record in records:
            for attempt in record.attempts:
                rows.add(record.sequence_number, attempt)
        yield from rows.by_table(statements)

    # Counters -----------------------------------------------------------------------------------

    def note(self, work: Work) -> bytes | None:
        """Return the note."""
        left: bytes | None = work.rows(self._statements.note)[0][0]
        return left

    def counters(self, work: Work) -> Counters:
        """Return all counters."""
        return Counters(*work.rows(self._statements.counters)[0])

    def raise_counters(self, work: Work, sequence_number: int, attempt_index: int) -> None:
        """Let counters be at least these."""
        number, index, *counts = work.rows(self._statements.lock_counters)[0]
        work.run(
            self._statements.set_counters,
            *(max(number, sequence_number), max(index, attempt_index), *counts),
        )


class There:
    """What of a batch is in the store already, or came before in the batch itself."""

    def __init__(self, database: Database, work: Work, records: Sequence[PaymentRecord]) -> None:
        statements, listing = database.statements, database.listing
        hashes = database.listing_of_bytes
        attempts = [attempt for record in records for attempt in record.attempts]
        numbers = listing(number for record in records for number in numbers_of(record))
        identifiers, payments, duplicates, indexes, keys = work.ask(
            (statements.identifiers_there, hashes(each.info.identifier for each in records)),
            (statements.numbers_there, numbers),
            (statements.duplicates_there, numbers),
            (statements.indexes_there, listing(each.attempt_index for each in attempts)),
            (statements.keys_there, hashes(each.session_key for each in attempts)),
        )
        self._identifiers = {row[0] for row in identifiers}
        self._numbers = {row[0] for row in payments + duplicates}
        self._indexes = {row[0] for row in indexes}
        self._keys = {bytes(row[0]): row[1] for row in keys}

    def take(self, record: PaymentRecord) -> None:
        """Allow a record that shares nothing with another.

        Raises:
            PaymentDBError: payment_exists, sequence_number_exists, attempt_exists,
                session_key_exists.
        """
        if record.info.identifier in self._identifiers:
            raise PaymentDBError(PaymentDBCode.PAYMENT_EXISTS)
        self._identifiers.add(record.info.identifier)
        for number in numbers_of(record):
            if number in self._numbers:
                raise PaymentDBError(PaymentDBCode.SEQUENCE_NUMBER_EXISTS, actual=number)
            self._numbers.add(number)
        for attempt in record.attempts:
            self._take_attempt(attempt)

    def _take_attempt(self, attempt: Attempt) -> None:
        index, key = attempt.attempt_index, attempt.session_key
        if index in self._indexes:
            raise PaymentDBError(PaymentDBCode.ATTEMPT_EXISTS, actual=index)
        if key in self._keys:
            raise PaymentDBError(
                PaymentDBCode.SESSION_KEY_EXISTS, expected=self._keys[key], actual=index
            )
        self._indexes.add(index)
        self._keys[key] = index


def numbers_of(record: PaymentRecord) -> list[int]:
    """Return all sequence numbers that a record takes."""
    return [record.sequence_number, *(each.sequence_number for each in record.duplicates)]
