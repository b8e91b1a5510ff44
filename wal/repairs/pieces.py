"""Judge each segment of a log apart, and say how far it is whole. Changes no file.

A start looks for the first thing that is wrong and stops there; who repairs must know all of it.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from wal.codec import DECODE_FAULTS, Codec, Position, codec_for
from wal.errors import CorruptLogError
from wal.files import How
from wal.frame import BadFrame
from wal.judgement import judge_tail
from wal.manifest import SealedSegment, SegmentEntry
from wal.replay import Place
from wal.segment import Frame, SegmentScan, Source

_READ_BYTES = 1 << 20

MakeCodec = Callable[[], Codec[Any]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A place where the bytes are not what they must be."""

    path: str
    offset: int
    reason: str


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A segment, as far as its frames check out.

    Attributes:
        entry: what the MANIFEST says of it.
        path: the file that was judged.
        fault: the first thing that is wrong; None for a whole one.
        lsn: its last sound frame, or the one before its first.
        position: the last record up to there.
        chain: chain value of the file behind that frame.
        log_chain: chain value of the log behind it; another one where the file is packed.
        end: where the sound part of the file ends.
        wall_ns: when the last sound frame was written.
        torn_bytes: what an interrupted write left behind it, which is no fault.
    """

    entry: SegmentEntry
    path: Path
    fault: Fault | None
    lsn: int
    position: int
    chain: bytes
    log_chain: bytes
    end: int = 0
    wall_ns: int = 0
    torn_bytes: int = 0

    @property
    def has_frames(self) -> bool:
        """Whether anything of it is sound."""
        return self.lsn >= self.entry.first_lsn

    @property
    def reaches_its_end(self) -> bool:
        """Whether every frame is sound that the MANIFEST knows of, whatever else the file holds."""
        if isinstance(self.entry, SealedSegment):
            return (self.lsn, self.log_chain) == (self.entry.last_lsn, self.entry.after)
        return self.fault is None

    @property
    def is_large(self) -> bool:
        """Whether it held records, by what the MANIFEST says or by what is sound."""
        last = getattr(self.entry, "last_position", self.position)
        return bool(last >= self.entry.first_position)

    def is_in_place(self, directory: Path) -> bool:
        """Say whether the log in `directory` has it whole, as a file that can stay."""
        return self.fault is None and self.path == directory / self.entry.path


def examine(
    place: Place, entry: SegmentEntry, make_codec: MakeCodec, durable_lsn: int, path: Path | None
) -> Piece:
    """Judge one segment frame by frame, down to its records.

    Args:
        place: The log; its codec number is not looked at.
        entry: The segment.
        make_codec: What takes its records.
        durable_lsn: A frame that is known to have been on disk.
        path: Another file to judge in its stead.
    """
    path = path or place.directory / entry.path
    nothing = Piece(
        entry=entry,
        path=path,
        fault=None,
        lsn=entry.first_lsn - 1,
        position=entry.first_position - 1,
        chain=entry.before,
        log_chain=entry.before,
    )
    try:
        source = Source(place.files, path, How.DISK)
    except FileNotFoundError:
        return _with_fault(nothing, 0, "the file is missing")
    except OSError as error:
        return _with_fault(nothing, 0, f"it cannot be read: {error.strerror}")
    try:
        scan = SegmentScan(source, entry.link(place.shard_id))
        return _walk(scan, nothing, make_codec, durable_lsn)
    except CorruptLogError as error:
        return _with_fault(nothing, error.offset, error.reason)
    except OSError as error:
        return _with_fault(nothing, 0, f"it cannot be read: {error.strerror}")
    finally:
        source.close()


def frames_of(
    place: Place, piece: Piece, make_codec: MakeCodec
) -> Iterator[tuple[Position, list[Any], Frame]]:
    """Yield the sound frames of a piece: first position, records, and the frame."""
    source = Source(place.files, piece.path, How.DISK)
    try:
        scan = SegmentScan(source, piece.entry.link(place.shard_id))
        codec = codec_for(make_codec, scan.header.packed)
        while scan.lsn <= piece.lsn:
            first = Position(scan.position)
            frame = scan.next()
            yield first, _records(codec, first, frame), frame
    finally:
        source.close()


def _walk(scan: SegmentScan, piece: Piece, make_codec: MakeCodec, durable_lsn: int) -> Piece:
    """Go through the frames as long as they are sound."""
    entry = piece.entry
    codec = codec_for(make_codec, scan.header.packed)
    sealed = entry if isinstance(entry, SealedSegment) else None
    piece = _up_to(piece, scan)
    while sealed is None or scan.lsn <= sealed.last_lsn:
        try:
            first, frame = Position(scan.position), scan.next()
            _records(codec, first, frame)
        except BadFrame as bad:
            return _bad_end(piece, scan, bad, durable_lsn)
        except DECODE_FAULTS as error:
            return _with_fault(piece, piece.end, f"the payload cannot be decoded: {error!r}")
        piece = _up_to(piece, scan)
    found = (piece.lsn, piece.position, piece.log_chain, piece.end)
    if found != (sealed.last_lsn, sealed.last_position, sealed.after, sealed.size):
        return _with_fault(piece, piece.end, "the segment ends elsewhere than the MANIFEST says")
    if _digest(scan.source) != sealed.sha256:
        reason = "every frame is sound, but the file is not the one the MANIFEST names"
        return _with_fault(piece, piece.end, reason)
    return piece


def _bad_end(piece: Piece, scan: SegmentScan, bad: BadFrame, durable_lsn: int) -> Piece:
    """Tell a torn tail from damage."""
    if isinstance(piece.entry, SealedSegment):
        return _with_fault(piece, piece.end, bad.reason)
    try:
        torn_bytes = judge_tail(scan, bad, durable_lsn)
    except CorruptLogError as error:
        return _with_fault(piece, error.offset, error.reason)
    return msgspec.structs.replace(piece, torn_bytes=torn_bytes)


def _records(codec: Codec[Any], first: Position, frame: Frame) -> list[Any]:
    count = frame.header.records
    if not count:
        return []
    records = codec.decode(first, count, frame.payload)
    if len(records) != count:
        raise ValueError(f"{len(records)} records where the header says {count}")
    return records


def _up_to(piece: Piece, scan: SegmentScan) -> Piece:
    return msgspec.structs.replace(
        piece,
        lsn=scan.lsn - 1,
        position=scan.position - 1,
        chain=scan.chain,
        log_chain=scan.log_chain,
        end=scan.offset,
        wall_ns=scan.wall_ns,
    )


def _with_fault(piece: Piece, offset: int, reason: str) -> Piece:
    fault = Fault(path=piece.entry.path, offset=offset, reason=reason)
    return msgspec.structs.replace(piece, fault=fault)


def _digest(source: Source) -> bytes:
    whole = sha256()
    offset = 0
    while data := source.at(offset, _READ_BYTES):
        whole.update(data)
        offset += len(data)
    return whole.digest()
