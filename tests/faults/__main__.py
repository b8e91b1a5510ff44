"""Run fault campaigns by name and print the card: `python -m tests.faults [NAME ...] [--full]`."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.faults import scorecard
from tests.faults.scorecard import OURS, Budget, CannotRun, Row


def main() -> int:
    """Return 0 when every row of ours is good, 1 when one is not, 2 when one could not run."""
    chosen = arguments()
    budget = Budget(full=chosen.full, share=chosen.share, number=chosen.number)
    rows: list[Row] = []
    unable: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        for name in chosen.names or scorecard.CAMPAIGNS:
            bar = bars.add_task(name, total=None)

            def progress(done: int, total: int, what: str, bar=bar, name=name) -> None:
                bars.update(bar, completed=done, total=total, description=f"{name}: {what}")

            try:
                rows += scorecard.run_campaign(name, budget, progress)
            except CannotRun as error:
                unable.append(f"{name} could not run: {error}")
            bars.update(bar, description=name)
    command = "python -m tests.faults" + "".join(f" {word}" for word in sys.argv[1:])
    card = scorecard.make_card(rows, budget, command)
    show(card.rows)
    for path in chosen.write:
        scorecard.write(path, card)
    for sentence in unable:
        sys.stderr.write(sentence + "\n")
    if not all(row.good for row in rows if row.system == OURS):
        return 1
    return 2 if unable else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = list(scorecard.CAMPAIGNS)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help=str(names))
    parser.add_argument("--full", action="store_true", help="try everything, not a spread over it")
    parser.add_argument("--share", type=float, default=0.02, help="of the cases, without --full")
    parser.add_argument("--number", type=int, default=1, help="decides what is chosen at random")
    parser.add_argument(
        "--write", type=Path, action="append", default=[], metavar="FILE.json|FILE.md"
    )
    return parser.parse_args()


def show(rows: tuple[Row, ...]) -> None:
    """Print the card; what went wrong stands out."""
    table = Table(title="Fault scorecard", title_justify="left")
    for index, column in enumerate(scorecard.COLUMNS):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*scorecard.cells(row), style="" if row.good or row.system != OURS else "red")
    console = Console(markup=False, highlight=False)
    console.print(table)
    for row in rows:
        for note in row.notes:
            console.print(f"{row.name} ({row.system}): {note}")


if __name__ == "__main__":
    sys.exit(main())
