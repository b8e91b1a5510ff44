"""Name the constants of the format: magics, layouts, flags, limits. No behaviour.

The writer and the independent verifier share this file and nothing else. Little endian throughout.
"""

import struct
from enum import IntEnum, IntFlag
from typing import Final

FORMAT_VERSION: Final = 1
PACKED_VERSION: Final = 2
"""The version in the header of a segment whose frames were put together after it was sealed."""

SEGMENT_MAGIC: Final = b"PAYCHWAL"
SEGMENT_HEADER_BYTES: Final = 4096
#  0 magic 8s | 8 version u16 | 10 header length u16 | 12 shard u32 | 16 epoch u32 | 20 number u32
# 24 first lsn u64 | 32 first position u64 | 40 created ns u64 | 48 random id 16s
# 64 chain before the first frame 32s | 96 codec u16 | 98 event schema u16 | 100 dictionary u32
# 104 CRC-32C of bytes 0-103 | zeros up to 4,096
SEGMENT_HEADER: Final = struct.Struct("<8sHHIIIQQQ16s32sHHI")

FRAME_MAGIC: Final = b"\xf5PF\x1a"
FRAME_VERSION: Final = 1
#  0 magic 4s | 4 version u8 | 5 flags u8 | 6 header length u16 | 8 epoch u32 | 12 segment u32
# 16 lsn u64 | 24 durable lsn u64 | 32 records u32 | 36 stored bytes u32 | 40 raw bytes u32
# 44 zero u32 | 48 wall ns u64 | 56 CRC-32C of bytes 0-55
# 60 CRC-32C of payload and chain, seeded with the header's CRC
# 64 payload | chain 32s | zeros to an 8-byte boundary
# A packed frame stands for the frames from durable lsn + 1 to lsn, and its raw payload begins with
# the chain value (32s) that the log had behind frame lsn.
FRAME_HEADER: Final = struct.Struct("<4sBBHIIQQIIIIQ")
FRAME_CRCS: Final = struct.Struct("<II")
FRAME_HEADER_BYTES: Final = 64
CHAIN_BYTES: Final = 32
ALIGNMENT: Final = 8

RAW_BYTES_MAX: Final = 1 << 20
STORED_BYTES_MAX: Final = RAW_BYTES_MAX + 1024
RECORDS_PER_FRAME_MAX: Final = 4096
FRAME_BYTES_MAX: Final = FRAME_HEADER_BYTES + STORED_BYTES_MAX + CHAIN_BYTES + ALIGNMENT - 1

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

GENESIS: Final = b"paychan log, shard "
"""The chain of a shard begins with SHA-256 of this and the shard's number (u32): no frame of one
shard fits into the log of another, not even its first."""

MANIFEST_MAGIC: Final = b"PAYCHMAN"
#  0 magic 8s | 8 version u16 | 10 zero u16 | 12 body length u32 | 16 CRC-32C of the body
# 20 body, msgpack | SHA-256 of everything before it
MANIFEST_HEAD: Final = struct.Struct("<8sHHII")
MANIFEST_BYTES_MAX: Final = 64 << 20

SNAPSHOT_MAGIC: Final = b"PAYCHSNP"
#  0 magic 8s | 8 version u16 | 10 kind u16 | 12 shard u32 | 16 epoch u32 | 20 zero u32
# 24 lsn u64 | 32 position u64 | 40 lsn it builds on u64, 0 for a base | 48 chain at lsn 32s
# 80 audit size u64 | 88 audit root 32s | 120 CRC-32C of bytes 0-119
# then blocks: length u32 | CRC-32C u32 | bytes; a block of length 0 whose CRC field holds the
# number of blocks ends them; then SHA-256 of everything before it
SNAPSHOT_HEADER: Final = struct.Struct("<8sHHIIIQQQ32sQ32s")
SNAPSHOT_BLOCK: Final = struct.Struct("<II")
SNAPSHOT_CHUNK_BYTES_MAX: Final = 1 << 20
CRC: Final = struct.Struct("<I")


class SnapshotKind(IntEnum):
    """Say whether a snapshot is the whole state, or what changed since another one."""

    BASE = 0
    INCREMENT = 1


class Flag(IntFlag):
    """Say what kind of frame it is. A bit that is not named here refuses the frame."""

    ZSTD = 1
    WATERMARK = 2
    SEAL = 4
    EPOCH_START = 8
    PACKED = 16


FLAGS_KNOWN: Final = 31

LOCK_NAME: Final = "LOCK"
MANIFEST_NAME: Final = "MANIFEST"
SEGMENTS: Final = "wal"
SNAPSHOTS: Final = "snap"
QUARANTINE: Final = "quarantine"
ARCHIVE: Final = "archive"
SPARE_NAME: Final = "next.pre"
TEMPORARY: Final = ".tmp"
SEGMENT_SUFFIX: Final = ".wal"
PACKED_SUFFIX: Final = ".pack"
SNAPSHOT_SUFFIX: Final = ".snap"
INCREMENT_SUFFIX: Final = ".inc"


def file_name(lsn: int, epoch: int, suffix: str) -> str:
    """Return the name of a segment or snapshot; it sorts by lsn, then by epoch."""
    return f"{lsn:020d}-{epoch:08x}{suffix}"
