"""What no store takes: a payment that is wrong by itself, and one that excludes another."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Self

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.migration.errors import MigrationError, UnacceptableRecordError
from engine.payments.records import PaymentRecord, check_record

CACHE_KIB: Final = 16_384
"""What of the keys lies in memory."""

Key = int | bytes


def check_records(records: Iterable[PaymentRecord]) -> None:
    """Allow payments that a store takes.

    Raises:
        UnacceptableRecordError: names the first that it does not, and why.
    """
    for record in records:
        try:
            check_record(record)
        except PaymentDBError as error:
            raise UnacceptableRecordError(f"{_named(record)}, cannot be moved: {error}") from error


def _named(record: PaymentRecord) -> str:
    return f"payment {record.info.identifier.hex()}, number {record.sequence_number}"


# What only one payment may have ------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of key that no two payments of a store share."""

    table: str
    column: str
    code: PaymentDBCode
    keys: Callable[[PaymentRecord], Sequence[Key]]


def _identifier(record: PaymentRecord) -> Sequence[Key]:
    return [record.info.identifier]


def _numbers(record: PaymentRecord) -> Sequence[Key]:
    return [record.sequence_number, *(each.sequence_number for each in record.duplicates)]


def _indexes(record: PaymentRecord) -> Sequence[Key]:
    return [attempt.attempt_index for attempt in record.attempts]


def _session_keys(record: PaymentRecord) -> Sequence[Key]:
    return [attempt.session_key for attempt in record.attempts]


KINDS: Final = (
    Kind("identifiers", "BLOB", PaymentDBCode.PAYMENT_EXISTS, _identifier),
    Kind("numbers", "INTEGER", PaymentDBCode.SEQUENCE_NUMBER_EXISTS, _numbers),
    Kind("indexes", "INTEGER", PaymentDBCode.ATTEMPT_EXISTS, _indexes),
    Kind("session_keys", "BLOB", PaymentDBCode.SESSION_KEY_EXISTS, _session_keys),
)

BEGIN: Final = f"""
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB};
    BEGIN;
"""

TABLE: Final = "CREATE TABLE {} (key {} PRIMARY KEY, number INTEGER) WITHOUT ROWID"


class Taken:
    """The keys of all payments so far, each with the number of its payment.

    They lie in a database of their own in the directory for temporary files, which goes when it is
    closed, or the process ends. A payment of one attempt takes about 120 bytes of it.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(BEGIN)
        for kind in KINDS:
            self._database.execute(TABLE.format(kind.table, kind.column))
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def take(self, records: Sequence[PaymentRecord]) -> None:
        """Take the keys of `records`, of which each is fine by itself.

        Raises:
            UnacceptableRecordError: another payment has one of them; names both.
            MigrationError: the directory for temporary files is full.
        """
        try:
            self._follow(records)
            for kind in KINDS:
                self._take(kind, records)
        except sqlite3.Error as error:
            raise MigrationError(
                f"what the payments have taken does not fit among the temporary files ({error}): "
                "set SQLITE_TMPDIR to a directory with more room"
            ) from error

    def _follow(self, records: Sequence[PaymentRecord]) -> None:
        """Allow numbers that ascend, so that a number tells which payment it is."""
        for record in records:
            if record.sequence_number <= self._number:
                raise UnacceptableRecordError(
                    f"{_named(record)}, comes after the number {self._number}: "
                    f"{PaymentDBCode.SEQUENCE_NUMBER_EXISTS}"
                )
            self._number = record.sequence_number

    def _take(self, kind: Kind, records: Sequence[PaymentRecord]) -> None:
        rows = [(key, each.sequence_number) for each in records for key in kind.keys(each)]
        before = self._database.total_changes
        self._database.executemany(f"INSERT OR IGNORE INTO {kind.table} VALUES (?, ?)", rows)
        if self._database.total_changes - before == len(rows):
            return
        for record in records:
            for place, key in enumerate(kind.keys(record)):
                self._check_own(kind, record, place, key)

    def _check_own(self, kind: Kind, record: PaymentRecord, place: int, key: Key) -> None:
        query = f"SELECT number FROM {kind.table} WHERE key = ?"
        (number,) = self._database.execute(query, (key,)).fetchone()
        if number != record.sequence_number:
            which = f" {key}" if isinstance(key, int) else ""
            if kind.code is PaymentDBCode.SESSION_KEY_EXISTS:
                # The key itself is a secret.
                which = f" of attempt {record.attempts[place].attempt_index}"
            raise UnacceptableRecordError(
                f"{_named(record)}, cannot be in one store with the payment that has the number "
                f"{number}: {kind.code}{which}"
            )
