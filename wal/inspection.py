"""Say what a log consists of, without judging it. Needs no lock; a writer may be at work."""

from pathlib import Path

import msgspec

from wal.codec import Position
from wal.errors import WalError
from wal.files import Files, OsFiles
from wal.format import QUARANTINE, SEGMENTS
from wal.judgement import run_to_the_end
from wal.manifest import Manifest, SealedSegment, SegmentEntry, read_manifest
from wal.segment import SegmentScan, Source


class SegmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One segment. For the live one the last frame is the last that checks out now."""

    name: str
    number: int
    epoch: int
    sealed: bool
    first_lsn: int
    last_lsn: int
    first_position: int
    last_position: int
    frames: int
    records: int
    bytes: int
    created_ns: int
    packed: bool = False


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot the MANIFEST names."""

    name: str
    lsn: int
    position: int
    bytes: int


class InspectReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a log consists of."""

    shard_id: int
    epoch: int
    durable_lsn: int
    last_lsn: int
    last_position: int
    bytes: int
    segments: tuple[SegmentInfo, ...]
    snapshots: tuple[SnapshotInfo, ...]
    quarantine: tuple[str, ...]


def inspect(directory: Path, files: Files | None = None) -> InspectReport:
    """Return what the log in `directory` consists of.

    Raises:
        WalError: there is no log.
        CorruptLogError: the MANIFEST or a segment's header is damaged.
    """
    files = files or OsFiles()
    directory = Path(directory)
    manifest = _manifest(files, directory)
    entries = _entries(manifest)
    sizes = files.scan(directory / SEGMENTS)
    segments = tuple(_segment(files, directory, manifest, entry, sizes) for entry in entries)
    return InspectReport(
        shard_id=manifest.shard_id,
        epoch=manifest.epoch,
        durable_lsn=manifest.known_durable_lsn,
        last_lsn=segments[-1].last_lsn if segments else 0,
        last_position=segments[-1].last_position if segments else 0,
        bytes=sum(segment.bytes for segment in segments),
        segments=segments,
        snapshots=tuple(
            SnapshotInfo(name=entry.name, lsn=entry.lsn, position=entry.position, bytes=entry.size)
            for entry in manifest.snapshots
        ),
        quarantine=tuple(sorted(files.scan(directory / QUARANTINE))),
    )


def first_positions(directory: Path, files: Files | None = None) -> list[Position]:
    """Return the position of the first record of each segment, oldest first.

    Raises:
        WalError: there is no log.
        CorruptLogError: the MANIFEST is damaged.
    """
    entries = _entries(_manifest(files or OsFiles(), Path(directory)))
    return [Position(entry.first_position) for entry in entries]


def _manifest(files: Files, directory: Path) -> Manifest:
    try:
        return read_manifest(files, directory)
    except FileNotFoundError as error:
        raise WalError(f"no log in {directory}") from error


def _entries(manifest: Manifest) -> list[SegmentEntry]:
    live = () if manifest.live is None else (manifest.live,)
    return [*manifest.sealed, *live]


def _segment(
    files: Files, directory: Path, manifest: Manifest, entry: SegmentEntry, sizes: dict[str, int]
) -> SegmentInfo:
    if entry.name not in sizes:
        raise WalError(f"{entry.path} is missing")
    source = Source(files, directory / entry.path)
    try:
        scan = SegmentScan(source, entry.link(manifest.shard_id))
        if isinstance(entry, SealedSegment):
            last_lsn, last_position, size = entry.last_lsn, entry.last_position, entry.size
        else:
            run_to_the_end(scan)
            last_lsn, last_position, size = scan.lsn - 1, scan.position - 1, scan.offset
    finally:
        source.close()
    return SegmentInfo(
        name=entry.name,
        number=entry.number,
        epoch=entry.epoch,
        sealed=isinstance(entry, SealedSegment),
        first_lsn=entry.first_lsn,
        last_lsn=last_lsn,
        first_position=entry.first_position,
        last_position=last_position,
        frames=last_lsn - entry.first_lsn + 1,
        records=last_position - entry.first_position + 1,
        bytes=size,
        created_ns=scan.header.created_ns,
        packed=scan.header.packed,
    )
