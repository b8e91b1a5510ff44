"""The tables of explanation/payments-speed.md, drawn from the lines that the bench printed.

The lines are in the file beside the page, as `paychan bench payments --json` prints them. Of
several lines the last that has a table is drawn, and each table says of which commit its line is.
So no figure is ever copied by hand.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

LINES: Final = Path(__file__).parent / "explanation" / "payments-speed.json"

KINDS: Final = ("lmdb", "sqlite", "postgresql")
NAMES: Final = {"lmdb": "LMDB", "sqlite": "SQLite", "postgresql": "PostgreSQL"}
NOTHING: Final = "not known"

COLUMNS: Final = {
    "life_rows": {
        "store": "store",
        "payments_per_s": "payments a second",
        "bare_per_s": "bare store",
        "ratio_to_bare": "of the bare store",
        "blind_per_s": "blind one",
        "ratio_to_blind": "of the blind one",
        "init_ms": "init, ms",
        "register_ms": "register, ms",
        "settle_ms": "settle, ms",
        "cpu_ms_per_payment": "CPU of the process, ms a payment",
        "payments_per_s_8": "8 writers, a second",
        "ratio_8_to_1": "of one writer",
    },
    "query_rows": {
        "store": "store",
        "query": "page of 100",
        "small": "small store",
        "large": "large store",
        "small_ms": "small, ms",
        "large_ms": "large, ms",
        "ratio": "large to small",
    },
    "in_flight_rows": {
        "store": "store",
        "payments": "payments",
        "in_flight": "in flight",
        "fetch_ms": "found and read, ms",
        "one_by_one_ms": "each by its hash, ms",
        "built_ms": "built from memory, ms",
        "above_building_ms": "above building, ms",
    },
    "deletion_rows": {
        "store": "store",
        "deleted": "deleted",
        "seconds": "seconds",
        "transactions": "transactions",
        "median_ms": "median, ms",
        "longest_ms": "longest, ms",
        "longest_of_all_ms": "longest of all runs, ms",
    },
    "migration_rows": {
        "from": "from",
        "to": "to",
        "payments": "payments",
        "payments_per_s": "a second, compared",
        "memory_mb_start": "MB at the start",
        "memory_mb_at_a_tenth": "MB after a tenth",
        "memory_mb_peak": "MB at most",
        "memory_mb_end": "MB at the end",
    },
}
"""The columns of each table, in words."""

TABLES: Final = {
    "life": ("life_rows",),
    "queries": ("query_rows",),
    "in-flight": ("in_flight_rows",),
    "moves": ("migration_rows", "deletion_rows"),
}
"""The tables that each part of the bench makes."""


def lines() -> list[dict[str, Any]]:
    """Return the lines, oldest first."""
    return [json.loads(line) for line in LINES.read_text().splitlines()]


def line_of(name: str) -> dict[str, Any]:
    """Return the last line that has a table."""
    return next(line for line in reversed(lines()) if name in line)


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of a table, from the last line that has it."""
    rows: list[dict[str, Any]] = line_of(name)[name]
    return rows


def commit_of(name: str) -> str:
    """Return the commit that a table was measured at, as the page writes it."""
    return f"`{line_of(name)['commit']}`"


def shown(value: Any) -> str:
    """Return what a cell says."""
    if isinstance(value, str):
        return NAMES.get(value, value)
    return "" if value is None else f"{value:,}"


def measured(name: str) -> str:
    """Return one table of the bench, and the commit it is of."""
    columns = COLUMNS[name]
    rows = ([shown(row[key]) for key in columns] for row in rows_of(name))
    return f"{markdown(columns.values(), rows)}\n\nMeasured at commit {commit_of(name)}."


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def runs() -> str:
    """Return a line for each run: what was run, on what, for how long, and what is drawn of it."""
    said = []
    for line in lines():
        config = line["config"]
        said.append(
            f"- {', '.join(config['parts'])}: stores of {config['small']:,} and "
            f"{config['payments']:,} payments, medians of {config['rounds']} rounds, in "
            f"{line['seconds']:.0f} s; {line['machine']}, {line['cores']} cores, commit "
            f"`{line['commit']}`; in the tables: {', '.join(drawn(line)) or 'nothing'}"
        )
    return "\n".join(said)


def drawn(line: dict[str, Any]) -> list[str]:
    """Return the parts of a line whose tables no later line has."""
    return [
        part
        for part in line["config"]["parts"]
        if any(name in line and line_of(name) == line for name in TABLES[part])
    ]


# Beside lnd ---------------------------------------------------------------------------------------


def of_query(query: str, kind: str) -> str:
    """Return what a page of the large store takes."""
    found = [row for row in rows_of("query_rows") if (row["store"], row["query"]) == (kind, query)]
    return f"{found[0]['large_ms']} ms of {found[0]['large']:,}" if found else NOTHING


def of_life(kind: str) -> str:
    """Return what the three calls take."""
    found = [row for row in rows_of("life_rows") if row["store"] == kind]
    return " / ".join(f"{found[0][f'{name}_ms']}" for name in ("init", "register", "settle")) + (
        f" ms, {found[0]['payments_per_s']:,.0f} a second"
    )


def of_in_flight(kind: str) -> str:
    """Return what it takes to find what is in flight, in the largest store."""
    row = [row for row in rows_of("in_flight_rows") if row["store"] == kind][-1]
    return f"{row['fetch_ms']} ms of {row['payments']:,}"


def of_deletion(kind: str) -> str:
    """Return what it takes to delete all, and the longest transaction."""
    row = next(row for row in rows_of("deletion_rows") if row["store"] == kind)
    return f"{row['seconds']} s for {row['deleted']:,}, none above {row['longest_of_all_ms']} ms"


def of_migration(kind: str) -> str:
    """Return how fast payments move into a store."""
    row = next(row for row in rows_of("migration_rows") if row["to"] == kind)
    return f"{row['payments_per_s']:,.0f} a second, each compared"


BESIDE: Final[tuple[tuple[str, str, str, Callable[[str], str], str], ...]] = (
    (
        "page of 100",
        "0.695 ms, bbolt, 50,000 payments (a)",
        "0.95 ms",
        partial(of_query, "plain"),
        "query_rows",
    ),
    ("page of 100, reversed", "0.699 ms (a)", NOTHING, partial(of_query, "reversed"), "query_rows"),
    (
        "page of 100 without hops",
        NOTHING,
        "0.34 ms",
        partial(of_query, "omit hops"),
        "query_rows",
    ),
    (
        "page of 100 of two hours",
        "8.86 s: each payment is decoded to see its date (b)",
        NOTHING,
        partial(of_query, "date window"),
        "query_rows",
    ),
    ("page of 1,000", "6.66 ms (a)", NOTHING, partial(of_query, "1,000 at once"), "query_rows"),
    (
        "ten in flight",
        "about 1.9 h for 5.8 million, key-value on PostgreSQL (c)",
        "126 ms of 100,000, and growing with them",
        of_in_flight,
        "in_flight_rows",
    ),
    (
        "init / register / settle, one writer",
        "about 10 ms each: a batch waits for company (d)",
        "0.24 / 0.33 / 0.25 ms, 1,200 a second",
        of_life,
        "life_rows",
    ),
    (
        "delete all that may go",
        "over 2 h on 6 GB, without an effect to be seen (e)",
        "3.4 s for 100,000, in one transaction",
        of_deletion,
        "deletion_rows",
    ),
    (
        "migration",
        "1,263 a second, invoices, key-value to SQLite; another node 28 a second (f)",
        NOTHING,
        of_migration,
        "migration_rows",
    ),
)
"""What, as published, as replayed from lnd's statements, ours, and the table that ours are of."""


def beside_lnd() -> str:
    """Return our figures beside those of lnd."""
    head = ("what", "lnd, published", "lnd's statements, replayed (g)", *NAMES.values())
    return markdown(
        (*head, "ours at commit"),
        (
            (what, published, replayed, *(ours(kind) for kind in KINDS), commit_of(name))
            for what, published, replayed, ours, name in BESIDE
        ),
    )


SPEED_PARTS: Final[dict[str, Callable[[], str]]] = {
    "speed-runs": runs,
    "speed-beside": beside_lnd,
    "speed-life": partial(measured, "life_rows"),
    "speed-queries": partial(measured, "query_rows"),
    "speed-in-flight": partial(measured, "in_flight_rows"),
    "speed-migrations": partial(measured, "migration_rows"),
    "speed-deletions": partial(measured, "deletion_rows"),
}
