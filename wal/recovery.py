"""Bring a log back after any stop: judge every file first, then change only what must change.

The one rule: when something is corrupt nothing is touched. Until the new MANIFEST is written, every
step can be broken off and begun again; files it no longer names are let go only afterwards.
"""

from hashlib import sha256
from pathlib import Path

import msgspec

from wal.files import Files, How, sync_directory, write_all, write_new
from wal.format import (
    ARCHIVE,
    QUARANTINE,
    SEGMENT_SUFFIX,
    SEGMENTS,
    SNAPSHOTS,
    TEMPORARY,
    file_name,
)
from wal.judgement import Tail
from wal.manifest import Manifest, SealedSegment, SnapshotEntry
from wal.options import LogOptions
from wal.survey import Findings, judge

_COPY_BYTES = 1 << 20


class RecoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `Log.open` found and did.

    Attributes:
        fresh: there was no log.
        clean: it had been closed, or is fresh.
        epoch: what this incarnation writes under.
        last_lsn: the newest frame.
        last_position: the newest record.
        cut_segment: the segment whose torn tail was cut; empty when none was.
        cut_offset: where in it the tail began.
        cut_bytes: how long the tail was.
        cut_lsn: the frame that was torn.
        cut_reason: what was wrong with it.
        snapshot_position: the record behind the newest snapshot that verified; None without one.
        snapshots_refused: name and fault of snapshots that did not verify.
        quarantined: what was moved to, or copied into, the quarantine; look at it.
        removed: unfinished files that held nothing.
        seconds: how long it took.
    """

    fresh: bool
    clean: bool
    epoch: int
    last_lsn: int = 0
    last_position: int = 0
    cut_segment: str = ""
    cut_offset: int = 0
    cut_bytes: int = 0
    cut_lsn: int = 0
    cut_reason: str = ""
    snapshot_position: int | None = None
    snapshots_refused: tuple[tuple[str, str], ...] = ()
    quarantined: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    seconds: float = 0.0


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """A log without a live segment, ready for one.

    `manifest` is not written yet; when it is, `retire` lists the files to let go, each with whether
    it is evidence to be kept. `lineage` are the snapshots that were verified, base first.
    """

    manifest: Manifest
    report: RecoveryReport
    retire: tuple[tuple[str, bool], ...]
    lineage: tuple[SnapshotEntry, ...]


def prepare_directories(files: Files, directory: Path) -> None:
    """Make the directories of a log, so that their names are durable."""
    files.make_directory(directory)
    for part in (SEGMENTS, SNAPSHOTS, QUARANTINE, ARCHIVE):
        files.make_directory(directory / part)
    # Also what a writer that died has created or renamed without a sync: judge what will stay.
    for path in (directory.parent, directory, directory / SEGMENTS, directory / SNAPSHOTS):
        sync_directory(files, path)


def recover(files: Files, directory: Path, options: LogOptions) -> Recovered:
    """Judge the log in `directory`, then put away what a stop left behind. Holding LOCK.

    Raises:
        CorruptLogError: acknowledged bytes are damaged; nothing was changed.
    """
    findings = judge(files, directory, options)
    for name in findings.remove:
        files.unlink(directory / name)
    quarantined = [_move_to_quarantine(files, directory, name) for name in findings.quarantine]
    sealed = list(findings.manifest.sealed)
    retire = [(entry.path, True) for entry, _ in findings.refused]
    epoch = findings.manifest.epoch + 1
    tail = findings.tail
    if tail is not None:
        if tail.torn_bytes:
            quarantined.append(_keep_tail(files, directory, tail))
        if tail.lsn >= tail.entry.first_lsn:
            sealed.append(_copy_prefix(files, directory, tail, epoch))
        retire.append((tail.entry.path, False))
    return Recovered(
        manifest=msgspec.structs.replace(
            findings.manifest,
            epoch=epoch,
            sealed=tuple(sealed),
            live=None,
            snapshots=findings.good,
            durable_lsn=findings.end_lsn,
            wall_ns=max(findings.manifest.wall_ns, tail.wall_ns if tail else 0),
        ),
        report=_report(findings, epoch, sealed, quarantined),
        retire=tuple(retire),
        lineage=findings.lineage,
    )


def let_go(files: Files, directory: Path, retire: tuple[tuple[str, bool], ...]) -> None:
    """Remove the files the MANIFEST no longer names, or put them into quarantine."""
    for name, evidence in retire:
        path = directory / name
        if path.name not in files.scan(path.parent):
            continue
        if evidence:
            _move_to_quarantine(files, directory, name)
        else:
            files.unlink(path)


def _keep_tail(files: Files, directory: Path, tail: Tail) -> str:
    """Copy the torn tail into quarantine before the file that holds it goes."""
    handle = files.open(directory / tail.entry.path, How.READ)
    try:
        data = files.read(handle, tail.torn_bytes, tail.end)
    finally:
        files.close(handle)
    path = free_name(files, directory / QUARANTINE, f"{tail.entry.name}.tail-{tail.end}")
    write_new(files, path, data)
    sync_directory(files, path.parent)
    return f"{QUARANTINE}/{path.name}"


def _copy_prefix(files: Files, directory: Path, tail: Tail, epoch: int) -> SealedSegment:
    """Write the valid prefix of the live segment, header included, to a file of its own."""
    name = file_name(tail.entry.first_lsn, epoch, SEGMENT_SUFFIX)
    target = directory / SEGMENTS / name
    temporary = target.with_name(name + TEMPORARY)
    digest = sha256()
    source = files.open(directory / tail.entry.path, How.READ)
    copy = files.open(temporary, How.CREATE)
    try:
        for offset in range(0, tail.end, _COPY_BYTES):
            piece = files.read(source, min(_COPY_BYTES, tail.end - offset), offset)
            digest.update(piece)
            write_all(files, copy, piece, offset)
        files.sync(copy)
    finally:
        files.close(copy)
        files.close(source)
    files.rename(temporary, target)
    sync_directory(files, target.parent)
    return SealedSegment(
        **msgspec.structs.asdict(msgspec.structs.replace(tail.entry, name=name)),
        last_lsn=tail.lsn,
        last_position=tail.position,
        size=tail.end,
        sha256=digest.digest(),
        after=tail.chain,
        wall_ns=tail.wall_ns,
    )


def _move_to_quarantine(files: Files, directory: Path, name: str) -> str:
    source = directory / name
    target = free_name(files, directory / QUARANTINE, source.name)
    files.rename(source, target)
    sync_directory(files, target.parent)
    sync_directory(files, source.parent)
    return f"{QUARANTINE}/{target.name}"


def free_name(files: Files, directory: Path, name: str) -> Path:
    """Return a path nothing has yet: evidence is never overwritten."""
    taken = files.scan(directory)
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    return directory / free


def _report(
    findings: Findings, epoch: int, sealed: list[SealedSegment], quarantined: list[str]
) -> RecoveryReport:
    tail = findings.tail
    torn = tail is not None and tail.torn_bytes > 0
    return RecoveryReport(
        fresh=findings.fresh,
        clean=tail is None,
        epoch=epoch,
        last_lsn=findings.end_lsn,
        last_position=sealed[-1].last_position if sealed else 0,
        cut_segment=tail.entry.path if tail and torn else "",
        cut_offset=tail.end if tail and torn else 0,
        cut_bytes=tail.torn_bytes if tail else 0,
        cut_lsn=tail.lsn + 1 if tail and torn else 0,
        cut_reason=tail.reason if tail and torn else "",
        snapshot_position=findings.lineage[-1].position if findings.lineage else None,
        snapshots_refused=tuple((entry.path, fault) for entry, fault in findings.refused),
        quarantined=tuple(quarantined),
        removed=findings.remove,
    )
