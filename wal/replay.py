"""Read records in the order of their positions, from sealed segments and from the live one.

The one rule: nothing is yielded that is not proven durable, and nothing that does not check out.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NamedTuple

from wal.codec import DECODE_FAULTS, Codec, Position, R, Skipping, codec_for
from wal.errors import CorruptLogError, CutLogError
from wal.files import Files
from wal.format import FRAME_HEADER_BYTES
from wal.frame import BadFrame, parse_header
from wal.manifest import SegmentEntry
from wal.segment import Frame, SegmentScan, Source


class Place(NamedTuple):
    """Which log is read. `codec_id` None: whatever wrote it."""

    files: Files
    directory: Path
    shard_id: int
    codec_id: int | None


class Extent(NamedTuple):
    """A segment, and the newest of its frames that is known to be durable.

    `growing`: it is live and written by another process; what follows `end_lsn` is read as far as
    the frames themselves prove each other.
    """

    entry: SegmentEntry
    end_lsn: int
    growing: bool = False


class Cursor(Generic[R]):
    """A place in the log that moves on as `batches` is iterated, and stays good while it grows."""

    def __init__(self, place: Place, codec: Callable[[], Codec[R]], start: Position) -> None:
        self._place = place
        self._make_codec = codec
        self._start = start
        self._codec = codec()
        self._skipping: Skipping | None = None
        self._scan: SegmentScan | None = None

    def batches(self, extents: Sequence[Extent]) -> Iterator[tuple[Position, list[R]]]:
        """Yield the records of each frame, with the position of the first, from where it stands.

        Args:
            extents: all segments, oldest first, as they are now.

        Raises:
            CorruptLogError: a durable frame does not check out.
            CutLogError: the place lies before the oldest segment that is kept.
        """
        for extent in extents[self._index(extents) :]:
            scan = self._enter(extent)
            while self._more(scan, extent):
                first = scan.position
                frame = self._next(scan, extent)
                if scan.position <= self._start and self._skip(scan, frame, first):
                    continue
                records = self._decode(scan, frame, first)
                if first < self._start:
                    records = records[self._start - first :]
                    first = self._start
                if records:
                    self._start = Position(first + len(records))
                    yield Position(first), records

    def close(self) -> None:
        """Give back the file it stands in."""
        if self._scan is not None:
            self._scan.source.close()
            self._scan = None

    def _index(self, extents: Sequence[Extent]) -> int:
        if self._scan is None:
            by_position = [extent.entry.first_position for extent in extents]
            index = bisect_right(by_position, self._start) - 1
        else:
            index = bisect_right([extent.entry.first_lsn for extent in extents], self._scan.lsn) - 1
        if index < 0 and extents:
            raise CutLogError(extents[0].entry.first_position)
        return max(index, 0)

    def _enter(self, extent: Extent) -> SegmentScan:
        """Stand in the segment; go on in it when it is the one we are in.

        A start of the log may have put the segment into another file; the bytes are the same.
        """
        scan = self._scan
        if scan is not None:
            here = (scan.header.number, scan.header.epoch)
            # Not the number alone: a segment that never held a frame leaves it to the next one.
            if here == (extent.entry.number, extent.entry.epoch):
                scan.source.forget()
                return scan
        self.close()
        source = Source(self._place.files, self._place.directory / extent.entry.path)
        try:
            scan = SegmentScan(source, extent.entry.link(self._place.shard_id))
            if self._place.codec_id not in (None, scan.header.codec_id):
                raise CorruptLogError(scan.name, 0, f"written by codec {scan.header.codec_id}")
        except BaseException:
            source.close()
            raise
        self._scan = scan
        self._codec = codec_for(self._make_codec, scan.header.packed)
        self._skipping = self._codec if isinstance(self._codec, Skipping) else None
        return scan

    def _more(self, scan: SegmentScan, extent: Extent) -> bool:
        return scan.lsn <= extent.end_lsn or (extent.growing and is_proven(scan))

    def _next(self, scan: SegmentScan, extent: Extent) -> Frame:
        try:
            try:
                return scan.next()
            except BadFrame:
                if not extent.growing:
                    raise
                # The window may have been filled while the frame was being written. It was written
                # before the frame that proves it, so it is whole when read again.
                scan.source.forget()
                return scan.next()
        except BadFrame as bad:
            raise CorruptLogError(scan.name, scan.offset, bad.reason) from bad

    def _skip(self, scan: SegmentScan, frame: Frame, first: int) -> bool:
        """Pass a frame that lies before the start; whether that could be done without decoding."""
        if self._skipping is None:
            return False
        if frame.header.records:
            with _judged(scan, frame):
                self._skipping.skip(Position(first), frame.header.records, frame.payload)
        return True

    def _decode(self, scan: SegmentScan, frame: Frame, first: int) -> list[R]:
        count = frame.header.records
        if not count:
            return []
        with _judged(scan, frame):
            records = self._codec.decode(Position(first), count, frame.payload)
        if len(records) != count:
            reason = f"{len(records)} records where the header says {count}"
            raise CorruptLogError(scan.name, frame.offset, reason)
        return records


@contextmanager
def _judged(scan: SegmentScan, frame: Frame) -> Iterator[None]:
    """Let what a codec raises say that the frame is corrupt."""
    try:
        yield
    except DECODE_FAULTS as error:
        reason = f"the codec does not take the payload: {error!r}"
        raise CorruptLogError(scan.name, frame.offset, reason) from error


def is_proven(scan: SegmentScan) -> bool:
    """Say whether a later frame shows that the frame here reached the disk."""
    try:
        here = parse_header(scan.source.at(scan.offset, FRAME_HEADER_BYTES))
        behind = scan.offset + FRAME_HEADER_BYTES + here.body_bytes
        proof = parse_header(scan.source.at(behind, FRAME_HEADER_BYTES))
    except BadFrame:
        return False
    return proof.segment == scan.header.number and proof.durable_lsn >= scan.lsn
