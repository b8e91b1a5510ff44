"""Make a MANIFEST anew from the files of a log, when there is none that can be used.

The segments say themselves where they belong: each header carries the chain value that the one
before ended with. What nobody can say without a MANIFEST is whether a newer segment is missing.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from wal.codec import Position
from wal.errors import WalError
from wal.files import Files, How, read_whole
from wal.format import (
    CHAIN_BYTES,
    CRC,
    INCREMENT_SUFFIX,
    PACKED_SUFFIX,
    SEGMENT_HEADER_BYTES,
    SEGMENT_SUFFIX,
    SEGMENTS,
    SNAPSHOT_HEADER,
    SNAPSHOT_MAGIC,
    SNAPSHOT_SUFFIX,
    SNAPSHOTS,
)
from wal.frame import BadFrame, genesis
from wal.judgement import run_to_the_end
from wal.manifest import Manifest, SealedSegment, SegmentEntry, SnapshotEntry
from wal.repairs.pieces import Fault
from wal.segment import SegmentHeader, SegmentScan, Source, parse_segment_header

EPOCHS_ASIDE = 1 << 16
"""How far the epoch goes up: a lost MANIFEST may have known starts that left no file behind."""

_READ_BYTES = 1 << 20
_CUT_SHORT = "nobody can tell whether segments newer than these are missing"
_BEGINS_LATE = "the log begins at frame {}; what came before was cut, or is missing"


class _Found(msgspec.Struct, frozen=True):
    """A segment as its own bytes describe it."""

    path: str
    header: SegmentHeader
    lsn: int
    position: int
    chain: bytes
    log_chain: bytes
    end: int
    size: int
    sealed: bool
    wall_ns: int
    sha256: bytes

    @property
    def entry(self) -> SegmentEntry:
        header = self.header
        return SegmentEntry(
            name=Path(self.path).name,
            number=header.number,
            epoch=header.epoch,
            first_lsn=header.first_lsn,
            first_position=header.first_position,
            before=header.chain,
        )

    @property
    def sealed_entry(self) -> SealedSegment:
        """The same as a segment that never changes again."""
        packed = self.header.packed
        return SealedSegment(
            **msgspec.structs.asdict(self.entry),
            last_lsn=self.lsn,
            last_position=self.position,
            size=self.size,
            sha256=self.sha256,
            after=self.log_chain,
            wall_ns=self.wall_ns,
            packed_chain=self.chain if packed else b"",
        )


def rebuilt_manifest(files: Files, directory: Path) -> tuple[Manifest, list[Fault], list[str]]:
    """Return a MANIFEST for the files that are there.

    Returns:
        The MANIFEST; what does not fit in; and what cannot be known, in words.

    Raises:
        WalError: there is nothing to make it from.
    """
    found, faults = _segments(files, directory)
    if not found:
        raise WalError(f"no segment in {directory} says where it belongs")
    shard_id = min(segment.header.shard_id for segment in found)
    row = _joined(found, shard_id)
    faults += [
        Fault(path=segment.path, offset=0, reason="it does not join the other segments")
        for segment in found
        if segment not in row and not _repeats(segment, row)
    ]
    last = row[-1]
    is_live = not last.sealed
    snapshots = _snapshots(files, directory, shard_id)
    epochs = [segment.header.epoch for segment in found]
    epochs += [_epoch_in(Path(segment.path).name) for segment in found]
    warnings = [_CUT_SHORT]
    if row[0].header.first_lsn > 1:
        warnings.append(_BEGINS_LATE.format(row[0].header.first_lsn))
    manifest = Manifest(
        shard_id=shard_id,
        epoch=max(epochs) + EPOCHS_ASIDE,
        sealed=tuple(segment.sealed_entry for segment in (row[:-1] if is_live else row)),
        live=last.entry if is_live else None,
        snapshots=snapshots,
        durable_lsn=0,
        wall_ns=max(segment.wall_ns for segment in row),
        retained_lsn=row[0].header.first_lsn,
    )
    return manifest, faults, warnings


def header_of(files: Files, path: Path) -> SegmentHeader | None:
    """Return what a segment says of itself; None where it cannot be read."""
    try:
        source = Source(files, path, How.DISK)
    except OSError:
        return None
    try:
        return parse_segment_header(source.at(0, SEGMENT_HEADER_BYTES))
    except (BadFrame, OSError):
        return None
    finally:
        source.close()


def _segments(files: Files, directory: Path) -> tuple[list[_Found], list[Fault]]:
    found, faults = [], []
    for path, _ in _present(files, directory, SEGMENTS, (SEGMENT_SUFFIX, PACKED_SUFFIX)):
        header = header_of(files, directory / path)
        if header is None:
            faults.append(Fault(path=path, offset=0, reason="its header cannot be read"))
        else:
            segment = _scanned(files, directory, path, header)
            if segment.lsn >= header.first_lsn:
                found.append(segment)
    return found, faults


def _scanned(files: Files, directory: Path, path: str, header: SegmentHeader) -> _Found:
    """Go through a segment as far as its frames follow each other."""
    source = Source(files, directory / path, How.DISK)
    try:
        scan = SegmentScan(source, header.link(path))
        run_to_the_end(scan)
        digest, size = _digest(source)
    finally:
        source.close()
    return _Found(
        path, header, scan.lsn - 1, scan.position - 1, scan.chain, scan.log_chain, scan.offset,
        size, scan.sealed or header.packed, scan.wall_ns, digest,
    )  # fmt: skip


def _joined(found: list[_Found], shard_id: int) -> list[_Found]:
    """Return the segments that follow each other, from the oldest on."""
    ours = [segment for segment in found if segment.header.shard_id == shard_id]
    begin = genesis(shard_id)
    first_lsn = min(segment.header.first_lsn for segment in ours)
    if first_lsn > 1:
        begin = next(s.header.chain for s in ours if s.header.first_lsn == first_lsn)
    row: list[_Found] = []
    lsn, chain = first_lsn, begin
    while True:
        place = (lsn, chain)
        fitting = [s for s in ours if (s.header.first_lsn, s.header.chain) == place]
        if not fitting:
            return row
        # Of two files with the same frames, one that has nothing behind them.
        best = max(fitting, key=lambda s: (s.lsn, s.end == s.size, s.header.epoch))
        row.append(best)
        lsn, chain = best.lsn + 1, best.log_chain


def _repeats(segment: _Found, row: list[_Found]) -> bool:
    """Say whether a segment is an older file of one that is in the row."""
    return any(
        segment.header.number == kept.header.number and segment.lsn <= kept.lsn for kept in row
    )


def _snapshots(files: Files, directory: Path, shard_id: int) -> tuple[SnapshotEntry, ...]:
    """Return the checkpoints whose own hash is right."""
    entries = []
    for path, size in _present(files, directory, SNAPSHOTS, (SNAPSHOT_SUFFIX, INCREMENT_SUFFIX)):
        header = read_whole(files, directory / path, How.DISK, SNAPSHOT_HEADER.size + CRC.size)
        if len(header) < SNAPSHOT_HEADER.size or size < SNAPSHOT_HEADER.size + CHAIN_BYTES:
            continue
        said = SNAPSHOT_HEADER.unpack_from(header)
        magic, kind, shard, lsn, position, base_lsn = said[0], said[2], said[3], *said[6:9]
        digest = _own_hash(files, directory / path, size)
        if magic == SNAPSHOT_MAGIC and shard == shard_id and digest is not None:
            entries.append(
                SnapshotEntry(
                    name=Path(path).name,
                    lsn=lsn,
                    position=Position(position),
                    size=size,
                    sha256=digest,
                    kind=kind,
                    base_lsn=base_lsn,
                )
            )
    return tuple(sorted(entries, key=lambda entry: (entry.lsn, -entry.kind)))


def _own_hash(files: Files, path: Path, size: int) -> bytes | None:
    """Return the SHA-256 of a snapshot's file; None where the hash at its end is wrong."""
    source = Source(files, path, How.DISK)
    try:
        inside = sha256()
        end = size - CHAIN_BYTES
        for offset in range(0, end, _READ_BYTES):
            inside.update(source.at(offset, min(_READ_BYTES, end - offset)))
        trailer = source.at(end, CHAIN_BYTES)
    finally:
        source.close()
    whole = inside.copy()
    whole.update(trailer)
    return whole.digest() if inside.digest() == trailer else None


def _present(
    files: Files, directory: Path, part: str, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, int]]:
    try:
        sizes = files.scan(directory / part)
    except FileNotFoundError:
        return
    for name in sorted(sizes):
        if name.endswith(suffixes):
            yield f"{part}/{name}", sizes[name]


def _epoch_in(name: str) -> int:
    """Return the epoch in a file's name, 0 where there is none."""
    digits = Path(name).stem.rpartition("-")[2]
    try:
        return int(digits, 16)
    except ValueError:
        return 0


def _digest(source: Source) -> tuple[bytes, int]:
    whole = sha256()
    offset = 0
    while data := source.at(offset, _READ_BYTES):
        whole.update(data)
        offset += len(data)
    return whole.digest(), offset
