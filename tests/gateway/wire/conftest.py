"""One server for all tests that do not stop it; no two tests share a channel."""

import logging
from collections.abc import Iterator

import pytest

from tests.gateway.wire.world import Alarms, Client, Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("wire")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server.port)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def no_alarm() -> Iterator[Alarms]:
    """Fail a test after which the server has logged an error or an exception in its code."""
    alarms = Alarms()
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(alarms)
    yield alarms
    for logger in loggers:
        logger.removeHandler(alarms)
    assert alarms.records == []
