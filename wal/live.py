"""Run the end of the log that is written: frames, rotation, and the MANIFEST that names it all.

The one rule: no frame goes into a segment before the MANIFEST names it. No call here may follow
one that raised; `Log` sees to that.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Generic

import msgspec

from wal.codec import Codec, Measured, Position, R, cut
from wal.files import Files
from wal.format import RAW_BYTES_MAX, RECORDS_PER_FRAME_MAX, SEGMENTS, Flag
from wal.frame import EncodedFrame, genesis
from wal.lock import check_lock
from wal.manifest import Manifest, SealedSegment, SegmentEntry, SnapshotEntry, write_manifest
from wal.options import LogOptions
from wal.pack import Packed, adopt
from wal.replay import Extent
from wal.segment import SegmentHeader
from wal.snapshots.lineage import kept
from wal.spare import Spare
from wal.statistics import Counters, LogStatistics
from wal.writer import SegmentWriter, begin_segment

_NS_PER_S = 1_000_000_000
_TOLD_AFTER_NS = _NS_PER_S
"""A MANIFEST costs some milliseconds, so it is not for the pauses between two claims."""


class Live(Generic[R]):
    """The writing end of one log.

    Attributes:
        manifest: as it is on disk.
        counters: what was done so far.
    """

    def __init__(
        self,
        files: Files,
        directory: Path,
        options: LogOptions,
        codec: Callable[[], Codec[R]],
        manifest: Manifest,
    ) -> None:
        """Begin the first segment of a new epoch and name it in the MANIFEST.

        `manifest` is what recovery made of the log: without a live segment, not written yet.
        """
        self._files = files
        self._directory = directory
        self._options = options
        self._make_codec = codec
        self._use_codec(codec())
        self._wall_ns = manifest.wall_ns
        self._epoch_begun = False
        self._unproven = False
        self.counters = Counters()
        self._spare = Spare(files, directory / SEGMENTS, options.segment_bytes)
        self._writer = self._begin(manifest, self._spare.take())
        self.manifest = manifest
        try:
            self._keep(msgspec.structs.replace(manifest, live=self._writer.entry))
        except BaseException:
            self._writer.close()
            raise

    @property
    def last(self) -> Position:
        """The newest record that is durable."""
        return Position(self._writer.position - 1)

    @property
    def last_lsn(self) -> int:
        """The newest frame, which is durable."""
        return self._writer.lsn - 1

    @property
    def chain(self) -> bytes:
        """The chain value after the newest frame."""
        return self._writer.chain

    @property
    def unproven(self) -> bool:
        """Whether the newest frame holds records, so that no later frame proves it durable."""
        return self._unproven

    def extents(self) -> tuple[tuple[SealedSegment, ...], Extent]:
        """Return the sealed segments, and how far the live one may be read."""
        return self.manifest.sealed, Extent(self._writer.entry, self.last_lsn)

    def statistics(self) -> LogStatistics:
        """Return the counts as they are now."""
        return self.counters.freeze(self._spare.failures, self._spare.error)

    def write(self, records: Sequence[R]) -> None:
        """Return once `records` are durable, in as many frames as the limits ask for."""
        if self._age_ns() > self._options.segment_age_s * _NS_PER_S and not self._writer.empty:
            self._rotate()
        written = 0
        while written < len(records):
            chunk = records[written : written + RECORDS_PER_FRAME_MAX]
            chunk = chunk[: cut(self._measure, chunk)]
            frame, raw_bytes, count = self._encode(chunk)
            self._write(frame, raw_bytes, count)
            self._unproven = True
            written += count
        self._begin_spare_in_time()

    def watermark(self) -> None:
        """Write a frame without records, which proves the one before it durable."""
        frame = self._writer.encode(b"", 0, self._flags() | Flag.WATERMARK, self._clock())
        if not self._fits(frame):
            self._rotate()  # the seal is a later frame as well
            return
        self._write(frame, 0, 0)
        self.counters.watermarks += 1
        self._unproven = False

    def tell_manifest_in_time(self) -> None:
        """Say in the MANIFEST how far the live segment goes, once nothing came for a second.

        A block that is lost with the newest frames takes the frame that proves them along; another
        file must know of them.
        """
        if (
            self.last_lsn > self.manifest.known_durable_lsn
            and self._files.now_ns() - self._wall_ns >= _TOLD_AFTER_NS
        ):
            self._writer.sync_again()  # or the MANIFEST may be another writer's by now
            durable = {"durable_lsn": self.last_lsn, "wall_ns": self._wall_ns}
            self._keep(msgspec.structs.replace(self.manifest, **durable))

    def add_snapshot(self, entry: SnapshotEntry) -> None:
        """Name a snapshot that was verified, then remove those that are too old."""
        snapshots = kept((*self.manifest.snapshots, entry), self._options.snapshots_kept)
        gone = set(self.manifest.snapshots) - set(snapshots)
        self._keep(
            msgspec.structs.replace(self.manifest, snapshots=snapshots, durable_lsn=self.last_lsn)
        )
        self.counters.snapshots += 1
        self.counters.snapshot_bytes += entry.size
        self._unlink(gone)

    def cut(self, below: SnapshotEntry) -> int:
        """Let go of the sealed segments that lie wholly below a snapshot that was just verified.

        The newest sealed segment stays: the next start continues its numbers and its chain.

        Returns:
            How many segments went.
        """
        manifest = self.manifest
        left = tuple(one for one in manifest.sealed[:-1] if one.last_lsn > below.lsn)
        left += manifest.sealed[-1:]
        gone = manifest.sealed[: len(manifest.sealed) - len(left)]
        if not gone:
            return 0
        retained_lsn = left[0].first_lsn
        # An older snapshot leads nowhere once the log behind it is gone.
        snapshots = tuple(
            one for one in manifest.snapshots if one.lsn > below.lsn or one.name == below.name
        )
        old = set(manifest.snapshots) - set(snapshots)
        self._keep(
            msgspec.structs.replace(
                manifest, sealed=left, snapshots=snapshots, retained_lsn=retained_lsn
            )
        )
        self.counters.segments_cut += len(gone)
        self._unlink((*gone, *old))
        return len(gone)

    def adopt(self, packed: Packed) -> bool:
        """Name a packed segment in the place of the original, whose file the caller removes."""
        manifest = adopt(self._files, self._directory, self.manifest, packed)
        if manifest is not None:
            self._keep(manifest)
        return manifest is not None

    def close(self) -> None:
        """Seal the live segment, or drop it when it holds nothing."""
        self._spare.close()
        entry = self._writer.entry
        if not self._writer.empty:
            self._keep(self._with_sealed())
            return
        self._writer.close()
        self._keep(msgspec.structs.replace(self.manifest, live=None, wall_ns=self._wall_ns))
        self._files.unlink(self._directory / entry.path)

    def abandon(self) -> None:
        """Let go of all files as they are."""
        self._spare.abandon()
        self._writer.close()

    def _unlink(self, gone: Iterable[SegmentEntry | SnapshotEntry]) -> None:
        for entry in gone:
            path = self._directory / entry.path
            if path.name in self._files.scan(path.parent):  # an old snapshot may have been lost
                self._files.unlink(path)

    def _encode(self, records: Sequence[R]) -> tuple[EncodedFrame, int, int]:
        """Return a frame that fits here, its raw size, and how many of `records` it holds.

        A codec remembers what it has encoded, so what it encoded in vain is never written with the
        same instance: the rest goes to a fresh one, in a segment of its own.
        """
        while True:
            raw = self._codec.encode(Position(self._writer.position), records)
            if len(raw) <= RAW_BYTES_MAX:
                frame = self._writer.encode(raw, len(records), self._flags(), self._clock())
                if self._writer.empty or self._fits(frame):
                    return frame, len(raw), len(records)
            elif len(records) == 1:
                raise ValueError(f"one record makes a payload of {len(raw)} bytes; 1 MiB is most")
            else:
                records = records[: len(records) // 2]
            if self._writer.empty:
                self._use_codec(self._make_codec())
            else:
                self._rotate()

    def _fits(self, frame: EncodedFrame) -> bool:
        return self._writer.end_after(frame) <= self._options.segment_bytes

    def _write(self, frame: EncodedFrame, raw_bytes: int, count: int) -> None:
        self._writer.write(frame, count)
        self._epoch_begun = True
        self.counters.add_frame(len(frame.data), raw_bytes, count, self._writer.sync_ns)

    def _rotate(self) -> None:
        # The spare comes first: where there is no room for it, nothing has changed yet.
        spare = self._spare.take()
        manifest = self._with_sealed()
        self._writer = self._begin(manifest, spare)
        self._use_codec(self._make_codec())
        self._keep(msgspec.structs.replace(manifest, live=self._writer.entry))
        self.counters.rotations += 1

    def _with_sealed(self) -> Manifest:
        """Seal the live segment; return a MANIFEST that has it among the sealed ones."""
        offset = self._writer.offset
        sealed = self._writer.seal(self._flags(), self._clock())
        self.counters.add_frame(self._writer.offset - offset, 0, 0, self._writer.sync_ns)
        self._unproven = False
        return msgspec.structs.replace(
            self.manifest,
            sealed=(*self.manifest.sealed, sealed),
            live=None,
            durable_lsn=sealed.last_lsn,
            wall_ns=self._wall_ns,
        )

    def _begin(self, manifest: Manifest, spare: Path) -> SegmentWriter:
        before = manifest.sealed[-1] if manifest.sealed else None
        header = SegmentHeader(
            shard_id=manifest.shard_id,
            epoch=manifest.epoch,
            number=before.number + 1 if before else 1,
            first_lsn=before.last_lsn + 1 if before else 1,
            first_position=before.last_position + 1 if before else 1,
            created_ns=self._files.now_ns(),
            segment_id=self._files.random_bytes(16),
            chain=before.after if before else genesis(manifest.shard_id),
            codec_id=self._options.codec_id,
            schema_version=self._options.schema_version,
        )
        directory = self._directory / SEGMENTS
        return begin_segment(self._files, spare, directory, header, self._options.zstd_level)

    def _keep(self, manifest: Manifest) -> None:
        is_ours = partial(check_lock, self._files, self._directory, manifest.epoch)
        write_manifest(self._files, self._directory, manifest, is_ours)
        self.manifest = manifest

    def _use_codec(self, codec: Codec[R]) -> None:
        self._codec = codec
        self._measure = codec.measure if isinstance(codec, Measured) else None

    def _flags(self) -> int:
        return 0 if self._epoch_begun else Flag.EPOCH_START

    def _clock(self) -> int:
        """Return the wall clock, held where it would fall."""
        now = self._files.now_ns()
        if now < self._wall_ns:
            self.counters.clock_steps_back += 1
        self._wall_ns = max(now, self._wall_ns)
        return self._wall_ns

    def _age_ns(self) -> int:
        return self._files.now_ns() - self._writer.created_ns

    def _begin_spare_in_time(self) -> None:
        """Have the next segment prepared well before it is needed, and not for a log that idles."""
        if self._options.spare_in_background and (
            self._writer.offset * 4 > self._options.segment_bytes
            or self._age_ns() * 2 > self._options.segment_age_s * _NS_PER_S
        ):
            self._spare.begin()
