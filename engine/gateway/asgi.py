"""The little of ASGI that the claim path needs: a bounded body in, one answer out."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from engine.gateway.options import GatewayOptions
from engine.gateway.problems import Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):  # noqa: N818
    """The client hung up before its call was complete."""


def header(scope: Scope, name: bytes) -> str:
    """Return a header's value in lower case, "" where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1").strip().lower()
            return text
    return ""


async def read_body(scope: Scope, receive: Receive, options: GatewayOptions) -> bytes:
    """Return the body of a call.

    Raises:
        Problem: too large (413), too slow (408) or compressed (415).
        ClientGone: nobody is there any more.
    """
    if header(scope, b"content-encoding") not in ("", "identity"):
        raise Problem(415, "malformed", "compressed bodies are not taken; send it plain")
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared[:20]) > options.body_bytes_max:
        raise _too_large(options)
    try:
        async with asyncio.timeout(options.body_timeout_s):
            return await _read(receive, options)
    except TimeoutError as error:
        detail = f"the body did not come within {options.body_timeout_s} s"
        raise Problem(408, "malformed", detail) from error


async def _read(receive: Receive, options: GatewayOptions) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        if len(whole) > options.body_bytes_max:
            raise _too_large(options)
        return whole
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > options.body_bytes_max:
            raise _too_large(options)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def _too_large(options: GatewayOptions) -> Problem:
    return Problem(413, "malformed", f"a body has at most {options.body_bytes_max} bytes")


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
