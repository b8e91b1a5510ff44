"""One engine for all tests of the gateway that do not stop it; channels are never shared."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway.world import Door, door_to_engine

HERE = Path(__file__).parent
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""What is tested here is not the disk, and in memory a sync costs nothing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of this folder share a loop, as they share an engine."""
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def door() -> AsyncIterator[Door]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as datadir:
        async with door_to_engine(Path(datadir)) as door:
            yield door
