"""Run campaigns side by side, each in a process of its own, and hear how far they are."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from traceback import format_exc

from tests.faults import scorecard
from tests.faults.scorecard import Budget, CannotRun, Row

Outcome = tuple[list[Row], str]
"""The rows of a campaign, and a sentence when it could not run."""

Step = tuple[str, int, int, str]
"""A campaign's name, and what it told `Progress`."""

Show = Callable[[Step], None]
tell: Show
"""Where a process of `run_together` tells its progress."""


def run_one(name: str, budget: Budget, show: Show) -> Outcome:
    """Run one campaign here; one that breaks off takes no other with it."""
    try:
        return scorecard.run_campaign(name, budget, lambda *step: show((name, *step))), ""
    except CannotRun as error:
        return [], f"{name} could not run: {error}"
    except Exception:
        return [], f"{name} broke off: {format_exc()}"


def run_together(names: list[str], budget: Budget, show: Show) -> dict[str, Outcome]:
    """Run campaigns in processes of their own, as many at a time as there are cores."""
    context = get_context("spawn")
    steps: SimpleQueue[Step | None] = context.SimpleQueue()
    listener = threading.Thread(target=listen, args=(steps, show))
    listener.start()
    try:
        with ProcessPoolExecutor(os.cpu_count(), context, keep, (steps,)) as pool:
            return dict(zip(names, pool.map(run_aside, names, repeat(budget)), strict=True))
    finally:
        steps.put(None)
        listener.join()


def listen(steps: "SimpleQueue[Step | None]", show: Show) -> None:
    """Show what the processes tell, until told to stop."""
    while (step := steps.get()) is not None:
        show(step)


def keep(steps: "SimpleQueue[Step | None]") -> None:
    """Remember, in a process of its own, where progress is told."""
    global tell
    tell = steps.put


def run_aside(name: str, budget: Budget) -> Outcome:
    """Run one campaign in a process of its own."""
    return run_one(name, budget, tell)
