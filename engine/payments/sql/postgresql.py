"""PostgreSQL: row locks for writers, one snapshot for a reader, waits that end.

A write runs in READ COMMITTED and locks the payment it is about first; see ADR 0024. A
call about a payment that is new or remembered is one statement (`believing.py`), others take two
or three round trips (`pipelined.py`).
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg import errors
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection as CoreConnection
from sqlalchemy import NullPool, QueuePool, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from engine.payments.errors import (
    PaymentDBError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreOutcomeUnknownError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UnknownStoreError,
)
from engine.payments.sql.believing import BelievingWork, DoubtError, is_gone, is_lost
from engine.payments.sql.compiler import POSTGRESQL
from engine.payments.sql.database import VERSION_QUERY, VERSION_TABLE, Database, Work
from engine.payments.sql.pipelined import Connection, PostgresWork, Remembered

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)

# At the end of a pipeline it warns of each error that it does not raise again. We raise the first.
logging.getLogger("psycopg").setLevel(logging.ERROR)

CONNECTIONS_MAX: Final = 16
CONNECT_TIMEOUT_S: Final = 10
STATEMENT_TIMEOUT_MS: Final = 30_000
LOCK_TIMEOUT_MS: Final = 10_000

MIGRATION_LOCK: Final = 0x50434850
"""The key of the advisory lock; another number than other programs take."""

TRIES_MAX: Final = 12
FIRST_WAIT_S: Final = 0.002
WAIT_S_MAX: Final = 0.5

SETTINGS: Final = (
    f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}; SET lock_timeout = {LOCK_TIMEOUT_MS}; "
    "SET jit = off; SET application_name = 'paychan'; "
    # Every statement looks up what it wants by keys. The planner would rather read small tables
    # whole, and a page would cost more with every payment there is.
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; "
    # Nor is there work to share: to start a process for it takes longer than most calls.
    "SET max_parallel_workers_per_gather = 0; "
    # The plans are always the same then, and making one costs more than most calls.
    "SET plan_cache_mode = force_generic_plan; "
    # A statement of its own is a transaction as the others are, however the server is set up.
    "SET default_transaction_isolation = 'read committed'; "
    "SET default_transaction_read_only = off; "
    # A server may be set up to answer before the disk has it; we may not.
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
)
WHICH_SERVER: Final = "SELECT pg_postmaster_start_time()::text"
WHAT_IS_OFF: Final = (
    "SELECT name FROM unnest(ARRAY['fsync', 'full_page_writes']) AS name "
    "WHERE current_setting(name) = 'off'"
)
"""What a connection cannot set right for itself, as it does `synchronous_commit`."""

READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"

AGAIN: Final = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.UniqueViolation,  # two added the same at once: the one that tries again finds the other
    errors.ForeignKeyViolation,  # what a row belongs to was deleted meanwhile
)
FAULTS: Final[tuple[tuple[type[psycopg.Error], type[StoreError], str], ...]] = (
    (errors.DiskFull, StoreFullError, "the disk is full; nothing was changed: make room"),
    (errors.OutOfMemory, StoreFullError, "the server is out of memory; nothing was changed"),
    (
        errors.ReadOnlySqlTransaction,
        StoreReadOnlyError,
        "the server takes no writes (a standby?): name the primary",
    ),
    (
        errors.InsufficientPrivilege,
        StoreReadOnlyError,
        "this user may not do that: GRANT it, or use another user",
    ),
    (
        errors.QueryCanceled,
        StoreUnavailableError,
        "the server took too long; nothing was changed: see what it is busy with, try again",
    ),
    (errors.DataCorrupted, StoreDamagedError, "the database is damaged: restore a backup"),
    (errors.IndexCorrupted, StoreDamagedError, "an index is damaged: REINDEX it"),
)
ADVICE: Final = (
    "what it has answered may be gone, or the database damaged, when its machine fails; set it to "
    "on and reload, unless the storage below makes up for it"
)
GONE: Final = (
    "check that the server runs and can be reached, that the database is there (createdb) and "
    "that user and password are right"
)


class WholeNumbers(Loader):
    """Reads NUMERIC: nothing that we store has a fraction."""

    def load(self, data: Any) -> int:
        """Return the number."""
        return int(bytes(data))


class PostgresDatabase(Database):
    """A database of a server, through a pool of connections."""

    has_row_locks = True
    driver_error = psycopg.Error

    def __init__(self, url: str, *, is_read_only: bool = False) -> None:
        super().__init__(POSTGRESQL, name_of(url), is_read_only=is_read_only)
        self._url = url
        self._jitter = random.Random()
        self._remembered = Remembered()
        self._pool = QueuePool(
            cast(Any, self.connect),
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            timeout=STATEMENT_TIMEOUT_MS // 1000,
        )

    def connect(self) -> Connection:
        """Return a new connection; transactions are ours to begin."""
        connection = Connection.connect(
            self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        )
        connection.prepare_threshold = 1
        connection.adapters.register_loader("numeric", WholeNumbers)
        connection.execute(cast(Any, SETTINGS))
        ((connection.server,),) = connection.execute(WHICH_SERVER).fetchall()
        return connection

    def _read(self, look: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        return self._until_done(lambda _: self._read_once(look, arguments))

    def _write(self, change: Callable[..., T], arguments: tuple[Any, ...], is_bulk: bool) -> T:
        return self._until_done(
            lambda is_first: self._write_once(change, arguments, is_bulk, is_first)
        )

    def _until_done(self, once: Callable[[bool], T]) -> T:
        """Try again what another call disturbed, and once what a lost connection cut off.

        Nothing was committed in either case; what may have been is never tried again. `once` is
        told whether nothing has disturbed it so far.
        """
        wait_s, is_second = FIRST_WAIT_S, False
        disturbance: psycopg.Error | None = None
        for _ in range(TRIES_MAX):
            try:
                return once(disturbance is None)
            except AGAIN as error:
                # A row that is there already is no reason to wait, the first time.
                if disturbance or not isinstance(error, errors.UniqueViolation):
                    time.sleep(wait_s * (0.5 + self._jitter.random()))
                    wait_s = min(2 * wait_s, WAIT_S_MAX)
                disturbance = error
            except psycopg.OperationalError as error:
                if is_second or not is_lost(error):
                    raise self._fault(error) from error
                is_second = True
            except psycopg.Error as error:
                raise self._fault(error) from error
        raise StoreLockedError(
            f"{self.name}: others changed the same rows {TRIES_MAX} times ({disturbance}); nothing "
            "was changed: try again"
        ) from disturbance

    def _read_once(self, look: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        with self._connection() as connection, connection.pipeline():
            connection.execute(READ)
            result = look(PostgresWork(connection, in_pipeline=True), *arguments)
            connection.execute("COMMIT")
        return result

    def _write_once(
        self, change: Callable[..., T], arguments: tuple[Any, ...], is_bulk: bool, is_hopeful: bool
    ) -> T:
        is_committing = False
        with self._connection() as connection:
            if is_hopeful and not is_bulk:
                with suppress(DoubtError):
                    return self._write_believing(connection, change, arguments)
            work = PostgresWork(
                *(connection, self._remembered), in_pipeline=not is_bulk, is_hopeful=is_hopeful
            )
            try:
                with nullcontext() if is_bulk else connection.pipeline():
                    connection.execute(WRITE)
                    result = work.judged(change, arguments)
                    is_committing = True
                    connection.execute("COMMIT")
            except psycopg.OperationalError as error:
                if is_committing and is_lost(error):
                    raise self._unknown_outcome(error) from error
                raise
            work.commit()
        return result

    def _write_believing(
        self, connection: Connection, change: Callable[..., T], arguments: tuple[Any, ...]
    ) -> T:
        """Make a call about a payment that is remembered.

        Raises:
            DoubtError: there is more to know; nothing was done.
        """
        work = BelievingWork(connection, self._remembered)
        try:
            result = change(work, *arguments)
        except PaymentDBError as refusal:
            raise DoubtError from refusal
        if is_gone(connection):
            connection.close()
            raise psycopg.OperationalError("the server closed the connection")
        try:
            work.commit()
        except psycopg.OperationalError as error:
            if is_lost(error):
                raise self._unknown_outcome(error) from error
            raise
        return result

    def _unknown_outcome(self, error: psycopg.OperationalError) -> StoreOutcomeUnknownError:
        return StoreOutcomeUnknownError(
            f"{self.name}: the server went away while it committed ({error}): the call is whole or "
            "not at all; fetch the payment and see"
        )

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Lend a connection; it is put back clean, or thrown away."""
        try:
            lent = self._pool.connect()
        except PoolTimeoutError as error:
            raise StoreLockedError(f"{self.name}: all connections are busy; try again") from error
        connection = cast(Connection, lent.dbapi_connection)
        try:
            yield connection
        except BaseException:
            if connection.closed or connection.broken:
                self._renew()
            elif connection.info.transaction_status != TransactionStatus.IDLE:
                connection.rollback()
            raise
        finally:
            if connection.closed:
                lent.invalidate()
            lent.close()

    def _renew(self) -> None:
        """Forget all connections: where one was cut off, the others were."""
        self._pool.dispose()
        self._pool = self._pool.recreate()

    def _fault(self, error: Exception) -> StoreError:
        for kind, fault, advice in FAULTS:
            if isinstance(error, kind):
                return fault(f"{self.name}: {error}: {advice}")
        if isinstance(error, psycopg.OperationalError):
            return StoreUnavailableError(
                f"{self.name} does not answer; nothing was changed ({error}): {GONE}"
            )
        return StoreDamagedError(f"{self.name}: {error}: the tables do not fit this program")

    def version(self, work: Work) -> str | None:
        """Return the version of the tables; None where there are none."""
        if work.rows("SELECT to_regclass(%s)", VERSION_TABLE) == [(None,)]:
            return None
        found: str = work.rows(VERSION_QUERY)[0][0]
        return found

    def prepare(self) -> None:
        """Say in the log what the server is set up to lose.

        It is not refused: a file system or a service may make up for either setting.
        """
        with self._named_faults(), self._connection() as connection:
            found = connection.execute(WHAT_IS_OFF).fetchall()
        for (setting,) in found:
            logger.warning("%s: the server runs with %s = off: %s", self.name, setting, ADVICE)

    @contextmanager
    def migrating(self) -> Iterator[CoreConnection]:
        """Lend a connection that holds the lock of migrations."""
        engine = create_engine("postgresql+psycopg://", creator=self.connect, poolclass=NullPool)
        with self._named_faults(), engine.connect() as connection:
            connection.exec_driver_sql(WRITE)
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            yield connection
            connection.commit()

    def _close(self) -> None:
        self._pool.dispose()

    def unsigned(self, value: int) -> int:
        """Return the number: NUMERIC has room for it."""
        return value

    def whole(self, value: int) -> int | str:
        """Return the number: NUMERIC has room for it."""
        return value

    def listing(self, values: Iterable[int]) -> list[int]:
        """Return a list: the driver makes an array of it."""
        return list(values)

    def listing_of_bytes(self, values: Iterable[bytes]) -> list[bytes]:
        """Return a list: the driver makes an array of it."""
        return list(values)


def name_of(url: str) -> str:
    """Return what a database is called in errors: without its password.

    Raises:
        UnknownStoreError: this is no such URL.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise UnknownStoreError(
            "this is no PostgreSQL URL; say postgresql://USER@HOST:PORT/DATABASE"
        ) from error
    return f"postgresql://{parts.get('host', '')}/{parts.get('dbname', '')}"
