"""Let memory, file descriptors or threads run out while a shard is at work.

Whatever needs one that is not to be had either is refused, or ends the process before anything is
answered. Afterwards a process that has enough looks at what is there (`truth`).
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.hungry import FIRST_BATCH
from tests.faults.nursery import EXIT_REFUSED, Case, Nursery
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.syscalls import EXIT_STEP_FAILED, Point, counted, describe, scratch
from tests.faults.tracer import NEW_THREADS, Fault, require_strace
from tests.faults.truth import Judge, Truth, end_of, find_truth
from tests.faults.worker import BATCHES

COMMAND: Final = "python -m tests.faults shortage --full"
STEPS: Final = range(FIRST_BATCH, FIRST_BATCH + BATCHES)
ALLOCATIONS: Final = 420
"""A step of the work makes fewer."""

CLOSELY: Final = 12
"""The step that meets the lack of each single allocation; the others meet some."""

PIECES: Final = (0, 1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 512, 2_048)
FILES: Final = range(6)
TITLES: Final = {
    "one allocation": "MemoryError at one allocation",
    "a thousand allocations": "MemoryError at a thousand allocations",
    "memory": "no memory left",
    "files": "no file descriptors left",
}
CRASHED: Final = (-6, -11)
"""A library that does not look whether it got memory ends the process by itself."""


class Bench(NamedTuple):
    """What every case needs: who runs it, what is true, where it runs."""

    nursery: Nursery
    truth: Truth
    directory: Path


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for each thing that runs out."""
    require_strace()
    with scratch() as folder, Nursery("tests.faults.hungry", folder) as nursery:
        truth = find_truth(nursery, folder / "truth")
        bench = Bench(nursery, truth, folder / "case")
        cases = {
            "one allocation": allocations(0),
            "a thousand allocations": allocations(3),
            "memory": [(at, left) for at in STEPS for left in PIECES],
            "files": [(at, left) for at in STEPS for left in FILES],
        }
        if find_spec("_testcapi") is None:  # not every Python has it
            del cases["one allocation"], cases["a thousand allocations"]
        rows = [try_shortage(bench, of, some, budget, progress) for of, some in cases.items()]
        return [*rows, try_threads(bench, budget, progress)]


def allocations(shift: int) -> list[tuple[int, int]]:
    """Return which allocation of which step fails; all of one step, and some of every other."""
    others = [
        (at, left)
        for at in STEPS
        if at != CLOSELY
        for left in range((at + shift) % 10, ALLOCATIONS, 10)
    ]
    return [(CLOSELY, left) for left in range(ALLOCATIONS)] + others


def try_shortage(
    bench: Bench, of: str, cases: list[tuple[int, int]], budget: Budget, progress: Progress
) -> Row:
    """Let little be left of one thing at one step, for every number of it."""
    tally = Tally(f"{TITLES[of]} within a batch", COMMAND)
    judge = Judge(bench.nursery, bench.truth, tally)
    chosen = budget.choose(cases)
    ends: dict[str, int] = {}
    for done, (at, left) in enumerate(chosen):
        what = f"{of}, {left} left, at step {at}"
        progress(done, len(chosen), what)
        case = bench.nursery.run("work_short", bench.directory, of=of, at=at, left=left)
        end = how_it_ended(case, bench.truth)
        ends[end or "wrong"] = ends.get(end or "wrong", 0) + 1
        tally.tried += end != ENOUGH
        if not end:
            judge.wrong(f"{what}: {describe(case)}")
        judge.look(bench.directory, max(map(end_of, case.said), default=0), what)
        shutil.rmtree(bench.directory)
    tally.note(f"{TITLES[of]}: " + ", ".join(f"{end} {count}" for end, count in ends.items()))
    return tally.row()


ENOUGH: Final = "there was enough"


def how_it_ended(case: Case, truth: Truth) -> str:
    """Return how a process met a shortage; empty when that was not as it must be."""
    if case.code == EXIT_STEP_FAILED:
        return "the process ended"
    if case.code in CRASHED:
        return "a library crashed"
    if case.code == 0 and any("again" in one for one in case.said if isinstance(one, dict)):
        return "the call was refused, and made again"
    return ENOUGH if case.code == 0 and case.said == truth.said else ""


# Threads ------------------------------------------------------------------------------------------


def try_threads(bench: Bench, budget: Budget, progress: Progress) -> Row:
    """Let every thread, and every process beside the shard, be the one that cannot begin."""
    tally = Tally("no further thread or process", COMMAND)
    judge = Judge(bench.nursery, bench.truth, tally)
    points = thread_points(bench)
    tally.note(counted(points))
    chosen = budget.choose(points)
    for done, point in enumerate(chosen):
        what = f"no {point.call} {point.nth}"
        progress(done, len(chosen), what)
        fault = Fault(point.call, point.nth, "error=EAGAIN")
        case = bench.nursery.run("work_threaded", bench.directory, (fault,), kept="all")
        # Each thread counts its own calls, and packing and merging take as long as they take.
        tally.tried += any(call.injected for call in case.calls)
        if case.code not in (0, EXIT_STEP_FAILED, EXIT_REFUSED):
            judge.wrong(f"{what}: {describe(case)}")
        bench.directory.mkdir(exist_ok=True)
        judge.look(bench.directory, max(map(end_of, case.said), default=0), what)
        shutil.rmtree(bench.directory)
    return tally.row()


def thread_points(bench: Bench) -> list[Point]:
    """Return the calls that begin a thread or a process in a run without faults."""
    calls = bench.nursery.run("work_threaded", bench.directory, (), kept="all").calls
    shutil.rmtree(bench.directory)
    names = [call.name for call in calls if call.name in NEW_THREADS]
    return [
        Point(name, nth, "a thread")
        for name in dict.fromkeys(names)
        for nth in range(1, names.count(name) + 1)
    ]
