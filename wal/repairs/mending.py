"""Write the files of a repaired log that are new: sound parts of segments, and bridges.

The one rule: every file has a name that nothing names yet, so what is there stays as it was.
"""

from hashlib import sha256
from pathlib import Path

from wal.files import How, sync_directory, write_all, write_new
from wal.format import SEGMENTS, TEMPORARY, Flag, file_name
from wal.manifest import Manifest, SealedSegment, SegmentEntry, SnapshotEntry
from wal.repairs.pieces import Piece
from wal.repairs.rebuild import header_of
from wal.replay import Place
from wal.segment import SegmentHeader
from wal.snapshots.snapshot import place_of
from wal.writer import begin_segment

_COPY_BYTES = 1 << 20


def kept_entry(place: Place, piece: Piece, epoch: int) -> SealedSegment:
    """Return the entry of a segment that stays; in part, or from a copy, it is written anew."""
    entry = piece.entry
    if isinstance(entry, SealedSegment) and piece.is_in_place(place.directory):
        return entry
    name = file_name(entry.first_lsn, epoch, Path(entry.name).suffix)
    digest = _copy(place, piece, place.directory / SEGMENTS / name)
    joined = {field: getattr(entry, field) for field in SegmentEntry.__struct_fields__}
    packed = piece.chain != piece.log_chain
    return SealedSegment(
        **joined | {"name": name},
        last_lsn=piece.lsn,
        last_position=piece.position,
        size=piece.end,
        sha256=digest,
        after=piece.log_chain,
        wall_ns=piece.wall_ns,
        packed_chain=piece.chain if packed else b"",
        plain_bytes=getattr(entry, "plain_bytes", 0) if packed else 0,
    )


def write_bridge(
    place: Place, manifest: Manifest, checkpoint: SnapshotEntry, epoch: int
) -> SealedSegment:
    """Write a segment that holds nothing but its seal and follows right behind a checkpoint."""
    files = place.files
    entries: list[SegmentEntry] = [*manifest.sealed]
    if manifest.live is not None:
        entries.append(manifest.live)
    headers = [header_of(files, place.directory / entry.path) for entry in entries]
    readable = [header for header in headers if header is not None]
    header = SegmentHeader(
        shard_id=manifest.shard_id,
        epoch=epoch,
        number=max((entry.number for entry in entries), default=0) + 1,
        first_lsn=checkpoint.lsn + 1,
        first_position=checkpoint.position + 1,
        created_ns=files.now_ns(),
        segment_id=files.random_bytes(16),
        chain=place_of(files, place.directory, checkpoint, manifest.shard_id).chain,
        codec_id=readable[-1].codec_id if readable else 0,
        schema_version=readable[-1].schema_version if readable else 0,
    )
    directory = place.directory / SEGMENTS
    spare = directory / f"bridge{TEMPORARY}"
    if spare.name in files.scan(directory):
        files.unlink(spare)
    write_new(files, spare, b"")
    writer = begin_segment(files, spare, directory, header, 1)
    return writer.seal(Flag.EPOCH_START, max(files.now_ns(), manifest.wall_ns))


def _copy(place: Place, piece: Piece, target: Path) -> bytes:
    """Copy the sound part of a segment to a file of its own; return its SHA-256."""
    temporary = target.with_name(target.name + TEMPORARY)
    if temporary.name in place.files.scan(target.parent):
        place.files.unlink(temporary)
    digest = sha256()
    source = place.files.open(piece.path, How.READ)
    try:
        copy = place.files.open(temporary, How.CREATE)
        try:
            for offset in range(0, piece.end, _COPY_BYTES):
                size = min(_COPY_BYTES, piece.end - offset)
                data = place.files.read(source, size, offset)
                digest.update(data)
                write_all(place.files, copy, data, offset)
            place.files.sync(copy)
        finally:
            place.files.close(copy)
    finally:
        place.files.close(source)
    place.files.rename(temporary, target)
    sync_directory(place.files, target.parent)
    return digest.digest()
