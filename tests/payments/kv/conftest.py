"""Stores on LMDB, each in a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.payments import open_payment_db
from engine.payments.kv.environment import Environment
from engine.payments.kv.store import LmdbDB


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a store that is not there yet."""
    return f"lmdb:///{tmp_path / 'store'}"


@pytest.fixture
def store(url: str) -> Iterator[LmdbDB]:
    """An empty store."""
    with open_payment_db(url) as opened:
        assert isinstance(opened, LmdbDB)
        yield opened


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """An environment without a schema, with a map of 256 KiB."""
    opened = Environment(tmp_path, read_only=False, map_bytes=256 << 10)
    yield opened
    opened.close()
