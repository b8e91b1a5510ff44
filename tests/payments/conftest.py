"""Each test of `store` runs on the model and on every kind of store."""

from collections.abc import Iterator

import pytest

from engine.payments import PaymentDB
from tests.payments.stores import KINDS, Places

# A PostgreSQL server takes ten times as long for a test as the others. In the quick part it takes
# part in `test_machine.py`; the whole suite runs every table over it.
SLOW = {"postgresql"}
EACH = [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS]


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Where the stores of this session lie."""
    here = Places(tmp_path_factory.mktemp("stores"))
    yield here
    here.close()


@pytest.fixture(params=("model", *EACH))
def store(places: Places, request: pytest.FixtureRequest) -> Iterator[PaymentDB]:
    """An empty store of each kind."""
    with places.opened(request.param) as opened:
        yield opened


@pytest.fixture(params=EACH)
def url(places: Places, request: pytest.FixtureRequest) -> str:
    """The URL of an empty store of each kind."""
    return places.url(request.param)
