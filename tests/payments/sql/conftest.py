"""Each test of `sql` runs on SQLite, and in the slow part on PostgreSQL (see the folder above)."""

from collections.abc import Iterator

import pytest

from engine.payments.sql import SQLPaymentDB
from tests.payments.stores import Places


@pytest.fixture
def sqlite(places: Places) -> Iterator[SQLPaymentDB]:
    """An empty store in a file."""
    with places.opened("sqlite") as opened:
        yield opened


@pytest.fixture
def postgresql(places: Places) -> Iterator[SQLPaymentDB]:
    """An empty store on a server."""
    with places.opened("postgresql") as opened:
        yield opened


@pytest.fixture(params=("sqlite", pytest.param("postgresql", marks=pytest.mark.slow)))
def sql(request: pytest.FixtureRequest) -> SQLPaymentDB:
    """An empty store of each kind."""
    return request.getfixturevalue(request.param)
