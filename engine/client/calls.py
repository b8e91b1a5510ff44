"""HTTP calls to an engine: typed answers, refusals as exceptions, patience where it is safe.

A call is made again only when that cannot do anything twice: nothing was sent, the engine said it
is too busy, or the call may be repeated by its nature.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from engine.client.errors import (
    ClientError,
    Problem,
    ProtocolViolated,
    Refused,
    ServerUnreachable,
    reason_of,
)
from engine.client.options import Backoff, ClientOptions
from engine.client.values import from_hex

T = TypeVar("T")
_JSON: Final = {"Content-Type": "application/json"}
_TOO_BUSY: Final = (429, 503)
_UNTOUCHED: Final = ("overloaded", "storage_full")
"""Codes that say nothing was done."""


class Calls:
    """Makes HTTP calls to one engine."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        server: str,
        options: ClientOptions,
        backoff: Backoff,
    ) -> None:
        self._session = session
        self._server = server
        self._options = options
        self._backoff = backoff

    async def get(self, kind: type[T], path: str, **query: str | int | None) -> T:
        """Read something.

        Raises:
            Refused: the engine said no.
            ServerUnreachable: nobody answered for `retry_s`.
        """
        given = {name: str(value) for name, value in query.items() if value is not None}
        return _decode(kind, await self._patiently("GET", path, given, b"", repeatable=True))

    async def post(
        self, kind: type[T], path: str, body: Mapping[str, Any], *, repeatable: bool = False
    ) -> T:
        """Have something done; see `get` for what is raised.

        Args:
            kind: What is answered.
            path: Where to.
            body: Sent as JSON.
            repeatable: Doing it twice is the same as doing it once.
        """
        data = msgspec.json.encode(body)
        return _decode(kind, await self._patiently("POST", path, {}, data, repeatable=repeatable))

    async def once(self, path: str) -> int:
        """Return the status of a single GET, made without any patience.

        Raises:
            ServerUnreachable: nobody answered.
        """
        try:
            async with self._session.get(self._server + path) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _patiently(
        self, method: str, path: str, query: Mapping[str, str], data: bytes, *, repeatable: bool
    ) -> bytes:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._options.retry_s
        attempt = 0
        while True:
            attempt += 1
            error, may_repeat = await self._attempt(method, path, query, data)
            if isinstance(error, bytes):
                return error
            pause_s = self._pause_s(error, attempt)
            if not (repeatable or may_repeat) or loop.time() + pause_s > give_up_at:
                raise error
            await asyncio.sleep(pause_s)

    async def _attempt(
        self, method: str, path: str, query: Mapping[str, str], data: bytes
    ) -> tuple[bytes | ClientError, bool]:
        """Return the body, or what went wrong and whether nothing can have been done."""
        url = self._server + path
        headers = _JSON if data else {}
        try:
            async with self._session.request(
                method, url, params=query, data=data or None, headers=headers
            ) as response:
                body = await response.read()
                if response.status < 400:
                    return body, False
                refused = Refused(_problem(response, body))
        except aiohttp.ClientConnectorError as error:
            return self._unreachable(error), True
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return self._unreachable(error), False
        if refused.problem.status not in _TOO_BUSY:
            raise refused
        return refused, refused.problem.code in _UNTOUCHED

    def _pause_s(self, error: ClientError, attempt: int) -> float:
        """Return how long to wait: as long as the engine asked, where it did."""
        asked_ms = error.problem.retry_after_ms if isinstance(error, Refused) else None
        return max((asked_ms or 0) / 1_000, self._backoff.pause_s(attempt))

    def _unreachable(self, error: BaseException) -> ServerUnreachable:
        return ServerUnreachable(self._server, reason_of(error))


def _decode(kind: type[T], body: bytes) -> T:
    try:
        # Drops come as decimal strings; not being strict lets them into integers.
        return msgspec.json.decode(body, type=kind, strict=False, dec_hook=from_hex)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolViolated(f"this is no answer of an engine: {error}") from error


def _problem(response: aiohttp.ClientResponse, body: bytes) -> Problem:
    """Read problem+json; anything else becomes a problem without a code."""
    try:
        problem = msgspec.json.decode(body, type=Problem, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem(status=response.status, title=response.reason or "")
    return msgspec.structs.replace(problem, status=response.status)
