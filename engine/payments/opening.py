"""Finds the store that a URL names. A store's module is loaded when it is asked for, not before."""

from importlib import import_module
from typing import Final, Protocol, cast

from engine.payments.errors import StoreUnfinishedError, UnknownStoreError
from engine.payments.interface import PaymentDB

STORES: Final = {
    "lmdb": "engine.payments.kv",
    "sqlite": "engine.payments.sql",
    "postgresql": "engine.payments.sql",
}
"""The package of each URL scheme; each has an `open_store`."""

EXAMPLES: Final = "lmdb:///DIRECTORY, sqlite:///FILE or postgresql://HOST/DATABASE"


class StoreModule(Protocol):
    """A package that is a kind of store."""

    def open_store(self, url: str, *, create: bool, read_only: bool) -> PaymentDB:
        """Open the store at `url`, checked and ready.

        Raises:
            StoreError: it cannot be used; nothing was changed.
        """


def open_payment_db(
    url: str, *, create: bool = True, read_only: bool = False, unfinished: bool = False
) -> PaymentDB:
    """Open the store that `url` names: "lmdb:///dir", "sqlite:///file.db", "postgresql://…".

    The path is what follows the third slash: "sqlite:///a.db" lies in the working directory,
    "sqlite:////var/a.db" is absolute. An lmdb URL names a directory.

    Args:
        url: Where.
        create: Make the store if it is not there (for PostgreSQL: its tables, not the database).
        read_only: Change nothing, not even the version of the tables.
        unfinished: Open it even though a migration into it did not finish; for migration only.

    Raises:
        UnknownStoreError: no kind of store has this scheme, or the URL is not well-formed.
        StoreUnfinishedError: a migration into the store must be finished first.
        StoreError: it cannot be used, and why.
    """
    scheme, separator, _ = str(url).partition("://")
    if not separator or scheme not in STORES:
        raise UnknownStoreError(f"no store has a URL like {url!r}; say {EXAMPLES}")
    module = cast(StoreModule, import_module(STORES[scheme]))
    store = module.open_store(url, create=create and not read_only, read_only=read_only)
    if not unfinished and store.note() is not None:
        store.close()
        raise StoreUnfinishedError(
            "a migration into this store did not finish: run the same `paychan payments migrate` "
            "or `import-lnd` again; it goes on where it was"
        )
    return store
