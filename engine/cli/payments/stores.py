"""Which payments database a command means, and what its refusals and faults mean for the exit."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.config import config_option, load
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option
from engine.gateway.forms import Malformed
from engine.gateway.payments.refusals import status_of
from engine.monitor.secrets import without_password
from engine.payments.errors import (
    PaymentDBCode,
    PaymentDBError,
    StoreDamagedError,
    StoreError,
    StoreNotEmptyError,
    StoreNotFoundError,
    StoreUnavailableError,
    StoreUnfinishedError,
    UnknownStoreError,
)

if TYPE_CHECKING:
    from engine.payments import PaymentDB

DB_VARIABLE: Final = "PAYCHAN_PAYMENTS_DB"
CODE_OF_STATUS: Final = {
    400: ExitCode.USAGE,
    404: ExitCode.NOT_FOUND,
    503: ExitCode.FAILED,
}
"""Exit code of a refusal by its HTTP status; rejected for every other one."""

CODE_OF_FAULT: Final = (
    (UnknownStoreError, ExitCode.USAGE),
    (StoreNotFoundError, ExitCode.NOT_FOUND),
    (StoreNotEmptyError, ExitCode.REJECTED),
    (StoreUnfinishedError, ExitCode.REJECTED),
    (StoreUnavailableError, ExitCode.UNREACHABLE),
    (StoreDamagedError, ExitCode.INTEGRITY),
)
"""Exit code of a fault; failed for every other one."""

ADVICE: Final = {
    PaymentDBCode.PAYMENT_NOT_INITIATED: (
        "`paychan payments list --include-incomplete` shows what is there"
    ),
}

db_option = click.option(
    "--db",
    metavar="URL",
    envvar=DB_VARIABLE,
    show_envvar=True,
    help="lmdb:///DIR, sqlite:///FILE or postgresql://HOST/DATABASE.",
)


class Place:
    """The database a command was told to work on."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextlib.contextmanager
    def opened(self, *, create: bool = False, read_only: bool = False) -> "Iterator[PaymentDB]":
        """Open the store while the block runs.

        Raises:
            Failure: it cannot be used, or something in the block was refused.
        """
        # What a store is made of is loaded when there is work for it, not for help.
        from engine.payments import open_payment_db

        with told(), open_payment_db(self.url, create=create, read_only=read_only) as store:
            yield store

    def reading(self) -> "contextlib.AbstractContextManager[PaymentDB]":
        """Open the store and change nothing in it."""
        return self.opened(read_only=True)


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--db`, `--config` and `--json`; it gets a `Place` and an `Output` first."""

    @db_option
    @config_option
    @json_option
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, db: str | None, config_file: Path | None, as_json: bool, **options: Any
    ) -> None:
        place = Place(db or _configured(config_file))
        command(place, Output(as_json=as_json), *arguments, **options)

    return wrapped


def _configured(config_file: Path | None) -> str:
    """Return the URL that the engine's configuration has.

    Raises:
        Failure: it has none.
    """
    url: str = load(config_file, {})[0].payments.url
    if not url:
        advice = (
            f"--db URL names one, or {DB_VARIABLE}, or `payments.url` of --config;"
            " such as sqlite:///payments.db"
        )
        raise Failure(ExitCode.USAGE, "no payments database is named", advice)
    return url


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what a store says no to, and what is wrong with it, into a failure.

    Raises:
        Failure: in place of a refusal or fault.
    """
    try:
        yield
    except PaymentDBError as error:
        code = CODE_OF_STATUS.get(status_of(error.code), ExitCode.REJECTED)
        raise Failure(code, _line(error), ADVICE.get(error.code, "")) from error
    except StoreError as error:
        raise failure_of(error) from error
    except Malformed as error:
        raise Failure(ExitCode.USAGE, f"{error.param}: {error.detail}") from error


def failure_of(error: StoreError) -> Failure:
    """Return how a command ends when a store is at fault."""
    codes = (code for kind, code in CODE_OF_FAULT if isinstance(error, kind))
    return Failure(next(codes, ExitCode.FAILED), _line(error))


def _line(error: Exception) -> str:
    """Return what an error says, in one line: some quote what a server wrote."""
    return without_password(" ".join(str(error).split()))
