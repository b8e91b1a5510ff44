"""Write and read one frame: one group commit, one zstd frame, one unit of acknowledgement.

The one rule: nothing a frame says is believed before the checksum over it was right, and no length
is used before its bound was checked.
"""

from hashlib import sha256
from typing import NamedTuple

import google_crc32c
import zstandard

from wal.format import (
    ALIGNMENT,
    CHAIN_BYTES,
    FLAGS_KNOWN,
    FRAME_CRCS,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    FRAME_VERSION,
    GENESIS,
    RAW_BYTES_MAX,
    RECORDS_PER_FRAME_MAX,
    STORED_BYTES_MAX,
    ZSTD_MAGIC,
    Flag,
)

_crc = google_crc32c.value
_extend = google_crc32c.extend
_CHECKED = FRAME_HEADER.size
_ZSTD = int(Flag.ZSTD)  # an operation of an IntFlag costs as much as the frame's SHA-256
_WORTH_COMPRESSING = 128
"""Bytes below which zstd's own head and checksum outweigh what it finds."""


class BadFrame(Exception):  # noqa: N818 - not an error yet: the caller judges what it means
    """The bytes at a place are not the frame that belongs there.

    Attributes:
        reason: what is wrong, in words.
        whole: all checksums were right, so this was written as it stands and is no torn write.
    """

    def __init__(self, reason: str, *, whole: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.whole = whole


class FrameHeader(NamedTuple):
    """The first 64 bytes of a frame, checksum verified."""

    flags: int
    epoch: int
    segment: int
    lsn: int
    durable_lsn: int
    records: int
    stored_bytes: int
    raw_bytes: int
    wall_ns: int
    crc: int
    body_crc: int

    @property
    def body_bytes(self) -> int:
        """Bytes that follow the header: payload, chain, zeros to the boundary."""
        unpadded = self.stored_bytes + CHAIN_BYTES
        return unpadded + -unpadded % ALIGNMENT


class EncodedFrame(NamedTuple):
    """A frame ready to be written, and the chain value after it."""

    data: bytes
    chain: bytes


def genesis(shard_id: int) -> bytes:
    """Return the chain value before the first frame of a shard."""
    return sha256(GENESIS + shard_id.to_bytes(4, "little")).digest()


class FrameEncoder:
    """Makes the frames of one segment, in order. A frame counts only once `advance` was called.

    Attributes:
        lsn: number of the next frame. Who packs a segment sets it to the newest frame that the next
            one stands for.
        chain: the chain value before the next frame.
    """

    def __init__(self, epoch: int, segment: int, lsn: int, chain: bytes, level: int) -> None:
        self._epoch = epoch
        self._segment = segment
        self._compress = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=True
        ).compress
        self._durable_lsn = lsn - 1
        self.lsn = lsn
        self.chain = chain

    def encode(self, raw: bytes, count: int, flags: int, wall_ns: int) -> EncodedFrame:
        """Return the next frame, with `raw` (at most 1 MiB) as the payload of `count` records."""
        stored = raw
        if len(raw) >= _WORTH_COMPRESSING:
            compressed = self._compress(raw)
            if len(compressed) < len(raw):
                flags |= _ZSTD
                stored = compressed
        head = FRAME_HEADER.pack(
            FRAME_MAGIC, FRAME_VERSION, flags, FRAME_HEADER_BYTES, self._epoch, self._segment,
            self.lsn, self._durable_lsn, count, len(stored), len(raw), 0, wall_ns,
        )  # fmt: skip
        digest = sha256(self.chain)
        digest.update(head)
        digest.update(stored)
        chain = digest.digest()
        crc = _crc(head)
        crcs = FRAME_CRCS.pack(crc, _extend(_extend(crc, stored), chain))
        padding = bytes(-(len(stored) + CHAIN_BYTES) % ALIGNMENT)
        return EncodedFrame(b"".join((head, crcs, stored, chain, padding)), chain)

    def advance(self, frame: EncodedFrame) -> None:
        """Take `frame` as written: the next one follows it."""
        self._durable_lsn = self.lsn
        self.lsn += 1
        self.chain = frame.chain


def parse_header(block: bytes) -> FrameHeader:
    """Read the 64 bytes of a frame's header.

    Raises:
        BadFrame: they are none; `whole` when its checksum is right and its content is not.
    """
    if len(block) < FRAME_HEADER_BYTES:
        raise BadFrame("the file ends inside a frame header")
    head = block[:_CHECKED]
    (crc, body_crc) = FRAME_CRCS.unpack_from(block, _CHECKED)
    if head[:4] != FRAME_MAGIC:
        raise BadFrame("no frame begins here")
    if _crc(head) != crc:
        raise BadFrame("header checksum")
    _, version, flags, size, epoch, segment, lsn, durable, records, stored, raw, zero, wall_ns = (
        FRAME_HEADER.unpack(head)
    )
    if version != FRAME_VERSION or size != FRAME_HEADER_BYTES or flags & ~FLAGS_KNOWN or zero:
        raise BadFrame(f"unknown version {version}, flags {flags:#x} or length {size}", whole=True)
    header = FrameHeader(
        flags, epoch, segment, lsn, durable, records, stored, raw, wall_ns, crc, body_crc
    )
    if not _in_bounds(header):
        raise BadFrame("a length in the header is out of bounds", whole=True)
    return header


def _in_bounds(header: FrameHeader) -> bool:
    control = bool(header.flags & (Flag.WATERMARK | Flag.SEAL))
    return (
        header.raw_bytes <= RAW_BYTES_MAX
        and header.stored_bytes <= min(header.raw_bytes + 1024, STORED_BYTES_MAX)
        and header.records <= RECORDS_PER_FRAME_MAX
        and control == (header.records == 0)
        and header.durable_lsn < header.lsn
    )


def check_body(header: FrameHeader, block: bytes, body: bytes, chain: bytes) -> bytes:
    """Check payload, chain and padding; return the chain value after the frame.

    Args:
        header: what `parse_header` made of `block`.
        block: the 64 bytes of the header.
        body: `header.body_bytes` bytes that follow; fewer where the file ends.
        chain: the chain value before the frame.

    Raises:
        BadFrame: something does not check out.
    """
    end = header.stored_bytes + CHAIN_BYTES
    if len(body) < end:
        raise BadFrame("the file ends inside a frame")
    if _extend(header.crc, body[:end]) != header.body_crc:
        raise BadFrame("payload checksum")
    stored = memoryview(body)[: header.stored_bytes]
    digest = sha256(chain)
    digest.update(memoryview(block)[:_CHECKED])
    digest.update(stored)
    after = body[header.stored_bytes : end]
    if digest.digest() != after:
        raise BadFrame("chain: this frame was not written after the one before it", whole=True)
    if any(body[end:]):
        # No checksum covers it, so a torn write may look so.
        raise BadFrame("padding is not zero")
    return after


def open_payload(
    header: FrameHeader, stored: bytes, decompressor: zstandard.ZstdDecompressor
) -> bytes:
    """Return the raw payload, bounded by what the header declares.

    zstandard takes trailing bytes and further frames by default, and its `max_output_size` does
    nothing when a frame declares its size; so the declared size is compared before it allocates.

    Raises:
        BadFrame: the stored bytes are not exactly one zstd frame of the declared size.
    """
    if not header.flags & _ZSTD:
        if header.stored_bytes != header.raw_bytes:
            raise BadFrame("stored and raw length differ without compression", whole=True)
        return stored
    try:
        inside = zstandard.get_frame_parameters(stored)
        if (
            stored[:4] != ZSTD_MAGIC
            or inside.content_size != header.raw_bytes
            or not inside.has_checksum
            or inside.dict_id
        ):
            raise BadFrame("zstd: declared size, checksum or dictionary", whole=True)
        raw: bytes = decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadFrame(f"zstd: {error}", whole=True) from error
    return raw
