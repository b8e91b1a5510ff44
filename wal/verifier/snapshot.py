"""Judge one snapshot byte by byte. Part of `verification`; shares only the format's constants."""

from hashlib import sha256
from typing import Any

import google_crc32c

from wal.format import (
    CHAIN_BYTES,
    CRC,
    FORMAT_VERSION,
    SNAPSHOT_BLOCK,
    SNAPSHOT_CHUNK_BYTES_MAX,
    SNAPSHOT_HEADER,
    SNAPSHOT_MAGIC,
)
from wal.verifier.segment import Broken

_HEADER_BYTES = SNAPSHOT_HEADER.size + CRC.size


def snapshot_fault(data: bytes, entry: Any, shard_id: int, chain: bytes | None) -> Broken | None:
    """Return the first fault of a snapshot, if it has one.

    Args:
        data: the whole file.
        entry: what the MANIFEST says of it.
        shard_id: whose log it belongs to.
        chain: the chain value of the log after the frame it stands for; None if not known.
    """
    try:
        _judge_header(data, entry, shard_id, chain)
        end = _judge_blocks(data)
        if sha256(data[:end]).digest() != data[end:]:
            raise Broken(end, "hash of the snapshot")
        if (len(data), sha256(data).digest()) != (entry["size"], entry["sha256"]):
            raise Broken(0, "the snapshot is valid, but not the one in the MANIFEST")
    except Broken as broken:
        return broken
    return None


def _judge_header(data: bytes, entry: Any, shard_id: int, chain: bytes | None) -> None:
    fixed = data[: SNAPSHOT_HEADER.size]
    if len(data) < _HEADER_BYTES:
        raise Broken(0, "the file ends inside the snapshot header")
    if CRC.pack(google_crc32c.value(fixed)) != data[SNAPSHOT_HEADER.size : _HEADER_BYTES]:
        raise Broken(0, "snapshot header checksum")
    magic, version, kind, shard, epoch, zero, lsn, position, base, link, *_ = (
        SNAPSHOT_HEADER.unpack(fixed)
    )
    if (magic, version, zero) != (SNAPSHOT_MAGIC, FORMAT_VERSION, 0):
        raise Broken(0, f"unknown magic or version {version}")
    told = (shard_id, entry["kind"], entry["lsn"], entry["position"], entry["base_lsn"])
    if (shard, kind, lsn, position, base) != told:
        raise Broken(0, f"a snapshot of shard {shard}, frame {lsn}, in the wrong place")
    if f"-{epoch:08x}." not in entry["name"]:
        raise Broken(0, f"a snapshot of epoch {epoch}, which its name does not say")
    if chain is not None and link != chain:
        raise Broken(0, "the snapshot stands for another history")


def _judge_blocks(data: bytes) -> int:
    at = _HEADER_BYTES
    count = 0
    while True:
        if at + SNAPSHOT_BLOCK.size > len(data) - CHAIN_BYTES:
            raise Broken(at, "the file ends inside a block")
        size, crc = SNAPSHOT_BLOCK.unpack_from(data, at)
        if size == 0:
            break
        block = data[at + SNAPSHOT_BLOCK.size : at + SNAPSHOT_BLOCK.size + size]
        if size > SNAPSHOT_CHUNK_BYTES_MAX or google_crc32c.value(block) != crc:
            raise Broken(at, "block checksum or length")
        at += SNAPSHOT_BLOCK.size + size
        count += 1
    if crc != count:
        raise Broken(at, f"{count} blocks instead of {crc}")
    return at + SNAPSHOT_BLOCK.size
