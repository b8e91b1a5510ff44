"""Try every system call of the processes that pack and merge beside a shard, as they are started.

The shard is a process of its own that has the same work sent to it again meanwhile. Whatever
becomes of the process beside it, the shard goes on, and nothing of its log is touched.
"""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.nursery import Case, Nursery
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.syscalls import KINDS, Point, counted, describe, points_of, scratch
from tests.faults.tracer import Call, Fault, Tracer, require_strace
from tests.faults.truth import Judge, Truth, end_of, find_truth

COMMAND: Final = "python -m tests.faults beside --full"
TASKS: Final = ("packing", "merging")
FAULTS: Final = ("EIO", "ENOSPC", "SIGKILL")
LAID: Final = 24
"""Steps after which the processes come: there are sealed segments, and increments."""


class Bench(NamedTuple):
    """What every case needs: who runs the shard, what traces the process, where they work."""

    nursery: Nursery
    tracer: Tracer
    truth: Truth
    folder: Path

    def work(self, task: str, *faults: Fault) -> tuple[Case, list[Call]]:
        """Return what became of the shard, and the calls of the process beside it."""
        directory, program = self.folder / "case", self.folder / "python"
        shutil.copytree(self.folder / "laid", directory)
        self.tracer.python(program, faults)
        case = self.nursery.run("work_beside", directory, task=task, program=str(program))
        self.tracer.wait_until_over()
        program.with_name("python.used").rmdir()
        return case, self.tracer.calls()


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for the process that packs, and one for the process that merges."""
    require_strace()
    with scratch() as folder, Nursery("tests.faults.worker", folder) as nursery:
        truth = find_truth(nursery, folder / "truth")
        nursery.run("lay", folder / "laid", upto=LAID)
        bench = Bench(nursery, Tracer(folder / "seen"), truth, folder)
        return [try_task(bench, task, budget, progress) for task in TASKS]


def try_task(bench: Bench, task: str, budget: Budget, progress: Progress) -> Row:
    """Meet each fault at each call of the process that does one task."""
    tally = Tally(f"EIO, ENOSPC or SIGKILL in the process that does the {task}", COMMAND)
    judge = Judge(bench.nursery, bench.truth, tally)
    directory = bench.folder / "case"
    points = points_of(bench.work(task)[1], directory)
    shutil.rmtree(directory)
    tally.note(counted(points))
    cases = [(kind, point) for kind in FAULTS for point in budget.choose(points)]
    for done, (kind, point) in enumerate(cases):
        progress(done, len(cases), f"{task}: {kind} at {point.call} {point.nth}")
        try_point(bench, judge, task, kind, point)
        shutil.rmtree(directory)
    return tally.row()


def try_point(bench: Bench, judge: Judge, task: str, kind: str, point: Point) -> None:
    """Let one call of the process go wrong, see the shard go on, then look at what is left."""
    case, calls = bench.work(task, Fault(point.call, point.nth, KINDS[kind]))
    what = f"{task}, {kind} at {point.call} {point.nth} ({point.about})"
    # How much there is to read differs a little from run to run, so a late point may not be met.
    judge.tally.tried += any(call.injected or call.was_killed for call in calls)
    if case.code != 0 or case.said[-1] != "closed":
        judge.wrong(f"{what}: the shard {describe(case)}")
    judge.look(bench.folder / "case", max(map(end_of, case.said), default=0), what)
