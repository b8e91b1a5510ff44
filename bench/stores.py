"""Places a batch of claims can be made durable in: the log, and what it is compared with.

Each takes the same events and returns once they would survive a power cut.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from engine.channels.journal import LogOptions, ShardJournal
from engine.core.events import AnyEvent, encode_event

FILE_BYTES: Final = LogOptions().segment_bytes
_PIECE: Final = bytes(1 << 20)


class Store(Protocol):
    """A place for batches of events."""

    def append(self, events: Sequence[AnyEvent]) -> None:
        """Return once `events` are durable, in order, as one batch."""

    @property
    def size(self) -> int | None:
        """Bytes the batches took so far, without what is only reserved; None if it cannot say."""

    def close(self) -> None:
        """Give the files back."""


class TheLog:
    """The log of a shard, as a shard uses it: events in columns, checksums, a chain, rotation."""

    def __init__(self, folder: Path) -> None:
        self._journal = ShardJournal(folder / "log", LogOptions())

    def append(self, events: Sequence[AnyEvent]) -> None:
        """See `Store`."""
        self._journal.append(events)
        self._journal.commit()

    @property
    def size(self) -> int:
        """See `Store`."""
        return self._journal.bytes_written

    def close(self) -> None:
        """See `Store`."""
        self._journal.close()


class BareFile:
    """The floor: one msgpack array of the events, one pwrite, one fdatasync, nothing else.

    No checksum and no length: nothing that a start could read it back by. It is written at the end
    of a file that grows, so each sync has the file system keep the new length as well; `prepared`:
    into a file as long as a segment that was filled with zeros and synced before, as the log does
    it, from the start again when it is full.
    """

    def __init__(self, folder: Path, *, prepared: bool) -> None:
        folder.mkdir(parents=True)
        self._handle = os.open(folder / "bare", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
        self._encode = msgspec.msgpack.Encoder().encode
        self._end = FILE_BYTES if prepared else 1 << 62
        self._offset = 0
        self.size = 0
        if prepared:
            os.posix_fallocate(self._handle, 0, FILE_BYTES)
            for offset in range(0, FILE_BYTES, len(_PIECE)):
                os.pwrite(self._handle, _PIECE, offset)
            os.fsync(self._handle)

    def append(self, events: Sequence[AnyEvent]) -> None:
        """See `Store`."""
        data = self._encode(events)
        if self._offset + len(data) > self._end:
            self._offset = 0
        os.pwrite(self._handle, data, self._offset)
        os.fdatasync(self._handle)
        self._offset += len(data)
        self.size += len(data)

    def close(self) -> None:
        """See `Store`."""
        os.close(self._handle)


class Sqlite:
    """SQLite with its write-ahead log and FULL synchronisation: one transaction, a row each."""

    size = None

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._rows = sqlite3.connect(folder / "claims.db", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = FULL")
        self._rows.execute("CREATE TABLE event (position INTEGER PRIMARY KEY, event BLOB)")

    def append(self, events: Sequence[AnyEvent]) -> None:
        """See `Store`."""
        self._rows.execute("BEGIN")
        values = [(encode_event(event),) for event in events]
        self._rows.executemany("INSERT INTO event (event) VALUES (?)", values)
        self._rows.execute("COMMIT")

    def close(self) -> None:
        """See `Store`."""
        self._rows.close()


class Lmdb:
    """LMDB as it comes, synced at each commit: one transaction, a key each, appended in order."""

    size = None

    def __init__(self, folder: Path) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise ModuleNotFoundError(
                "lmdb is not installed; install it (pip install lmdb) or add --without lmdb"
            ) from error
        folder.mkdir(parents=True)
        self._environment: Any = lmdb.open(str(folder), map_size=64 << 30)
        self._last = 0

    def append(self, events: Sequence[AnyEvent]) -> None:
        """See `Store`."""
        with self._environment.begin(write=True) as transaction:
            for position, event in enumerate(events, self._last + 1):
                transaction.put(position.to_bytes(8, "big"), encode_event(event), append=True)
        self._last += len(events)

    def close(self) -> None:
        """See `Store`."""
        self._environment.close()


STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "paychan": TheLog,
    "append": lambda folder: BareFile(folder, prepared=False),
    "prepared": lambda folder: BareFile(folder, prepared=True),
    "sqlite": Sqlite,
    "lmdb": Lmdb,
}
