"""The tables of explanation/throughput.md, drawn from the lines that the bench wrote.

The lines are in files beside the page, as `paychan bench all --full` keeps them: those of the last
run, and those of the last on a machine at its full speed. Of several lines of a part the last is
drawn. So no figure is ever copied by hand.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench.report import tables
from bench.report.tables import Lines

PAGES: Final = Path(__file__).parent / "explanation"


def drawn(table: Callable[[Lines], str], file: str) -> str:
    """Return a table of the lines in a file beside the page."""
    lines = (json.loads(line) for line in (PAGES / file).read_text().splitlines())
    return table(tables.by_part(lines))


TABLES: Final[dict[str, Callable[[Lines], str]]] = {
    "runs": tables.runs,
    "goals": tables.goals,
    "budget": tables.budget,
    "rates": tables.rates,
}
"""What is shown of either run."""

THROUGHPUT_PARTS: Final[dict[str, Callable[[], str]]] = {
    **{f"throughput-{name}": partial(drawn, TABLES[name], "throughput.json") for name in TABLES},
    **{
        f"throughput-{name}": partial(drawn, tables.rows_of(name), "throughput.json")
        for name in tables.ROWS
    },
    **{
        f"at-speed-{name}": partial(drawn, TABLES[name], "throughput-at-speed.json")
        for name in TABLES
    },
    # Rivals are compared with what paychan took on the same machine.
    "at-speed-rivals": partial(drawn, tables.rivals, "throughput-at-speed.json"),
}
