"""Looks under a store: which statements it runs, and raw statements beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.payments.sql import SQLPaymentDB
from engine.payments.sql.database import Row, Work
from tests.payments.builders import failure, make_attempt, make_record, settle, shard


class Watched:
    """A transaction that notes what it is asked."""

    def __init__(self, work: Work, log: list[tuple]) -> None:
        self.work = work
        self.log = log
        self.is_hopeful = work.is_hopeful

    def rows(self, statement, *arguments):
        self.log.append((statement, *arguments))
        return self.work.rows(statement, *arguments)

    def ask(self, *questions):
        self.log.extend(questions)
        return self.work.ask(*questions)

    def run(self, statement, *arguments):
        self.log.append((statement, *arguments))
        self.work.run(statement, *arguments)

    def run_many(self, statement, rows):
        self.log.append((statement, *rows[0]))
        self.work.run_many(statement, rows)

    def load(self, table, statement, rows):
        self.log.append((statement, *rows[0]))
        self.work.load(table, statement, rows)

    def begin(self, lock, identifier, take):
        self.log.extend([(lock, identifier), (take,)])
        return self.work.begin(lock, identifier, take)

    def recall(self, identifier):
        return self.work.recall(identifier)

    def leave(self, header, statement, *arguments):
        self.log.append((statement, *arguments))
        self.work.leave(header, statement, *arguments)


@contextmanager
def watched(store: SQLPaymentDB) -> Iterator[list[tuple]]:
    """Collect all statements of a store, each with its arguments, in order."""
    database, log = store._database, []
    before = database._read, database._write
    database._read = lambda look, arguments: before[0](
        lambda work, *rest: look(Watched(work, log), *rest), arguments
    )
    database._write = lambda change, arguments, is_bulk: before[1](
        lambda work, *rest: change(Watched(work, log), *rest), arguments, is_bulk
    )
    yield log
    database._read, database._write = before


def run(store: SQLPaymentDB, statement: str, *arguments: object) -> None:
    """Change a store behind its back."""
    store._database.write(lambda work: work.run(statement, *arguments))


def ask(store: SQLPaymentDB, statement: str, *arguments: object) -> list[Row]:
    """Look into a store behind its back."""
    return store._database.read(lambda work: work.rows(statement, *arguments))


def fill(store: SQLPaymentDB, count: int, *, in_flight: int = 10, parts: int = 1) -> None:
    """Move in payments: most have failed, one in 50 has settled, the last ones are in flight."""
    index = 0
    records = []
    for number in range(1, count + 1):
        is_waiting = number > count - in_flight
        is_paid = number % 50 == 0
        attempts = []
        for _ in range(parts):
            index += 1
            result = (
                {} if is_waiting else {"settle": settle()} if is_paid else {"failure": failure()}
            )
            attempts.append(make_attempt(index, shard(), **result))
        records.append(
            make_record(
                number,
                attempts,
                failure_reason=None if is_waiting or is_paid else 1,
                created_at_ns=number * 1_000_000_000,
            )
        )
        if len(records) == 1_000:
            store.write_records(records)
            records = []
    store.write_records(records)
