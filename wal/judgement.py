"""Judge what an unclean stop left behind: a torn tail, or damage to what was once acknowledged.

The one rule: a tail is torn only where nothing proves it durable. A frame is written only after the
sync of the one before returned, so the header of a later frame is such a proof, and so is every
number in the MANIFEST. Judging changes no file.

What a payload holds could look like a frame. It is looked into only when its own header is lost,
and then the worst it can do is to keep the log shut until somebody looks; it never opens it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from wal.errors import CorruptLogError
from wal.files import Files, How
from wal.format import ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_MAGIC
from wal.frame import BadFrame, FrameHeader, parse_header
from wal.manifest import Manifest, SegmentEntry
from wal.segment import WINDOW_BYTES, SegmentScan, Source, is_zero


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """The live segment after an unclean stop: a valid prefix, then `torn_bytes` to be cut.

    `lsn`, `position` and `chain` are those after the prefix; `end` is where it ends.
    """

    entry: SegmentEntry
    end: int
    lsn: int
    position: int
    chain: bytes
    wall_ns: int
    torn_bytes: int
    reason: str


def judge_live(files: Files, directory: Path, manifest: Manifest, codec_id: int) -> Tail | None:
    """Read the live segment from the disk and find where it ends; None when there is none.

    Raises:
        CorruptLogError: something behind the valid prefix was durable once.
    """
    entry = manifest.live
    if entry is None:
        return None
    path = directory / entry.path
    _sync_what_is_there(files, path, entry)
    source = Source(files, path, How.DISK)
    try:
        scan = SegmentScan(source, entry.link(manifest.shard_id))
        if scan.header.codec_id != codec_id:
            raise CorruptLogError(entry.path, 0, f"written by codec {scan.header.codec_id}")
        bad = run_to_the_end(scan)
        torn_bytes = judge_tail(scan, bad, manifest.known_durable_lsn)
    finally:
        source.close()
    return Tail(
        entry=entry,
        end=scan.offset,
        lsn=scan.lsn - 1,
        position=scan.position - 1,
        chain=scan.chain,
        wall_ns=scan.wall_ns,
        torn_bytes=torn_bytes,
        reason=bad.reason,
    )


def judge_tail(scan: SegmentScan, bad: BadFrame, known_durable_lsn: int) -> int:
    """Return how many bytes behind the prefix are to be cut, up to the last that is not zero.

    Raises:
        CorruptLogError: the frame `scan` stands before, which is `bad`, was durable once.
    """
    if bad.whole:
        raise CorruptLogError(scan.name, scan.offset, bad.reason)
    if known_durable_lsn >= scan.lsn:
        reason = f"{bad.reason}; frame {scan.lsn} is missing, {known_durable_lsn} was durable"
        raise CorruptLogError(scan.name, scan.offset, reason)
    search_from = scan.offset + _own_bytes(scan)
    end = scan.offset
    for offset, piece in _pieces(scan.source, scan.offset):
        end = offset + len(piece.rstrip(b"\0"))
        for header in _headers(scan.source, offset, piece, search_from):
            _weigh(scan, bad, header)
    if end - scan.offset > FRAME_BYTES_MAX:
        reason = f"{bad.reason}; more follows than one torn frame can leave"
        raise CorruptLogError(scan.name, scan.offset, reason)
    return end - scan.offset


def _weigh(scan: SegmentScan, bad: BadFrame, header: FrameHeader) -> None:
    """Refuse when `header`, found behind the bad frame, proves that one durable, or is foreign."""
    ours = header.epoch == scan.header.epoch and header.segment == scan.header.number
    if not ours or header.durable_lsn >= scan.lsn:
        reason = f"{bad.reason}; but frame {header.lsn} of epoch {header.epoch} follows"
        raise CorruptLogError(scan.name, scan.offset, reason)


def run_to_the_end(scan: SegmentScan) -> BadFrame:
    """Go through all frames that check out; return what is wrong with the one behind them."""
    while True:
        try:
            scan.next()
        except BadFrame as bad:
            return bad


def _own_bytes(scan: SegmentScan) -> int:
    """Return how far the bad frame itself reaches, as far as its header can be believed."""
    try:
        header = parse_header(scan.source.at(scan.offset, FRAME_HEADER_BYTES))
    except BadFrame:
        return ALIGNMENT
    return FRAME_HEADER_BYTES + header.body_bytes


def _pieces(source: Source, offset: int) -> Iterator[tuple[int, bytes]]:
    while piece := source.at(offset, WINDOW_BYTES):
        if not is_zero(piece):
            yield offset, piece
        offset += len(piece)


def _headers(source: Source, offset: int, piece: bytes, search_from: int) -> Iterator[FrameHeader]:
    """Yield the valid headers that begin in `piece`, at or behind `search_from`."""
    # Pieces begin on a boundary, as frames do, so a magic never lies across two of them.
    at = piece.find(FRAME_MAGIC, max(search_from - offset, 0))
    while at >= 0:
        if (offset + at) % ALIGNMENT == 0:
            with suppress(BadFrame):
                yield parse_header(source.at(offset + at, FRAME_HEADER_BYTES))
        at = piece.find(FRAME_MAGIC, at + 1)


def _sync_what_is_there(files: Files, path: Path, entry: SegmentEntry) -> None:
    """Make the cache and the disk agree, so that what is judged now is what stays."""
    try:
        handle = files.open(path, How.WRITE)
    except FileNotFoundError as error:
        raise CorruptLogError(entry.path, 0, "the live segment is missing") from error
    try:
        files.sync(handle)
    finally:
        files.close(handle)
