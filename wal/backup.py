"""Copy a log whole while its writer is at work, and put such a copy back.

The one rule: a copy gets its MANIFEST last, when every byte the MANIFEST names was checked against
the hash it must have, synced, and read back from the disk. Without one it is no log.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from wal.errors import CorruptLogError, WalError
from wal.files import Files, How, OsFiles, sync_directory, write_all
from wal.format import ARCHIVE, LOCK_NAME, QUARANTINE, SEGMENTS, SNAPSHOTS
from wal.frame import BadFrame
from wal.lock import take_lock
from wal.manifest import (
    Manifest,
    SealedSegment,
    SegmentEntry,
    SnapshotEntry,
    read_manifest,
    write_manifest,
)
from wal.recovery import prepare_directories
from wal.replay import is_proven
from wal.segment import SegmentScan, Source
from wal.snapshots.lineage import whole

EPOCHS_ASIDE = 1 << 16
"""How far the epoch of a log that was put back lies above that of its copy. The log it was copied
from may go on elsewhere, one epoch a start; frames of the two are then never taken for each other.
"""

_COPY_BYTES = 1 << 20
_TRIES = 8
"""How often files are looked up again that a writer at work replaced or let go meanwhile."""

Progress = Callable[[int, int], None]
"""Told the bytes copied so far and the bytes in all."""


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy holds.

    Attributes:
        shard_id: whose log it is.
        epoch: the next start writes under a higher one.
        last_lsn: the newest frame.
        last_position: the newest record; what was committed later is not in the copy.
        wall_ns: when the newest frame was written, ns since 1970.
        segments: files of the log.
        snapshots: checkpoints that came along.
        snapshots_left: checkpoints of the source that do not check out, and stayed behind.
        bytes: size of all files.
    """

    shard_id: int
    epoch: int
    last_lsn: int
    last_position: int
    wall_ns: int
    segments: int
    snapshots: int
    snapshots_left: tuple[str, ...]
    bytes: int


class LogCopy:
    """A copy of the log in `source`, made in `target`: `copy_files`, then `finish`.

    Between the two several logs can be brought to the same point, so that none of a set is ever
    usable before all of it is there.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        progress: Progress | None = None,
        files: Files | None = None,
    ) -> None:
        """Name the two directories; nothing is read yet."""
        self._files = files or OsFiles()
        self._source = Path(source)
        self._target = Path(target)
        self._progress = progress or _silent
        self._copied: dict[str, tuple[int, bytes]] = {}
        self._left: list[str] = []
        self._done = self._total = 0
        self._manifest: Manifest | None = None
        self._lock = -1

    def copy_files(self) -> None:
        """Copy everything but the MANIFEST. The source needs no lock and may be written meanwhile.

        Raises:
            WalError: there is no log at the source, or the target is in use or holds one.
            CorruptLogError: a file of the source is not what its MANIFEST says.
            OSError: a disk refused.
        """
        self._claim_target()
        seen: Manifest | None = None
        for _ in range(_TRIES):
            manifest = self._read_manifest()
            try:
                self._manifest = self._copy(manifest)
                break
            except FileNotFoundError as error:
                if manifest == seen:
                    name = f"{Path(error.filename).parent.name}/{Path(error.filename).name}"
                    raise CorruptLogError(name, 0, "the file is missing") from error
                seen = manifest
        else:
            raise WalError(f"{self._source} changes faster than it can be copied")
        self._drop_what_is_not_named(self._manifest)
        for part in (SEGMENTS, SNAPSHOTS):
            sync_directory(self._files, self._target / part)

    def finish(self, *, epochs_aside: int = 0) -> CopyReport:
        """Write the MANIFEST, which makes the copy a log, and let go of it.

        Args:
            epochs_aside: how much higher the epoch is to be than that of the source.
        """
        if self._manifest is None:
            raise WalError("nothing was copied")
        manifest = msgspec.structs.replace(
            self._manifest, epoch=self._manifest.epoch + epochs_aside
        )
        write_manifest(self._files, self._target, manifest)
        self.close()
        last = manifest.sealed[-1] if manifest.sealed else None
        return CopyReport(
            shard_id=manifest.shard_id,
            epoch=manifest.epoch,
            last_lsn=last.last_lsn if last else 0,
            last_position=last.last_position if last else 0,
            wall_ns=manifest.wall_ns,
            segments=len(manifest.sealed),
            snapshots=len(manifest.snapshots),
            snapshots_left=tuple(self._left),
            bytes=sum(size for size, _ in self._copied.values()),
        )

    def close(self) -> None:
        """Let go of the target, finished or not."""
        if self._lock >= 0:
            handle, self._lock = self._lock, -1
            self._files.close(handle)

    def _claim_target(self) -> None:
        """Hold the target alone, and see that nothing is in it."""
        self._lock = take_lock(self._files, self._target)
        prepare_directories(self._files, self._target)
        present = set(self._files.scan(self._target)) - {LOCK_NAME}
        for part in (SEGMENTS, SNAPSHOTS, QUARANTINE, ARCHIVE):
            present.update(self._files.scan(self._target / part))
        if present:
            raise WalError(f"{self._target} is not empty: {', '.join(sorted(present)[:3])}")

    def _read_manifest(self) -> Manifest:
        try:
            return read_manifest(self._files, self._source)
        except FileNotFoundError as error:
            raise WalError(f"no log in {self._source}") from error

    def _copy(self, manifest: Manifest) -> Manifest:
        """Copy what `manifest` names; return the MANIFEST of the copy, which has no live segment.

        Raises:
            FileNotFoundError: the writer let go of a file since the MANIFEST was read.
        """
        prefix, wall_ns = self._prefix(manifest)
        sealed = (*manifest.sealed, *((prefix,) if prefix is not None else ()))
        wanted = (*sealed, *manifest.snapshots)
        self._total = sum(entry.size for entry in wanted)
        self._done = 0
        for segment in sealed:
            if not self._brought(segment.path, segment.size, segment.sha256):
                reason = "hash of the segment; `verify` names the place"
                raise CorruptLogError(segment.path, 0, reason)
        snapshots = whole(entry for entry in manifest.snapshots if self._snapshot(entry))
        self._left = sorted({entry.path for entry in manifest.snapshots if entry not in snapshots})
        return msgspec.structs.replace(
            manifest,
            sealed=sealed,
            live=None,
            snapshots=snapshots,
            durable_lsn=sealed[-1].last_lsn if sealed else 0,
            wall_ns=max(manifest.wall_ns, wall_ns),
        )

    def _snapshot(self, entry: SnapshotEntry) -> bool:
        # One that rotted is no reason to be without a backup: it can be made again from the log.
        return self._brought(entry.path, entry.size, entry.sha256)

    def _brought(self, path: str, size: int, digest: bytes) -> bool:
        """Copy the first `size` bytes of a file unless that was done; say whether they are right.

        Raises:
            CorruptLogError: the disk of the copy gave back other bytes than it was given.
        """
        if self._copied.get(path) != (size, digest):
            target = self._target / path
            if path in self._copied:
                self._files.unlink(target)
            if self._copy_bytes(path, size) != digest:
                self._files.unlink(target)
                self._copied.pop(path, None)
                return False
            self._copied[path] = (size, digest)
            if _digest(self._files, target) != digest:
                raise CorruptLogError(path, 0, "the disk of the copy gave back other bytes")
        else:
            self._tell(size)
        return True

    def _copy_bytes(self, path: str, size: int) -> bytes:
        """Copy and sync; return the SHA-256 of what was read."""
        whole = sha256()
        source = self._files.open(self._source / path, How.READ)
        try:
            target = self._files.open(self._target / path, How.CREATE)
            try:
                for offset in range(0, size, _COPY_BYTES):
                    piece = self._files.read(source, min(_COPY_BYTES, size - offset), offset)
                    whole.update(piece)
                    write_all(self._files, target, piece, offset)
                    self._tell(len(piece))
                self._files.sync(target)
            finally:
                self._files.close(target)
        finally:
            self._files.close(source)
        return whole.digest()

    def _prefix(self, manifest: Manifest) -> tuple[SealedSegment | None, int]:
        """Return the live segment as far as its frames are whole, and the time of its end."""
        entry = manifest.live
        if entry is None:
            return None, 0
        source = Source(self._files, self._source / entry.path)
        try:
            scan = SegmentScan(source, entry.link(manifest.shard_id))
            while _went_on(scan, manifest.durable_lsn):
                pass
            if scan.lsn == entry.first_lsn:
                return None, 0
            return _as_sealed(entry, scan, _prefix_digest(source, scan.offset)), scan.wall_ns
        finally:
            source.close()

    def _drop_what_is_not_named(self, manifest: Manifest) -> None:
        """Remove what was copied before the writer put something else in its place."""
        named = {entry.path for entry in manifest.sealed}
        named |= {entry.path for entry in manifest.snapshots}
        for path in set(self._copied) - named:
            self._files.unlink(self._target / path)
            del self._copied[path]

    def _tell(self, size: int) -> None:
        self._done += size
        self._progress(min(self._done, self._total), self._total)


def _went_on(scan: SegmentScan, durable_lsn: int) -> bool:
    """Go behind the next frame; False where the frames end.

    The newest frame counts as soon as it is whole, proven or not: its claims may have been answered
    this very moment. If a power cut takes it from the log itself, then nobody was.

    Raises:
        CorruptLogError: a frame that was durable does not check out.
    """
    try:
        scan.next()
    except BadFrame:
        # Being written when the window was filled, so nobody had an answer when the copy began: the
        # frames end here. Unless it was durable then; or is proven by now, and still not sound.
        scan.source.forget()
        if scan.lsn > durable_lsn and not is_proven(scan):
            return False
        try:
            scan.next()
        except BadFrame as bad:
            raise CorruptLogError(scan.name, scan.offset, bad.reason) from bad
        return scan.lsn <= durable_lsn
    return True


def _as_sealed(entry: SegmentEntry, scan: SegmentScan, digest: bytes) -> SealedSegment:
    return SealedSegment(
        **msgspec.structs.asdict(entry),
        last_lsn=scan.lsn - 1,
        last_position=scan.position - 1,
        size=scan.offset,
        sha256=digest,
        after=scan.chain,
    )


def _prefix_digest(source: Source, end: int) -> bytes:
    whole = sha256()
    for offset in range(0, end, _COPY_BYTES):
        whole.update(source.at(offset, min(_COPY_BYTES, end - offset)))
    return whole.digest()


def _digest(files: Files, path: Path) -> bytes:
    """Return the SHA-256 of a file as the disk, not the cache, has it."""
    whole = sha256()
    handle = files.open(path, How.DISK)
    try:
        offset = 0
        while piece := files.read(handle, _COPY_BYTES, offset):
            whole.update(piece)
            offset += len(piece)
    finally:
        files.close(handle)
    return whole.digest()


def _silent(done: int, total: int) -> None:
    """Tell nobody."""
