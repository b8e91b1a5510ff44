"""Every kind of store, empty and at once: what a test opens is never what another one left.

A SQLite file is copied from one that has its tables already, and the one PostgreSQL database has
its rows put back as they were when its tables were made. Both take a millisecond, and neither
knows what the tables are.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from bench.payment_places import postgres_server
from engine.payments import PaymentDB, open_payment_db
from engine.payments.opening import STORES
from tests.payments.model import ModelDB

KINDS = tuple(scheme for scheme, package in STORES.items() if find_spec(package))
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


class Places:
    """Where stores of a session lie; everything is made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def close(self) -> None:
        """Stop what was started."""
        if "postgres" in self.__dict__:
            self.postgres.close()
        if "server" in self.__dict__:
            self.server.cleanup()

    def new_folder(self) -> Path:
        """Return a folder that nobody has used."""
        self.made += 1
        folder = self.folder / f"store-{self.made}"
        folder.mkdir()
        return folder

    def url(self, kind: str) -> str:
        """Return the URL of an empty store; a PostgreSQL one ends the life of the one before."""
        match kind:
            case "sqlite":
                place = self.new_folder() / "payments.db"
                shutil.copyfile(self.sqlite_template, place)
                return f"sqlite:///{place}"
            case "postgresql":
                self.empty_postgres()
                return self.postgres_url
            case _:
                return f"lmdb:///{self.new_folder()}"

    @contextmanager
    def opened(self, kind: str) -> Iterator[PaymentDB]:
        """Open an empty store."""
        with ModelDB() if kind == "model" else open_payment_db(self.url(kind)) as store:
            yield store

    @cached_property
    def sqlite_template(self) -> Path:
        """A file with tables and no payment."""
        place = self.new_folder() / "template.db"
        open_payment_db(f"sqlite:///{place}").close()
        return place

    @cached_property
    def server(self) -> Any:
        """A PostgreSQL server of our own, on a socket in a folder of its own.

        That is none of pytest's: those are closed to the user that the server runs as, and each
        session that begins closes them again.
        """
        return postgres_server()

    @cached_property
    def postgres_url(self) -> str:
        """A database with tables and no payment."""
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE payments")
        url: str = self.server.get_uri(database="payments")
        open_payment_db(url).close()
        return url

    @cached_property
    def postgres(self) -> psycopg.Connection:
        """A connection that sees to it that the database is empty."""
        return psycopg.connect(self.postgres_url, autocommit=True)

    @cached_property
    def first_rows(self) -> dict[str, list[tuple[object, ...]]]:
        """The rows of each table when there is no payment, such as counters and the version."""
        tables = [name for (name,) in self.postgres.execute(TABLES)]
        return {
            table: self.postgres.execute(
                sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
            ).fetchall()
            for table in tables
        }

    def empty_postgres(self) -> None:
        """Put the rows of all tables back to what they were without a payment."""
        first_rows = self.first_rows
        with self.postgres.transaction():
            # Foreign keys stand still: all rows go, in any order.
            self.postgres.execute("SET LOCAL session_replication_role = replica")
            for table, rows in first_rows.items():
                name = sql.Identifier(table)
                self.postgres.execute(sql.SQL("DELETE FROM {}").format(name))
                for row in rows:
                    values = sql.SQL(", ").join(sql.Placeholder() * len(row))
                    self.postgres.execute(
                        sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE VALUES ({})").format(
                            name, values
                        ),
                        row,
                    )
