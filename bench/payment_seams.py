"""Looks over the shoulder of a payment store: what each transaction writes, and how long it takes.

A store writes through one door, `GroupCommit.run` on LMDB and `Database.write` on SQL. Here
somebody stands in it; the store knows nothing of that.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from bench.payment_places import path_of
from engine.payments import PaymentDB, open_payment_db
from engine.payments.kv.commits import Call, GroupCommit
from engine.payments.kv.sharing import REGISTRY
from engine.payments.kv.transaction import Transaction
from engine.payments.sql.believing import BelievingWork, DoubtError
from engine.payments.sql.database import Database, Row, Work
from engine.payments.sql.headers import Header
from engine.payments.sql.postgresql import PostgresDatabase
from engine.payments.sql.sqlite import open_sqlite
from engine.payments.sql.store import SQLPaymentDB

Change = tuple[Any, Any]
"""LMDB: a key, and its new value or None; SQL: a statement and its arguments."""


class Seen:
    """What was seen of the transactions of one thread.

    Args:
        keeps: Whether what they write is kept too.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.seconds: list[float] = []
        self.transactions: list[list[Change]] = []

    def watch(self, run: Callable[[], Any]) -> Any:
        """Return what `run`, one transaction, returns."""
        if self.keeps:
            self.transactions.append([])
        started = time.perf_counter()
        try:
            return run()
        finally:
            self.seconds.append(time.perf_counter() - started)

    def note(self, one: Any, other: Any) -> None:
        """Keep a change of the transaction under way."""
        self.transactions[-1].append((one, other))


class _Commits:
    """Stands before a `GroupCommit`."""

    def __init__(self, commits: GroupCommit, seen: Seen) -> None:
        self._commits = commits
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._commits, name)

    def run(self, call: Call) -> Any:
        """Make a call."""
        seen = self._seen
        if not seen.keeps:
            return seen.watch(lambda: self._commits.run(call))

        def noted(transaction: Transaction) -> Any:
            return call(cast(Transaction, _Transaction(transaction, seen)))

        return seen.watch(lambda: self._commits.run(noted))


class _Transaction:
    """Notes what is put and deleted."""

    def __init__(self, transaction: Transaction, seen: Seen) -> None:
        self._transaction = transaction
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def put(self, key: bytes, value: bytes) -> bool:
        """Store."""
        self._seen.note(key, value)
        return self._transaction.put(key, value)

    def delete(self, key: bytes) -> bool:
        """Remove."""
        self._seen.note(key, None)
        return self._transaction.delete(key)


class _Database:
    """Stands before a `Database`."""

    def __init__(self, database: Database, seen: Seen) -> None:
        self._database = database
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def write(self, change: Callable[..., Any], *arguments: Any, is_bulk: bool = False) -> Any:
        """Run a transaction."""
        seen, database = self._seen, self._database
        if not seen.keeps:
            return seen.watch(lambda: database.write(change, *arguments, is_bulk=is_bulk))

        def noted(work: Work, *given: Any) -> Any:
            if isinstance(cast(Any, work), BelievingWork):
                raise DoubtError  # it makes one statement of all, and numbers are known later
            return change(_Work(work, seen), *given)

        return seen.watch(lambda: database.write(noted, *arguments, is_bulk=is_bulk))


class _Work:
    """Notes the statements that write."""

    def __init__(self, work: Work, seen: Seen) -> None:
        self._work = work
        self._seen = seen

    def _note(self, statement: str, arguments: Sequence[Any]) -> None:
        if not statement.startswith("SELECT"):
            self._seen.note(statement, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def rows(self, statement: str, *arguments: Any) -> list[Row]:
        """Run a statement."""
        self._note(statement, arguments)
        return self._work.rows(statement, *arguments)

    def ask(self, *questions: tuple[Any, ...]) -> list[list[Row]]:
        """Run several."""
        for statement, *arguments in questions:
            self._note(statement, tuple(arguments))
        return self._work.ask(*questions)

    def begin(self, lock: str, identifier: bytes, take: str) -> list[list[Row]]:
        """Run a statement that reads and one that writes."""
        self._note(take, ())
        return self._work.begin(lock, identifier, take)

    def run(self, statement: str, *arguments: Any) -> None:
        """Run a statement."""
        self._note(statement, arguments)
        self._work.run(statement, *arguments)

    def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row."""
        for row in rows:
            self._note(statement, row)
        self._work.run_many(statement, rows)

    def leave(self, header: Header, statement: str, *arguments: Any) -> None:
        """Run a statement."""
        self._note(statement, arguments)
        self._work.leave(header, statement, *arguments)


@contextmanager
def watched(url: str, *, keeps: bool) -> Iterator[tuple[PaymentDB, Seen]]:
    """Open a store; all it writes from now on is seen."""
    seen = Seen(keeps=keeps)
    opened = _watched_lmdb if url.startswith("lmdb:") else _watched_sql
    with opened(url, seen) as store:
        yield store, seen


@contextmanager
def _watched_lmdb(url: str, seen: Seen) -> Iterator[PaymentDB]:
    with open_payment_db(url) as store:
        shared = REGISTRY.take(path_of(url), read_only=False)
        shared.commits = cast(GroupCommit, _Commits(shared.commits, seen))
        try:
            yield store
        finally:
            REGISTRY.give_back(shared)


@contextmanager
def _watched_sql(url: str, seen: Seen) -> Iterator[PaymentDB]:
    open_payment_db(url).close()  # so that there are tables
    database: Database
    if url.startswith("sqlite:"):
        database = open_sqlite(url, create=False, read_only=False)
    else:
        database = PostgresDatabase(url)
    with SQLPaymentDB(cast(Database, _Database(database, seen))) as store:
        yield store
