"""Read segments: their header, then frame by frame, each checked against the one before.

The one rule: `SegmentScan.next` returns a frame only when everything about it is right.
"""

from pathlib import Path
from typing import NamedTuple

import google_crc32c
import msgspec
import zstandard

from wal.errors import CorruptLogError
from wal.files import Files, How
from wal.format import (
    CHAIN_BYTES,
    CRC,
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    PACKED_VERSION,
    SEGMENT_HEADER,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    Flag,
)
from wal.frame import BadFrame, FrameHeader, check_body, open_payload, parse_header

WINDOW_BYTES = 1 << 20
"""Read ahead of the scan; a larger one costs memory, a smaller one calls."""

_ZEROS = bytes(WINDOW_BYTES)


class Link(NamedTuple):
    """Where a segment joins the log: what its header and first frame must say."""

    name: str
    shard_id: int
    number: int
    epoch: int
    first_lsn: int
    first_position: int
    chain: bytes
    packed: bool = False


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the first 4,096 bytes of a segment say."""

    shard_id: int
    epoch: int
    number: int
    first_lsn: int
    first_position: int
    created_ns: int
    segment_id: bytes
    chain: bytes
    codec_id: int = 0
    schema_version: int = 0
    packed: bool = False

    def link(self, name: str) -> Link:
        """Return where this header says that the segment called `name` belongs."""
        return Link(
            name, self.shard_id, self.number, self.epoch, self.first_lsn, self.first_position,
            self.chain, self.packed,
        )  # fmt: skip


class Frame(NamedTuple):
    """A frame that checked out, with its raw payload."""

    header: FrameHeader
    payload: bytes
    offset: int
    end: int


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the first block of a segment."""
    version = PACKED_VERSION if header.packed else FORMAT_VERSION
    fixed = SEGMENT_HEADER.pack(
        SEGMENT_MAGIC, version, SEGMENT_HEADER_BYTES, header.shard_id, header.epoch,
        header.number, header.first_lsn, header.first_position, header.created_ns,
        header.segment_id, header.chain, header.codec_id, header.schema_version, 0,
    )  # fmt: skip
    return (fixed + CRC.pack(google_crc32c.value(fixed))).ljust(SEGMENT_HEADER_BYTES, b"\0")


def parse_segment_header(block: bytes) -> SegmentHeader:
    """Read the first block of a segment.

    Raises:
        BadFrame: it is none.
    """
    fixed = block[: SEGMENT_HEADER.size]
    rest = block[SEGMENT_HEADER.size :]
    if len(block) != SEGMENT_HEADER_BYTES or any(rest[CRC.size :]):
        raise BadFrame("segment header is short or not zero after its fields")
    if CRC.unpack_from(rest)[0] != google_crc32c.value(fixed):
        raise BadFrame("segment header checksum")
    magic, version, size, *fields, dictionary = SEGMENT_HEADER.unpack(fixed)
    known = version in (FORMAT_VERSION, PACKED_VERSION)
    if magic != SEGMENT_MAGIC or not known or size != SEGMENT_HEADER_BYTES:
        raise BadFrame(f"unknown segment magic or version {version}")
    if dictionary:
        raise BadFrame(f"unknown dictionary {dictionary}")
    said = (*fields, version == PACKED_VERSION)
    return SegmentHeader(**dict(zip(SegmentHeader.__struct_fields__, said, strict=True)))


class Source:
    """The bytes of one open file behind a window that reads ahead."""

    def __init__(self, files: Files, path: Path, how: How = How.READ) -> None:
        self._files = files
        self._handle = files.open(path, how)
        self._window = b""
        self._start = 0

    def at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on; fewer only at the end of the file."""
        inside = offset - self._start
        if inside < 0 or inside + size > len(self._window):
            self._start = offset
            self._window = self._files.read(self._handle, max(size, WINDOW_BYTES), offset)
            inside = 0
        return self._window[inside : inside + size]

    def forget(self) -> None:
        """Drop the window, because the file may have changed."""
        self._window = b""

    def close(self) -> None:
        """Give the file back."""
        self._files.close(self._handle)


class SegmentScan:
    """Goes through one segment. After a `BadFrame` it stands before the frame that is bad.

    Attributes:
        name: the file, relative to the directory of the log.
        header: of the segment.
        offset: where the next frame begins.
        lsn: number the next frame must have.
        position: position of the next record.
        chain: chain value before the next frame.
        log_chain: the same, of the log as it was written; another one if the segment was packed.
        wall_ns: time of the newest frame, 0 before the first.
        sealed: the newest frame was the seal.
    """

    def __init__(self, source: Source, link: Link) -> None:
        self.source = source
        self._decompressor = zstandard.ZstdDecompressor()
        self.name = link.name
        try:
            self.header = parse_segment_header(source.at(0, SEGMENT_HEADER_BYTES))
        except BadFrame as bad:
            raise CorruptLogError(self.name, 0, bad.reason) from bad
        if self.header.link(link.name) != link:
            said = f"shard {self.header.shard_id}, epoch {self.header.epoch}"
            reason = f"segment {self.header.number} of {said} does not belong in this place"
            raise CorruptLogError(self.name, 0, reason)
        self.offset = SEGMENT_HEADER_BYTES
        self.lsn = link.first_lsn
        self.position = link.first_position
        self.chain = self.log_chain = link.chain
        self.wall_ns = 0
        self.sealed = False

    def next(self) -> Frame:
        """Return the frame here and go behind it.

        Raises:
            BadFrame: what is here is not the frame that belongs here.
        """
        block = self.source.at(self.offset, FRAME_HEADER_BYTES)
        header = parse_header(block)
        self._check_place(header)
        body_at = self.offset + FRAME_HEADER_BYTES
        body = self.source.at(body_at, header.body_bytes)
        chain = check_body(header, block, body, self.chain)
        payload = open_payload(header, body[: header.stored_bytes], self._decompressor)
        log_chain = chain
        if self.header.packed:
            log_chain, payload = payload[:CHAIN_BYTES], payload[CHAIN_BYTES:]
            if len(log_chain) < CHAIN_BYTES:
                raise BadFrame("a packed frame without the chain of the log", whole=True)
        frame = Frame(header, payload, self.offset, body_at + header.body_bytes)
        self.offset = frame.end
        self.lsn = header.lsn + 1
        self.position += header.records
        self.chain = chain
        self.log_chain = log_chain
        self.wall_ns = header.wall_ns
        self.sealed = bool(header.flags & Flag.SEAL)
        return frame

    def _check_place(self, header: FrameHeader) -> None:
        if header.segment != self.header.number or header.epoch != self.header.epoch:
            raise BadFrame(
                f"frame of segment {header.segment}, epoch {header.epoch} in segment"
                f" {self.header.number}, epoch {self.header.epoch}",
                whole=True,
            )
        packed = self.header.packed
        if header.durable_lsn != self.lsn - 1 or (header.lsn != self.lsn and not packed):
            raise BadFrame(f"frame {header.lsn} where {self.lsn} belongs", whole=True)
        if bool(header.flags & Flag.PACKED) != packed:
            raise BadFrame("a frame that was packed among others, or the reverse", whole=True)
        if header.flags & Flag.EPOCH_START and self.lsn != self.header.first_lsn:
            raise BadFrame("an epoch starts in the middle of a segment", whole=True)
        if self.sealed:
            raise BadFrame("a frame after the seal", whole=True)
        if header.wall_ns < self.wall_ns:
            raise BadFrame("wall time falls", whole=True)


def is_zero(piece: bytes) -> bool:
    """Say whether `piece` holds nothing but zeros."""
    return piece == (_ZEROS if len(piece) == WINDOW_BYTES else bytes(len(piece)))


def is_blank(source: Source) -> bool:
    """Say whether a segment holds nothing but zeros behind its header."""
    offset = SEGMENT_HEADER_BYTES
    while piece := source.at(offset, WINDOW_BYTES):
        if not is_zero(piece):
            return False
        offset += len(piece)
    return True
