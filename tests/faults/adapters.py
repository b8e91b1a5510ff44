"""Put stores of several kinds behind one small interface, each at its most careful settings.

A store keeps records in order. `commit` returns when they are durable; `open` recovers by itself,
as each is meant to; `read` gives back everything. What they do about damage is what is compared.
"""

import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import google_crc32c
import lmdb

from wal import Log, LogOptions, OsFiles

QUIET_NS: Final = 1_000_000_000
"""How long nothing comes before damage is done to a store that stands still."""


class Store(Protocol):
    """Records in order, behind a directory."""

    def append(self, records: Sequence[bytes]) -> None:
        """Stage records for the next commit."""

    def commit(self) -> None:
        """Return once everything that was staged is durable."""

    def tidy(self) -> None:
        """Do what is done now and then."""

    def settle(self) -> None:
        """Do what is done when nothing comes for a second."""

    def read(self) -> list[bytes]:
        """Return all records."""

    def close(self) -> None:
        """Close cleanly."""


class LaterFiles(OsFiles):
    """This machine's disk, where time passes when it is told to."""

    def __init__(self) -> None:
        self.later_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.later_ns


class PaychanLog:
    """The log of this repository, without the engine above it."""

    def __init__(self, directory: Path) -> None:
        options = LogOptions(segment_bytes=8_192, spare_in_background=False)
        self._files = LaterFiles()
        self._log: Log[bytes] = Log.open(directory, options, files=self._files)

    def append(self, records: Sequence[bytes]) -> None:
        self._log.append(records)

    def commit(self) -> None:
        self._log.commit()

    def tidy(self) -> None:
        self._log.idle()

    def settle(self) -> None:
        self._log.idle()
        self._files.later_ns += QUIET_NS
        self._log.idle()

    def read(self) -> list[bytes]:
        return [record for _, record in self._log.read()]

    def close(self) -> None:
        self._log.close()


class SqliteStore:
    """SQLite in WAL mode with synchronous=FULL: every commit is synced."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(directory / "records.db", isolation_level=None)
        (mode,) = self._base.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise OSError(f"the journal is {mode}")
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.execute("PRAGMA wal_autocheckpoint=0")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS records (position INTEGER PRIMARY KEY, data)"
        )
        self._staged: list[bytes] = []

    def append(self, records: Sequence[bytes]) -> None:
        self._staged += records

    def commit(self) -> None:
        self._base.execute("BEGIN IMMEDIATE")
        rows = [(record,) for record in self._staged]
        self._base.executemany("INSERT INTO records (data) VALUES (?)", rows)
        self._base.execute("COMMIT")
        self._staged = []

    def tidy(self) -> None:
        self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def settle(self) -> None:
        """SQLite does nothing by itself."""

    def read(self) -> list[bytes]:
        rows = self._base.execute("SELECT data FROM records ORDER BY position")
        return [data for (data,) in rows]

    def close(self) -> None:
        self._base.close()


class LmdbStore:
    """LMDB with its defaults, which sync every commit."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._base = lmdb.open(str(directory), map_size=1 << 24, sync=True, metasync=True)
        self._staged: list[bytes] = []

    def append(self, records: Sequence[bytes]) -> None:
        self._staged += records

    def commit(self) -> None:
        with self._base.begin(write=True) as change:
            first = change.stat()["entries"] + 1
            for position, record in enumerate(self._staged, first):
                change.put(position.to_bytes(8), record)
        self._staged = []

    def tidy(self) -> None:
        """LMDB has nothing to tidy."""

    def settle(self) -> None:
        """LMDB does nothing by itself."""

    def read(self) -> list[bytes]:
        with self._base.begin() as view:
            return [bytes(record) for _, record in view.cursor()]

    def close(self) -> None:
        self._base.close()


class AppendFile:
    """A file of length-prefixed records, synced at each commit, cut at the first bad one.

    This is how a first version of a log looks; with a checksum it is how many stay.
    """

    HEAD: Final = struct.Struct("<II")

    def __init__(self, directory: Path, checksum: Callable[[bytes], int]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._checksum = checksum
        self._handle = os.open(directory / "records", os.O_RDWR | os.O_CREAT)
        folder = os.open(directory, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._staged: list[bytes] = []
        self._end = 0
        self._end = self._parse()[1]
        os.ftruncate(self._handle, self._end)

    def append(self, records: Sequence[bytes]) -> None:
        self._staged += records

    def commit(self) -> None:
        data = b"".join(self.HEAD.pack(len(one), self._checksum(one)) + one for one in self._staged)
        taken = 0
        while taken < len(data):
            taken += os.pwrite(self._handle, data[taken:], self._end + taken)
        os.fdatasync(self._handle)
        self._end += len(data)
        self._staged = []

    def tidy(self) -> None:
        """There is nothing to tidy."""

    def settle(self) -> None:
        """Nothing happens by itself."""

    def read(self) -> list[bytes]:
        return self._parse()[0]

    def close(self) -> None:
        os.close(self._handle)

    def _parse(self) -> tuple[list[bytes], int]:
        """Return the records up to the first bad one, and where that begins."""
        data = os.pread(self._handle, os.fstat(self._handle).st_size, 0)
        records = []
        place = 0
        while place + self.HEAD.size <= len(data):
            size, checksum = self.HEAD.unpack_from(data, place)
            record = data[place + self.HEAD.size :][:size]
            if size == 0 or len(record) < size or self._checksum(record) != checksum:
                break
            records.append(record)
            place += self.HEAD.size + size
        return records, place


STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "paychan": PaychanLog,
    "LMDB": LmdbStore,
    "SQLite": SqliteStore,
    "append with CRC": lambda directory: AppendFile(directory, google_crc32c.value),
    "append": lambda directory: AppendFile(directory, lambda record: 0),
}
"""Every store by the name it has on the card."""
