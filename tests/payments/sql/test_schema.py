"""Tables are made by migrations, are those that the code knows, and of no other version."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from pysqlite3 import dbapi2
from sqlalchemy import create_engine, inspect

from engine.payments import open_payment_db
from engine.payments.errors import (
    StoreDamagedError,
    StoreError,
    StoreNotFoundError,
    StoreTooNewError,
    UnknownStoreError,
    UnsafeSQLiteError,
)
from engine.payments.sql.database import VERSION_TABLE
from engine.payments.sql.schema import MIGRATIONS, NEWEST, VERSIONS
from engine.payments.sql.sqlite import check_version
from engine.payments.sql.tables import metadata
from tests.payments.builders import begun
from tests.payments.sql.looking import ask, run

WITHOUT_VERSION = f"NOT LIKE '{VERSION_TABLE}%'"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.db"


@pytest.fixture
def empty_database(places):
    """The URL of a PostgreSQL database without tables."""
    assert places.postgres_url
    with psycopg.connect(places.server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bare WITH (FORCE)")
        connection.execute("CREATE DATABASE bare")
    return places.server.get_uri(database="bare")


def test_migrations_make_the_tables_that_the_code_knows_in_sqlite(sqlite, tmp_path):
    def shape(rows):
        return sorted((name, " ".join(text.split())) for name, text in rows if text)

    statement = f"SELECT name, sql FROM sqlite_master WHERE name {WITHOUT_VERSION}"
    engine = create_engine("sqlite://", module=dbapi2)
    metadata.create_all(engine)
    with engine.connect() as connection:
        expected = connection.exec_driver_sql(statement).fetchall()
    assert shape(ask(sqlite, statement)) == shape(expected)


def test_migrations_make_the_tables_that_the_code_knows_in_postgresql(places, empty_database):
    def shape(url):
        engine = engine_of(url)
        looker = inspect(engine)
        found = {
            name: (
                [(each["name"], str(each["type"]), each["nullable"]) for each in columns],
                sorted(map(str, looker.get_indexes(name))),
                sorted(map(str, looker.get_check_constraints(name))),
                sorted(map(str, looker.get_foreign_keys(name))),
                looker.get_pk_constraint(name),
            )
            for name in looker.get_table_names()
            if name != VERSION_TABLE
            for columns in [looker.get_columns(name)]
        }
        engine.dispose()
        return found

    def engine_of(url):
        return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

    engine = engine_of(empty_database)
    metadata.create_all(engine)
    expected = shape(empty_database)
    engine.dispose()
    assert len(expected) == len(metadata.tables)
    assert shape(places.postgres_url) == expected


def test_the_versions_are_those_that_migrations_lead_through():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    found = [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == VERSIONS


def test_tables_of_a_newer_program_are_refused_and_left_alone(sql, places):
    url = sql._database.name if sql._database.name.startswith("sqlite") else places.postgres_url
    begun(sql)
    run(sql, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for options in ({}, {"read_only": True}, {"create": False}):
        with pytest.raises(StoreTooNewError, match=f"9999.*{NEWEST}.*newer program"):
            open_payment_db(url, **options)
    assert ask(sql, f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]
    run(sql, f"UPDATE {VERSION_TABLE} SET version_num = '{NEWEST}'")
    with open_payment_db(url) as again:
        assert again.counters().payments == 1


def test_one_database_is_opened_by_many_for_the_first_time(path, empty_database):
    for url in (f"sqlite:///{path}", empty_database):
        with ThreadPoolExecutor(4) as pool:
            stores = list(pool.map(open_payment_db, [url] * 4))
        for store in stores:
            begun(store)
        assert {store.counters().payments for store in stores} == {4}
        for store in stores:
            store.close()


def test_a_database_without_tables_is_no_store_unless_it_may_be_made(empty_database):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(StoreNotFoundError, match="no payments tables"):
            open_payment_db(empty_database, **options)
    with psycopg.connect(empty_database) as connection:
        found = connection.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'")
        assert found.fetchall() == []


def test_a_file_that_is_not_there_is_made_only_if_it_may_be(path):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(StoreNotFoundError, match="no such file"):
            open_payment_db(f"sqlite:///{path}", **options)
    assert not path.exists()
    with pytest.raises(StoreNotFoundError, match="no folder"):
        open_payment_db(f"sqlite:///{path}/below/payments.db")
    with pytest.raises(StoreNotFoundError, match="is a folder"):
        open_payment_db(f"sqlite:///{path.parent}")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://host/a.db", "sqlite:///:memory:"]
)
def test_a_url_without_a_file_is_refused(url):
    with pytest.raises(UnknownStoreError, match="names no file"):
        open_payment_db(url)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_bytes(b"not a database, and long enough to be looked at\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreDamagedError, match="not a SQLite file"):
        open_payment_db(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE payments (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamagedError, match="another program"):
        open_payment_db(f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 51, 2), (3, 7)])
def test_a_library_that_may_lose_data_is_refused(version):
    with pytest.raises(UnsafeSQLiteError, match="pip install 'pysqlite3"):
        check_version(version)
    check_version((3, 51, 3))
    check_version(dbapi2.sqlite_version_info)


def test_a_connection_leaves_nothing_to_defaults(sqlite):
    settings = {
        name: ask(sqlite, f"PRAGMA {name}")[0][0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


def test_an_older_store_that_is_only_read_is_refused(sqlite, monkeypatch):
    url = sqlite._database.name
    monkeypatch.setattr("engine.payments.sql.schema.VERSIONS", (NEWEST, "0002"))
    monkeypatch.setattr("engine.payments.sql.schema.NEWEST", "0002")
    with pytest.raises(StoreError, match="open it for writing once"):
        open_payment_db(url, read_only=True)
