"""The tables of explanation/throughput.md, drawn from the lines that the bench wrote.

The lines are in the file beside the page, as `paychan bench all --full` keeps them. Of several
lines of a part the last is drawn. So no figure is ever copied by hand.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench.report import tables
from bench.report.tables import Lines

LINES: Final = Path(__file__).parent / "explanation" / "throughput.json"


def drawn(table: Callable[[Lines], str]) -> str:
    """Return a table of the lines beside the page."""
    lines = (json.loads(line) for line in LINES.read_text().splitlines())
    return table(tables.by_part(lines))


TABLES: Final[dict[str, Callable[[Lines], str]]] = {
    "runs": tables.runs,
    "goals": tables.goals,
    "budget": tables.budget,
    "rates": tables.rates,
    "rivals": tables.rivals,
    **{name: tables.rows_of(name) for name in tables.ROWS},
}

THROUGHPUT_PARTS: Final[dict[str, Callable[[], str]]] = {
    f"throughput-{name}": partial(drawn, table) for name, table in TABLES.items()
}
