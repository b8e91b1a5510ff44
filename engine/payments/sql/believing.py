"""A call about a payment that is remembered, as one statement: a transaction of one round trip.

The call judges by what is remembered without asking anybody. All that it writes goes out together,
on the condition that the payment's row is still ours (see `Remembered`). If it is not, nothing is
written, and the call is made again with its eyes open. What is believed is never a ground to
refuse: a refusal is looked into as well.
"""

from collections.abc import Sequence
from select import POLLIN, poll
from typing import Any, Final, NoReturn, cast

import psycopg
from psycopg import errors

from engine.payments.sql.database import Row
from engine.payments.sql.headers import Header
from engine.payments.sql.pipelined import Connection, Left, Remembered

ROUND: Final = 2**32
"""A row has the lower 32 bits of its transaction's number."""

IF_OURS: Final = (
    " AND payments.xmin::text = %s"
    f" AND pg_current_xact_id()::text::bigint - %s < {ROUND} RETURNING 1"
)
"""Behind the statement that writes a payment's row by its number."""

THE_END: Final = "SELECT 1 / count(*), pg_current_xact_id()::text FROM kept"
"""Where the row is not ours the division fails, and with it all of the statement."""

NOT_OURS: Final = errors.DivisionByZero


class DoubtError(Exception):
    """The call wants to know what is not remembered; nothing was done."""


class BelievingWork:
    """A transaction that asks nothing; see `Work`."""

    is_hopeful = True

    def __init__(self, connection: Connection, remembered: Remembered) -> None:
        self._connection = connection
        self._remembered = remembered
        self._statements: list[str] = []
        self._arguments: list[Any] = []
        self._believed: Left | None = None
        self._kept: tuple[Header, str, tuple[Any, ...]] | None = None

    def rows(self, _: str, *__: Any) -> NoReturn:
        """Doubt."""
        raise DoubtError

    ask = load = rows

    def recall(self, identifier: bytes) -> Header:
        """Believe what is remembered."""
        self._believed = self._remembered.get(identifier, self._connection.server)
        if self._believed is None:
            raise DoubtError
        return self._believed.header

    def run(self, statement: str, *arguments: Any) -> None:
        """Keep it for the end."""
        self._statements.append(statement)
        self._arguments += arguments

    def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Keep one for each row."""
        for row in rows:
            self.run(statement, *row)

    def leave(self, header: Header, statement: str, *arguments: Any) -> None:
        """Keep it for the end."""
        self._kept = header, statement, arguments

    def commit(self) -> None:
        """Write all of it, durably.

        Raises:
            DoubtError: the row is not ours any more; nothing was written.
            psycopg.Error: as for any statement.
        """
        if self._believed is None or self._kept is None:
            raise DoubtError  # it did not say what it changes
        header, keep, arguments = self._kept
        ours = self._believed.transaction
        parts = [f"kept AS ({keep}{IF_OURS})"]
        parts += [f"w{place} AS ({each})" for place, each in enumerate(self._statements)]
        statement = f"WITH {', '.join(parts)} {THE_END}"
        every = (*arguments, str(ours % ROUND), ours, *self._arguments)
        try:
            ((_, transaction),) = self._connection.execute(cast(Any, statement), every).fetchall()
        except NOT_OURS as error:
            raise DoubtError from error
        self._remembered.keep(header, int(transaction), self._connection.server)


def is_gone(connection: Connection) -> bool:
    """Say whether the server has hung up: an idle connection has nothing to say but that."""
    listening = poll()
    listening.register(connection.fileno(), POLLIN)
    return bool(listening.poll(0))


def is_lost(error: psycopg.OperationalError) -> bool:
    """Say whether the connection is gone, and with it the answer."""
    return error.sqlstate in LOST


LOST: Final = (None, "57P01", "57P02", "57P03", "08000", "08003", "08006")
"""The states of a connection that is gone: without one, stopped, crashed, starting, broken."""
