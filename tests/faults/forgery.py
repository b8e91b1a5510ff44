"""Make frames, headers and MANIFESTs that check out though no log ever wrote them."""

import struct
from hashlib import sha256
from typing import Any, Final

import google_crc32c
import msgspec
import zstandard

from tests.faults.specimen import ROOT, Frame, Specimen
from wal.format import (
    CHAIN_BYTES,
    CRC,
    FRAME_CRCS,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    MANIFEST_HEAD,
    MANIFEST_NAME,
    SEGMENT_HEADER,
    SEGMENT_HEADER_BYTES,
    SNAPSHOT_HEADER,
)
from wal.manifest import encode_manifest

FRAME_FIELDS: Final = (
    "version", "flags", "size", "epoch", "segment", "lsn", "durable", "records", "stored", "raw",
    "zero", "wall",
)  # fmt: skip
SEGMENT_FIELDS: Final = (
    "magic", "version", "size", "shard", "epoch", "number", "first_lsn", "first_position",
    "created", "id", "chain", "codec", "schema", "dictionary",
)  # fmt: skip


def read_frame(data: bytes, frame: Frame) -> dict[str, int]:
    """Return what the header of a frame says."""
    said = FRAME_HEADER.unpack_from(data, frame.start)[1:]
    return dict(zip(FRAME_FIELDS, said, strict=True))


def frame(chain: bytes, payload: bytes, said: dict[str, int]) -> bytes:
    """Return a frame whose checksums and chain are right, whatever it says."""
    head = FRAME_HEADER.pack(FRAME_MAGIC, *(said[name] for name in FRAME_FIELDS))
    after = sha256(chain + head + payload).digest()
    return _with_crcs(head, payload, after)


def _with_crcs(head: bytes, payload: bytes, chain: bytes) -> bytes:
    crc = google_crc32c.value(head)
    crcs = FRAME_CRCS.pack(crc, google_crc32c.extend(crc, payload + chain))
    return head + crcs + payload + chain + bytes(-(len(payload) + CHAIN_BYTES) % 8)


def refreshed(data: bytes, frame: Frame, payload: bytes) -> bytes:
    """Return a segment with the payload of `frame` exchanged, its checksums made right by somebody
    who cannot make the chain right."""
    head = data[frame.start : frame.start + FRAME_HEADER.size]
    forged = _with_crcs(head, payload, data[frame.chain : frame.padding])
    return data[: frame.start] + forged + data[frame.end :]


def extended(log: Specimen, payload: bytes, **fields: int) -> Specimen:
    """Return the log with one more frame in its live segment, which continues the chain."""
    path = log.segments[-1]
    data, frames = log.image[path], log.frames[path]
    end = frames[-1].end
    last = read_frame(data, frames[-1])
    said = last | {
        "flags": 0, "lsn": last["lsn"] + 1, "durable": last["lsn"], "records": 1,
        "stored": len(payload), "raw": len(payload),
    }  # fmt: skip
    made = frame(data[frames[-1].chain : frames[-1].padding], payload, said | fields)
    chain = end + FRAME_HEADER_BYTES + len(payload)
    added = Frame(end, end + FRAME_HEADER_BYTES, chain, chain + CHAIN_BYTES, end + len(made))
    return log._replace(
        image=log.image | {path: data[:end] + made + data[end + len(made) :]},
        frames=log.frames | {path: [*frames, added]},
    )


def appended(log: Specimen, payload: bytes, **fields: int) -> bytes:
    """Return the live segment of `extended`."""
    longer = extended(log, payload, **fields)
    return longer.image[longer.segments[-1]]


def seal_payload(log: Specimen) -> bytes:
    """Return what a seal of the live segment would say."""
    path, live = log.segments[-1], log.manifest.live
    assert live is not None
    data, last = log.image[path], log.frames[path][-1]
    return msgspec.msgpack.encode(
        {
            "frames": len(log.frames[path]),
            "records": log.events - live.first_position + 1,
            "chain": data[last.chain : last.padding],
            "index": [],
            "audit_root": b"",
        }
    )


def zstd(raw: bytes, **options: bool) -> bytes:
    """Return `raw` compressed as the log does it, or as `options` of the library say."""
    chosen: dict[str, Any] = {"write_checksum": True, "write_content_size": True} | options
    return zstandard.ZstdCompressor(**chosen).compress(raw)


def skippable(size: int) -> bytes:
    """Return a zstd frame that says nothing, of `size` bytes."""
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", size) + bytes(size)


def segment_header(data: bytes, **fields: int) -> bytes:
    """Return a segment whose header says something else, with a right checksum."""
    said = dict(zip(SEGMENT_FIELDS, SEGMENT_HEADER.unpack_from(data), strict=True)) | fields
    fixed = SEGMENT_HEADER.pack(*said.values())
    header = (fixed + CRC.pack(google_crc32c.value(fixed))).ljust(SEGMENT_HEADER_BYTES, b"\0")
    return header + data[SEGMENT_HEADER_BYTES:]


def snapshot_header(data: bytes, **fields: int) -> bytes:
    """Return a snapshot whose header says something else, with right checksums."""
    names = ("magic", "version", "kind", "shard", "epoch", "zero", "lsn", "position", "base")
    said = dict(zip(names, SNAPSHOT_HEADER.unpack_from(data), strict=False)) | fields
    rest = SNAPSHOT_HEADER.unpack_from(data)[len(names) :]
    fixed = SNAPSHOT_HEADER.pack(*said.values(), *rest)
    body = fixed + CRC.pack(google_crc32c.value(fixed)) + data[len(fixed) + CRC.size : -CHAIN_BYTES]
    return body + sha256(body).digest()


def vouched(log: Specimen, **changes: bytes) -> dict[str, bytes]:
    """Return `changes` to files with a MANIFEST that takes them for what they should be."""

    def seen(entry: Any) -> Any:
        data = changes.get(f"{ROOT}/{entry.path}")
        if data is None:
            return entry
        return msgspec.structs.replace(entry, size=len(data), sha256=sha256(data).digest())

    manifest = msgspec.structs.replace(
        log.manifest,
        sealed=tuple(seen(entry) for entry in log.manifest.sealed),
        snapshots=tuple(seen(entry) for entry in log.manifest.snapshots),
    )
    return changes | {f"{ROOT}/{MANIFEST_NAME}": encode_manifest(manifest)}


def manifest_head(data: bytes, **fields: int) -> bytes:
    """Return a MANIFEST whose head says something else, with a right hash."""
    names = ("magic", "version", "zero", "size", "crc")
    said = dict(zip(names, MANIFEST_HEAD.unpack_from(data), strict=True)) | fields
    checked = MANIFEST_HEAD.pack(*said.values()) + data[MANIFEST_HEAD.size : -CHAIN_BYTES]
    return checked + sha256(checked).digest()


def manifest_body(data: bytes, **fields: Any) -> bytes:
    """Return a MANIFEST whose body says something else or more, with right checksums."""
    body = msgspec.msgpack.decode(data[MANIFEST_HEAD.size : -CHAIN_BYTES]) | fields
    made = msgspec.msgpack.encode(body)
    magic, version, zero, _, _ = MANIFEST_HEAD.unpack_from(data)
    checked = MANIFEST_HEAD.pack(magic, version, zero, len(made), google_crc32c.value(made)) + made
    return checked + sha256(checked).digest()
