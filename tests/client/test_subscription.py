"""A subscriber hears of its channels until it stops, whatever happens to the connection."""

import contextlib
import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from aiohttp import web

from engine.client import Client, ClientOptions, ProtocolViolated, ServerUnreachable

IDS = [bytes([number]) * 32 for number in (1, 2)]
FAST = ClientOptions(backoff_first_s=0.001, backoff_max_s=0.01, retry_s=0.2)
DONE = {"id": 1, "status": "success", "type": "response", "result": {"subscribed": 2}}


def change(channel: int, claimed: int) -> dict[str, Any]:
    return {
        "type": "balance",
        "channel_id": IDS[channel].hex().upper(),
        "claimed": str(claimed),
        "available": "18446744073709551615",
        "sequence": claimed,
        "something_new": 1,
    }


class Teller:
    """Tells each connection the next of its stories, then hangs up; an empty one to the rest."""

    def __init__(self, *stories: list[dict[str, Any] | str]) -> None:
        self._stories = list(stories)
        self.asked: list[dict[str, Any]] = []

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.asked.append(await socket.receive_json())
        for told in self._stories.pop(0) if self._stories else []:
            await socket.send_str(told if isinstance(told, str) else json.dumps(told))
        await socket.close()
        return socket


@contextlib.asynccontextmanager
async def client_of(teller: Teller) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_get("/v1/ws", teller.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with Client(f"http://{host}:{port}", FAST, Random(1)) as client:
            yield client
    finally:
        await runner.cleanup()


async def heard(client: Client, count: int) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    async with contextlib.aclosing(client.subscribe(IDS)) as changes:
        async for told in changes:
            found.append((told.channel_id, told.claimed))
            if len(found) == count:
                break
    return found


async def test_changes_come_in_their_order_with_bytes_and_integers():
    teller = Teller([DONE, change(0, 1), change(1, 5), change(0, 2)])
    async with client_of(teller) as client:
        assert await heard(client, 3) == [(IDS[0], 1), (IDS[1], 5), (IDS[0], 2)]
    assert teller.asked == [
        {"id": 1, "command": "subscribe", "channels": [id_.hex().upper() for id_ in IDS]}
    ]


async def test_a_lost_connection_is_made_again_and_the_channels_asked_for_again():
    teller = Teller([DONE, change(0, 1)], [], [DONE, change(0, 3)], [change(0, 4)])
    async with client_of(teller) as client:
        assert await heard(client, 3) == [(IDS[0], 1), (IDS[0], 3), (IDS[0], 4)]
    assert len(teller.asked) == 4
    assert teller.asked[0] == teller.asked[3]


async def test_patience_begins_anew_with_every_change():
    """All the lost connections together outlast the patience; none does alone."""
    teller = Teller(*([[change(0, number)], []][half] for number in range(40) for half in (0, 1)))
    async with client_of(teller) as client:
        assert len(await heard(client, 40)) == 40


async def test_nobody_to_hear_from_is_said_after_the_patience():
    teller = Teller([DONE, change(0, 1)])
    async with client_of(teller) as client:
        changes = client.subscribe(IDS)
        assert (await anext(changes)).claimed == 1
        with pytest.raises(ServerUnreachable):
            await anext(changes)
    assert len(teller.asked) > 3


@pytest.mark.parametrize(
    "told",
    [
        {"id": 1, "status": "error", "type": "response", "error_message": "too many channels"},
        "no json",
        "[]",
        {"type": "balance", "channel_id": "zz"},
    ],
)
async def test_a_refusal_or_nonsense_is_not_tried_again(told):
    teller = Teller([told])
    async with client_of(teller) as client:
        with pytest.raises(ProtocolViolated) as seen:
            await heard(client, 1)
    assert len(teller.asked) == 1
    if isinstance(told, dict) and "error_message" in told:
        assert "too many channels" in str(seen.value)
