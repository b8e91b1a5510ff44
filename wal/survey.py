"""Look at every file of a log before a start, and decide what each is.

The one rule: this module reads. It changes no file, so that a log found corrupt stays as it was.
"""

from hashlib import sha256
from pathlib import Path

import msgspec

from wal.errors import CorruptLogError
from wal.files import Files, How
from wal.format import (
    MANIFEST_NAME,
    SEGMENT_HEADER_BYTES,
    SEGMENT_SUFFIX,
    SEGMENTS,
    SNAPSHOTS,
    SPARE_NAME,
    TEMPORARY,
)
from wal.frame import BadFrame
from wal.judgement import Tail, judge_live, run_to_the_end
from wal.manifest import Manifest, SealedSegment, SnapshotEntry, read_manifest
from wal.options import LogOptions
from wal.pack import other_form
from wal.segment import SegmentScan, Source, is_blank, parse_segment_header
from wal.snapshots.lineage import Lineage, newest_lineage
from wal.snapshots.snapshot import verify_snapshot

_READ_BYTES = 1 << 20


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What judging found; nothing has been changed yet."""

    fresh: bool
    manifest: Manifest
    tail: Tail | None
    good: tuple[SnapshotEntry, ...]
    lineage: tuple[SnapshotEntry, ...]
    refused: tuple[tuple[SnapshotEntry, str], ...]
    remove: tuple[str, ...]
    quarantine: tuple[str, ...]

    @property
    def end_lsn(self) -> int:
        """The newest frame that counts."""
        if self.tail is not None:
            return self.tail.lsn
        return self.manifest.sealed[-1].last_lsn if self.manifest.sealed else 0


def judge(files: Files, directory: Path, options: LogOptions) -> Findings:
    """Read what must be read for a start, and change nothing.

    Raises:
        CorruptLogError: acknowledged bytes are damaged, or the log is another shard's.
    """
    try:
        manifest = read_manifest(files, directory, How.DISK)
        fresh = False
    except FileNotFoundError:
        manifest = Manifest(shard_id=options.shard_id, epoch=0)
        fresh = True
    if manifest.shard_id != options.shard_id:
        reason = f"the log of shard {manifest.shard_id}, opened as {options.shard_id}"
        raise CorruptLogError(MANIFEST_NAME, 0, reason)
    lineage, refused = _judge_snapshots(files, directory, manifest)
    _judge_sealed(files, directory, manifest, lineage[-1].lsn if lineage else 0)
    tail = judge_live(files, directory, manifest, options.codec_id)
    findings = Findings(
        fresh=fresh, manifest=manifest, tail=tail, lineage=lineage, refused=refused, remove=(),
        quarantine=(), good=_without(manifest.snapshots, refused),
    )  # fmt: skip
    for entry in manifest.snapshots:
        if entry.lsn > findings.end_lsn:
            reason = f"snapshot of frame {entry.lsn}, but the log ends at {findings.end_lsn}"
            raise CorruptLogError(entry.path, 0, reason)
    remove, quarantine = _judge_strangers(files, directory, findings)
    return msgspec.structs.replace(findings, remove=remove, quarantine=quarantine)


def _judge_snapshots(files: Files, directory: Path, manifest: Manifest) -> Lineage:
    """Verify from the newest on until one is good, with all it builds on; no others are needed."""
    found = newest_lineage(
        manifest.snapshots, lambda entry: verify_snapshot(files, directory, entry)
    )
    # By records: a seal or a watermark between a snapshot and the log holds nothing to be missed.
    known = found.entries[-1].position if found.entries else 0
    if manifest.retained_lsn > 1 and manifest.first_position > known + 1:
        reason = f"no snapshot verifies and the log begins at frame {manifest.retained_lsn}"
        raise CorruptLogError(MANIFEST_NAME, 0, reason)
    return found


def _without(
    snapshots: tuple[SnapshotEntry, ...], refused: tuple[tuple[SnapshotEntry, str], ...]
) -> tuple[SnapshotEntry, ...]:
    names = {entry.name for entry, _ in refused}
    return tuple(entry for entry in snapshots if entry.name not in names)


def _judge_sealed(files: Files, directory: Path, manifest: Manifest, snapshot_lsn: int) -> None:
    """Check that sealed segments are there and whole; those the start will read, byte by byte."""
    sizes = files.scan(directory / SEGMENTS)
    for entry in manifest.sealed:
        size = sizes.get(entry.name)
        if size != entry.size:
            have = "is missing" if size is None else f"has {size} bytes"
            reason = f"the sealed segment {have}; the MANIFEST says {entry.size}"
            raise CorruptLogError(entry.path, min(size or 0, entry.size), reason)
        if entry.last_lsn > snapshot_lsn:
            _check_hash(files, directory, entry)


def _check_hash(files: Files, directory: Path, entry: SealedSegment) -> None:
    handle = files.open(directory / entry.path, How.DISK)
    try:
        digest = sha256()
        for offset in range(0, entry.size, _READ_BYTES):
            digest.update(files.read(handle, min(_READ_BYTES, entry.size - offset), offset))
    finally:
        files.close(handle)
    if digest.digest() != entry.sha256:
        raise CorruptLogError(entry.path, 0, "hash of the sealed segment; `verify` names the place")


def _judge_strangers(
    files: Files, directory: Path, findings: Findings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sort the files the MANIFEST does not name into those to remove and those to keep apart."""
    manifest = findings.manifest
    named = {entry.name for entry in manifest.sealed}
    named.update(entry.name for entry in manifest.snapshots)
    forms = {other_form(entry.name): entry for entry in manifest.sealed}
    if manifest.live is not None:
        named.add(manifest.live.name)
    remove = [name for name in files.scan(directory) if name == MANIFEST_NAME + TEMPORARY]
    quarantine: list[str] = []
    for part in (SEGMENTS, SNAPSHOTS):
        for name in sorted(files.scan(directory / part)):
            if name in named:
                continue
            path = f"{part}/{name}"
            if name in forms:
                # Packing was interrupted. The form that counts must be whole before this one goes.
                _check_hash(files, directory, forms[name])
                remove.append(path)
            elif _is_unfinished(files, directory / path):
                remove.append(path)
            else:
                _refuse_if_newer(files, directory, path, findings)
                derived = part == SNAPSHOTS or _was_cut(files, directory, path, manifest)
                (remove if derived else quarantine).append(path)
    return tuple(remove), tuple(quarantine)


def _is_unfinished(files: Files, path: Path) -> bool:
    """Say whether a stray file is one that an interrupted step left, and never held a frame."""
    if path.name == SPARE_NAME or path.suffix == TEMPORARY:
        return True
    if path.suffix != SEGMENT_SUFFIX:
        return False
    source = Source(files, path, How.DISK)
    try:
        return is_blank(source)
    finally:
        source.close()


def _was_cut(files: Files, directory: Path, path: str, manifest: Manifest) -> bool:
    """Say whether a stray segment lies below the first frame that is kept."""
    return (
        manifest.retained_lsn > 1
        and newest_frame_of(files, directory / path) < manifest.retained_lsn
    )


def _refuse_if_newer(files: Files, directory: Path, path: str, findings: Findings) -> None:
    """Refuse a file that holds more than the log does: it proves that the MANIFEST is too old.

    No frame goes into a segment, and no snapshot is made, before the MANIFEST knows of it; so what
    an interrupted start or snapshot leaves behind is never newer than the end of the log.
    """
    if findings.fresh:
        raise CorruptLogError(MANIFEST_NAME, 0, f"it is missing, but there is {path}")
    if newest_frame_of(files, directory / path) > findings.end_lsn:
        reason = f"not in the MANIFEST, yet newer than the log, which ends at {findings.end_lsn}"
        raise CorruptLogError(path, 0, reason)


def newest_frame_of(files: Files, path: Path) -> int:
    """Return the newest frame a stray file holds, or, if it cannot be read, begins at by its name.

    A frame that does not check out is not held: the stray may be the live segment of an earlier
    stop, whose torn tail was judged then.
    """
    source = Source(files, path)
    try:
        header = parse_segment_header(source.at(0, SEGMENT_HEADER_BYTES))
        scan = SegmentScan(source, header.link(path.name))
        run_to_the_end(scan)
        return scan.lsn - 1
    except BadFrame:
        number = path.name.partition("-")[0]
        return int(number) if number.isdecimal() else 0
    finally:
        source.close()
