"""Play simulated histories for the card: the whole engine on a disk that loses what it may."""

import time
from typing import Final

from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.simulation.play import play, stage, totals

COMMAND: Final = "python -m tests.simulation --from 1 --count 10000"
QUICK: Final = 200
FULL: Final = 10_000


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return one row; a history that broke a promise says which, with its number."""
    tally = Tally("simulated histories: crashes, a lossy disk, bad clients", COMMAND)
    started = time.perf_counter()
    played = []
    count = budget.amount(QUICK, FULL)
    with stage():
        for number in range(1, count + 1):
            progress(number, count, f"history {number}")
            one = play(number)
            played.append(one)
            if one.broken:
                tally.undetected += 1
                tally.note(f"number {number}: {one.broken}")
    counts = totals(played)
    tally.tried = len(played)
    tally.checked = counts["promises"]
    rate = len(played) / (time.perf_counter() - started)
    tally.note(f"{counts['faults']:,} faults, {counts['starts']:,} starts, {rate:.0f} a second")
    return [tally.row()]
