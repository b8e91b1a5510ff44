"""Changes of balances as they become durable, over a connection of their own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection
from typing import Any

import aiohttp
import msgspec

from engine.client.errors import ProtocolViolated, ServerUnreachable
from engine.client.options import Backoff, ClientOptions
from engine.client.pipe import connect
from engine.client.values import BalanceChange, from_hex


class _Envelope(msgspec.Struct):
    """The head of every text frame: an answer to a command, or a change."""

    type: str = ""
    status: str = ""
    error: str = ""
    error_message: str = ""


async def changes(
    session: aiohttp.ClientSession,
    server: str,
    channel_ids: Collection[bytes],
    options: ClientOptions,
    backoff: Backoff,
) -> AsyncGenerator[BalanceChange, None]:
    """Yield the balance of each channel now, then every change, across reconnections.

    A slow reader misses intermediate balances, never the newest one.

    Raises:
        ServerUnreachable: the engine does not come back within `retry_s`.
        ProtocolViolated: the engine does not take the subscription.
    """
    loop = asyncio.get_running_loop()
    heard_at, attempt = loop.time(), 0
    while True:
        try:
            async with contextlib.aclosing(_listen(session, server, channel_ids, options)) as heard:
                async for change in heard:
                    heard_at, attempt = loop.time(), 0
                    yield change
            reason = ServerUnreachable(server, "the connection was closed")
        except ServerUnreachable as error:
            reason = error
        attempt += 1
        pause_s = backoff.pause_s(attempt)
        if attempt > 1 and loop.time() + pause_s - heard_at > options.retry_s:
            raise reason
        await asyncio.sleep(pause_s)


async def _listen(
    session: aiohttp.ClientSession,
    server: str,
    channel_ids: Collection[bytes],
    options: ClientOptions,
) -> AsyncGenerator[BalanceChange, None]:
    """Yield changes until the connection ends."""
    socket = await connect(session, server, options.heartbeat_s)
    ids = [channel_id.hex().upper() for channel_id in channel_ids]
    command: dict[str, Any] = {"id": 1, "command": "subscribe", "channels": ids}
    try:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            await socket.send_str(msgspec.json.encode(command).decode())
            async for message in socket:
                change = _change(server, message)
                if change is not None:
                    yield change
    finally:
        await socket.close()


def _change(server: str, message: aiohttp.WSMessage) -> BalanceChange | None:
    """Read a text frame; None for the answer to the command.

    Raises:
        ProtocolViolated: the command was refused, or this is no frame of an engine.
    """
    try:
        head = msgspec.json.decode(message.data, type=_Envelope)
        if head.type == "balance":
            return msgspec.json.decode(
                message.data, type=BalanceChange, strict=False, dec_hook=from_hex
            )
    except (msgspec.DecodeError, TypeError) as error:
        raise ProtocolViolated(f"{server} sent what is no change: {error}") from error
    if head.status == "error":
        raise ProtocolViolated(f"{server} refused the subscription: {head.error_message}")
    return None
