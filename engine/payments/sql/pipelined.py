"""A transaction of a PostgreSQL connection, and what a handle remembers of those before.

Statements go out in a pipeline: what finds nothing is not waited for. None has more than a few
arguments, whatever a call is about: the protocol takes 65,535.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeVar, cast

import msgspec
import psycopg

from engine.payments.errors import PaymentDBError
from engine.payments.memory import note_newest
from engine.payments.sql.compiler import POSTGRESQL
from engine.payments.sql.database import Row, statements_of
from engine.payments.sql.headers import Header

T = TypeVar("T")

ROWS_APART_MAX: Final = 5
"""Up to so many rows of a table each goes by itself. Of three hops that takes the client 0.7 ms of
CPU and as arrays 1.0; of ten it is 1.6 and 1.25."""

AND_SAY_WHO: Final = " RETURNING pg_current_xact_id()::text"
"""Behind the statement that writes a payment's row: the number of this transaction."""


class Left(msgspec.Struct, frozen=True, gc=False):
    """A payment as a transaction left it.

    Attributes:
        header: With all attempts.
        transaction: Its number, 64 bits.
        server: Whose number that is: one server's, from its start to its end.
    """

    header: Header
    transaction: int
    server: str


class Remembered:
    """Payments under way as this handle left them, for all its connections.

    Others write beside us at any moment. But whoever changes anything of a payment writes its row,
    and a row says which transaction wrote it (`xmin`): a payment is what we left as long as its row
    is ours. `BelievingWork` sees to that.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._left: dict[bytes, Left] = {}

    def get(self, identifier: bytes, server: str) -> Left | None:
        """Return what may still be so; its row must say whether it is."""
        left = self._left.get(identifier)
        return left if left is not None and left.server == server else None

    def keep(self, header: Header, transaction: int, server: str) -> None:
        """Note what a transaction left, durably, if it is under way and small."""
        left = Left(header, transaction, server) if header.may_be_kept else None
        with self._turn:
            note_newest(self._left, header.identifier, left)


class Connection(psycopg.Connection[Row]):
    """A connection that knows whom it speaks to.

    Attributes:
        server: A server that was started again, or another in its place, has another name.
    """

    server: str = ""


class PostgresWork:
    """A transaction of one connection.

    Args:
        connection: Begun by the caller, who also ends it.
        remembered: What to add to; a reader has none.
        in_pipeline: Whether the connection is; else each statement is waited for.
        is_hopeful: See `Work`.
    """

    def __init__(
        self,
        connection: Connection,
        remembered: Remembered | None = None,
        *,
        in_pipeline: bool = False,
        is_hopeful: bool = False,
    ) -> None:
        self.is_hopeful = is_hopeful
        self._connection = connection
        self._remembered = remembered or Remembered()
        self._in_pipeline = in_pipeline
        self._execute = connection.execute
        self._run = connection.cursor().execute  # one for all that find nothing
        self._unanswered = False
        self._to_leave: tuple[Header, psycopg.Cursor[Row]] | None = None

    def rows(self, statement: str, *arguments: Any) -> list[Row]:
        """Run a statement; return what it finds."""
        self._unanswered = False
        return self._execute(cast(Any, statement), arguments).fetchall()

    def ask(self, *questions: tuple[Any, ...]) -> list[list[Row]]:
        """Send all before the first answer is waited for."""
        self._unanswered = False
        with nullcontext() if self._in_pipeline else self._connection.pipeline():
            cursors = [self._execute(question[0], question[1:]) for question in questions]
            return [cursor.fetchall() for cursor in cursors]

    def run(self, statement: str, *arguments: Any) -> None:
        """Send a statement."""
        self._unanswered = True
        self._run(cast(Any, statement), arguments)

    def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Send a statement for each row, or one for all if they are many."""
        if len(rows) > ROWS_APART_MAX:
            self.run(*at_once(statement, rows))
            return
        self._unanswered = True
        for row in rows:
            self._run(cast(Any, statement), row)

    def load(self, table: str, statement: str, rows: Sequence[Row]) -> None:
        """Copy rows in; the columns are those that the statement names."""
        columns = statement[statement.index("(") : statement.index(")") + 1]
        command = f"COPY {table} {columns} FROM STDIN"
        with self._connection.cursor() as cursor, cursor.copy(cast(Any, command)) as copy:
            for row in rows:
                copy.write_row(row)

    def begin(self, lock: str, identifier: bytes, take: str) -> list[list[Row]]:
        """Ask both at once."""
        return self.ask((lock, identifier), (take,))

    def recall(self, _: bytes) -> None:
        """Look at everything: what can be believed was tried before."""

    def leave(self, header: Header, statement: str, *arguments: Any) -> None:
        """Send the statement; what it leaves is believed once it is durable."""
        self._unanswered = True
        cursor = self._execute(cast(Any, statement + AND_SAY_WHO), arguments)
        self._to_leave = header, cursor

    def judged(self, change: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Return what `change` returns; its refusal comes behind an error of what it sent."""
        try:
            return change(self, *arguments)
        except PaymentDBError:
            if self._unanswered:
                self.rows("SELECT")
            raise

    def commit(self) -> None:
        """Remember what is durable now."""
        if self._to_leave is not None:
            header, cursor = self._to_leave
            ((transaction,),) = cursor.fetchall()
            self._remembered.keep(header, int(transaction), self._connection.server)


def at_once(statement: str, rows: Sequence[Row]) -> tuple[Any, ...]:
    """Return what does for all rows what a statement does for one; its arguments are columns."""
    columns = map(list, zip(*rows, strict=True))  # a list is an array to the driver, a tuple is not
    return statements_of(POSTGRESQL).of_many[statement], *columns
