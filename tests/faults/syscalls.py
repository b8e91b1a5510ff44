"""Try every system call of a run: fail it, run out of space in it, be killed at it, be slow in it.

The run is the real shard host (`worker.py`): first start, commits, watermarks, rotations,
checkpoints, every change of the MANIFEST, close. Each call that reaches the disk is met once with
each fault; afterwards a process without faults looks at what is there (`truth.py`).
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.nursery import EXIT_REFUSED, Case, Nursery
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.tracer import ON_DISK, Call, Fault, require_strace
from tests.faults.truth import Judge, Truth, end_of, find_truth
from wal.format import MANIFEST_NAME, PACKED_SUFFIX

EXIT_STEP_FAILED: Final = 70
COMMAND: Final = "python -m tests.faults syscalls --full"
SYNCS: Final = ("fdatasync", "fsync")
READS: Final = ("openat", "pread64", "getdents64")
KINDS: Final = {
    "EIO": "error=EIO",
    "ENOSPC": "error=ENOSPC",
    "SIGKILL": "signal=SIGKILL",
    "a delay of 20 ms": "delay_enter=20000",
}
"""What happens at a call, as strace is told. A signal keeps the call from being done."""


class Point(NamedTuple):
    """One call of the run: the `nth` of its name."""

    call: str
    nth: int
    about: str


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for each kind of fault."""
    require_strace()
    with scratch() as folder, Nursery("tests.faults.worker", folder) as nursery:
        truth = find_truth(nursery, folder / "truth")
        points = points_of(nursery.run("work", folder / "points", ()).calls, folder / "points")
        chosen = spread(budget, points)
        rows = []
        done = 0
        for kind in KINDS:
            tally = Tally(f"{kind} at a system call", COMMAND)
            tally.note(f"of {len(points)} calls: {counted(points)}")
            judge = Judge(nursery, truth, tally)
            for point in chosen:
                progress(done, len(KINDS) * len(chosen), f"{kind} at {point.call} {point.nth}")
                try_point(nursery, judge, truth, folder / "case", kind, point)
                done += 1
            rows.append(tally.row())
    return rows


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder in memory, where there is one: killed processes leave its files as they are.

    What a power cut does to unsynced bytes is the simulated disk's affair, not this campaign's.
    """
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="paychan-faults-", dir=base) as folder:
        yield Path(folder)


def points_of(calls: list[Call], within: Path) -> list[Point]:
    """Return every call that names or holds a file below `within`, numbered by its name."""
    numbers: Counter[str] = Counter()
    points = []
    for call in calls:
        numbers[call.name] += 1
        names = [path for path in call.paths if path.startswith(str(within))]
        if call.name in ON_DISK and names:
            points.append(Point(call.name, numbers[call.name], Path(names[-1]).name))
    return points


def spread(budget: Budget, points: list[Point]) -> list[Point]:
    """Return all points, or some of each name."""
    names = dict.fromkeys(point.call for point in points)
    groups = ([point for point in points if point.call == name] for name in names)
    return [point for group in groups for point in budget.choose(group)]


def counted(points: list[Point]) -> str:
    """Return how many points there are of each name."""
    return ", ".join(f"{count} {name}" for name, count in Counter(p.call for p in points).items())


def try_point(
    nursery: Nursery, judge: Judge, truth: Truth, directory: Path, kind: str, point: Point
) -> None:
    """Do the work with one fault in it, then look at what is left."""
    fault = Fault(point.call, point.nth, KINDS[kind])
    case = nursery.run("work", directory, (fault,))
    what = f"{kind} at {point.call} {point.nth} ({point.about})"
    judge.tally.tried += 1
    if not judge_end(case, kind, truth, nursery.heard) and not went_on(case, truth):
        judge.wrong(f"{what}: {describe(case)}")
    judge.look(directory, max(map(end_of, case.said), default=0), what)
    shutil.rmtree(directory)


def judge_end(case: Case, kind: str, truth: Truth, heard: Path) -> bool:
    """Say whether the process met the fault as it must."""
    if kind == "SIGKILL":
        return case.code == -9
    if kind not in ("EIO", "ENOSPC"):
        return case.code == 0 and case.said == truth.said
    places = [index for index, call in enumerate(case.calls) if call.injected]
    if case.code not in (EXIT_STEP_FAILED, EXIT_REFUSED) or len(places) != 1:
        return False
    before, failed, after = split(case.calls, places[0])
    answered = sum(1 for call in before if str(heard) in call.paths)
    synced_again = failed.name in SYNCS and any(
        call.name in SYNCS and (call.handle, call.paths) == (failed.handle, failed.paths)
        for call in after
    )
    return len(case.said) <= answered and not synced_again


def went_on(case: Case, truth: Truth) -> bool:
    """Say whether the work was done in spite of a call that failed, and rightly so.

    A folder that is there need not be made. Packing is never needed: it alone reads segments while
    a shard works, and what it writes has a name of its own until the shard takes it in.
    """
    failed = [call for call in case.calls if call.injected]
    if case.said != truth.said or len(failed) != 1:
        return False
    name, path = failed[0].name, failed[0].paths[-1]
    is_packing = f"{PACKED_SUFFIX}." in path or (name in READS and "/wal" in path)
    return name == "mkdir" or is_packing or (name in READS and path.endswith(MANIFEST_NAME))


def split(calls: list[Call], place: int) -> tuple[list[Call], Call, list[Call]]:
    return calls[:place], calls[place], calls[place + 1 :]


def describe(case: Case) -> str:
    """Return how a process ended, for a note."""
    last = case.said[-1] if case.said else "nothing"
    injected = [call.name for call in case.calls if call.injected]
    return f"ended {case.code} {case.error}, last said {last}, injected {injected}"
