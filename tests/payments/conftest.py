"""Each test of `store` runs on the model and on every kind of store."""

from collections.abc import Iterator

import pytest

from engine.payments import PaymentDB
from tests.payments.stores import KINDS, Places


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Where the stores of this session lie."""
    here = Places(tmp_path_factory.mktemp("stores"))
    yield here
    here.close()


@pytest.fixture(params=("model", *KINDS))
def store(places: Places, request: pytest.FixtureRequest) -> Iterator[PaymentDB]:
    """An empty store of each kind."""
    with places.opened(request.param) as opened:
        yield opened


@pytest.fixture(params=KINDS)
def url(places: Places, request: pytest.FixtureRequest) -> str:
    """The URL of an empty store of each kind."""
    return places.url(request.param)
