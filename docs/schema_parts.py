"""The generated parts of the page about the tables of the payments database."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import CheckConstraint, Column, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from engine.payments.sql.tables import metadata

DIALECTS: Final[tuple[Dialect, ...]] = (sqlite.dialect(), postgresql.dialect())
TABLES: Final = tuple(metadata.tables.values())


def schema_diagram() -> str:
    """Draw the tables and what hangs on what."""
    lines = ["```mermaid", "erDiagram"]
    lines += [relation for table in TABLES for relation in relations(table)]
    for table in TABLES:
        lines.append(f"    {table.name} {{")
        lines += [f"        {entity_line(column)}" for column in table.columns]
        lines.append("    }")
    return "\n".join([*lines, "```"])


def relations(table: Table) -> Iterator[str]:
    """Yield a line for each table that this one hangs on."""
    for constraint in table.foreign_key_constraints:
        is_single = {column.name for column in constraint.columns} == {
            column.name for column in table.primary_key
        }
        kind = "||--o|" if is_single else "||--o{"
        yield f"    {constraint.referred_table.name} {kind} {table.name} : has"


def entity_line(column: Column[object]) -> str:
    """Return a column as the diagram shows it."""
    marks = [
        mark
        for mark, holds in (("PK", column.primary_key), ("FK", bool(column.foreign_keys)))
        if holds
    ]
    kind = str(column.type.compile(DIALECTS[1])).partition("(")[0].lower()
    return " ".join([kind, column.name, *([",".join(marks)] if marks else [])])


def schema_tables() -> str:
    """Return a chapter for each table."""
    return "\n\n".join(chapter(table) for table in TABLES)


def chapter(table: Table) -> str:
    """Return what a table is for, its columns, and its rules."""
    rows = [
        (f"`{column.name}`", *types(column), "may be absent" if column.nullable else "")
        for column in table.columns
    ]
    head = ("column", "SQLite", "PostgreSQL", "")
    lines = [head, ("---",) * len(head), *rows]
    columns = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    rules = "\n".join(f"- {rule}" for rule in rules_of(table))
    return f"### {table.name}\n\n{table.info['comment']}\n\n{columns}\n\n{rules}"


def types(column: Column[object]) -> tuple[str, ...]:
    """Return the types of a column, one a dialect."""
    return tuple(str(column.type.compile(dialect)) for dialect in DIALECTS)


def rules_of(table: Table) -> Iterator[str]:
    """Yield the keys, constraints and indexes of a table; bounds of one column are left out."""
    yield f"Primary key: {names(table.primary_key.columns)}."
    for key in table.foreign_key_constraints:
        follows = ", follows its number" if key.onupdate else ""
        yield f"{names(key.columns)} of `{key.referred_table.name}`; goes with it{follows}."
    for rule in sorted(table.constraints, key=lambda rule: str(rule.name)):
        if isinstance(rule, UniqueConstraint):
            yield f"Unique: {names(rule.columns)}."
        if isinstance(rule, CheckConstraint) and "_bounds" not in str(rule.name):
            yield f"Check: `{rule.sqltext}`."
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield f"Index: {names(index.columns)}."


def names(columns: object) -> str:
    """Return the names of columns."""
    return ", ".join(f"`{column.name}`" for column in columns)  # type: ignore[attr-defined]
