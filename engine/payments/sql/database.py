"""What both databases are to the store: transactions in which statements are run, and their faults.

A function that is given to `read` or `write` may be run more than once before one run of it counts:
it does nothing but run statements and decide by what they find.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from engine.payments.errors import StoreError, StoreReadOnlyError
from engine.payments.sql.headers import Header
from engine.payments.sql.statements import Statements

Row = tuple[Any, ...]
T = TypeVar("T")

VERSION_TABLE: Final = "payments_schema_version"
VERSION_QUERY: Final = f"SELECT version_num FROM {VERSION_TABLE}"

statements_of = cache(Statements)


class Work(Protocol):
    """One transaction. Arguments stand in the order of the statement.

    Attributes:
        is_hopeful: Whether to add a row that is new in all likelihood without a look: if it is not,
            that ends the transaction, and it is run again without hope.
    """

    is_hopeful: bool

    def rows(self, statement: str, *arguments: Any) -> list[Row]:
        """Run a statement; return what it finds."""

    def ask(self, *questions: tuple[Any, ...]) -> list[list[Row]]:
        """Run several, each with its arguments behind it; at once where the database can."""

    def run(self, statement: str, *arguments: Any) -> None:
        """Run a statement that finds nothing; what is wrong with it may come out at the end."""

    def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Run such a statement once for each row of arguments."""

    def load(self, table: str, statement: str, rows: Sequence[Row]) -> None:
        """Insert many rows with all columns but the row id, the fastest way there is."""

    def begin(self, lock: str, identifier: bytes, take: str) -> list[list[Row]]:
        """Lock a payment and take a number for a new one; return what both statements find.

        The number may be a stand-in, that is good for an argument of what adds the payment.
        """

    def recall(self, identifier: bytes) -> Header | None:
        """Return a payment with its attempts where what is remembered of it may be relied on."""

    def leave(self, header: Header, statement: str, *arguments: Any) -> None:
        """Write the row of the one payment that this changes; say what it leaves of it."""


class Database(ABC):
    """A database that is open, used by many threads.

    Attributes:
        name: What it is called in errors; no password is in it.
        has_row_locks: Whether several write at once, so that a payment must be locked.
        driver_error: What the driver raises.
    """

    has_row_locks: bool
    driver_error: type[Exception]

    def __init__(self, kind: str, name: str, *, is_read_only: bool) -> None:
        self.name = name
        self.is_read_only = is_read_only
        self.is_closed = False
        self.statements = statements_of(kind)

    def read(self, look: Callable[..., T], *arguments: Any) -> T:
        """Run `look(work, *arguments)` on one state of the database.

        Raises:
            StoreError: the store is at fault.
        """
        self.check_open()
        return self._read(look, arguments)

    def write(self, change: Callable[..., T], *arguments: Any, is_bulk: bool = False) -> T:
        """Run `change(work, *arguments)` as a transaction; it is durable when this returns.

        An exception of `change` undoes it all. Two that would disturb another wait for another.

        Args:
            change: Decides and writes.
            arguments: What it gets besides.
            is_bulk: Whether it uses `Work.load`.

        Raises:
            StoreError: the store is at fault.
        """
        self.check_open()
        if self.is_read_only:
            raise StoreReadOnlyError(f"{self.name} was opened to be read only: open it for writing")
        return self._write(change, arguments, is_bulk)

    def close(self) -> None:
        """Let go of all connections; again is fine."""
        if not self.is_closed:
            self.is_closed = True
            self._close()

    def check_open(self) -> None:
        """Allow only an open store.

        Raises:
            StoreError: it is closed.
        """
        if self.is_closed:
            raise StoreError(f"{self.name} is closed: open it again")

    @abstractmethod
    def _read(self, look: Callable[..., T], arguments: tuple[Any, ...]) -> T: ...

    @abstractmethod
    def _write(self, change: Callable[..., T], arguments: tuple[Any, ...], is_bulk: bool) -> T: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def version(self, work: Work) -> str | None:
        """Return the version of the tables; None where there are none.

        Raises:
            StoreDamagedError: what is there belongs to another program.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Make ready for writing, once it is clear that this is a store."""

    @abstractmethod
    def migrating(self) -> AbstractContextManager[Connection]:
        """Lend a connection in which tables are changed whole, by one process at a time."""

    @abstractmethod
    def _fault(self, error: Exception) -> StoreError:
        """Return what an error of the driver means for whoever called."""

    @contextmanager
    def _named_faults(self) -> Iterator[None]:
        """Turn errors of the driver, also those that SQLAlchemy wraps, into faults of the store."""
        try:
            yield
        except DBAPIError as error:
            if isinstance(error.orig, self.driver_error):
                raise self._fault(error.orig) from error
            raise
        except self.driver_error as error:
            raise self._fault(error) from error

    @abstractmethod
    def unsigned(self, value: int) -> int:
        """Return an unsigned 64-bit number as it is stored; `values.unsigned` takes it back."""

    @abstractmethod
    def whole(self, value: int) -> int | str:
        """Return a number without bounds as it is stored; `int` takes it back."""

    @abstractmethod
    def listing(self, values: Iterable[int]) -> Any:
        """Return numbers as the one argument that `Compiler.among` wants."""

    @abstractmethod
    def listing_of_bytes(self, values: Iterable[bytes]) -> Any:
        """Return byte strings as the one argument that `Compiler.among` wants."""
