"""Every damage with a name of its own: files and frames missing, doubled, swapped, foreign, forged;
lengths that lie, bombs, stale frames, other versions. Each row says what must be said of it."""

import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import msgspec

from engine.channels.journal import ShardJournal
from engine.channels.recovery import recover, state_hash
from tests.channels.world import item
from tests.faults import forgery
from tests.faults.memory import MemoryFiles
from tests.faults.scorecard import Progress, Row, Tally
from tests.faults.specimen import (
    LIMITS,
    OPTIONS,
    ROOT,
    MemoryDesk,
    Specimen,
    judged,
    read_specimen,
)
from wal import CorruptLogError, WalError
from wal.format import MANIFEST_NAME, RAW_BYTES_MAX, Flag

MANIFEST: Final = f"{ROOT}/{MANIFEST_NAME}"
MEMORY_BYTES_MAX: Final = 24 << 20
"""What judging a log may take at its peak: reading ahead, never what a lie declares."""

Changes = dict[str, bytes | None]
REFUSED, FELL_BACK, PUT_ASIDE, CUT = "refused", "fell back", "put aside", "cut"
WHOLE: Final = "whole"
"""There is nothing wrong: the forger can make what is taken."""


class Case(NamedTuple):
    """A damage, and what must come of it.

    Attributes:
        name: the damage.
        change: makes the files that differ, of a log.
        verdict: what a start does: refuse, do without, put the file aside, or cut a tail.
        part: the file that must be named: `s0` to `s4` for segments (`s0` is packed), `c-1` for the
            newest checkpoint, an increment, `c-2` for its base, `m` for the MANIFEST; empty where
            it may be any, or none.
        words: that the verifier must use for it.
        start: the file that a start must name, where that is another.
    """

    name: str
    change: Callable[[Specimen], Changes]
    verdict: str
    part: str = ""
    words: str = ""
    start: str = ""

    def path(self, log: Specimen, *, start: bool = False) -> str:
        """Return the file that must be named."""
        part = self.start if start and self.start else self.part
        kind, number = part[:1], part[1:]
        if kind == "m":
            return MANIFEST
        return (log.segments if kind == "s" else log.snapshots)[int(number)]


# Logs that are not this one -----------------------------------------------------------------------


@cache
def foreign(shard_id: int) -> Specimen:
    """Return the log of another shard; of this one's number, but with another history."""
    files = MemoryFiles()
    options = msgspec.structs.replace(OPTIONS, shard_id=shard_id)
    desk = MemoryDesk(files, options)
    desk.open("z", capacity=100_000)
    for step in range(1, 60):
        desk.submit(item("z", step, step))
    desk.shard.checkpoint()
    desk.crash()
    return read_specimen(files, options)


# What is done to it -------------------------------------------------------------------------------


def gone(*numbers: int) -> Callable[[Specimen], Changes]:
    return lambda log: {log.segments[number]: None for number in numbers}


def segment_from(target: int, source: int) -> Callable[[Specimen], Changes]:
    return lambda log: {log.segments[target]: log.image[log.segments[source]]}


def swapped(log: Specimen) -> Changes:
    one, two = log.segments[1:3]
    return {one: log.image[two], two: log.image[one]}


def renamed(log: Specimen) -> Changes:
    return {log.segments[1]: None, f"{ROOT}/wal/moved.wal": log.image[log.segments[1]]}


def from_other(shard_id: int, target: int) -> Callable[[Specimen], Changes]:
    def change(log: Specimen) -> Changes:
        other = foreign(shard_id)
        return {log.segments[target]: other.image[other.segments[target]]}

    return change


def resized(target: int, by: int) -> Callable[[Specimen], Changes]:
    def change(log: Specimen) -> Changes:
        data = log.image[log.segments[target]]
        return {log.segments[target]: data[:by] if by < 0 else data + bytes(by)}

    return change


def header(target: int, **fields: int) -> Callable[[Specimen], Changes]:
    def change(log: Specimen) -> Changes:
        path = log.segments[target]
        return {path: forgery.segment_header(log.image[path], **fields)}

    return change


def frames_of(
    target: int, order: Callable[[list[bytes]], list[bytes]], *, vouched: bool
) -> Callable[[Specimen], Changes]:
    """Put the frames of a segment into another order, everything behind them shifted; in the live
    one the zeros go on, a sealed one is as long as it is, with or without a MANIFEST to match."""

    def change(log: Specimen) -> Changes:
        path = log.segments[target]
        data, frames = log.image[path], log.frames[path]
        pieces = order([data[frame.start : frame.end] for frame in frames])
        made = data[: frames[0].start] + b"".join(pieces)
        if target == len(log.segments) - 1:
            made = made.ljust(len(data), b"\0")
        return dict(forgery.vouched(log, **{path: made})) if vouched else {path: made}

    return change


def dropped(pieces: list[bytes]) -> list[bytes]:
    return [*pieces[:1], *pieces[2:]]


def repeated(pieces: list[bytes]) -> list[bytes]:
    return [*pieces[:2], *pieces[1:]]


def exchanged(pieces: list[bytes]) -> list[bytes]:
    return [pieces[0], pieces[2], pieces[1], *pieces[3:]]


def edited(target: int) -> Callable[[Specimen], Changes]:
    """Change an amount in the payload and make all checksums right, as an attacker would."""

    def change(log: Specimen) -> Changes:
        path = log.segments[target]
        data, frame = log.image[path], log.frames[path][0]
        payload = bytearray(data[frame.payload : frame.chain])
        payload[len(payload) // 2] ^= 1
        return dict(forgery.vouched(log, **{path: forgery.refreshed(data, frame, bytes(payload))}))

    return change


def forged(payload: Callable[[], bytes], **fields: int) -> Callable[[Specimen], Changes]:
    """Append a frame that lies, with right checksums and chain."""
    return lambda log: {log.segments[-1]: forgery.appended(log, payload(), **fields)}


def zeros_that_rot(log: Specimen) -> Changes:
    """Acknowledge a payload of zeros, as a frame may hold them, and let one of them rot."""
    path = log.segments[-1]
    proven = forgery.extended(log, bytes(1_024))
    data = bytearray(forgery.appended(proven, b"", flags=Flag.WATERMARK, records=0))
    data[proven.frames[path][-1].payload + 512] = 1
    return {path: bytes(data)}


def behind_the_seal(log: Specimen) -> Changes:
    """Seal the live segment, and let one more frame follow, as sound as any."""
    sealed = forgery.extended(log, forgery.seal_payload(log), flags=Flag.SEAL, records=0)
    return {log.segments[-1]: forgery.appended(sealed, b"", flags=Flag.WATERMARK, records=0)}


def sealed_by(**wrong: object) -> Callable[[Specimen], Changes]:
    """Seal the live segment, with a footer that may say something `wrong`."""

    def change(log: Specimen) -> Changes:
        said = msgspec.msgpack.decode(forgery.seal_payload(log)) | wrong
        payload = msgspec.msgpack.encode(said)
        return {log.segments[-1]: forgery.appended(log, payload, flags=Flag.SEAL, records=0)}

    return change


def stale(source: int) -> Callable[[Specimen], Changes]:
    """Let old frames lie behind the tail: of the same segment, or of another one."""

    def change(log: Specimen) -> Changes:
        path = log.segments[-1]
        data, end = log.image[path], log.frames[path][-1].end
        old = log.frames[log.segments[source]][0]
        piece = log.image[log.segments[source]][old.start : old.end]
        at = end + 64
        return {path: data[:at] + piece + data[at + len(piece) :]}

    return change


def manifest(data: Callable[[bytes], bytes | None]) -> Callable[[Specimen], Changes]:
    return lambda log: {MANIFEST: data(log.image[MANIFEST])}


def older_manifest(log: Specimen) -> Changes:
    """The MANIFEST of before the last start: it knows nothing of what came after."""
    sealed = log.manifest.sealed[:2]
    older = msgspec.structs.replace(
        log.manifest, sealed=sealed, live=None, snapshots=log.manifest.snapshots[:1],
        durable_lsn=sealed[-1].last_lsn, epoch=1,
    )  # fmt: skip
    return {MANIFEST: forgery.encode_manifest(older)}


def snapshot(number: int, data: Callable[[bytes], bytes | None]) -> Callable[[Specimen], Changes]:
    return lambda log: {log.snapshots[number]: data(log.image[log.snapshots[number]])}


def all_snapshots(log: Specimen) -> Changes:
    return {path: log.image[path][:-1] for path in log.snapshots}


def snapshot_that_says(**fields: int) -> Callable[[Specimen], Changes]:
    def change(log: Specimen) -> Changes:
        path = log.snapshots[-1]
        made = forgery.snapshot_header(log.image[path], **fields)
        return dict(forgery.vouched(log, **{path: made}))

    return change


def newer_snapshot(log: Specimen) -> Changes:
    """A MANIFEST that names a checkpoint of a frame which the log does not have."""
    entry = log.manifest.snapshots[-1]
    newer = msgspec.structs.replace(entry, lsn=entry.lsn + 1_000)
    snapshots = (*log.manifest.snapshots[:-1], newer)
    newest = msgspec.structs.replace(log.manifest, snapshots=snapshots)
    return {MANIFEST: forgery.encode_manifest(newest)}


RAW = b"\x01" * 1_000
BOMB: Final = cache(lambda: forgery.zstd(bytes(200 << 20)))
NESTED: Final = cache(lambda: forgery.zstd(BOMB()))
PLAIN: Final = cache(lambda: forgery.zstd(RAW))
HUGE: Final = 0xFFFF_FFFF

CASES: Final = (
    # Segments
    Case("first segment missing", gone(0), REFUSED, "s0", "missing"),
    Case("middle segment missing", gone(1), REFUSED, "s1", "missing"),
    Case("last sealed segment missing", gone(3), REFUSED, "s3", "missing"),
    Case("live segment missing", gone(4), REFUSED, "s4", "missing"),
    Case("all segments missing", gone(0, 1, 2, 3, 4), REFUSED, "s0", "missing"),
    Case("a segment renamed", renamed, REFUSED, "s1", "missing; wal/moved.wal is it"),
    Case("a segment in the place of another", segment_from(2, 1), REFUSED, "s2", "a copy of"),
    Case("a sealed segment as the live one", segment_from(4, 3), REFUSED, "s4", "a copy of"),
    Case("two segments swapped", swapped, REFUSED, "s1", "lies in the place"),
    Case("a copy under another name", lambda log: {
        f"{ROOT}/wal/copy.wal": log.image[log.segments[0]]}, PUT_ASIDE),
    Case("a segment of another shard", from_other(9, 1), REFUSED, "s1", "of shard 9"),
    Case("the live segment of another shard", header(4, shard=9), REFUSED, "s4", "of shard 9"),
    Case("a segment of another epoch", header(1, epoch=7), REFUSED, "s1", "of epoch 7"),
    Case("the live segment of another epoch", header(4, epoch=7), REFUSED, "s4", "of epoch 7"),
    Case("a segment of another number", header(4, number=77), REFUSED, "s4", "segment 77"),
    Case("a segment of another log", from_other(3, 1), REFUSED, "s1", "another history"),
    Case("a plain segment as a packed one", segment_from(0, 1), REFUSED, "s0", "version 1"),
    Case("a packed segment as a plain one", segment_from(1, 0), REFUSED, "s1", "version 2"),
    Case("a segment a byte short", resized(0, -1), REFUSED, "s0", ""),
    Case("a segment a byte long", resized(0, 1), REFUSED, "s0", "longer"),
    # Frames, everything behind them shifted
    Case("a frame dropped", frames_of(1, dropped, vouched=False), REFUSED, "s1", "a frame ("),
    Case("a frame repeated", frames_of(1, repeated, vouched=False), REFUSED, "s1", "a frame ("),
    Case("two frames swapped", frames_of(1, exchanged, vouched=False), REFUSED, "s1", "a frame ("),
    Case("a frame dropped, MANIFEST to match", frames_of(1, dropped, vouched=True), REFUSED, "s1",
         "a frame ("),
    Case("a frame repeated, MANIFEST to match", frames_of(1, repeated, vouched=True), REFUSED,
         "s1", "a frame ("),
    Case("two frames swapped, MANIFEST to match", frames_of(1, exchanged, vouched=True), REFUSED,
         "s1", "a frame ("),
    Case("a live frame dropped", frames_of(4, dropped, vouched=False), REFUSED, "s4", "a frame ("),
    Case("a live frame repeated", frames_of(4, repeated, vouched=False), REFUSED, "s4",
         "a frame ("),
    Case("two live frames swapped", frames_of(4, exchanged, vouched=False), REFUSED, "s4",
         "a frame ("),
    Case("an amount changed, checksums and MANIFEST made right", edited(1), REFUSED, "s1", "chain"),
    Case("an amount changed in a live frame, checksums right", edited(4), REFUSED, "s4", "chain"),
    Case("the one packed frame dropped", frames_of(0, dropped, vouched=False), REFUSED, "s0", ""),
    Case("an amount changed in a packed frame, checksums and MANIFEST made right", edited(0),
         REFUSED, "s0", "chain"),
    # Lengths that lie
    Case("stored length huge", forged(lambda: RAW, stored=HUGE), REFUSED, "s4", "out of bounds"),
    Case("stored length negative", forged(lambda: RAW, stored=1 << 31), REFUSED, "s4",
         "out of bounds"),
    Case("raw length huge", forged(lambda: RAW, raw=HUGE), REFUSED, "s4", "out of bounds"),
    Case("raw length above the limit", forged(lambda: RAW, raw=RAW_BYTES_MAX + 1), REFUSED, "s4",
         "out of bounds"),
    Case("stored and raw differ", forged(lambda: RAW, raw=1_001), REFUSED, "s4", "differ"),
    Case("records above the limit", forged(lambda: RAW, records=4_097), REFUSED, "s4",
         "out of bounds"),
    Case("records of a frame without any", forged(lambda: RAW, records=0), REFUSED, "s4", ""),
    Case("a frame number skipped", forged(lambda: RAW, lsn=77), REFUSED, "s4", "a frame ("),
    Case("a frame of another epoch", forged(lambda: RAW, epoch=9), REFUSED, "s4", "a frame ("),
    Case("a frame of another segment", forged(lambda: RAW, segment=9), REFUSED, "s4", "a frame ("),
    # Compression
    Case("a bomb that declares 200 MB", forged(BOMB, flags=Flag.ZSTD, raw=200 << 20), REFUSED,
         "s4", "out of bounds"),
    Case("a bomb behind a modest header", forged(BOMB, flags=Flag.ZSTD, raw=RAW_BYTES_MAX),
         REFUSED, "s4", "zstd"),
    Case("a bomb in a bomb", forged(NESTED, flags=Flag.ZSTD, raw=6_500), REFUSED, "s4", ""),
    Case("no declared size", forged(lambda: forgery.zstd(RAW, write_content_size=False),
         flags=Flag.ZSTD, raw=1_000), REFUSED, "s4", "zstd"),
    Case("no zstd checksum", forged(lambda: forgery.zstd(RAW, write_checksum=False),
         flags=Flag.ZSTD, raw=1_000), REFUSED, "s4", "zstd"),
    Case("junk behind the zstd frame", forged(lambda: PLAIN() + b"junk", flags=Flag.ZSTD,
         raw=1_000), REFUSED, "s4", "zstd"),
    Case("two zstd frames", forged(lambda: PLAIN() * 2, flags=Flag.ZSTD, raw=1_000), REFUSED,
         "s4", "zstd"),
    Case("two zstd frames, the size of both", forged(lambda: PLAIN() * 2, flags=Flag.ZSTD,
         raw=2_000), REFUSED, "s4", "zstd"),
    Case("a skippable frame before", forged(lambda: forgery.skippable(100) + PLAIN(),
         flags=Flag.ZSTD, raw=1_000), REFUSED, "s4", "zstd"),
    Case("a payload of zeros that rots", zeros_that_rot, REFUSED, "s4", "payload checksum"),
    # Behind the tail
    Case("a seal as it must be", sealed_by(), WHOLE),
    Case("a frame behind the seal", behind_the_seal, REFUSED, "s4", "behind the seal"),
    Case("old frames of this segment behind the tail", stale(4), CUT),
    Case("old frames of another segment behind the tail", stale(0), REFUSED, "s4", "follows"),
    # The MANIFEST
    Case("MANIFEST missing", manifest(lambda data: None), REFUSED, "m", "no MANIFEST"),
    Case("MANIFEST empty", manifest(lambda data: b""), REFUSED, "m", "too short"),
    Case("MANIFEST cut", manifest(lambda data: data[:-1]), REFUSED, "m", "hash"),
    Case("MANIFEST of zeros", manifest(lambda data: bytes(len(data))), REFUSED, "m", "hash"),
    Case("MANIFEST of another shard", lambda log: {MANIFEST: foreign(9).image[MANIFEST]}, REFUSED,
         "", "the segment is missing", "m"),
    Case("MANIFEST of before the last starts", older_manifest, REFUSED, "s2", "newer than the log"),
    # Checkpoints
    Case("newest checkpoint empty", snapshot(-1, lambda data: b""), FELL_BACK, "c-1",
         "ends inside"),
    Case("newest checkpoint missing", snapshot(-1, lambda data: None), FELL_BACK, "c-1", "missing"),
    Case("newest checkpoint cut", snapshot(-1, lambda data: data[:-40]), FELL_BACK, "c-1", ""),
    Case("newest checkpoint of zeros", snapshot(-1, lambda data: bytes(len(data))), FELL_BACK,
         "c-1", "header checksum"),
    Case("an older checkpoint in its place", lambda log: {
        log.snapshots[-1]: log.image[log.snapshots[1]]}, FELL_BACK, "c-1", "in the wrong place"),
    Case("all checkpoints bad", all_snapshots, FELL_BACK, "c-1", ""),
    Case("checkpoint of another shard", snapshot_that_says(shard=9), REFUSED, "c-1", "of shard 9"),
    Case("checkpoint of another epoch", snapshot_that_says(epoch=9), REFUSED, "c-1", "of epoch 9"),
    Case("checkpoint of another frame", snapshot_that_says(lsn=29), REFUSED, "c-1", "frame 29"),
    Case("checkpoint newer than the log", newer_snapshot, REFUSED, "c-1", "in the wrong place",
         "s4"),
    Case("the base of the newest checkpoint cut", snapshot(-2, lambda data: data[:-1]), FELL_BACK,
         "c-2", "ends inside"),
    # Versions of another time
    Case("a frame of a later version", forged(lambda: RAW, version=2), REFUSED, "s4",
         "unknown frame version"),
    Case("a frame with a longer header", forged(lambda: RAW, size=72), REFUSED, "s4",
         "unknown frame version"),
    Case("a frame with an unknown flag", forged(lambda: RAW, flags=128), REFUSED, "s4",
         "unknown frame version"),
    Case("a segment of a later version", header(4, version=99), REFUSED, "s4", "version 99"),
    Case("a segment with a dictionary", header(4, dictionary=1), REFUSED, "s4", "dictionary"),
    Case("a MANIFEST of a later version", manifest(
        lambda data: forgery.manifest_head(data, version=2)), REFUSED, "m", "version 2"),
    Case("a MANIFEST with an unknown field", manifest(
        lambda data: forgery.manifest_body(data, later=1)), REFUSED, "m", "later"),
    Case("a checkpoint of a later version", snapshot_that_says(version=2), REFUSED, "c-1",
         "version 2"),
)  # fmt: skip


# What must come of it -----------------------------------------------------------------------------


def fault_of(log: Specimen, case: Case) -> str:
    """Bring the damage about; return in which way it was not treated as it must be, if any."""
    files = log.disk(**case.change(log))
    tracemalloc.start()
    try:
        said = _verified(log, case, files)
        done = _opened(log, case, files)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    greedy = f"it took {peak:,} bytes" if peak > MEMORY_BYTES_MAX else ""
    return "; ".join(filter(None, (said, done, greedy)))


def _verified(log: Specimen, case: Case, files: MemoryFiles) -> str:
    try:
        report = judged(files)
    except WalError as error:
        return "" if case.words and case.words in str(error) else f"verify says {error}"
    if case.verdict in (CUT, PUT_ASIDE, WHOLE):
        return "" if report.ok else f"verify sees damage: {report.damages}"
    said = [one.reason for one in report.damages if case.words in one.reason]
    if case.part:
        named = case.path(log)
        said = [one.reason for one in report.damages if f"{ROOT}/{one.segment}" == named]
    if any(case.words in reason for reason in said):
        return ""
    return f"verify says {report.damages}"


def _opened(log: Specimen, case: Case, files: MemoryFiles) -> str:
    try:
        journal = ShardJournal(ROOT, OPTIONS, files)
    except CorruptLogError as damage:
        return _rightly_refused(log, case, damage)
    try:
        state = state_hash(recover(journal, LIMITS).actors)
        report = journal._log.recovery
        if case.verdict == REFUSED:
            recover(journal, LIMITS, from_genesis=True)
            return "it was taken"
    except CorruptLogError as damage:
        return _rightly_refused(log, case, damage)
    finally:
        journal._log.abandon()
    alarms = {
        FELL_BACK: {f"{ROOT}/{name}" for name, _ in report.snapshots_refused},
        PUT_ASIDE: set(report.quarantined),
        CUT: {report.cut_segment},
        WHOLE: {"nothing, and rightly"},
    }[case.verdict]
    if case.part and case.path(log) not in alarms:
        return "there was no alarm"
    if not any(alarms):
        return "there was no alarm"
    return "" if state == log.state else "the state is another"


def _rightly_refused(log: Specimen, case: Case, damage: CorruptLogError) -> str:
    if case.verdict == REFUSED and f"{ROOT}/{damage.segment}" == case.path(log, start=True):
        return ""
    return f"a start says {damage}"


def row(log: Specimen, command: str, progress: Progress) -> Row:
    """Bring about every case; return what came of them."""
    tally = Tally("files and frames missing, doubled, moved, foreign, forged", command)
    for done, case in enumerate(CASES):
        tally.tried += 1
        fault = fault_of(log, case)
        if fault:
            tally.undetected += case.verdict == REFUSED
            tally.false_alarms += case.verdict != REFUSED
            tally.note(f"{case.name}: {fault}")
        progress(done, len(CASES), tally.name)
    return tally.row()
