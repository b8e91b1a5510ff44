"""Judge one segment byte by byte. Part of `verification`; shares only the format's constants."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

import google_crc32c
import msgspec
import zstandard

from wal.codec import DECODE_FAULTS, Codec, Position
from wal.format import (
    ALIGNMENT,
    CHAIN_BYTES,
    CRC,
    FLAGS_KNOWN,
    FORMAT_VERSION,
    FRAME_BYTES_MAX,
    FRAME_CRCS,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    FRAME_VERSION,
    PACKED_VERSION,
    RAW_BYTES_MAX,
    RECORDS_PER_FRAME_MAX,
    SEGMENT_HEADER,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    ZSTD_MAGIC,
    Flag,
)

Fetch = Callable[[int, int], bytes]
"""Given offset and size, returns the bytes there; fewer only at the end of the file."""

_STEP = 1 << 20


class Broken(Exception):  # noqa: N818 - the caller decides whether it is damage or a torn tail
    """A frame that is not what it must be. `torn` when an interrupted write could look so."""

    def __init__(self, offset: int, reason: str, *, torn: bool = False) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason
        self.torn = torn


class Misplaced(Broken):
    """The file is missing, or is not the segment that belongs there."""


class Expected(NamedTuple):
    """What the MANIFEST says of a segment."""

    shard_id: int
    number: int
    epoch: int
    first_lsn: int
    first_position: int
    before: bytes
    packed: bool = False


class SegmentJudge:
    """Goes through one segment; after `Broken` the attributes are those before the bad frame.

    Attributes:
        offset, lsn, position, chain: where the next frame begins, and what it must say.
        log_chain: the chain value of the log before the next frame; another than `chain` in a
            packed segment.
    """

    def __init__(
        self, fetch: Fetch, expected: Expected, codec: Codec[Any], new_epoch: bool | None
    ) -> None:
        self._fetch = fetch
        self._expected = expected
        self._codec = codec
        self._new_epoch = new_epoch
        self._sealed = False
        self._wall_ns = 0
        self._decompressor = zstandard.ZstdDecompressor()
        self.offset = SEGMENT_HEADER_BYTES
        self.lsn = expected.first_lsn
        self.position = expected.first_position
        self.chain = self.log_chain = expected.before

    def header(self) -> None:
        """Judge the first block.

        Raises:
            Broken: it is not what the MANIFEST says.
        """
        block = self._fetch(0, SEGMENT_HEADER_BYTES)
        size = SEGMENT_HEADER.size
        if len(block) < SEGMENT_HEADER_BYTES:
            raise Broken(0, "the file ends inside the segment header")
        if CRC.pack(google_crc32c.value(block[:size])) != block[size : size + CRC.size]:
            raise Broken(0, "segment header checksum")
        if block[size + CRC.size :].strip(b"\0"):
            raise Broken(0, "segment header is not zero behind its fields")
        said = SEGMENT_HEADER.unpack_from(block)
        version = PACKED_VERSION if self._expected.packed else FORMAT_VERSION
        if said[:3] != (SEGMENT_MAGIC, version, SEGMENT_HEADER_BYTES) or said[13]:
            raise Broken(0, f"unknown segment magic, version {said[1]} or dictionary {said[13]}")
        shard_id, epoch, number, first_lsn, first_position = said[3:8]
        if (shard_id, number, epoch, first_lsn, first_position, said[10]) != self._expected[:6]:
            raise Misplaced(0, "the segment belongs elsewhere")

    def frame(self) -> None:
        """Judge the frame at `offset` and go behind it.

        Raises:
            Broken: it is not the frame that must be here.
        """
        block = self._fetch(self.offset, FRAME_HEADER_BYTES)
        head = block[: FRAME_HEADER.size]
        if len(block) < FRAME_HEADER_BYTES or head[: len(FRAME_MAGIC)] != FRAME_MAGIC:
            raise Broken(self.offset, "no frame begins here", torn=True)
        crc, body_crc = FRAME_CRCS.unpack_from(block, FRAME_HEADER.size)
        if google_crc32c.value(head) != crc:
            raise Broken(self.offset, "frame header checksum", torn=True)
        _, version, flags, size, epoch, number, lsn, durable, count, stored, raw, zero, wall = (
            FRAME_HEADER.unpack(head)
        )
        if (version, size, zero) != (FRAME_VERSION, FRAME_HEADER_BYTES, 0) or flags & ~FLAGS_KNOWN:
            raise Broken(self.offset, "unknown frame version, length or flag")
        if raw > RAW_BYTES_MAX or stored > raw or count > RECORDS_PER_FRAME_MAX:
            raise Broken(self.offset, "a length or count is out of bounds")
        self._judge_place(flags, (epoch, number, lsn, durable), wall)
        body_bytes = stored + CHAIN_BYTES
        padded = body_bytes + -body_bytes % ALIGNMENT
        body = self._fetch(self.offset + FRAME_HEADER_BYTES, padded)
        if google_crc32c.extend(crc, body[:body_bytes]) != body_crc or len(body) < body_bytes:
            raise Broken(self.offset, "payload checksum", torn=True)
        payload, chain, padding = body[:stored], body[stored:body_bytes], body[body_bytes:]
        if sha256(self.chain + head + payload).digest() != chain:
            raise Broken(self.offset, "chain")
        if padding.strip(b"\0"):
            # No checksum covers it, so a torn write may look so.
            raise Broken(self.offset, "padding is not zero", torn=True)
        log_chain, content = self._unwrapped(self._unpacked(flags, payload, raw), chain)
        self._judge_payload(flags, count, content)
        self.offset += FRAME_HEADER_BYTES + padded
        self.lsn = lsn + 1
        self.position += count
        self.chain = chain
        self.log_chain = log_chain

    def _is_marked_rightly(self, marked: bool) -> bool:
        if self.lsn != self._expected.first_lsn:
            return not marked
        return self._new_epoch is None or marked == self._new_epoch

    def _judge_place(self, flags: int, said: tuple[int, int, int, int], wall_ns: int) -> None:
        expected = self._expected
        epoch, number, lsn, durable = said
        here = lsn >= self.lsn if expected.packed else lsn == self.lsn
        if (epoch, number, durable) != (expected.epoch, expected.number, self.lsn - 1) or not here:
            raise Broken(self.offset, f"a frame (epoch, segment, lsn, durable) {said} here")
        if bool(flags & Flag.PACKED) != expected.packed:
            raise Broken(self.offset, "a packed frame among others, or the reverse")
        if not self._is_marked_rightly(bool(flags & Flag.EPOCH_START)):
            raise Broken(self.offset, "the mark of an epoch's first frame is wrong")
        if self._sealed:
            raise Broken(self.offset, "a frame behind the seal")
        if wall_ns < self._wall_ns:
            raise Broken(self.offset, "wall time falls")
        self._wall_ns = wall_ns

    def _unpacked(self, flags: int, payload: bytes, raw_bytes: int) -> bytes:
        if not flags & Flag.ZSTD:
            if len(payload) != raw_bytes:
                raise Broken(self.offset, "stored and raw length differ")
            return payload
        try:
            declared = zstandard.get_frame_parameters(payload)
            if payload[:4] != ZSTD_MAGIC or declared.content_size != raw_bytes:
                raise Broken(self.offset, "zstd does not declare the length of the header")
            if not declared.has_checksum or declared.dict_id:
                raise Broken(self.offset, "zstd without checksum or with a dictionary")
            raw: bytes = self._decompressor.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Broken(self.offset, f"zstd: {error}") from error
        return raw

    def _unwrapped(self, payload: bytes, chain: bytes) -> tuple[bytes, bytes]:
        """Return the chain value of the log behind this frame, and what the payload holds."""
        if not self._expected.packed:
            return chain, payload
        if len(payload) < CHAIN_BYTES:
            raise Broken(self.offset, "a packed frame without the chain of the log")
        return payload[:CHAIN_BYTES], payload[CHAIN_BYTES:]

    def _judge_payload(self, flags: int, count: int, payload: bytes) -> None:
        kind = flags & (Flag.WATERMARK | Flag.SEAL)
        if (count == 0) != bool(kind) or kind == Flag.WATERMARK | Flag.SEAL:
            raise Broken(self.offset, "the flags do not fit the number of records")
        if kind == Flag.WATERMARK and payload:
            raise Broken(self.offset, "a watermark with a payload")
        try:
            if kind == Flag.SEAL:
                self._judge_seal(msgspec.msgpack.decode(payload))
            elif count:
                records = self._codec.decode(Position(self.position), count, payload)
                if len(records) != count:
                    raise Broken(self.offset, f"{len(records)} records instead of {count}")
        except DECODE_FAULTS as error:
            raise Broken(self.offset, f"the payload cannot be decoded: {error!r}") from error

    def _judge_seal(self, seal: Any) -> None:
        expected = self._expected
        frames, records = self.lsn - expected.first_lsn, self.position - expected.first_position
        if (seal["frames"], seal["records"], seal["chain"]) != (frames, records, self.chain):
            raise Broken(self.offset, "the seal counts other frames or records than there are")
        self._sealed = True


def proof_of_rot(fetch: Fetch, judge: SegmentJudge, expected: Expected) -> tuple[str, int]:
    """Look behind the bad frame `judge` stands at.

    Returns:
        What shows that it was durable once, empty if nothing does; and how many bytes lie there.
    """
    at = end = judge.offset
    own = _own_bytes(fetch(at, FRAME_HEADER_BYTES))
    while piece := fetch(at, _STEP):
        kept = len(piece.rstrip(b"\0"))
        if kept:
            end = at + kept
        index = piece.find(FRAME_MAGIC, max(judge.offset + own - at, 0))
        while index >= 0:
            reason = _follower(fetch(at + index, FRAME_HEADER_BYTES), judge.lsn, expected)
            if reason and (at + index) % ALIGNMENT == 0:
                return reason, end - judge.offset
            index = piece.find(FRAME_MAGIC, index + 1)
        at += len(piece)
    torn = end - judge.offset
    return ("more bytes follow than one frame has" if torn > FRAME_BYTES_MAX else ""), torn


def _own_bytes(block: bytes) -> int:
    """Return the length of the bad frame, if its header can still be believed."""
    if not _is_header(block):
        return ALIGNMENT
    stored: int = FRAME_HEADER.unpack_from(block)[9]
    return FRAME_HEADER_BYTES + stored + CHAIN_BYTES


def _follower(block: bytes, lsn: int, expected: Expected) -> str:
    """Say why the frame header in `block` proves frame `lsn` durable, if it does."""
    if not _is_header(block):
        return ""
    _, _, _, _, epoch, number, found, durable, *_ = FRAME_HEADER.unpack_from(block)
    if (epoch, number) != (expected.epoch, expected.number):
        return f"a frame of epoch {epoch}, segment {number} follows"
    return f"frame {found} follows" if durable >= lsn else ""


def _is_header(block: bytes) -> bool:
    if len(block) < FRAME_HEADER_BYTES or not block.startswith(FRAME_MAGIC):
        return False
    crc, _ = FRAME_CRCS.unpack_from(block, FRAME_HEADER.size)
    return bool(google_crc32c.value(block[: FRAME_HEADER.size]) == crc)
