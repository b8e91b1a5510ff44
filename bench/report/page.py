"""A report: one page of tables, and the plots beside it."""

from collections.abc import Iterable
from pathlib import Path

from bench.report import tables
from bench.report.plots import draw
from bench.report.tables import ROWS, Line, Lines, by_part


def write_report(lines: Iterable[Line], folder: Path, *, page: bool = True) -> list[Path]:
    """Write plots and, with `page`, `report.md` into a folder; return what was written.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    parts = by_part(lines)
    folder.mkdir(parents=True, exist_ok=True)
    plots = draw(parts, folder)
    if not page:
        return plots
    report = folder / "report.md"
    report.write_text(_page(parts, plots))
    return [report, *plots]


def _page(parts: Lines, plots: Iterable[Path]) -> str:
    chapters = [
        "# Claims",
        tables.runs(parts),
        "## What is to be reached",
        tables.goals(parts),
        "## Rates",
        tables.rates(parts),
        "## Where the time goes",
        tables.budget(parts),
        "## Compared with what",
        tables.rivals(parts),
        *(f"![{path.stem}]({path.name})" for path in plots),
    ]
    for name in ROWS:
        if name in parts:
            chapters += [f"## {name}", tables.rows_of(name)(parts)]
    return "\n\n".join(chapters) + "\n"
