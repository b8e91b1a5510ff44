"""Read a log beside its live writer, from another process, without a lock.

The one rule: a frame that could still turn out to be a torn tail is not shown.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Generic

from wal.codec import FIRST, Codec, LengthPrefixed, Position, R
from wal.errors import WalError
from wal.files import Files, OsFiles
from wal.manifest import Manifest, SnapshotEntry, read_manifest
from wal.replay import Cursor, Extent, Place
from wal.snapshots.lineage import newest_lineage
from wal.snapshots.snapshot import read_snapshot, verify_snapshot

_TRIES = 5
"""How often a segment that vanished under the reader is looked up again: each time, a start of the
writer or a cut of the log came between two of our calls."""


class LogReader(Generic[R]):
    """A read-only view of a log that may be growing.

    It sees records that a later frame, or the MANIFEST, proves durable: all but the newest frame,
    and that one too once the writer was idle for a moment, or has closed.
    """

    def __init__(
        self,
        directory: Path,
        codec: Callable[[], Codec[R]] = LengthPrefixed,  # type: ignore[assignment]
        files: Files | None = None,
        poll_s: float = 0.02,
    ) -> None:
        """Look at the log in `directory`; `follow` asks for news every `poll_s` seconds."""
        self._directory = Path(directory)
        self._codec = codec
        self._files = files or OsFiles()
        self._poll_s = poll_s
        self._stop = Event()

    def read(self, start: Position = FIRST) -> Iterator[tuple[Position, R]]:
        """Yield the records proven durable by now, from position `start` on."""
        for first, records in self.read_batches(start):
            yield from enumerate(records, first)

    def read_batches(
        self,
        start: Position = FIRST,
    ) -> Iterator[tuple[Position, list[R]]]:
        """Yield the same as `read`, frame by frame, each with the position of its first record.

        Raises:
            CorruptLogError: a durable frame does not check out.
            WalError: there is no log.
            ValueError: `start` lies before the oldest record that is kept, or is not a position.
        """
        cursor = self._cursor(start)
        try:
            yield from self._news(cursor)
        finally:
            cursor.close()

    def follow(self, start: Position = FIRST) -> Iterator[tuple[Position, R]]:
        """Yield records from `start` on, waiting for more at the end, until `close`."""
        cursor = self._cursor(start)
        try:
            while not self._stop.is_set():
                for first, records in self._news(cursor):
                    yield from enumerate(records, first)
                self._stop.wait(self._poll_s)
        finally:
            cursor.close()

    def checkpoint(self, until: Position | None = None) -> list[tuple[Position, Iterator[bytes]]]:
        """Return the newest snapshots that verify and stand no later than record `until`.

        Returns:
            The position each stands at, and its chunks: a base, then the increments upon it. Empty
            when none will do, so that the records must be read from the first.

        Raises:
            WalError: there is no log.
            CorruptLogError: the MANIFEST is damaged; or, while chunks are read, a file changed.
        """
        for _ in range(_TRIES):
            manifest = self._manifest()
            found = newest_lineage(manifest.snapshots, self._fault_of, until)
            # What a writer at work removed under us looks refused once.
            if not found.refused or self._manifest() == manifest:
                break
        return [
            (
                Position(entry.position),
                read_snapshot(self._files, self._directory, entry, manifest.shard_id),
            )
            for entry in found.entries
        ]

    def close(self) -> None:
        """End every `follow`, from any thread."""
        self._stop.set()

    def _fault_of(self, entry: SnapshotEntry) -> str:
        return verify_snapshot(self._files, self._directory, entry)

    def _manifest(self) -> Manifest:
        try:
            return read_manifest(self._files, self._directory)
        except FileNotFoundError as error:
            raise WalError(f"no log in {self._directory}") from error

    def _cursor(self, start: Position) -> Cursor[R]:
        if start < 1:
            raise ValueError(f"positions begin at 1, not {start}")
        place = Place(self._files, self._directory, self._manifest().shard_id, None)
        return Cursor(place, self._codec, start)

    def _news(self, cursor: Cursor[R]) -> Iterator[tuple[Position, list[R]]]:
        for tries_left in reversed(range(_TRIES)):
            try:
                yield from cursor.batches(_extents(self._manifest()))
                return
            except FileNotFoundError:
                # The cursor stands where it stood, so nothing is yielded twice.
                if not tries_left:
                    raise


def _extents(manifest: Manifest) -> list[Extent]:
    extents = [Extent(entry, entry.last_lsn) for entry in manifest.sealed]
    if manifest.live is not None:
        extents.append(Extent(manifest.live, manifest.durable_lsn, growing=True))
    return extents
