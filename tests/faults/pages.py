"""Lay a scorecard out: on a terminal, as a page of its own, or into a page that has a place for it.

A place is a pair of comments in a Markdown page, `<!-- scorecard: ours -->` or
`<!-- scorecard: all -->`, with `<!-- end of scorecard -->` behind it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from tests.faults.scorecard import OURS, Card, Row

COLUMNS: Final = (
    "fault", "tried", "records checked", "lost", "undetected", "false alarms", "applied twice",
    "recovery p50 / p99",
)  # fmt: skip

PLACE: Final = re.compile(
    r"(<!-- scorecard: (ours|all) -->\n).*?(<!-- end of scorecard -->)", re.DOTALL
)


def cells(row: Row) -> tuple[str, ...]:
    """Return a row in words, in the order of `COLUMNS`."""
    numbers = (
        row.tried, row.acknowledged_checked, row.lost, row.undetected, row.false_alarms,
        row.duplicates,
    )  # fmt: skip
    times = "/".join(f" {ms:,.0f} ms " for ms in row.recovery_ms or ()).strip()
    return (row.name, *(f"{number:,}" for number in numbers), times)


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the rows; what went wrong stands out."""
    table = Table(title="Fault scorecard", title_justify="left")
    for index, column in enumerate(("system", *COLUMNS, "seconds")):
        table.add_column(column, justify="right" if index > 1 else "left", overflow="fold")
    for row in rows:
        said = (row.system, *cells(row), f"{row.seconds:,.0f}")
        table.add_row(*said, style="red" if row.breaks_promise else "")
    console.print(table)
    for row in rows:
        for note in row.notes:
            console.print(f"{row.name} ({row.system}): {note}")


def markdown(card: Card, part: str = "all") -> str:
    """Return the card as a page shows it; part `ours` leaves out the others and the notes.

    What was tried on others as well is only in the table that compares.
    """
    elsewhere = {row.name for row in card.rows if row.system != OURS}
    ours = [row for row in card.rows if row.system == OURS and row.name not in elsewhere]
    said = [
        f"{card.date}, commit `{card.commit}`, {card.machine}, {card.cores} cores"
        f"{'' if card.full else ', of some kinds only a spread of the cases'}.",
        "",
        *table_of((*COLUMNS, "command"), [(*cells(row), f"`{row.command}`") for row in ours]),
    ]
    if part == "all":
        said += notes_of(ours)
        said += compared(card.rows)
    return "\n".join(said) + "\n"


def notes_of(rows: Sequence[Row]) -> list[str]:
    """Return what must be known to read the rows right."""
    notes = [f"- {row.system}, {row.name}: {note}" for row in rows for note in row.notes]
    return ["", *notes] if notes else []


def compared(rows: Sequence[Row]) -> list[str]:
    """Return the faults that were tried on other stores as well, a column for each store."""
    systems = list(dict.fromkeys(row.system for row in rows if row.system != OURS))
    names = list(dict.fromkeys(row.name for row in rows if row.system != OURS))
    if not names:
        return []
    found = {(row.name, row.system): row for row in rows}
    lines = [
        (name, *(outcome(found.get((name, system))) for system in (OURS, *systems)))
        for name in names
    ]
    others = [row for row in rows if row.system != OURS]
    return ["", *table_of(("fault", OURS, *systems), lines), *notes_of(others)]


def outcome(row: Row | None) -> str:
    """Return in one cell what became of a store."""
    if row is None:
        return "not tried"
    wrong = [
        f"{row.undetected:,} unnoticed" if row.undetected else "",
        f"{row.false_alarms:,} false alarms" if row.false_alarms else "",
        f"{row.lost:,} records lost" if row.lost else "",
    ]
    return f"{row.tried:,} tried: {', '.join(filter(None, wrong)) or 'all well'}"


def table_of(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(line) + " |" for line in (head, rule, *lines)]


def write(path: Path, card: Card) -> None:
    """Write the card as JSON, as a page, or into the place that a page has for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".md":
        path.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
        return
    page = path.read_text() if path.exists() else ""
    if PLACE.search(page):
        page = PLACE.sub(lambda found: found[1] + markdown(card, found[2]) + found[3], page)
    else:
        page = markdown(card)
    path.write_text(page)
