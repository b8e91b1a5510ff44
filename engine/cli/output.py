"""What a command writes: tables to a terminal, one JSON object a line to everything else."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final

import click
import msgspec

from engine.core.rejections import IN_DROPS

Row = Mapping[str, Any]

DROPS_FIELDS: Final = frozenset({"amount", "claimed", "available", "redeemed", "capacity"})
"""Fields that JSON carries as decimal strings, as the HTTP API does."""

LINES_PER_TABLE: Final = 1_000
"""Rows of a long answer that are laid out together; the whole need not fit in memory."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="JSON on a terminal too, one object a line."
)


class Output:
    """Where the answer goes, and how it looks there."""

    def __init__(self, *, as_json: bool) -> None:
        self.is_json = as_json or not sys.stdout.isatty()

    def record(self, value: msgspec.Struct | Row, title: str = "") -> None:
        """Write one thing, a field a line on a terminal."""
        fields = plain(value)
        if self.is_json:
            self._line(fields)
            return
        said = {name: field for name, field in fields.items() if field != []}
        self._table(title, (), [(name, _text(field)) for name, field in said.items()])

    def records(
        self, values: Iterable[msgspec.Struct | Row], columns: Sequence[str], title: str = ""
    ) -> None:
        """Write many things; a terminal sees only `columns` of each."""
        rows = (plain(value) for value in values)
        if self.is_json:
            for row in rows:
                self._line(row)
            return
        for part in _parts(rows, LINES_PER_TABLE):
            lines = [tuple(_text(row.get(name)) for name in columns) for row in part]
            self._table(title, columns, lines)

    def _line(self, fields: Row) -> None:
        click.echo(msgspec.json.encode(fields).decode())

    def _table(self, title: str, columns: Sequence[str], lines: Iterable[tuple[str, ...]]) -> None:
        # Rich costs a tenth of a second: a pipe should not pay for it.
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title or None, title_justify="left", show_header=bool(columns))
        for name in columns or ("field", "value"):
            table.add_column(name, overflow="fold")
        for line in lines:
            table.add_row(*line)
        Console(markup=False, highlight=False).print(table)


def plain(value: msgspec.Struct | Row) -> dict[str, Any]:
    """Return a struct or a row as JSON has it, without what is not known."""
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    drops = DROPS_FIELDS
    if value.get("code") in IN_DROPS:
        drops |= {"expected", "actual"}
    return {
        name: str(field) if name in drops and isinstance(field, int) else _plain(field)
        for name, field in value.items()
        if field is not None
    }


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex().upper()
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Enum():
            return value.value
        case msgspec.Struct():
            return plain(value)
        case Mapping():
            return plain(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _text(value: Any) -> str:
    """Return what a cell of a table shows."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_text(item) for item in value)
        case dict():
            return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
        case _:
            return str(value)


def _parts(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in lists of up to `size`; at least one list, for the head of the table."""
    part: list[dict[str, Any]] = []
    first = True
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part, first = [], False
    if part or first:
        yield part


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a callback (done, all) that moves a bar on standard error, where that is a terminal.

    `all` is None where nobody knows it.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
