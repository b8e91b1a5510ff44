"""Read what lies behind damage: frames that are whole, though they no longer follow one another.

Nothing here goes back into a log. A frame behind a gap proves that it was written, not what came
before it; so its records may be given to somebody who can judge each by itself.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import google_crc32c
import msgspec
import zstandard

from wal.codec import DECODE_FAULTS, Codec, Placed, Position, codec_for
from wal.files import How
from wal.format import (
    ALIGNMENT,
    CHAIN_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
)
from wal.frame import BadFrame, FrameHeader, open_payload, parse_header
from wal.repairs.pieces import MakeCodec, Piece
from wal.replay import Place
from wal.segment import Source, parse_segment_header

_STEP = 1 << 20


class Salvaged(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that lies beyond what is kept.

    Attributes:
        lsn: its number.
        first: position of its first record.
        count: how many records it has.
        records: what the codec made of it; None where it could not.
        sound: nothing before it in its segment is missing, so the records are what was written.
            Otherwise each of them may be wrong, and must be judged by itself.
    """

    lsn: int
    first: Position
    count: int
    records: list[Any] | None
    sound: bool


def salvage(
    place: Place, piece: Piece, make_codec: MakeCodec, above_lsn: int
) -> Iterator[Salvaged]:
    """Yield the frames of a segment with numbers above `above_lsn`, whether they follow or not."""
    try:
        source = Source(place.files, piece.path, How.DISK)
    except OSError:
        return
    try:
        yield from _frames(source, piece, make_codec, above_lsn)
    except OSError:
        return  # what the disk cannot read cannot be saved
    finally:
        source.close()


def _frames(
    source: Source, piece: Piece, make_codec: MakeCodec, above_lsn: int
) -> Iterator[Salvaged]:
    packed = _is_packed(source, piece)
    codec = codec_for(make_codec, packed)
    decompressor = zstandard.ZstdDecompressor()
    sound = True
    next_lsn, position = piece.entry.first_lsn, piece.entry.first_position
    for header, payload in _whole_frames(source, piece, decompressor):
        if header.lsn < next_lsn:
            continue  # an old copy of a frame that was passed
        if header.durable_lsn != next_lsn - 1:
            sound = False
        next_lsn = header.lsn + 1
        raw = payload[CHAIN_BYTES:] if packed else payload
        first, records = _decoded(codec, header, raw, position)
        position = first + header.records
        if header.lsn > above_lsn and header.records:
            yield Salvaged(
                lsn=header.lsn, first=first, count=header.records, records=records, sound=sound
            )


def _whole_frames(
    source: Source, piece: Piece, decompressor: zstandard.ZstdDecompressor
) -> Iterator[tuple[FrameHeader, bytes]]:
    """Yield every frame of this segment in the file whose checksums are right, wherever it lies."""
    offset = SEGMENT_HEADER_BYTES
    while data := source.at(offset, _STEP):
        at = data.find(FRAME_MAGIC)
        if at < 0 or (offset + at) % ALIGNMENT:
            offset += (at + ALIGNMENT) // ALIGNMENT * ALIGNMENT if at >= 0 else _STEP
            continue
        offset += at
        found = None
        with suppress(BadFrame):
            found = _whole(source, offset, piece, decompressor)
        if found is None:
            offset += ALIGNMENT
            continue
        yield found
        offset += FRAME_HEADER_BYTES + found[0].body_bytes


def _whole(
    source: Source, offset: int, piece: Piece, decompressor: zstandard.ZstdDecompressor
) -> tuple[FrameHeader, bytes] | None:
    header = parse_header(source.at(offset, FRAME_HEADER_BYTES))
    if (header.segment, header.epoch) != (piece.entry.number, piece.entry.epoch):
        return None
    body = source.at(offset + FRAME_HEADER_BYTES, header.stored_bytes + CHAIN_BYTES)
    if google_crc32c.extend(header.crc, body) != header.body_crc:
        return None
    return header, open_payload(header, body[: header.stored_bytes], decompressor)


def _decoded(
    codec: Codec[Any], header: FrameHeader, raw: bytes, position: int
) -> tuple[Position, list[Any] | None]:
    """Return where a frame's records begin, and the records if the codec takes them."""
    if not header.records:
        return Position(position), None
    first = Position(position)
    # Behind a gap only the payload itself knows where it belongs.
    if isinstance(codec, Placed):
        with suppress(*DECODE_FAULTS):
            first = codec.first_of(raw)
    try:
        return first, codec.decode(first, header.records, raw)
    except DECODE_FAULTS:
        return first, None


def _is_packed(source: Source, piece: Piece) -> bool:
    try:
        return parse_segment_header(source.at(0, SEGMENT_HEADER_BYTES)).packed
    except BadFrame:
        return bool(getattr(piece.entry, "packed", False))
