"""Write the live segment: one frame, one write, one sync, and only then the next.

The one rule: nothing here is retried. Whatever a call raises, the segment is not written again.
"""

from hashlib import sha256
from pathlib import Path
from time import perf_counter_ns

import msgspec

from wal.files import Files, How, sync_directory, write_all
from wal.format import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SEGMENT_SUFFIX,
    Flag,
    file_name,
)
from wal.frame import EncodedFrame, FrameEncoder
from wal.manifest import SealedSegment, SegmentEntry
from wal.segment import SegmentHeader, encode_segment_header

_INDEX_EVERY_BYTES = 256 << 10
_INDEX_ENTRY_BYTES = 32  # three msgpack integers and their array head, with room
_SEAL_BYTES = FRAME_HEADER_BYTES + 256


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """The footer of a segment: what it holds, and where, in steps of 256 KiB.

    `index` is (lsn, position of its first record, offset) of some frames.
    """

    frames: int
    records: int
    chain: bytes
    index: tuple[tuple[int, int, int], ...]
    audit_root: bytes = b""


class SegmentWriter:
    """The live segment.

    Attributes:
        entry: what the MANIFEST says of it.
        created_ns: the wall clock when it was made.
        offset: where the next frame will begin.
        position: of the next record.
        sync_ns: how long the newest sync took.
    """

    def __init__(self, files: Files, path: Path, header: SegmentHeader, level: int) -> None:
        self._files = files
        self._path = path
        self.entry = SegmentEntry(
            name=path.name,
            number=header.number,
            epoch=header.epoch,
            first_lsn=header.first_lsn,
            first_position=header.first_position,
            before=header.chain,
        )
        self.created_ns = header.created_ns
        self._encoder = FrameEncoder(
            header.epoch, header.number, header.first_lsn, header.chain, level
        )
        self._hash = sha256()
        self._index: list[tuple[int, int, int]] = []
        self.offset = 0
        self.position = header.first_position
        self.sync_ns = 0
        self._handle = files.open(path, How.WRITE)
        try:
            self._put(encode_segment_header(header), data_only=False)
        except BaseException:
            files.close(self._handle)
            raise

    @property
    def lsn(self) -> int:
        """Number of the next frame."""
        return self._encoder.lsn

    @property
    def chain(self) -> bytes:
        """Chain value before the next frame."""
        return self._encoder.chain

    @property
    def empty(self) -> bool:
        """Whether no frame was written yet."""
        return self.offset == SEGMENT_HEADER_BYTES

    def encode(self, raw: bytes, count: int, flags: int, wall_ns: int) -> EncodedFrame:
        """Return the next frame without writing it."""
        return self._encoder.encode(raw, count, flags, wall_ns)

    def end_after(self, frame: EncodedFrame) -> int:
        """Return how long the sealed segment would be at most with `frame` in it."""
        seal_bytes = _SEAL_BYTES + _INDEX_ENTRY_BYTES * (len(self._index) + 1)
        return self.offset + len(frame.data) + seal_bytes

    def write(self, frame: EncodedFrame, count: int) -> None:
        """Return once `frame`, with `count` records, is durable."""
        offset = self.offset
        self._put(frame.data, data_only=True)
        if not self._index or offset - self._index[-1][2] >= _INDEX_EVERY_BYTES:
            self._index.append((self.lsn, self.position, offset))
        self._encoder.advance(frame)
        self.position += count

    def seal(self, flags: int, wall_ns: int) -> SealedSegment:
        """Write the footer, cut the file to its exact size, and close it."""
        footer = Seal(
            frames=self.lsn - self.entry.first_lsn,
            records=self.position - self.entry.first_position,
            chain=self.chain,
            index=tuple(self._index),
        )
        frame = self.encode(msgspec.msgpack.encode(footer), 0, flags | Flag.SEAL, wall_ns)
        self._put(frame.data, data_only=True)
        self._encoder.advance(frame)
        self._files.resize(self._handle, self.offset)
        self._files.sync(self._handle)
        self.close()
        return SealedSegment(
            **msgspec.structs.asdict(self.entry),
            last_lsn=self.lsn - 1,
            last_position=self.position - 1,
            size=self.offset,
            sha256=self._hash.digest(),
            after=self.chain,
            wall_ns=wall_ns,
        )

    def sync_again(self) -> None:
        """Fail if the segment was removed, as when another writer took over."""
        self._files.sync(self._handle, data_only=True)

    def close(self) -> None:
        """Give the file back as it is, once."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._files.close(handle)

    def _put(self, data: bytes, *, data_only: bool) -> None:
        write_all(self._files, self._handle, data, self.offset)
        started = perf_counter_ns()
        self._files.sync(self._handle, data_only=data_only)
        self.sync_ns = perf_counter_ns() - started
        self._hash.update(data)
        self.offset += len(data)


def begin_segment(
    files: Files, spare: Path, directory: Path, header: SegmentHeader, level: int
) -> SegmentWriter:
    """Turn a spare into the next segment: name, header, sync. The MANIFEST is the caller's."""
    path = directory / file_name(header.first_lsn, header.epoch, SEGMENT_SUFFIX)
    files.rename(spare, path)
    writer = SegmentWriter(files, path, header, level)
    try:
        sync_directory(files, directory)
    except BaseException:
        writer.close()
        raise
    return writer
