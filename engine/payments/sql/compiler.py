"""Turns statements of SQLAlchemy Core into the text that a driver runs."""

from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Executable,
    LargeBinary,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
ROW_ID: Final = "id"


def dialect_of(kind: str) -> Dialect:
    """Return the dialect with the markers that its driver takes by position."""
    if kind == SQLITE:
        return SQLiteDialect_pysqlite(paramstyle="qmark")
    return PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]


class Compiler:
    """Makes the text of statements for one dialect.

    A list of numbers or of bytes is one argument, however long: SQLite takes it as JSON (bytes in
    hexadecimal), PostgreSQL as an array. So no statement grows, and each is prepared once.

    Attributes:
        of_many: On PostgreSQL: what inserts many rows at once, by what inserts one. It has as many
            arguments, each a whole column.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.of_many: dict[str, str] = {}
        self._dialect = dialect_of(kind)

    def text(self, statement: Executable) -> str:
        """Return what the driver is to run."""
        return str(statement.compile(dialect=self._dialect))  # type: ignore[attr-defined]

    def add(self, table: Table) -> str:
        """Return the statement that inserts a row: all columns in order, without a row id."""
        columns = [column for column in table.columns if column.name != ROW_ID]
        values: dict[str, Any] = {column.name: bindparam(column.name) for column in columns}
        text = self.text(insert(table).values(values).inline())
        if self.kind == POSTGRESQL:
            kinds = [column.type.compile(dialect=self._dialect) for column in columns]
            arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
            names = text[: text.index(")") + 1]
            self.of_many[text] = f"{names} SELECT * FROM unnest({arrays})"
        return text

    def add_new(self, table: Table, given: ColumnElement[Any]) -> str:
        """Return the same for a row that may be there: it finds `given` where it was added."""
        rows = (postgresql if self.kind == POSTGRESQL else sqlite).insert(table)
        names = [column.name for column in table.columns if column.name != ROW_ID]
        new = rows.values({name: bindparam(name) for name in names}).on_conflict_do_nothing()
        return self.text(new.returning(given))

    def among(self, column: ColumnElement[Any], *, of_bytes: bool = False) -> ColumnElement[bool]:
        """Return the condition that a column is one of a list."""
        if self.kind == POSTGRESQL:
            kind = LargeBinary() if of_bytes else BigInteger()
            return column == any_(cast(bindparam("listed"), ARRAY(kind)))
        given = func.json_each(bindparam("listed", type_=Text())).table_valued("value").c.value
        return column.in_(select(func.unhex(given) if of_bytes else given))

    def among_found(self, column: ColumnElement[Any], rows: Select[Any]) -> ColumnElement[bool]:
        """Return the condition that a column is one of what a query finds, which is made first.

        A join PostgreSQL may begin at the other end, before it knows how large the tables are.
        """
        if self.kind == POSTGRESQL:
            return column == any_(func.array(rows.scalar_subquery()))
        return column.in_(rows)
