"""Try what a process meets without any tracer: writes cut short, being stopped, a second writer.

A limit on the size of files makes the kernel itself take only a part of a write, which leaves half
a frame on the disk. A stopped writer still holds its lock; a killed one is followed by a higher
epoch; one whose files were taken away from under it may not answer any more.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from engine.channels.host import shard_directory
from tests.faults.nursery import EXIT_REFUSED, Case, Nursery
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.syscalls import EXIT_STEP_FAILED, describe, scratch
from tests.faults.truth import Judge, Truth, end_of, find_truth, said_of
from tests.faults.worker import SEGMENT_BYTES
from wal.format import LOCK_NAME

COMMAND: Final = "python -m tests.faults limits --full"
PATIENCE_S: Final = 0.1
SIZE_STEP: Final = 128


class Ground(NamedTuple):
    """Two process nurseries, so that two writers can meet, and what every case needs."""

    first: Nursery
    second: Nursery
    truth: Truth
    folder: Path


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for short writes, and one for writers that meet."""
    with scratch() as folder:
        for name in ("first", "second"):
            (folder / name).mkdir()
        with (
            Nursery("tests.faults.worker", folder / "first") as first,
            Nursery("tests.faults.worker", folder / "second") as second,
        ):
            ground = Ground(first, second, find_truth(first, folder / "truth"), folder)
            return [short_writes(ground, budget, progress), meetings(ground, budget, progress)]


def short_writes(ground: Ground, budget: Budget, progress: Progress) -> Row:
    """Let files end at every size, from every step on."""
    tally = Tally("a write cut short, then refused", COMMAND)
    judge = Judge(ground.first, ground.truth, tally)
    steps = range(1, len(ground.truth.again))
    sizes = range(SIZE_STEP, SEGMENT_BYTES, SIZE_STEP)
    cases = budget.choose([(step, size) for step in steps for size in sizes])
    torn = 0
    for count, (step, size) in enumerate(cases):
        what = f"files of at most {size} bytes from step {step} on"
        progress(count, len(cases), what)
        directory = ground.folder / "case"
        case = ground.first.run("work", directory, incident="limit", at=step, size=size)
        # The rest of the work may fit into the segment that is there.
        tally.tried += case.code != 0
        if case.code not in (EXIT_STEP_FAILED, 0):
            judge.wrong(f"{what}: {describe(case)}")
        checked = judge.look(directory, acknowledged(case), what)
        torn += bool(checked.said and checked.said[0].get("torn"))
        shutil.rmtree(directory)
    tally.note(f"{torn} of them left a part of a frame on the disk")
    return tally.row()


def acknowledged(case: Case) -> int:
    return max(map(end_of, case.said), default=0)


# Two writers --------------------------------------------------------------------------------------


def meetings(ground: Ground, budget: Budget, progress: Progress) -> Row:
    """Stop the writer after a step, let another come, and see who may answer."""
    tally = Tally("a writer stopped, followed, fenced, bereft of its files", COMMAND)
    judge = Judge(ground.first, ground.truth, tally)
    cases = [
        (meeting, step)
        for step in budget.choose(range(1, len(ground.truth.again)))
        for meeting in (refused_while_stopped, followed_after_kill, fenced, fenced_late, bereft)
    ]
    for count, (meeting, step) in enumerate(cases):
        what = f"{meeting.__name__} at step {step}"
        progress(count, len(cases), what)
        directory = ground.folder / "case"
        tally.tried += 1
        trouble = meeting(ground, directory, step, judge)
        if trouble:
            judge.wrong(f"{what}: {trouble}")
        shutil.rmtree(directory)
    return tally.row()


Meeting = Callable[[Ground, Path, int, Judge], str]
"""Returns what went wrong, "" for nothing."""


def refused_while_stopped(ground: Ground, directory: Path, step: int, judge: Judge) -> str:
    """A second writer is refused while the first only stands still; the first then goes on."""
    pid = stopped(ground, directory, step)
    second = ground.second.run("start", directory, patience_s=PATIENCE_S)
    os.kill(pid, signal.SIGCONT)
    first = ground.first.ended()
    judge.look(directory, acknowledged(first), f"stopped at step {step}, and on")
    if second.code != EXIT_REFUSED or not second.error.startswith("LogInUseError"):
        return f"the second {describe(second)}"
    return "" if first.said == ground.truth.said else f"the first {describe(first)}"


def followed_after_kill(ground: Ground, directory: Path, step: int, judge: Judge) -> str:
    """A killed writer is followed at once, under a higher epoch."""
    os.kill(stopped(ground, directory, step), signal.SIGKILL)
    first = ground.first.ended()
    second = ground.second.run("start", directory)
    judge.look(directory, acknowledged(first), f"killed at step {step}")
    told = said_of(second, "epoch")
    return "" if told.get("epoch") == 2 and first.code == -9 else f"the second {describe(second)}"


def fenced(ground: Ground, directory: Path, step: int, judge: Judge) -> str:
    """A writer that was followed while it stood still, its LOCK removed, does not answer again."""
    return fenced_while(ground, directory, step, judge, "stop")


def fenced_late(ground: Ground, directory: Path, step: int, judge: Judge) -> str:
    """The same for one that first of all writes a checkpoint: the MANIFEST stays the other's."""
    return fenced_while(ground, directory, step, judge, "stop, checkpoint")


def fenced_while(ground: Ground, directory: Path, step: int, judge: Judge, incident: str) -> str:
    pid = stopped(ground, directory, step, incident)
    before = ground.first.said()
    (shard_directory(directory, 0) / LOCK_NAME).unlink()
    second = ground.second.run("start", directory)
    os.kill(pid, signal.SIGCONT)
    first = ground.first.ended()
    judge.look(directory, acknowledged(first), f"fenced at step {step}: {incident}")
    if second.code != 0:
        return f"the second {describe(second)}"
    return silent_end(first, before)


def bereft(ground: Ground, directory: Path, step: int, judge: Judge) -> str:
    """A writer whose segments are removed does not answer again."""
    first = ground.first.run("work", directory, incident="remove", at=step)
    return silent_end(first, [one for one in first.said if end_of(one) <= end_at(first, step)])


def end_at(case: Case, step: int) -> int:
    return max(end_of(one) for one in case.said[: step + 1])


def silent_end(case: Case, before: list[Any]) -> str:
    """Return what is wrong with a writer that had to end without another word."""
    if case.code == EXIT_STEP_FAILED and case.said == before:
        return ""
    return describe(case)


def stopped(ground: Ground, directory: Path, step: int, incident: str = "stop") -> int:
    """Return the process id of a writer that stands still after `step`."""
    pid = ground.first.begin("work", directory, incident=incident, at=step)
    ground.first.start()
    ground.first.wait_until_stopped()
    return pid
