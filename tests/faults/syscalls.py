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
from wal.format import MANIFEST_NAME, SEGMENT_SUFFIX

EXIT_STEP_FAILED: Final = 70
COMMAND: Final = "python -m tests.faults syscalls --full"
SYNCS: Final = ("fdatasync", "fsync")
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
    """Return a row for each kind of fault, and for the worst of them where the log is cut too."""
    require_strace()
    with scratch() as folder, Nursery("tests.faults.worker", folder) as nursery:
        truth = find_truth(nursery, folder / "truth")
        rows: list[Row] = []
        bench = Bench(nursery, truth, folder / "case", "all")
        points = spread(budget, bench.points())
        rows += [try_points(bench, kind, points, progress) for kind in KINDS]
        bench = Bench(nursery, truth, folder / "case", "checkpointed")
        points = budget.choose(bench.points())
        rows += [try_points(bench, kind, points, progress) for kind in ("EIO", "SIGKILL")]
        shipped = Bench(nursery, truth, folder / "case", "all", "work_shipped")
        rows.append(try_threads(shipped, budget, progress))
        return rows


class Bench(NamedTuple):
    """What every case needs: who runs it, what is true, where it runs, how much log is kept."""

    nursery: Nursery
    truth: Truth
    directory: Path
    kept: str
    deed: str = "work"

    def work(self, *faults: Fault) -> Case:
        return self.nursery.run(self.deed, self.directory, faults, kept=self.kept)

    def points(self) -> list[Point]:
        """Return all calls of a run without faults."""
        calls = self.work().calls
        shutil.rmtree(self.directory)
        return points_of(calls, self.directory)


def try_points(bench: Bench, kind: str, points: list[Point], progress: Progress) -> Row:
    """Meet one kind of fault at each point."""
    cut = "" if bench.kept == "all" else " of a shard that cuts its log"
    tally = Tally(f"{kind} at a system call{cut}", COMMAND)
    if kind == "EIO":
        tally.note(counted(points))
    judge = Judge(bench.nursery, bench.truth, tally)
    for done, point in enumerate(points):
        progress(done, len(points), f"{kind} at {point.call} {point.nth}{cut}")
        try_point(bench, judge, kind, point)
    return tally.row()


def try_threads(bench: Bench, budget: Budget, progress: Progress) -> Row:
    """Meet faults where several threads call at once, so that no run is like the other.

    Here a fault may strike a thread that prepares what is not needed yet: the shard may then go on.
    """
    tally = Tally("EIO or SIGKILL in one of several threads", COMMAND)
    judge = Judge(bench.nursery, bench.truth, tally)
    points = budget.choose(bench.points())
    cases = [(kind, point) for kind in ("EIO", "SIGKILL") for point in points]
    for done, (kind, point) in enumerate(cases):
        what = f"{kind} at {point.call} {point.nth} of a thread"
        progress(done, len(cases), what)
        case = bench.work(Fault(point.call, point.nth, KINDS[kind]))
        # Each thread counts its own calls, so a point may lie beyond the end of all of them.
        tally.tried += case.code == -9 or any(call.injected for call in case.calls)
        if case.code not in (0, -9, EXIT_STEP_FAILED, EXIT_REFUSED):
            judge.wrong(f"{what}: {describe(case)}")
        bench.directory.mkdir(exist_ok=True)
        judge.look(bench.directory, max(map(end_of, case.said), default=0), what)
        shutil.rmtree(bench.directory)
    return tally.row()


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
            about = Path(names[-1]).name if names[-1] != str(within) else "the directory"
            points.append(Point(call.name, numbers[call.name], about))
    return points


def spread(budget: Budget, points: list[Point]) -> list[Point]:
    """Return all points, or some of each name."""
    names = dict.fromkeys(point.call for point in points)
    groups = ([point for point in points if point.call == name] for name in names)
    return [point for group in groups for point in budget.choose(group)]


def counted(points: list[Point]) -> str:
    """Return how many points there are of each name."""
    return ", ".join(f"{count} {name}" for name, count in Counter(p.call for p in points).items())


def try_point(bench: Bench, judge: Judge, kind: str, point: Point) -> None:
    """Do the work with one fault in it, then look at what is left."""
    case = bench.work(Fault(point.call, point.nth, KINDS[kind]))
    what = f"{kind} at {point.call} {point.nth} ({point.about})"
    judge.tally.tried += 1
    ended_well = judge_end(case, kind, bench.truth, bench.nursery.heard)
    if not ended_well and not went_on(case, bench.truth):
        judge.wrong(f"{what}: {describe(case)}")
    bench.directory.mkdir(exist_ok=True)
    judge.look(bench.directory, max(map(end_of, case.said), default=0), what)
    shutil.rmtree(bench.directory)


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

    A folder that is there need not be made, and what is done beside the work is never needed.
    """
    places = [place for place, call in enumerate(case.calls) if call.injected]
    if case.said != truth.said or len(places) != 1:
        return False
    before, failed, _ = split(case.calls, places[0])
    return failed.name == "mkdir" or is_beside([*before, failed])


def is_beside(calls: list[Call]) -> bool:
    """Say whether the newest of the calls belong to packing or merging.

    Both begin with a look at the MANIFEST, which a shard at work never reads, and end with what
    only the shard does: it gives a file its name, writes to the log, or says something.
    """
    for call in reversed(calls):
        path = call.paths[-1] if call.paths else ""
        if call.name in ("rename", "write") or (
            call.name == "pwrite64" and path.endswith(SEGMENT_SUFFIX)
        ):
            return False
        if call.name == "openat" and path.endswith(MANIFEST_NAME) and "O_RDONLY" in call.text:
            return any(one.name == "write" for one in calls)  # else it is the first start
    return False


def split(calls: list[Call], place: int) -> tuple[list[Call], Call, list[Call]]:
    return calls[:place], calls[place], calls[place + 1 :]


def describe(case: Case) -> str:
    """Return how a process ended, for a note."""
    last = case.said[-1] if case.said else "nothing"
    injected = [call.name for call in case.calls if call.injected]
    return f"ended {case.code} {case.error}, last said {last}, injected {injected}"
