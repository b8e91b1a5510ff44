"""Run fault campaigns by name and print the card: `python -m tests.faults [NAME ...] [--full]`."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.faults import pages, scorecard
from tests.faults.scorecard import Budget, CannotRun, Row
from tests.faults.together import Step, run_one, run_together

LINE = 160
"""How wide the card may be where no terminal says it."""


def main() -> int:
    """Return 0 when we kept every promise, 1 when not, 2 when a campaign could not run."""
    chosen = arguments()
    budget = Budget(full=chosen.full, share=chosen.share, number=chosen.number)
    names = chosen.names or ([] if chosen.read else list(scorecard.CAMPAIGNS))
    rows, unable = run_all(names, budget)
    try:
        card = scorecard.make_card(
            rows, budget, " ".join(["python -m tests.faults", *sys.argv[1:]])
        )
        card = scorecard.merged([scorecard.read(path) for path in chosen.read], card)
    except CannotRun as error:
        sys.stderr.write(f"{error}\n")
        return 2
    width = None if sys.stdout.isatty() else LINE
    pages.show(Console(markup=False, highlight=False, width=width), card.rows)
    for path in chosen.write:
        pages.write(path, card)
    for sentence in unable:
        sys.stderr.write(sentence + "\n")
    if any(row.breaks_promise for row in card.rows):
        return 1
    return 2 if unable else 0


def run_all(names: list[str], budget: Budget) -> tuple[list[Row], list[str]]:
    """Return the rows of the campaigns, and a sentence for each that could not run.

    On a machine of several cores, campaigns that measure no time run side by side.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=None) for name in names}

        def show(step: Step) -> None:
            name, done, total, what = step
            bars.update(
                tasks[name], completed=done, total=total, description=f"{name}: {what}"[:LINE]
            )

        together = [name for name in names if name not in scorecard.ALONE]
        found = run_together(together, budget, show) if len(together) > 1 else {}
        for name in names:
            if name not in found:
                found[name] = run_one(name, budget, show)
    rows = [row for name in names for row in found[name][0]]
    return rows, [found[name][1] for name in names if found[name][1]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = list(scorecard.CAMPAIGNS)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help=str(names))
    parser.add_argument("--full", action="store_true", help="try everything, not a spread over it")
    parser.add_argument("--share", type=float, default=0.02, help="of the cases, without --full")
    parser.add_argument("--number", type=int, default=1, help="decides what is chosen at random")
    files = {"type": Path, "action": "append", "default": []}
    parser.add_argument(
        "--read", metavar="FILE.json", help="rows of an earlier card of this commit", **files
    )
    parser.add_argument(
        "--write",
        metavar="FILE",
        help="the card as JSON, as Markdown (.md), or into a page with a place for it",
        **files,
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
