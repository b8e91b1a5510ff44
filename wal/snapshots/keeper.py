"""Write snapshots beside the log: the writer goes on while a thread writes and reads them back.

The one rule: whatever the thread met, the writer meets when it settles the snapshot. A disk that
refuses a snapshot ends the log as one that refuses a frame does.
"""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic

from wal.codec import Position, R
from wal.errors import WalError
from wal.files import Files
from wal.format import SNAPSHOTS, SnapshotKind
from wal.live import Live
from wal.manifest import SnapshotEntry
from wal.replay import Place
from wal.snapshots.lineage import newest_lineage
from wal.snapshots.snapshot import (
    SnapshotPlace,
    name_snapshot,
    read_snapshot,
    verify_snapshot,
    write_snapshot,
)


class SnapshotJob:
    """One snapshot on its way to the disk."""

    def __init__(
        self, files: Files, directory: Path, place: SnapshotPlace, chunks: Iterable[bytes]
    ) -> None:
        self._files = files
        self._directory = directory
        self._place = place
        self._chunks = chunks
        self._entry: SnapshotEntry | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self, *, in_background: bool) -> None:
        """Write it, in a thread or before this returns."""
        if not in_background:
            self._run()
            return
        self._thread = threading.Thread(target=self._run, name="wal-snapshot", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self._thread is None or not self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join()

    def result(self) -> SnapshotEntry:
        """Return the snapshot once it is on the disk, read back, and has its name.

        Raises:
            BaseException: what the thread met.
        """
        self.join()
        if self._entry is None:
            raise self._error or WalError("this snapshot was never begun")
        return self._entry

    def _run(self) -> None:
        try:
            entry = write_snapshot(self._files, self._directory, self._place, self._chunks)
            name_snapshot(self._files, self._directory, entry)
            self._entry = entry
        except BaseException as error:  # the writer's to judge, in its own thread
            self._error = error


class SnapshotKeeper(Generic[R]):
    """The snapshots of one open log. One thread calls it: the writer's."""

    def __init__(
        self,
        live: Live[R],
        place: Place,
        verified: tuple[SnapshotEntry, ...],
        *,
        in_background: bool,
    ) -> None:
        """Go on from `verified`, the snapshots that were found good when the log was opened."""
        self._live = live
        self._place = place
        self._verified = frozenset(entry.name for entry in verified)
        self._tip_lsn = verified[-1].lsn if verified else None
        self._in_background = in_background
        self._job: SnapshotJob | None = None

    @property
    def under_way(self) -> bool:
        """Whether one was begun and is not settled yet."""
        return self._job is not None

    def begin(self, chunks: Iterable[bytes], *, increment: bool) -> None:
        """Begin a snapshot of the newest place; on top of the one before, if `increment`.

        Raises:
            WalError: one is under way, or there is none to build on.
        """
        if self._job is not None:
            raise WalError("a snapshot is under way")
        if increment and self._tip_lsn is None:
            raise WalError("there is no snapshot to build on")
        files, directory, shard_id, _ = self._place
        place = SnapshotPlace(
            shard_id=shard_id,
            epoch=self._live.manifest.epoch,
            lsn=self._live.last_lsn,
            position=self._live.last,
            chain=self._live.chain,
            kind=SnapshotKind.INCREMENT if increment else SnapshotKind.BASE,
            base_lsn=self._tip_lsn if increment and self._tip_lsn is not None else 0,
        )
        self._job = SnapshotJob(files, directory / SNAPSHOTS, place, chunks)
        self._job.begin(in_background=self._in_background)
        if not self._in_background:
            self.settle(wait=True)

    def settle(self, *, wait: bool) -> bool:
        """Name the snapshot under way in the MANIFEST, if it is written; wait for it if asked to.

        Returns:
            Whether none is under way any more.
        """
        job = self._job
        if job is not None and (wait or job.done):
            self._job = None
            entry = job.result()
            self._live.add_snapshot(entry)
            self._tip_lsn = entry.lsn
        return self._job is None

    def newest(self) -> list[tuple[Position, Iterator[bytes]]]:
        """Return a base and its increments, each with its place; empty when none verify."""
        files, directory, shard_id, _ = self._place
        found = newest_lineage(self._live.manifest.snapshots, self._fault_of)
        return [
            (Position(entry.position), read_snapshot(files, directory, entry, shard_id))
            for entry in found.entries
        ]

    def abandon(self) -> None:
        """Wait for the thread, and let what it wrote lie as a crash would."""
        job, self._job = self._job, None
        if job is not None:
            job.join()

    def _fault_of(self, entry: SnapshotEntry) -> str:
        if entry.name in self._verified:
            return ""
        files, directory, *_ = self._place
        return verify_snapshot(files, directory, entry)
