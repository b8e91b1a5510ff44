"""Pack a sealed segment: the same records in fewer, larger frames, in a file that takes its place.

The one rule: the file is written aside, synced, read back from the disk and compared record for
record with the original before anybody may adopt it; and the original goes only after the MANIFEST
names the new one. Packing is never needed: whatever fails before that leaves the original as it is.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Generic, NamedTuple

import msgspec

from wal.codec import DECODE_FAULTS, Codec, Position, R, codec_for
from wal.errors import CorruptLogError, WalError
from wal.files import Files, How, sync_directory, write_all
from wal.format import (
    PACKED_SUFFIX,
    RAW_BYTES_MAX,
    SEGMENT_SUFFIX,
    SEGMENTS,
    TEMPORARY,
    Flag,
)
from wal.frame import BadFrame, FrameEncoder, FrameHeader
from wal.manifest import Manifest, SealedSegment, read_manifest
from wal.replay import Cursor, Extent, Place
from wal.segment import Frame, SegmentScan, Source, encode_segment_header
from wal.writer import Seal

_LEVEL = 9
_RECORDS_MAX = 512
"""Records put into one frame: what a single flipped bit can make unreadable. Eight times as many
would save one byte each."""

_PLAIN_BYTES_MAX = RAW_BYTES_MAX // 2
"""Payloads put into one frame, before packing; half the limit, so that none outgrows it."""
_INDEX_EVERY_BYTES = 256 << 10
_READ_BYTES = 1 << 20


class PackingError(WalError):
    """A segment could not be packed, or did not come back as it was. Nothing was changed."""


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A packed segment that waits, under the name `temporary`, to be adopted as `entry`."""

    entry: SealedSegment
    temporary: str


def packed_name(name: str) -> str:
    """Return the name of the packed form of a segment."""
    return name.removesuffix(SEGMENT_SUFFIX) + PACKED_SUFFIX


def other_form(name: str) -> str:
    """Return the name of the form that a named segment is not in."""
    if name.endswith(PACKED_SUFFIX):
        return name.removesuffix(PACKED_SUFFIX) + SEGMENT_SUFFIX
    return packed_name(name)


def pack(
    files: Files,
    directory: Path,
    name: str,
    codec: Callable[[], Codec[R]],
    keep_going: Callable[[], None] = lambda: None,
) -> Packed | None:
    """Write the packed form of a sealed segment beside it. Needs no lock; a writer may be at work.

    Args:
        files: the disk.
        directory: of the log.
        name: the segment.
        codec: the log's.
        keep_going: called now and then; what it raises ends the work.

    Returns:
        What `adopt` takes; None when the packed form is not smaller.

    Raises:
        CorruptLogError: the segment is damaged.
        PackingError: it cannot be packed, or did not come back as it was.
        OSError: the disk refused.
    """
    manifest = read_manifest(files, directory)
    entry = next((one for one in manifest.sealed if one.name == name and not one.packed), None)
    if entry is None:
        raise PackingError(f"{name} is no segment that can be packed")
    place = Place(files, directory, manifest.shard_id, None)
    temporary = f"{packed_name(name)}.{manifest.epoch:08x}{TEMPORARY}"
    path = directory / SEGMENTS / temporary
    if temporary in files.scan(path.parent):
        files.unlink(path)
    cuts = frozenset(snapshot.lsn for snapshot in manifest.snapshots)
    try:
        packer = _Packer(place, entry, codec, path)
        try:
            packer.run(cuts, keep_going)
        finally:
            packer.close()
        packed = packer.entry()
        keep_going()
        if packed.size >= entry.size:
            files.unlink(path)
            return None
        _check_disk(files, path, packed)
        _compare(place, codec, entry, msgspec.structs.replace(packed, name=temporary), keep_going)
    except BaseException:
        _remove(files, path)
        raise
    return Packed(entry=packed, temporary=temporary)


def adopt(files: Files, directory: Path, manifest: Manifest, packed: Packed) -> Manifest | None:
    """Give a packed segment its name; return the MANIFEST that has it in the original's place.

    The caller writes the MANIFEST and removes the original after. None when the log has changed
    meanwhile and the packed form is of no use; it is removed then.

    Raises:
        OSError: the disk refused.
    """
    segments = directory / SEGMENTS
    size = files.scan(segments).get(packed.temporary)
    old = next((one for one in manifest.sealed if _is_original(one, packed.entry)), None)
    if old is None or size != packed.entry.size:
        if size is not None:
            files.unlink(segments / packed.temporary)
        return None
    files.rename(segments / packed.temporary, directory / packed.entry.path)
    sync_directory(files, segments)
    sealed = tuple(packed.entry if one is old else one for one in manifest.sealed)
    return msgspec.structs.replace(manifest, sealed=sealed)


def _is_original(one: SealedSegment, packed: SealedSegment) -> bool:
    return packed == msgspec.structs.replace(
        one,
        name=packed_name(one.name),
        size=packed.size,
        sha256=packed.sha256,
        packed_chain=packed.packed_chain,
        plain_bytes=one.size,
    )


class _Run(NamedTuple):
    """What goes into the next frame: the frames after one another, up to `last`."""

    position: Position
    flags: int
    last: FrameHeader
    log_chain: bytes
    records: list[object]
    plain_bytes: int


class _Packer(Generic[R]):
    """Writes one packed segment, frame by frame, from the frames of the original."""

    def __init__(
        self, place: Place, original: SealedSegment, codec: Callable[[], Codec[R]], path: Path
    ) -> None:
        self._files = place.files
        self._original = original
        self._old, self._new = codec(), codec_for(codec, packed=True)
        self._hash = sha256()
        self._size = 0
        self._index: list[tuple[int, int, int]] = []
        self._next_lsn = original.first_lsn
        self._source = Source(place.files, place.directory / original.path)
        self._handle = -1
        try:
            self._scan = SegmentScan(self._source, original.link(place.shard_id))
            self._handle = place.files.open(path, How.CREATE)
        except BaseException:
            self._source.close()
            raise
        self._encoder = FrameEncoder(
            original.epoch, original.number, original.first_lsn, original.before, _LEVEL
        )

    def run(self, cuts: frozenset[int], keep_going: Callable[[], None]) -> None:
        """Write all of it and sync. A frame ends behind each of `cuts`, so that it can be found."""
        header = msgspec.structs.replace(
            self._scan.header, packed=True, segment_id=self._files.random_bytes(16)
        )
        self._put(encode_segment_header(header))
        run: _Run | None = None
        while self._scan.lsn <= self._original.last_lsn:
            frame, first = self._frame()
            if frame.header.flags & Flag.SEAL:
                if run is not None:
                    self._write(run)
                self._seal(frame)
                break
            if run is not None and (run.last.lsn in cuts or not _has_room(run, frame)):
                self._write(run)
                keep_going()
                run = None
            run = self._joined(run, frame, first)
        else:
            if run is not None:
                self._write(run)
        self._files.sync(self._handle)

    def entry(self) -> SealedSegment:
        """Return what the MANIFEST will say."""
        return msgspec.structs.replace(
            self._original,
            name=packed_name(self._original.name),
            size=self._size,
            sha256=self._hash.digest(),
            packed_chain=self._encoder.chain,
            plain_bytes=self._original.size,
        )

    def close(self) -> None:
        """Give both files back."""
        self._source.close()
        self._files.close(self._handle)

    def _frame(self) -> tuple[Frame, Position]:
        first = Position(self._scan.position)
        try:
            return self._scan.next(), first
        except BadFrame as bad:
            raise CorruptLogError(self._scan.name, self._scan.offset, bad.reason) from bad

    def _joined(self, run: _Run | None, frame: Frame, first: Position) -> _Run:
        header = frame.header
        if run is None:
            run = _Run(first, header.flags & Flag.EPOCH_START, header, b"", [], 0)
        if header.records:
            try:
                run.records.extend(self._old.decode(first, header.records, frame.payload))
            except DECODE_FAULTS as error:
                reason = f"the codec does not take the payload: {error!r}"
                raise CorruptLogError(self._scan.name, frame.offset, reason) from error
        return run._replace(
            last=header,
            log_chain=self._scan.log_chain,
            plain_bytes=run.plain_bytes + header.raw_bytes,
        )

    def _write(self, run: _Run) -> None:
        flags, raw = run.flags, run.log_chain
        if run.records:
            raw += self._new.encode(run.position, run.records)  # type: ignore[arg-type]
        else:
            flags |= Flag.WATERMARK
        if len(raw) > RAW_BYTES_MAX:
            raise PackingError(f"a packed frame of {len(raw)} bytes; 1 MiB is most")
        if not self._index or self._size - self._index[-1][2] >= _INDEX_EVERY_BYTES:
            self._index.append((self._next_lsn, run.position, self._size))
        self._frame_out(raw, len(run.records), flags, run.last)

    def _seal(self, frame: Frame) -> None:
        original = self._original
        footer = Seal(
            frames=self._next_lsn - original.first_lsn,
            records=original.last_position - original.first_position + 1,
            chain=self._encoder.chain,
            index=tuple(self._index),
        )
        raw = self._scan.log_chain + msgspec.msgpack.encode(footer)
        self._frame_out(raw, 0, frame.header.flags & (Flag.SEAL | Flag.EPOCH_START), frame.header)

    def _frame_out(self, raw: bytes, count: int, flags: int, last: FrameHeader) -> None:
        self._encoder.lsn = last.lsn
        frame = self._encoder.encode(raw, count, flags | Flag.PACKED, last.wall_ns)
        self._put(frame.data)
        self._encoder.advance(frame)
        self._next_lsn = last.lsn + 1

    def _put(self, data: bytes) -> None:
        write_all(self._files, self._handle, data, self._size)
        self._hash.update(data)
        self._size += len(data)


def _has_room(run: _Run, frame: Frame) -> bool:
    return (
        len(run.records) + frame.header.records <= _RECORDS_MAX
        and run.plain_bytes + frame.header.raw_bytes <= _PLAIN_BYTES_MAX
    )


def _check_disk(files: Files, path: Path, packed: SealedSegment) -> None:
    """Read the file back, past the cache, and compare its hash with what was written."""
    handle = files.open(path, How.DISK)
    try:
        digest = sha256()
        for offset in range(0, packed.size, _READ_BYTES):
            digest.update(files.read(handle, min(_READ_BYTES, packed.size - offset), offset))
    finally:
        files.close(handle)
    if digest.digest() != packed.sha256:
        raise PackingError(f"{path.name}: the disk gives back other bytes than were written")


def _compare(
    place: Place,
    codec: Callable[[], Codec[R]],
    old: SealedSegment,
    new: SealedSegment,
    keep_going: Callable[[], None],
) -> None:
    """Read both forms as any reader would, and compare every record."""
    with (
        closing(_records(place, codec, old)) as before,
        closing(_records(place, codec, new)) as after,
    ):
        for one, other in zip_longest(before, after):
            if one != other:
                raise PackingError(f"{old.name}: {one} is {other} when it is packed")
            if one[0] % _RECORDS_MAX == 0:
                keep_going()


def _records(
    place: Place, codec: Callable[[], Codec[R]], entry: SealedSegment
) -> Generator[tuple[int, R]]:
    cursor = Cursor(place, codec, Position(entry.first_position))
    try:
        for first, records in cursor.batches([Extent(entry, entry.last_lsn)]):
            yield from enumerate(records, first)
    finally:
        cursor.close()


def _remove(files: Files, path: Path) -> None:
    try:
        files.unlink(path)
    except OSError:
        return  # the next start of the log removes it
