"""One frame: what was written is read, and nothing else is taken for it."""

import struct
import tracemalloc
from hashlib import sha256

import google_crc32c
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from wal.format import FRAME_HEADER, FRAME_HEADER_BYTES, FRAME_MAGIC, Flag
from wal.frame import (
    BadFrame,
    FrameEncoder,
    FrameHeader,
    check_body,
    genesis,
    open_payload,
    parse_header,
)

START = genesis(7)
DECOMPRESSOR = zstandard.ZstdDecompressor()


def read(data: bytes, chain: bytes = START) -> tuple[FrameHeader, bytes, bytes]:
    """Return header, raw payload and chain of the frame that is all of `data`."""
    block, body = data[:FRAME_HEADER_BYTES], data[FRAME_HEADER_BYTES:]
    header = parse_header(block)
    assert len(body) == header.body_bytes
    after = check_body(header, block, body, chain)
    return header, open_payload(header, body[: header.stored_bytes], DECOMPRESSOR), after


def forge(payload: bytes, **fields: int) -> bytes:
    """Return a frame whose checksums and chain are right, whatever it says."""
    said = {
        "version": 1, "flags": Flag.ZSTD, "size": 64, "epoch": 1, "segment": 1, "lsn": 1,
        "durable": 0, "records": 1, "stored": len(payload), "raw": len(payload), "zero": 0,
        "wall": 5,
    } | fields  # fmt: skip
    head = FRAME_HEADER.pack(FRAME_MAGIC, *said.values())
    chain = sha256(START + head + payload).digest()
    crc = google_crc32c.value(head)
    crcs = struct.pack("<II", crc, google_crc32c.extend(crc, payload + chain))
    return head + crcs + payload + chain + bytes(-len(payload) % 8)


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 4096), st.integers(0, 2**63), st.integers(1, 2**40))
def test_a_frame_says_what_it_was_told(payload: bytes, records: int, wall: int, lsn: int) -> None:
    encoder = FrameEncoder(3, 5, lsn, START, 1)
    frame = encoder.encode(payload, records, Flag.EPOCH_START, wall)
    header, raw, chain = read(frame.data)
    assert (raw, chain) == (payload, frame.chain)
    assert (header.epoch, header.segment, header.lsn, header.durable_lsn) == (3, 5, lsn, lsn - 1)
    assert (header.records, header.wall_ns) == (records, wall)
    assert len(frame.data) % 8 == 0


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300), st.data())
def test_one_flipped_bit_is_noticed(payload: bytes, data: st.DataObject) -> None:
    frame = FrameEncoder(1, 1, 1, START, 1).encode(payload, 1, 0, 1).data
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadFrame):
        read(bytes(changed))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_a_frame_by_chance(data: bytes) -> None:
    with pytest.raises(BadFrame):
        parse_header(FRAME_MAGIC + data)


def test_a_bit_that_differs_could_have_been_torn_wherever_it_is() -> None:
    frame = FrameEncoder(3, 5, 9, START, 1).encode(bytes(range(90)), 1, 0, 7).data
    assert not any(frame[-6:])
    read(frame)
    for bit in range(8 * len(frame)):
        torn = bytearray(frame)
        torn[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadFrame) as caught:
            read(bytes(torn))
        assert not caught.value.whole, bit


def test_a_frame_continues_one_history_only() -> None:
    frame = FrameEncoder(1, 1, 1, START, 1).encode(b"x", 1, 0, 1).data
    with pytest.raises(BadFrame, match="chain") as caught:
        read(frame, genesis(8))
    assert caught.value.whole


COMPRESSED = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(1000))
NO_SIZE = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 1000) + bytes(1000)


def test_the_forger_can_make_a_frame_that_is_taken() -> None:
    assert read(forge(COMPRESSED, raw=1000))[1] == bytes(1000)


@pytest.mark.parametrize(
    ("payload", "raw"),
    [
        pytest.param(COMPRESSED, 999, id="declares one more"),
        pytest.param(COMPRESSED, 1001, id="declares one less"),
        pytest.param(COMPRESSED + b"\0", 1000, id="a byte too many"),
        pytest.param(COMPRESSED + COMPRESSED, 1000, id="two frames, size of one"),
        pytest.param(COMPRESSED + COMPRESSED, 2000, id="two frames, size of both"),
        pytest.param(COMPRESSED + SKIPPABLE, 1000, id="a skippable frame behind"),
        pytest.param(SKIPPABLE + COMPRESSED, 1000, id="a skippable frame before"),
        pytest.param(COMPRESSED[:-1], 1000, id="a byte too few"),
        pytest.param(NO_SIZE.compress(bytes(1000)), 1000, id="no declared size"),
        pytest.param(zstandard.compress(bytes(1000)), 1000, id="no checksum"),
        pytest.param(b"", 0, id="nothing"),
        pytest.param(bytes(1000), 1000, id="no zstd at all"),
    ],
)
def test_only_one_plain_zstd_frame_of_the_declared_size_is_opened(payload: bytes, raw: int) -> None:
    with pytest.raises(BadFrame, match="zstd") as caught:
        read(forge(payload, raw=raw))
    assert caught.value.whole


@pytest.mark.parametrize("declared_in_header", [200 << 20, (1 << 20) + 1, 1 << 20, 6000])
def test_a_bomb_costs_nothing(declared_in_header: int) -> None:
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(200 << 20))
    frame = forge(bomb, raw=declared_in_header)
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            read(frame)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2}, {"size": 128}, {"flags": 32}, {"flags": 128}, {"zero": 1},
        {"raw": (1 << 20) + 1}, {"stored": 0xFFFFFFFF}, {"stored": 1 << 31}, {"records": 4097},
        {"records": 0}, {"durable": 1}, {"flags": Flag.WATERMARK}, {"flags": Flag.SEAL},
        {"stored": 2000, "raw": 900},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_out_of_bounds_is_refused_though_its_checksum_is_right(
    fields: dict[str, int],
) -> None:
    with pytest.raises(BadFrame) as caught:
        parse_header(forge(b"x", **fields)[:FRAME_HEADER_BYTES])
    assert caught.value.whole
