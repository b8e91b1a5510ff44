"""SQLite: one writer at a time, readers beside it, every commit synced to the disk."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pysqlite3 import dbapi2 as driver  # type: ignore[import-untyped]
from sqlalchemy import Connection, NullPool, QueuePool, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from engine.payments.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
    StoreOutcomeUnknownError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UnknownStoreError,
    UnsafeSQLiteError,
)
from engine.payments.memory import Memory
from engine.payments.sql.compiler import SQLITE
from engine.payments.sql.database import VERSION_QUERY, VERSION_TABLE, Database, Row, Work
from engine.payments.sql.headers import Header

T = TypeVar("T")

PREFIX: Final = "sqlite:///"
SAFE_VERSION: Final = (3, 51, 3)
BUSY_TIMEOUT_MS: Final = 10_000
PAUSE_S: Final = 0.005
"""How long until a lock that SQLite does not wait for is asked for again."""

READERS_MAX: Final = 16
APPLICATION_ID: Final = 0x50434850
"""What the header of the file says it is: "PCHP"."""

INTEGER_MAX: Final = 2**63 - 1
TWO_TO_64: Final = 2**64

# The primary result codes of SQLite; the extended ones have them in the lower eight bits.
BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PERM, NOTADB = (
    5,
    6,
    8,
    10,
    11,
    13,
    14,
    3,
    26,
)

FAULTS: Final[dict[int, tuple[type[StoreError], str]]] = {
    BUSY: (StoreLockedError, "another process writes and did not finish in time; try again"),
    LOCKED: (StoreLockedError, "another connection holds a table; try again"),
    READONLY: (StoreReadOnlyError, "the file, its folder or the disk cannot be written: see to it"),
    PERM: (StoreReadOnlyError, "this user may not use the file: see to its permissions"),
    CANTOPEN: (
        StoreUnavailableError,
        "the file cannot be opened: see to its folder, its permissions and the files -wal and -shm",
    ),
    FULL: (StoreFullError, "the disk is full; nothing was changed: make room and try again"),
    NOTADB: (StoreDamagedError, "this is not a SQLite file: name another, or restore a backup"),
    CORRUPT: (StoreDamagedError, "the file is damaged: restore a backup"),
    IOERR: (StoreUnavailableError, "the disk does not read or write: see the log of the system"),
}


def fault_of(error: Exception, name: str, *, is_committing: bool = False) -> StoreError:
    """Return what an error of the driver means for whoever called."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == IOERR and is_committing:
        return StoreOutcomeUnknownError(
            f"{name}: the disk failed while it was synced ({error}): the call is whole or not at "
            "all; see to the disk, open the store again and look"
        )
    kind, advice = FAULTS.get(code, (StoreDamagedError, "the store does not fit this program"))
    return kind(f"{name}: {error}: {advice}")


class SQLiteWork:
    """A transaction of one connection, on one cursor: to make one costs as much as to use it.

    Args:
        connection: Begun by the caller, who also ends it.
        memory: Of the writer; a reader has none.
    """

    is_hopeful = False  # a look costs nothing here

    def __init__(self, connection: Any, memory: Memory[Header] | None = None) -> None:
        cursor = connection.cursor()
        self._execute = cursor.execute
        self._many = cursor.executemany
        self._memory: Memory[Header] = memory or Memory()

    def rows(self, statement: str, *arguments: Any) -> list[Row]:
        """Run a statement; return what it finds."""
        found: list[Row] = self._execute(statement, arguments).fetchall()
        return found

    def ask(self, *questions: tuple[Any, ...]) -> list[list[Row]]:
        """Run one after the other: nothing lies between us and the file."""
        return [self._execute(question[0], question[1:]).fetchall() for question in questions]

    def run(self, statement: str, *arguments: Any) -> None:
        """Run a statement."""
        self._execute(statement, arguments)

    def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row."""
        self._many(statement, rows)

    def load(self, _: str, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row."""
        self._many(statement, rows)

    def begin(self, lock: str, identifier: bytes, take: str) -> list[list[Row]]:
        """Run one after the other."""
        return self.ask((lock, identifier), (take,))

    def recall(self, identifier: bytes) -> Header | None:
        """Ask the memory: it was emptied if another connection wrote."""
        return self._memory.recall(identifier)

    def leave(self, header: Header, statement: str, *arguments: Any) -> None:
        """Run the statement; let the memory have what it leaves once it is durable."""
        self._execute(statement, arguments)
        self._memory.leave(header.identifier, header if header.may_be_kept else None)


class SQLiteDatabase(Database):
    """A file. Writers of this process wait in line, others by SQLite's own waiting."""

    has_row_locks = False
    driver_error = driver.Error

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        is_read_only: bool = False,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
    ) -> None:
        super().__init__(SQLITE, f"{PREFIX}{path}", is_read_only=is_read_only)
        self._uri = f"file:{quote(str(path))}?mode={_mode(create, is_read_only)}"
        self._busy_timeout_ms = busy_timeout_ms
        self._turn = threading.Lock()
        self._readers = QueuePool(self.connect, pool_size=READERS_MAX, max_overflow=0)
        with self._named_faults():
            self._writer = self.connect()
        self._memory: Memory[Header] = Memory()
        self._work = SQLiteWork(self._writer, self._memory)

    def connect(self) -> Any:
        """Return a new connection in which nothing is left to a default."""
        connection = driver.connect(
            *(self._uri,), uri=True, isolation_level=None, check_same_thread=False
        )
        connection.executescript(
            f"PRAGMA busy_timeout = {self._busy_timeout_ms};"
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;"
            "PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;"
        )
        return connection

    def _read(self, look: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            reader = self._readers.connect()
        except driver.Error as error:
            raise fault_of(error, self.name) from error
        except PoolTimeoutError as error:
            raise StoreLockedError(f"{self.name}: too many readers; try again") from error
        connection: Any = reader.dbapi_connection
        try:
            connection.execute("BEGIN")
            return look(SQLiteWork(connection), *arguments)
        except driver.Error as error:
            raise fault_of(error, self.name) from error
        finally:
            reader.close()  # the pool rolls back: there is nothing to commit

    def _write(self, change: Callable[..., T], arguments: tuple[Any, ...], is_bulk: bool) -> T:
        is_committing = False
        with self._turn:
            self.check_open()
            try:
                self._work.run("BEGIN IMMEDIATE")
                # It changes with each commit of another connection, of any process.
                version = self._work.rows("PRAGMA data_version")
                self._memory.begin(version, version)
                result = change(self._work, *arguments)
                is_committing = True
                self._work.run("COMMIT")
                self._memory.commit()
            except BaseException as error:
                self._undo()
                if isinstance(error, driver.Error):
                    raise fault_of(error, self.name, is_committing=is_committing) from error
                raise
        return result

    def _fault(self, error: Exception) -> StoreError:
        return fault_of(error, self.name)

    def _undo(self) -> None:
        """Roll back what SQLite itself has not."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def version(self, work: Work) -> str | None:
        """Return the version of the tables; None where the file is empty."""
        tables = {name for (name,) in work.rows("SELECT name FROM sqlite_master")}
        if not tables:
            return None
        if work.rows("PRAGMA application_id") != [(APPLICATION_ID,)] or VERSION_TABLE not in tables:
            raise StoreDamagedError(
                f"{self.name} is a SQLite file of another program; nothing was changed: name "
                "another file"
            )
        found: str = work.rows(VERSION_QUERY)[0][0]
        return found

    def prepare(self) -> None:
        """Let readers and the writer not wait for another.

        Where several make one file at a moment, SQLite refuses all but one of them at once, however
        long they are to wait for a lock.
        """
        until = time.monotonic() + self._busy_timeout_ms / 1_000
        with self._named_faults():
            while True:
                try:
                    self._writer.execute("PRAGMA journal_mode = WAL").fetchall()
                    return
                except driver.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != BUSY or time.monotonic() > until:
                        raise
                time.sleep(PAUSE_S)

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Lend a connection of its own."""
        engine = create_engine(
            "sqlite+pysqlite://", module=driver, creator=self.connect, poolclass=NullPool
        )
        with self._turn, self._named_faults(), engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def _close(self) -> None:
        with self._turn:
            self._readers.dispose()
            self._writer.close()

    def unsigned(self, value: int) -> int:
        """Return the same 64 bits as a signed number."""
        return value if value <= INTEGER_MAX else value - TWO_TO_64

    def whole(self, value: int) -> int | str:
        """Return the number, or its digits where it takes more than 64 bits."""
        return value if -INTEGER_MAX <= value <= INTEGER_MAX else str(value)

    def listing(self, values: Iterable[int]) -> str:
        """Return JSON."""
        return f"[{','.join(map(str, values))}]"

    def listing_of_bytes(self, values: Iterable[bytes]) -> str:
        """Return JSON in hexadecimal."""
        return json.dumps([value.hex() for value in values])


def _mode(create: bool, is_read_only: bool) -> str:
    if is_read_only:
        return "ro"
    return "rwc" if create else "rw"


def open_sqlite(url: str, *, create: bool, read_only: bool) -> SQLiteDatabase:
    """Open the file that a URL names, and make it if it is not there and may be made.

    Raises:
        UnsafeSQLiteError: the library may lose committed data.
        StoreNotFoundError: the file, or its folder, is not there.
        StoreError: it cannot be used.
    """
    check_version(driver.sqlite_version_info)
    place = url.removeprefix(PREFIX)
    if not url.startswith(PREFIX) or not place or place.startswith(":memory:"):
        raise UnknownStoreError(f"{url!r} names no file; say sqlite:///FILE or sqlite:////DIR/FILE")
    path = Path(place)
    if not path.parent.is_dir():
        raise StoreNotFoundError(f"{url}: there is no folder {path.parent}: make it")
    if path.is_dir():
        raise StoreNotFoundError(f"{url} is a folder: name a file in it")
    if not create and not (path.exists() and path.stat().st_size):
        raise StoreNotFoundError(f"{url}: there is no such file; check the path")
    return SQLiteDatabase(path, create=create, is_read_only=read_only)


def check_version(version: tuple[int, ...]) -> None:
    """Allow only a library that keeps what it committed.

    Before 3.51.3 two connections that write and checkpoint at one moment can lose the reset of the
    log, and with it committed pages.

    Raises:
        UnsafeSQLiteError: it is older.
    """
    if version < SAFE_VERSION:
        found = ".".join(map(str, version))
        raise UnsafeSQLiteError(
            f"SQLite {found} may lose committed data (WAL-reset bug); 3.51.3 or later is needed: "
            "install it with `pip install 'pysqlite3>=0.6.1'`"
        )
