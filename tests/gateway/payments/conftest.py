"""The payments of the gateway under test lie in an empty store of each kind."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from engine.gateway.payments.desk import PaymentsDesk
from engine.gateway.payments.options import PaymentsOptions
from engine.payments import PaymentDB, open_payment_db
from engine.payments.opening import STORES
from tests.gateway.conftest import MEMORY
from tests.gateway.payments.shop import Shop
from tests.gateway.world import Door
from tests.payments.model import ModelDB

KINDS = ("model", *(kind for kind in ("lmdb", "sqlite") if find_spec(STORES[kind])))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with tables and no payment; a copy is made in no time."""
    place = tmp_path_factory.mktemp("sqlite") / "template.db"
    open_payment_db(f"sqlite:///{place}").close()
    return place


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[PaymentDB]:
    """An empty store of each kind."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        url = f"lmdb:///{folder}"
        if request.param == "sqlite":
            url = f"sqlite:///{folder}/payments.db"
            shutil.copyfile(request.getfixturevalue("sqlite_template"), f"{folder}/payments.db")
        with ModelDB() if request.param == "model" else open_payment_db(url) as opened:
            yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def shop(door: Door, store: PaymentDB) -> AsyncIterator[Shop]:
    """The gateway with `store` behind it."""
    before = door.state.payments
    desk = door.state.payments = PaymentsDesk(store, PaymentsOptions(followed_max=5))
    yield Shop(door, store)
    door.state.payments = before
    await desk.close()
