"""Kill recovery itself, three deep: at any call of a start, of the next start, and of the next.

The starts begin from what a first fault left behind: nothing yet, a torn tail, a rotation or a
checkpoint cut short, a checkpoint that rotted. Afterwards one start without faults must find all.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from engine.channels.host import shard_directory
from tests.faults.nursery import Case, Nursery
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.syscalls import (
    KINDS,
    Point,
    describe,
    judge_end,
    points_of,
    scratch,
)
from tests.faults.tracer import Call, Fault, require_strace
from tests.faults.truth import Judge, Truth, end_of, find_truth
from wal.format import INCREMENT_SUFFIX, MANIFEST_NAME, SNAPSHOT_SUFFIX
from wal.manifest import decode_manifest

COMMAND: Final = "python -m tests.faults nested --full"
DEPTH: Final = 3
CHAINS: Final = 3
"""How often each first call is followed by kills at other, random, calls."""

KILL: Final = KINDS["SIGKILL"]
_WRITTEN: Final = re.compile(r", (\d+), (\d+)$")


class Base(NamedTuple):
    """What the starts begin from: a directory, and how many events in it were acknowledged.

    `is_damaged` says that `verify` finds something, and rightly, until a start has dealt with it.
    """

    name: str
    directory: Path
    acknowledged: int
    is_damaged: bool = False


class Ground(NamedTuple):
    """What every case of the campaign needs."""

    nursery: Nursery
    truth: Truth
    folder: Path


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for nested kills, and one for calls of a start that fail."""
    require_strace()
    with scratch() as folder, Nursery("tests.faults.worker", folder) as nursery:
        ground = Ground(nursery, find_truth(nursery, folder / "truth"), folder)
        bases = make_bases(ground)
        kills = Tally("SIGKILL during a start, three deep", COMMAND)
        errors = Tally("EIO or ENOSPC during a start", COMMAND)
        for index, base in enumerate(bases):
            points = start_points(ground, base)
            chosen = budget.choose(points)
            for count, point in enumerate(chosen):
                what = f"{base.name}, {point.call} {point.nth}"
                progress(index * len(chosen) + count, len(bases) * len(chosen), what)
                chance = budget.chance(what)
                for _ in range(budget.amount(1, CHAINS)):
                    nested_kills(ground, base, [point, *random_points(points, chance)], kills)
                fail_once(ground, base, point, errors)
            kills.note(f"{base.name}: a start of {len(points)} calls")
        return [kills.row(), errors.row()]


def random_points(points: list[Point], chance: Random) -> list[Point]:
    return [chance.choice(points) for _ in range(DEPTH - 1)]


def start_points(ground: Ground, base: Base) -> list[Point]:
    """Return the calls of a start on `base` that nothing disturbs."""
    directory = copied(base, ground.folder / "case")
    calls = ground.nursery.run("start", directory, ()).calls
    shutil.rmtree(directory)
    return points_of(calls, directory)


def nested_kills(ground: Ground, base: Base, points: list[Point], tally: Tally) -> None:
    """Kill one start after the other, each at its point, then judge what is left."""
    directory = copied(base, ground.folder / "case")
    path = base.name
    for point in points:
        fault = Fault(point.call, point.nth, KILL)
        case = ground.nursery.run("start", directory, (fault,))
        tally.tried += case.code == -9  # a shorter start may end before its point
        path += f", {point.call} {point.nth} ({point.about})"
    judge = Judge(ground.nursery, ground.truth, tally, is_damaged=base.is_damaged)
    judge.look(directory, base.acknowledged, path)
    shutil.rmtree(directory)


def fail_once(ground: Ground, base: Base, point: Point, tally: Tally) -> None:
    """Fail one call of a start in both ways: it must be refused, and the next one go well."""
    judge = Judge(ground.nursery, ground.truth, tally, is_damaged=base.is_damaged)
    for kind in ("EIO", "ENOSPC"):
        directory = copied(base, ground.folder / "case")
        fault = Fault(point.call, point.nth, KINDS[kind])
        case = ground.nursery.run("start", directory, (fault,))
        what = f"{base.name}, {kind} at {point.call} {point.nth} ({point.about})"
        failed = [call for call in case.calls if call.injected]
        tally.tried += bool(failed)  # a shorter start may end before its point
        ended_well = judge_end(case, kind, ground.truth, ground.nursery.heard)
        if failed and not ended_well and not (case.code == 0 and can_do_without(failed[0])):
            judge.wrong(f"{what}: {describe(case)}")
        judge.look(directory, base.acknowledged, what)
        shutil.rmtree(directory)


def can_do_without(failed: Call) -> bool:
    """Say whether a start may go on: the folder is there, or older checkpoints and the log."""
    return failed.name == "mkdir" or failed.paths[-1].endswith((SNAPSHOT_SUFFIX, INCREMENT_SUFFIX))


def copied(base: Base, target: Path) -> Path:
    shutil.copytree(base.directory, target)
    return target


# What the starts begin from -----------------------------------------------------------------------


def make_bases(ground: Ground) -> list[Base]:
    """Return everything a start may have to deal with, one directory each."""
    traced = ground.nursery.run("work", ground.folder / "traced", ())
    points = points_of(traced.calls, ground.folder / "traced")
    (ground.folder / "nothing").mkdir()
    return [
        Base("an empty directory", ground.folder / "nothing", 0),
        killed_at(ground, "a torn tail", late(points, "fdatasync", ".wal"), tear_newest_write),
        killed_at(ground, "a rotation cut short", late(points, "ftruncate", ".wal")),
        killed_at(ground, "a segment not yet named", after_naming(points)),
        killed_at(ground, "an increment cut short", late(points, "rename", INCREMENT_SUFFIX)),
        killed_at(ground, "a base cut short", late(points, "rename", SNAPSHOT_SUFFIX)),
        killed_at(ground, "a rotten checkpoint", late(points, "fdatasync", ".wal"), rot_checkpoint),
    ]


def late(points: list[Point], call: str, suffix: str) -> Point:
    """Return a call in the last third of the run."""
    matching = [one for one in points if one.call == call and one.about.endswith(suffix)]
    return matching[len(matching) * 2 // 3]


def after_naming(points: list[Point]) -> Point:
    """Return the directory sync that follows the naming of a late segment."""
    place = points.index(late(points, "rename", ".wal"))
    return next(one for one in points[place:] if one.call == "fsync" and one.about == "wal")


def killed_at(
    ground: Ground,
    name: str,
    point: Point,
    damage: Callable[[Path, Case], None] = lambda directory, case: None,
) -> Base:
    """Let the work be killed at `point`, then do what the disk did."""
    directory = ground.folder / name.replace(" ", "-")
    case = ground.nursery.run("work", directory, (Fault(point.call, point.nth, KILL),))
    if case.code != -9:
        raise RuntimeError(f"{name}: the work ended {case.code} {case.error}")
    damage(directory, case)
    acknowledged = max(map(end_of, case.said), default=0)
    return Base(name, directory, acknowledged, is_damaged=damage is rot_checkpoint)


def tear_newest_write(directory: Path, case: Case) -> None:
    """Zero the second half of the frame that was written and never synced."""
    call = next(call for call in reversed(case.calls) if call.name == "pwrite64")
    size, offset = map(int, _WRITTEN.search(call.text).groups())  # type: ignore[union-attr]
    with Path(call.paths[0]).open("r+b") as file:
        file.seek(offset + size // 2)
        file.write(bytes(size - size // 2))


def rot_checkpoint(directory: Path, case: Case) -> None:
    """Flip a bit in the middle of the newest checkpoint."""
    shard = shard_directory(directory, 0)
    newest = decode_manifest((shard / MANIFEST_NAME).read_bytes()).snapshots[-1]
    data = bytearray((shard / newest.path).read_bytes())
    data[len(data) // 2] ^= 1
    (shard / newest.path).write_bytes(data)
