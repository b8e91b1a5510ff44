"""A call about a payment that is remembered or new, as one statement, which is one round trip.

The call judges by what is remembered without asking anybody. All that it writes goes out together,
on the condition that the payment's row is still ours (see `Remembered`). If it is not, nothing is
written, and the call is made again with its eyes open. What is believed is never a ground to
refuse: a refusal is looked into as well.
"""

from collections.abc import Sequence
from select import POLLIN, poll
from typing import Any, Final, NoReturn, cast

import psycopg
from msgspec.structs import replace
from psycopg import errors
from psycopg.pq import TransactionStatus

from engine.payments.sql.database import Row
from engine.payments.sql.headers import Header
from engine.payments.sql.pipelined import ROWS_APART_MAX, Connection, Left, Remembered, at_once

ROUND: Final = 2**32
"""A row has the lower 32 bits of its transaction's number."""

IF_OURS: Final = (
    f" AND payments.xmin::text = %s AND pg_current_xact_id()::text::bigint - %s < {ROUND}"
)
"""Behind the statement that writes a payment's row by its number."""

THE_END: Final = "SELECT 1 / count(*), max(sequence_number), pg_current_xact_id()::text FROM kept"
"""Where the row is not ours the division fails, and with it all of the statement."""

NEW_NUMBER: Final = object()
"""Stands for the number of a new payment, as the first argument of what adds it."""

TAKEN: Final = "(SELECT last_sequence_number FROM taken)"
TAKEN_FOR_MANY: Final = f"array_fill({TAKEN}, ARRAY[%s::integer])"
"""A column of it; the argument is how many rows there are."""

OTHERWISE: Final = (errors.DivisionByZero, errors.NotNullViolation)
"""The row is not ours; no number is left."""


class DoubtError(Exception):
    """The call wants to know what is not remembered; nothing was done."""


class BelievingWork:
    """A transaction that asks nothing; see `Work`."""

    is_hopeful = True

    def __init__(self, connection: Connection, remembered: Remembered) -> None:
        self._connection = connection
        self._remembered = remembered
        self._believed: Left | None = None
        self._header: Header | None = None
        self._parts: list[str] = []
        self._arguments: list[Any] = []

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

    def begin(self, _: str, __: bytes, take: str) -> list[list[Row]]:
        """Believe that there is no such payment, and that there is a number for it."""
        self._parts.append(f"taken AS ({take})")
        return [[], [(NEW_NUMBER,)]]

    def leave(self, header: Header, statement: str, *arguments: Any) -> None:
        """Keep it for the end, on condition that the payment is as believed."""
        self._header = header
        if self._believed is not None:
            ours = self._believed.transaction
            statement += IF_OURS
            arguments = (*arguments, str(ours % ROUND), ours)
        self._add("kept", f"{statement} RETURNING sequence_number", arguments)

    def run(self, statement: str, *arguments: Any) -> None:
        """Keep it for the end."""
        self._add(f"w{len(self._parts)}", statement, arguments)

    def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Keep one for each row, or one for all if they are many."""
        if len(rows) <= ROWS_APART_MAX:
            for row in rows:
                self.run(statement, *row)
            return
        for_all, first, *others = at_once(statement, rows)
        if first[0] is NEW_NUMBER:
            for_all = for_all.replace("%s", TAKEN_FOR_MANY, 1)
            first = len(rows)
        self.run(for_all, first, *others)

    def _add(self, name: str, statement: str, arguments: tuple[Any, ...]) -> None:
        if arguments[:1] == (NEW_NUMBER,):
            statement, arguments = statement.replace("%s", TAKEN, 1), arguments[1:]
        self._parts.append(f"{name} AS ({statement})")
        self._arguments += arguments

    def commit(self) -> None:
        """Write all of it, durably.

        Raises:
            DoubtError: the payment is not as believed, or the driver takes no such statement;
                nothing was written.
            psycopg.Error: as for any statement.
        """
        if self._header is None:
            raise DoubtError  # nobody said what this changes
        statement = cast(Any, f"WITH {', '.join(self._parts)} {THE_END}")
        try:
            found = self._connection.execute(statement, self._arguments).fetchall()
        except OTHERWISE as error:
            raise DoubtError from error
        except psycopg.OperationalError as error:
            if is_unsent(error, self._connection):
                raise DoubtError from error
            raise
        ((_, number, transaction),) = found
        header = replace(self._header, number=number)
        self._remembered.keep(header, int(transaction), self._connection.server)


def is_gone(connection: Connection) -> bool:
    """Say whether the server has hung up: an idle connection has nothing to say but that."""
    listening = poll()
    listening.register(connection.fileno(), POLLIN)
    return bool(listening.poll(0))


def is_lost(error: psycopg.OperationalError) -> bool:
    """Say whether the connection is gone, and with it the answer."""
    return error.sqlstate in LOST


def is_unsent(error: psycopg.OperationalError, connection: Connection) -> bool:
    """Say whether the driver itself refused a statement: then the connection has nothing to do."""
    return error.sqlstate is None and connection.info.transaction_status == TransactionStatus.IDLE


LOST: Final = (None, "57P01", "57P02", "57P03", "08000", "08003", "08006")
"""The states of a connection that is gone: without one, stopped, crashed, starting, broken."""
