"""The payments database on SQL: SQLite and PostgreSQL, one set of tables and statements.

`tables.py` says what is stored, `statements.py` what is asked of it, `control.py` what a call does.
"""

from engine.payments.sql.database import Database
from engine.payments.sql.postgresql import PostgresDatabase
from engine.payments.sql.schema import bring_up_to_date
from engine.payments.sql.sqlite import open_sqlite
from engine.payments.sql.store import SQLPaymentDB

__all__ = ["SQLPaymentDB", "open_store"]


def open_store(url: str, *, create: bool, read_only: bool) -> SQLPaymentDB:
    """Open the store at `url`, with tables of this version.

    Raises:
        StoreError: it cannot be used; nothing was changed.
    """
    database: Database
    if url.startswith("sqlite:"):
        database = open_sqlite(url, create=create, read_only=read_only)
    else:
        database = PostgresDatabase(url, is_read_only=read_only)
    try:
        bring_up_to_date(database, create=create)
    except BaseException:
        database.close()
        raise
    return SQLPaymentDB(database)
