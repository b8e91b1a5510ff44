"""Run the same faults over other stores, to see that they find differences, and where we stand.

LMDB, SQLite (WAL, synchronous=FULL) and a file that is appended to and synced, with and without a
checksum, do the same work behind the same adapter as the log of this repository. Every store is
asked the same question afterwards: is everything there that you acknowledged, and if not, do you
say so?
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tests.faults import damages
from tests.faults.adapters import STORES
from tests.faults.keeper import RECORDS, expected
from tests.faults.nursery import Case, Nursery
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.syscalls import KINDS, SYNCS, Point, points_of, scratch, spread
from tests.faults.tracer import Call, Fault, require_strace

COMMAND: Final = "python -m tests.faults rivals --full"
FAULTS: Final = ("EIO", "ENOSPC", "SIGKILL")
SECTOR: Final = 512
PATTERNS: Final = 8
"""Ways in which the unsynced bytes of one moment are lost."""

_WRITTEN: Final = re.compile(r", (\d+), (\d+)$")


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for each kind of fault and each store."""
    require_strace()
    rows = []
    with scratch() as folder, Nursery("tests.faults.keeper", folder) as nursery:
        for system in STORES:
            bench = Bench(nursery, folder / "case", system)
            traced = nursery.run("work", folder / f"{system} traced", (), system=system)
            points = points_of(traced.calls, folder / f"{system} traced")
            rows.append(calls_that_fail(bench, points, budget, progress))
            rows.append(unsynced_bytes(bench, points, budget, progress))
            rows += damages.run(bench, folder, budget, progress)
    # The same fault over all stores, then the next.
    return sorted(rows, key=lambda row: [one.name for one in rows].index(row.name))


class Bench(NamedTuple):
    """A store on the bench: who runs it, where, and what it is called."""

    nursery: Nursery
    directory: Path
    system: str

    def tally(self, name: str) -> Tally:
        return Tally(name, COMMAND, self.system)

    def look(self, tally: Tally, acknowledged: int) -> str:
        """Let the store read everything, and count what it makes of it.

        Returns:
            `refused`, `lost`, `strange` or "" when all is as it should be. Whether a refusal is
            right is for the caller to say.
        """
        case = self.nursery.run("check", self.directory, system=self.system)
        shutil.rmtree(self.directory)
        tally.checked += acknowledged
        if case.code != 0:
            return "refused"
        found, wanted = case.said[0], expected()
        same = next(
            (
                place
                for place, pair in enumerate(zip(found, wanted, strict=False))
                if len(set(pair)) > 1
            ),
            min(len(found), len(wanted)),
        )
        if same < acknowledged:
            tally.lost += acknowledged - same
            return "lost"
        return "strange" if same != len(found) else "half" if same % RECORDS else ""


def calls_that_fail(bench: Bench, points: list[Point], budget: Budget, progress: Progress) -> Row:
    """Fail each call, or be killed at it; afterwards all that was acknowledged is there."""
    tally = bench.tally("an error or SIGKILL at a system call")
    chosen = spread(budget, points)
    cases = [(kind, point) for kind in FAULTS for point in chosen]
    for count, (kind, point) in enumerate(cases):
        progress(count, len(cases), f"{bench.system}: {kind} at {point.call} {point.nth}")
        fault = Fault(point.call, point.nth, KINDS[kind])
        case = bench.nursery.run("work", bench.directory, (fault,), system=bench.system)
        tally.tried += 1
        bench.directory.mkdir(exist_ok=True)
        if went_on(case, point, bench.nursery.heard):
            tally.undetected += 1
            tally.note(f"it went on after {kind} at {point.call} of {point.about}")
        what = f"{kind} at {point.call} ({point.about})"
        judge_sound(bench, tally, acknowledged(case), what)
    return tally.row()


def acknowledged(case: Case) -> int:
    return max((one for one in case.said if isinstance(one, int)), default=0)


def went_on(case: Case, point: Point, heard: Path) -> bool:
    """Say whether a store acknowledged more after a sync of its own had failed."""
    struck = [place for place, call in enumerate(case.calls) if call.injected]
    if point.call not in SYNCS or not struck:
        return False
    before = sum(str(heard) in call.paths for call in case.calls[: struck[0]])
    return acknowledged(case) > before * RECORDS


def judge_sound(bench: Bench, tally: Tally, acknowledged: int, what: str) -> None:
    """Count a store that lost something, refuses sound bytes, or makes up what never was."""
    verdict = bench.look(tally, acknowledged)
    if verdict == "refused":
        tally.false_alarms += 1
        tally.note(f"refused to open after {what}, {acknowledged} records being acknowledged")
    elif verdict == "strange":
        tally.undetected += 1
        tally.note(f"holds records that nobody wrote after {what}")
    elif verdict == "half":
        tally.note("holds a part of a commit that was never acknowledged")


# Unsynced bytes -----------------------------------------------------------------------------------


def unsynced_bytes(bench: Bench, points: list[Point], budget: Budget, progress: Progress) -> Row:
    """Stop before each sync and lose the bytes it was for, sector by sector, in many mixes."""
    tally = bench.tally("unsynced bytes lost or torn")
    syncs = budget.choose([point for point in points if point.call in SYNCS])
    patterns = budget.amount(2, PATTERNS)
    kept = bench.directory.with_name("kept")
    for count, point in enumerate(syncs):
        progress(count, len(syncs), f"{bench.system}: {point.call} {point.nth}")
        fault = Fault(point.call, point.nth, KINDS["SIGKILL"])
        case = bench.nursery.run("work", kept, (fault,), system=bench.system)
        writes = unsynced(case.calls, kept)
        for pattern in range(patterns):
            shutil.copytree(kept, bench.directory)
            chance = budget.chance(f"{point.call} {point.nth} {pattern}")
            for path, offset, size in writes:
                tear(bench.directory / path, offset, size, chance)
            tally.tried += 1
            what = f"a power cut at {point.call} ({point.about})"
            judge_sound(bench, tally, acknowledged(case), what)
        shutil.rmtree(kept)
    return tally.row()


def unsynced(calls: list[Call], directory: Path) -> list[tuple[Path, int, int]]:
    """Return path, offset and size of what was written and not synced when the calls end."""
    writes: list[tuple[Path, int, int]] = []
    at_once: set[tuple[int, str]] = set()
    for call in calls:
        if call.name == "openat" and "SYNC" in call.text:
            at_once.add((int(call.result.partition("<")[0]), call.paths[-1]))
        elif call.name == "pwrite64" and (call.handle, call.paths[0]) not in at_once:
            if call.paths[0].startswith(str(directory)) and not call.result.startswith("-1"):
                size, offset = map(int, _WRITTEN.search(call.text).groups())  # type: ignore[union-attr]
                writes.append((Path(call.paths[0]).relative_to(directory), offset, size))
        elif call.name in SYNCS and call.result == "0":
            writes = [one for one in writes if str(directory / one[0]) != call.paths[0]]
    return writes


def tear(path: Path, offset: int, size: int, chance: Random) -> None:
    """Keep, zero or spoil each sector of a write."""
    with path.open("r+b") as file:
        for start, length in sectors(offset, size):
            spoiled = chance.choice((None, bytes(length), chance.randbytes(length)))
            if spoiled is not None:
                file.seek(start)
                file.write(spoiled)


def sectors(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of each piece of a write that lies in one sector."""
    end = offset + size
    while offset < end:
        length = min(SECTOR - offset % SECTOR, end - offset)
        yield offset, length
        offset += length
