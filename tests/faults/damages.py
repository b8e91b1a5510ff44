"""Damage the files of a store that stands still: bits, blocks, whole files.

All of it strikes bytes that were acknowledged. A store passes when it gives back everything, or
refuses; it fails when it goes on with less, or with something else, and says nothing.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from tests.faults.keeper import BATCHES, RECORDS
from tests.faults.scorecard import OURS, Budget, Progress, Row, Tally

if TYPE_CHECKING:
    from tests.faults.rivals import Bench

LOCKS: Final = ("LOCK", "lock.mdb", "records.db-shm")
"""Files that hold nothing: they say who is there now."""

ALL: Final = BATCHES * RECORDS
BLOCKS: Final = (512, 4_096)
OLDER: Final = "a file replaced by an older copy of itself"

Damage = Callable[[Path, Path, Random], bool]
"""Damages the file at a path, knowing where a twin of it lies; False when it changed nothing."""


def flip_bit(path: Path, twin: Path, chance: Random) -> bool:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return changed(path, data)


def zero_block(path: Path, twin: Path, chance: Random) -> bool:
    data = bytearray(path.read_bytes())
    size = chance.choice(BLOCKS)
    start = chance.randrange(0, len(data), size)
    data[start : start + size] = bytes(len(data[start : start + size]))
    return changed(path, data)


def misplace_block(path: Path, twin: Path, chance: Random) -> bool:
    """Write a block of the file over another one, as a misdirected write does."""
    data = bytearray(path.read_bytes())
    size = chance.choice(BLOCKS)
    source, target = (chance.randrange(0, len(data), size) for _ in range(2))
    block = data[source : source + size]
    data[target : target + len(block)] = block
    return changed(path, data)


def cut(path: Path, twin: Path, chance: Random) -> bool:
    data = path.read_bytes()
    return changed(path, data[: chance.randrange(len(data))])


def empty(path: Path, twin: Path, chance: Random) -> bool:
    return changed(path, b"")


def remove(path: Path, twin: Path, chance: Random) -> bool:
    path.unlink()
    return True


def replace(path: Path, twin: Path, chance: Random) -> bool:
    """Put the twin of the file in its place: one of another store, or its own past."""
    return twin.exists() and changed(path, twin.read_bytes())


def changed(path: Path, data: bytes | bytearray) -> bool:
    if path.read_bytes() == data:
        return False
    path.write_bytes(data)
    return True


SPOTS: Final[dict[str, tuple[Damage, ...]]] = {
    "a bit flipped at rest": (flip_bit,),
    "a block zeroed or misplaced at rest": (zero_block, misplace_block),
}
FILES: Final = (cut, cut, cut, empty, remove, replace)


def run(bench: "Bench", folder: Path, budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for each kind of damage, to a store that was closed and to one that was not."""
    states = [make(bench, folder, is_closed=closed) for closed in (True, False)]
    foreign = make(bench, folder, flavour=1)
    older = folder / f"{bench.system} older"
    states.append(make(bench, folder, is_closed=False, copy_to=older))
    rows = []
    for name, damages in SPOTS.items():
        tally = bench.tally(name)
        chance = budget.chance(name)
        for count in range(times := budget.amount(20, 2_000)):
            progress(count, times, f"{bench.system}: {name}")
            state = states[count % 2]
            path = pick(state, chance)
            damaged(bench, tally, state, (path, state / path, chance.choice(damages)), chance)
        rows.append(tally.row())
    tally = bench.tally("a file cut, emptied, missing or foreign")
    chance = budget.chance(tally.name)
    for state in states[:2]:
        for path in files_of(state):
            for damage in FILES:
                damaged(bench, tally, state, (path, foreign / path, damage), chance)
    rows.append(tally.row())
    tally = bench.tally(OLDER)
    tally.is_promised = False
    for path in files_of(states[2]):
        damaged(bench, tally, states[2], (path, older / path, replace), chance)
    rows.append(tally.row())
    return rows


def make(
    bench: "Bench",
    folder: Path,
    flavour: int = 0,
    *,
    is_closed: bool = True,
    copy_to: Path | None = None,
) -> Path:
    """Return a directory with the whole work of a store in it.

    Args:
        bench: the store.
        folder: where the directory is made.
        flavour: other numbers are other records.
        is_closed: else it ends as in a crash, after a second of quiet.
        copy_to: where the directory is copied before the last commit.
    """
    directory = folder / f"{bench.system} {flavour} {is_closed} {copy_to is not None}"
    case = bench.nursery.run(
        "work", directory, system=bench.system, flavour=flavour, is_closed=is_closed,
        copy_to=str(copy_to or ""),
    )  # fmt: skip
    if case.code:
        raise RuntimeError(f"{bench.system} fails without any fault: {case.error}")
    return directory


def files_of(directory: Path) -> list[Path]:
    """Return the files that hold something, relative to the directory."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return [path.relative_to(directory) for path in files if holds_something(path)]


def holds_something(path: Path) -> bool:
    return path.name not in LOCKS and path.stat().st_size > 0


def pick(directory: Path, chance: Random) -> Path:
    """Return a file, the larger the likelier."""
    files = files_of(directory)
    return chance.choices(files, [(directory / path).stat().st_size for path in files])[0]


def damaged(
    bench: "Bench", tally: Tally, state: Path, what: tuple[Path, Path, Damage], chance: Random
) -> None:
    """Damage a copy of a store, and count it when the store is silent and something is wrong."""
    path, twin, damage = what
    shutil.copytree(state, bench.directory)
    if not damage(bench.directory / path, twin, chance):
        shutil.rmtree(bench.directory)
        return
    tally.tried += 1
    if bench.look(tally, ALL) in ("lost", "strange"):
        tally.undetected += 1
        if bench.system == OURS:
            tally.note(f"{damage.__name__} in {path}")
