"""Opens the store that an lmdb URL names, and makes a new one."""

from pathlib import Path
from typing import Final

from engine.payments.errors import (
    StoreDamagedError,
    StoreNotFoundError,
    StoreTooNewError,
    UnknownStoreError,
)
from engine.payments.kv.environment import DATA_FILE, sync_folder
from engine.payments.kv.faults import fault_of
from engine.payments.kv.layout import SCHEMA_KEY, SCHEMA_VERSION, seal, unseal
from engine.payments.kv.sharing import REGISTRY, Shared
from engine.payments.kv.store import LmdbDB
from engine.payments.kv.transaction import Transaction

SCHEME: Final = "lmdb:///"


def open_store(url: str, *, create: bool, read_only: bool) -> LmdbDB:
    """Open the store in the directory that `url` names.

    Raises:
        UnknownStoreError: it is no lmdb URL.
        StoreNotFoundError: there is no store, and none is to be made.
        StoreTooNewError: a newer version wrote it.
        StoreDamagedError: it is something else, or broken.
        StoreError: it cannot be opened.
    """
    place = _place_of(url)
    _find(place, create=create)
    shared = REGISTRY.take(place, read_only=read_only)
    try:
        _check_schema(shared, place, create=create)
        return LmdbDB(shared, read_only=read_only)
    except BaseException:
        REGISTRY.give_back(shared)
        raise


def _place_of(url: str) -> Path:
    path = url.removeprefix(SCHEME)
    if path == url or not path or "\0" in path:
        raise UnknownStoreError(f"{url!r} names no directory; say lmdb:///DIRECTORY")
    return Path(path)


def _find(place: Path, *, create: bool) -> None:
    """Look whether there is a store, or make its directory."""
    data = place / DATA_FILE
    try:
        if place.exists() and not place.is_dir():
            raise StoreNotFoundError(f"{place} is a file; a store of payments is a directory")
        if create:
            _make(place)
        elif not data.is_file() or not data.stat().st_size:
            raise StoreNotFoundError(
                f"there is no store in {place}: name another directory, or make one with "
                "`paychan payments init`"
            )
    except OSError as error:
        raise fault_of(error, place) from error


def _make(place: Path) -> None:
    """Make a directory and those above it that are missing, each durable in the one above."""
    if place.is_dir():
        return
    _make(place.parent)
    place.mkdir(exist_ok=True)
    sync_folder(place.parent)


def _check_schema(shared: Shared, place: Path, *, create: bool) -> None:
    environment = shared.environment
    if environment.read(_has_nothing):
        if not create:
            raise StoreNotFoundError(f"the store in {place} was never begun: open it for writing")
        shared.commits.run(_begin)
    stored = environment.read(lambda transaction: transaction.get(SCHEMA_KEY))
    if stored is None:
        raise StoreDamagedError(
            f"{place} is an LMDB database of something else: nothing was changed; name another "
            "directory"
        )
    version = int.from_bytes(unseal(SCHEMA_KEY, stored), "big")
    if version > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"{place} was written by a newer version (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): nothing was changed; use that version"
        )


def _has_nothing(transaction: Transaction) -> bool:
    return not transaction.stat()["entries"]


def _begin(transaction: Transaction) -> None:
    """Write the version, unless another process was first."""
    if _has_nothing(transaction):
        version = SCHEMA_VERSION.to_bytes(4, "big")
        transaction.put(SCHEMA_KEY, seal(SCHEMA_KEY, version))
