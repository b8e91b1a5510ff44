"""The bare stores: the same writes as a payment store's, in as many synced transactions, no more.

Nothing is looked up, nothing decided, no record is made or read: the writes were noted before. What
is left is the driver, the disk and what the tables themselves cost.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import lmdb
import psycopg
from pysqlite3 import dbapi2  # type: ignore[import-untyped]

from bench.payment_places import path_of
from bench.payment_seams import Change
from engine.payments import open_payment_db

MAP_BYTES: Final = 8 << 30


class Floor(Protocol):
    """A store without a program around it."""

    def run(self, changes: Sequence[Change]) -> None:
        """Make the changes of one transaction; return when it is durable."""

    def close(self) -> None:
        """Let go of it."""


class BareLmdb:
    """LMDB as it comes: raw puts, synced by the commit."""

    def __init__(self, url: str) -> None:
        self._lmdb: Any = lmdb.open(str(path_of(url)), map_size=MAP_BYTES)

    def run(self, changes: Sequence[Change]) -> None:
        """See `Floor`."""
        with self._lmdb.begin(write=True) as transaction:
            for key, value in changes:
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)

    def close(self) -> None:
        """See `Floor`."""
        self._lmdb.close()


class BareSqlite:
    """The driver, which keeps prepared statements; write-ahead log, FULL synchronisation."""

    def __init__(self, url: str) -> None:
        open_payment_db(url).close()  # so that there are tables
        self._rows: Any = dbapi2.connect(str(path_of(url)), isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._rows.execute(f"PRAGMA {pragma}").fetchall()
        self._cursor: Any = self._rows.cursor()  # to make one costs as much as to use it

    def run(self, changes: Sequence[Change]) -> None:
        """See `Floor`."""
        execute = self._cursor.execute
        execute("BEGIN IMMEDIATE")
        for statement, arguments in changes:
            execute(statement, arguments)
        execute("COMMIT")

    def close(self) -> None:
        """See `Floor`."""
        self._rows.close()


class BarePostgresql:
    """The driver, prepared statements, each waited for as a program does that wants to know."""

    def __init__(self, url: str) -> None:
        open_payment_db(url).close()  # so that there are tables
        self._rows: Any = psycopg.connect(url, autocommit=True)

    def run(self, changes: Sequence[Change]) -> None:
        """See `Floor`."""
        execute = self._rows.execute
        execute("BEGIN")
        for statement, arguments in changes:
            execute(statement, arguments, prepare=True)
        execute("COMMIT")

    def close(self) -> None:
        """See `Floor`."""
        self._rows.close()


class BlindPostgresql(BarePostgresql):
    """The same, but a transaction is sent whole before any answer is read: one round trip.

    No program can do this that must look before it writes; ours can where it need not.
    """

    def run(self, changes: Sequence[Change]) -> None:
        """See `Floor`."""
        with self._rows.pipeline():
            super().run(changes)


FLOORS: Final[dict[tuple[str, str], Callable[[str], Floor]]] = {
    ("lmdb", "bare"): BareLmdb,
    ("sqlite", "bare"): BareSqlite,
    ("postgresql", "bare"): BarePostgresql,
    ("postgresql", "blind"): BlindPostgresql,
}
"""By the kind of store; each takes the URL of an empty place."""
