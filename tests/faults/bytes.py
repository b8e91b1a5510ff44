"""Judge every byte of a log: what rots is found and named, what was only torn is cut and no more.

The log is made by the engine (`specimen`, `moments`) and lies in memory. The assumption behind the
torn writes is in `moments`; all else is assumed of nobody: any byte at rest may have any value.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing import get_context
from typing import Final, NamedTuple

import msgspec

from engine.channels.journal import ShardJournal
from engine.channels.recovery import RecoveryBroken, recover, state_hash
from tests.faults import misplaced
from tests.faults.memory import MemoryFiles
from tests.faults.moments import Moment, story, torn
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.specimen import LIMITS, OPTIONS, ROOT, Specimen, judged, specimen, started
from wal import CorruptLogError
from wal.format import MANIFEST_NAME, SEGMENT_HEADER_BYTES, TEMPORARY
from wal.manifest import encode_manifest

COMMAND: Final = "python -m tests.faults bytes --full"
PART: Final = 256
"""Bits that are flipped by one process at a time."""

STEP: Final = 211
"""Of the bits, where not all are flipped: a prime, so that each bit of a byte has its turn."""

CUT_STEP: Final = 37
"""Of the lengths a write may be cut to, where not all are tried."""


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Try every kind of damage; return a row for each."""
    log = specimen()
    return [
        flipped_for_verify(log, budget, progress),
        flipped_for_start(log, budget, progress),
        overwritten(log, budget, progress),
        cut_short(budget, progress),
        torn_sectors(budget, progress),
        misplaced.row(log, COMMAND, progress),
    ]


# Rot ----------------------------------------------------------------------------------------------


def bits(log: Specimen, budget: Budget) -> list[tuple[str, int]]:
    """Return every bit that was acknowledged, or vouches for it, by file; or a spread of them."""
    every = [(path, bit) for path, size in log.acknowledged.items() for bit in range(8 * size)]
    return every if budget.full else every[budget.number % STEP :: STEP]


def flip(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed."""
    at = bit // 8
    return data[:at] + bytes([data[at] ^ (1 << bit % 8)]) + data[at + 1 :]


def names_the_place(log: Specimen, damage: CorruptLogError, path: str, byte: int) -> bool:
    """Say whether a damage that was reported is where byte `byte` of `path` is.

    In a segment that is the frame it lies in, or the header; elsewhere the file is named.
    """
    if f"{ROOT}/{damage.segment}" != path:
        return False
    if path not in log.frames:
        return damage.offset <= byte
    if byte < SEGMENT_HEADER_BYTES:
        return damage.offset == 0
    (frame,) = (frame for frame in log.frames[path] if frame.start <= byte < frame.end)
    return damage.offset == frame.start


class Part(NamedTuple):
    """What came of some of the flips; `said` where one was not noticed as it must be."""

    tried: int
    unread: int
    said: list[str]


def flipped_for_verify(log: Specimen, budget: Budget, progress: Progress) -> Row:
    """Flip a bit, and see `verify` name file and place."""
    tally = Tally("one bit flipped at rest: verify", COMMAND)
    _add_up(tally, _verified, bits(log, budget), budget, progress)
    tally.false_alarms += not judged(log.disk()).ok
    return tally.row()


def flipped_for_start(log: Specimen, budget: Budget, progress: Progress) -> Row:
    """Flip a bit, and see the start refuse, or say what it did without, with the same state.

    Bits of sealed segments are flipped twice: with the checkpoints, and as if there were none.
    """
    tally = Tally("one bit flipped at rest: start and replay", COMMAND)
    unread = _add_up(tally, _started, bits(log, budget), budget, progress)
    tally.note(
        f"in {unread:,} of {tally.tried:,} cases a start need not read the bit: it lies in an older"
        " segment, which reading it refuses, or in an older checkpoint, which serves nobody; verify"
        " names all of them"
    )
    return tally.row()


Bits = list[tuple[str, int]]


def _add_up(
    tally: Tally, work: Callable[[Bits], Part], cases: Bits, budget: Budget, progress: Progress
) -> int:
    """Do the work on all cases, on all cores if there are many; return how many were unread."""
    parts = [cases[at : at + PART] for at in range(0, len(cases), PART)]
    unread = done = 0
    for chosen, part in zip(parts, _results(work, parts, budget), strict=True):
        done += len(chosen)
        tally.tried += part.tried
        tally.undetected += len(part.said)
        unread += part.unread
        for text in part.said:
            tally.note(text)
        progress(done, len(cases), tally.name)
    return unread


def _results(work: Callable[[Bits], Part], parts: list[Bits], budget: Budget) -> Iterator[Part]:
    if not budget.full:
        yield from map(work, parts)
        return
    with get_context("fork").Pool() as pool:
        yield from pool.imap(work, parts)


def _verified(cases: Bits) -> Part:
    log = specimen()
    files = log.disk()
    said = []
    for path, bit in cases:
        files.put(path, flip(log.image[path], bit))
        damages = judged(files).damages
        if len(damages) != 1 or not names_the_place(log, damages[0], path, bit // 8):
            said.append(f"bit {bit} of {path}: {damages}")
        files.put(path, log.image[path])
    return Part(len(cases), 0, said)


def _started(cases: Bits) -> Part:
    logs = (specimen(), without_checkpoints())
    said = []
    unread = tried = 0
    for path, bit in cases:
        # Without checkpoints a start reads every segment; the rest is the same for both.
        for log in logs if path in logs[0].segments[:-1] else logs[:1]:
            files = log.disk(**{path: flip(log.image[path], bit)})
            outcome = start_on(log, files, path, bit // 8)
            tried += 1
            unread += outcome == UNREAD
            if outcome == WRONG or (outcome == UNREAD and log is logs[1]):
                said.append(f"bit {bit} of {path} was not noticed")
    return Part(tried, unread, said)


@cache
def without_checkpoints() -> Specimen:
    """Return the log as it would be if no checkpoint had ever been made."""
    log = specimen()
    bare = msgspec.structs.replace(log.manifest, snapshots=())
    image = {path: data for path, data in log.image.items() if path not in log.snapshots}
    return log._replace(
        manifest=bare, image=image | {f"{ROOT}/{MANIFEST_NAME}": encode_manifest(bare)}
    )


REFUSED, FELL_BACK, UNREAD, WRONG = "refused", "fell back", "unread", "wrong"


def start_on(log: Specimen, files: MemoryFiles, path: str, byte: int) -> str:
    """Open a log with byte `byte` of `path` damaged; say what came of it."""
    try:
        journal = ShardJournal(ROOT, OPTIONS, files)
    except CorruptLogError as damage:
        whole_file = damage.offset == 0 and f"{ROOT}/{damage.segment}" == path
        return REFUSED if whole_file or names_the_place(log, damage, path, byte) else WRONG
    try:
        report = journal._log.recovery
        alarmed = path in {f"{ROOT}/{name}" for name, _ in report.snapshots_refused}
        if not _is_right(log, journal):
            return WRONG
        if path in log.snapshots:
            return FELL_BACK if alarmed else WRONG if path in log.newest_line else UNREAD
        return UNREAD if _is_refused_when_read(log, journal, path, byte) else WRONG
    finally:
        journal._log.abandon()


def _is_right(log: Specimen, journal: ShardJournal) -> bool:
    try:
        return state_hash(recover(journal, LIMITS).actors) == log.state
    except (CorruptLogError, RecoveryBroken):
        return False  # what lets itself be opened has to be read to the end


def _is_refused_when_read(log: Specimen, journal: ShardJournal, path: str, byte: int) -> bool:
    try:
        recover(journal, LIMITS, from_genesis=True)
    except CorruptLogError as damage:
        return names_the_place(log, damage, path, byte)
    return False


# More than a bit ----------------------------------------------------------------------------------


def two_bits(chance: random.Random, data: bytes, size: int) -> bytes:
    return flip(flip(data, chance.randrange(8 * size)), chance.randrange(8 * size))


def one_byte(chance: random.Random, data: bytes, size: int) -> bytes:
    return _over(data, chance.randrange(size), chance.randbytes(1), size)


def burst(chance: random.Random, data: bytes, size: int) -> bytes:
    """Change up to 32 bits in a row, the first and the last of them for sure."""
    length = chance.randrange(2, 33)
    pattern = chance.getrandbits(length) | 1 | 1 << (length - 1)
    bit = chance.randrange(8 * size - length)
    number = int.from_bytes(data[bit // 8 : bit // 8 + 5].ljust(5, b"\0"), "little")
    changed = (number ^ (pattern << bit % 8)) & ((1 << 40) - 1)
    return _over(data, bit // 8, changed.to_bytes(5, "little"), size)


def block(chance: random.Random, data: bytes, size: int) -> bytes:
    """Overwrite a whole sector with zeros, with ones, with noise or with another part of the file,
    as a disk may that puts a write in the wrong place."""
    sector = chance.choice((512, 4096))
    at = chance.randrange(0, size, sector)
    elsewhere = chance.randrange(0, size, sector)
    new = chance.choice(
        (bytes(sector), b"\xff" * sector, chance.randbytes(sector), data[elsewhere:][:sector])
    )
    return _over(data, at, new, size)


def _over(data: bytes, at: int, new: bytes, size: int) -> bytes:
    new = new[: size - at]
    return data[:at] + new + data[at + len(new) :]


DAMAGES: Final[tuple[Callable[[random.Random, bytes, int], bytes], ...]] = (
    two_bits, one_byte, burst, block,
)  # fmt: skip


def overwritten(log: Specimen, budget: Budget, progress: Progress) -> Row:
    """Damage several bits at once, at random, and see verify and start notice it."""
    tally = Tally("two bits, a byte, a burst of 32 bits or a block changed at rest", COMMAND)
    chance = budget.chance(tally.name)
    sizes = log.acknowledged
    paths = list(sizes)
    total = budget.amount(quick=800, full=60_000)
    while tally.tried < total:
        path = chance.choice(paths)
        damage = DAMAGES[tally.tried % len(DAMAGES)]
        data = damage(chance, log.image[path], sizes[path])
        if data == log.image[path]:
            continue
        tally.tried += 1
        files = log.disk(**{path: data})
        found = {f"{ROOT}/{one.segment}" for one in judged(files).damages}
        if (
            found != {path}
            or start_on(log, files, path, _first_difference(log, path, data)) == WRONG
        ):
            tally.undetected += 1
            tally.note(f"{damage.__name__} in {path}, case {tally.tried}: {found}")
        if not tally.tried % 64:
            progress(tally.tried, total, tally.name)
    return tally.row()


def _first_difference(log: Specimen, path: str, data: bytes) -> int:
    pairs = zip(log.image[path], data, strict=True)
    return next(index for index, (old, new) in enumerate(pairs) if old != new)


# Torn ---------------------------------------------------------------------------------------------


def cut_short(budget: Budget, progress: Progress) -> Row:
    """Let each write of a life end after every one of its bytes."""
    tally = Tally("a write under way cut at a byte", COMMAND)
    cases = [case for moment in story().moments for case in _cuts(moment)]
    for moment, size, ends in _spread(cases, budget, progress, tally.name):
        written = moment.data[:size] + moment.old()[size:]
        _judge_torn(tally, moment, moment.disk(written, moment.offset + size if ends else None))
    return tally.row()


def _cuts(moment: Moment) -> Iterator[tuple[Moment, int, bool]]:
    """Yield every length of a write that makes a difference, and whether the file ends there.

    A live segment has its length from the beginning. Of a draft, which nothing names yet, one byte
    in 64 stands for all.
    """
    old = moment.old()
    is_draft = moment.path.endswith(TEMPORARY)
    for size in range(0, len(moment.data) + 1, 64 if is_draft else 1):
        if size == 0 or is_draft or moment.data[size - 1] != old[size - 1]:
            yield moment, size, False
        if is_draft:
            yield moment, size, True


def torn_sectors(budget: Budget, progress: Progress) -> Row:
    """Let each write of a life leave any mixture of new, old, zero and garbage sectors."""
    tally = Tally("sectors of a write under way new, old, zero or garbage", COMMAND)
    chance = budget.chance(tally.name)
    moments = story().moments
    total = budget.amount(quick=1_000, full=40_000)
    for index in range(total):
        moment = moments[index % len(moments)]
        _judge_torn(tally, moment, moment.disk(torn(chance, moment)))
        if not index % 64:
            progress(index, total, tally.name)
    return tally.row()


def _spread(
    cases: list[tuple[Moment, int, bool]], budget: Budget, progress: Progress, name: str
) -> Iterator[tuple[Moment, int, bool]]:
    chosen = cases if budget.full else cases[budget.number % CUT_STEP :: CUT_STEP]
    for index, case in enumerate(chosen):
        yield case
        if not index % 64:
            progress(index, len(chosen), name)


def _judge_torn(tally: Tally, moment: Moment, files: MemoryFiles) -> None:
    """See that nothing acknowledged is gone, and that the write is whole or absent."""
    tally.tried += 1
    tally.checked += moment.acknowledged
    where = f"{moment.path} from {moment.offset} on, case {tally.tried}"
    try:
        sound = judged(files).ok if moment.has_log else True
        found = started(files)
    except CorruptLogError as error:
        tally.false_alarms += 1
        tally.note(f"{where}: {error}")
        return
    if not sound:
        tally.false_alarms += 1
        tally.note(f"{where}: verify sees damage")
    whole_or_absent = found.position in (moment.acknowledged, moment.next_acknowledged)
    if not whole_or_absent or state_hash(found.actors) != story().states[found.position]:
        tally.lost += 1
        tally.note(f"{where}: {found.position} events")
