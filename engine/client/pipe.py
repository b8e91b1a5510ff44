"""One WebSocket connection's binary frames: many on their way at once, tied by a number.

    [number, [[channel_id, sequence | nil, amount, signature], ...]]
    [number, [[status, code | nil, sequence, position], ...]]

Cheap enough for a load generator: nothing is done per claim. A frame goes in as the msgpack of its
claims, its answers come out as msgpack; `encode_claims` and `decode_answers` are there who wants
them.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Final, Protocol

import aiohttp
import msgspec

from engine.client.errors import ClientError, ProtocolViolated, ServerUnreachable, reason_of
from engine.core.claim import Claim

ANSWER_BYTES_MAX: Final = 16 << 20
NUMBER_MAX: Final = 2**32
_HEAD: Final = struct.Struct(">BBI")
"""Array of two, then the number as a 32-bit integer."""


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One claim's answer in a binary frame; an engine may append what it likes."""

    status: Annotated[int, msgspec.Meta(ge=0, le=3)]
    code: str | None = None
    sequence: int | None = None
    position: str | None = None
    covered_by: int | None = None


class Taker(Protocol):
    """Who wants the answers to a frame."""

    def answer(self, answers: msgspec.Raw) -> bool:
        """Take the answers; say whether more is expected (a buffered claim is answered again)."""

    def lost(self, error: ClientError) -> None:
        """Learn that no more answers come."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_frame: Final = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode
decode_answers: Final = msgspec.msgpack.Decoder(list[Answer]).decode


def encode_claims(claims: Iterable[Claim]) -> bytes:
    """Return the msgpack of the claims of a frame."""
    return _encode([_wire(claim) for claim in claims])


def _wire(claim: Claim) -> tuple[Any, ...]:
    plain = (claim.channel_id, claim.sequence, claim.amount, claim.signature)
    if claim.previous is None and claim.sent_at is None:
        return plain
    return (*plain, claim.previous, claim.sent_at)


class _Single:
    """Takes the first answers to a frame into a future."""

    def __init__(self, future: "asyncio.Future[msgspec.Raw]") -> None:
        self._future = future

    def answer(self, answers: msgspec.Raw) -> bool:
        if not self._future.done():
            self._future.set_result(answers.copy())
        return False

    def lost(self, error: ClientError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class Pipe:
    """A connection for claims. Make one with `async with open_pipe(session, server) as pipe`."""

    def __init__(self, server: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._server = server
        self._socket = socket
        self._takers: dict[int, Taker] = {}
        self._number = 0
        self._broken: ClientError | None = None

    @property
    def is_broken(self) -> bool:
        """Say whether nothing can be sent any more."""
        return self._broken is not None

    async def send(self, claims: bytes) -> "asyncio.Future[msgspec.Raw]":
        """Send a frame; await the result for its answers. Later ones, if any, are dropped.

        Raises:
            ServerUnreachable: the connection is gone.
        """
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        await self.post(claims, _Single(future))
        return future

    async def post(self, claims: bytes, taker: Taker) -> None:
        """Send a frame whose answers go to `taker`; return once the socket has room for more.

        Raises:
            ServerUnreachable: the connection is gone; `taker` knows nothing of the frame.
        """
        if self._broken is not None:
            raise self._broken
        self._number = number = (self._number + 1) % NUMBER_MAX
        self._takers[number] = taker
        try:
            await self._socket.send_bytes(_HEAD.pack(0x92, 0xCE, number) + claims)
        except (aiohttp.ClientError, OSError) as error:
            # Whoever breaks the pipe tells every taker; here the caller is told instead.
            if self._takers.pop(number, None) is not None:
                raise self.fail(str(error)) from error

    def fail(self, reason: str) -> ClientError:
        """Give the connection up and tell everybody who waits; return what they were told."""
        return self._break(ServerUnreachable(self._server, reason))

    def _break(self, error: ClientError) -> ClientError:
        if self._broken is None:
            self._broken = error
        takers, self._takers = self._takers, {}
        for taker in takers.values():
            taker.lost(self._broken)
        return self._broken

    async def receive(self) -> None:
        """Hand out answers until the connection ends. `open_pipe` runs it."""
        try:
            async for message in self._socket:
                self._take(message)
        except (msgspec.DecodeError, ProtocolViolated) as error:
            self._break(ProtocolViolated(f"{self._server} sent what is no answer: {error}"))
        finally:
            self.fail(f"the connection was closed (code {self._socket.close_code})")

    def _take(self, message: aiohttp.WSMessage) -> None:
        if message.type is aiohttp.WSMsgType.ERROR:
            raise ProtocolViolated(str(message.data))
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise ProtocolViolated(f"a text frame on a connection of binary ones: {message.data}")
        number, answers = _decode_frame(message.data)
        taker = self._takers.get(number)
        if taker is not None and not taker.answer(answers):
            del self._takers[number]


@contextlib.asynccontextmanager
async def open_pipe(
    session: aiohttp.ClientSession, server: str, *, heartbeat_s: float = 20.0
) -> AsyncIterator[Pipe]:
    """Connect to the engine at `server` for as long as the block runs.

    Raises:
        ServerUnreachable: nobody answers there.
        ProtocolViolated: somebody else does.
    """
    socket = await connect(session, server, heartbeat_s)
    pipe = Pipe(server, socket)
    receiving = asyncio.create_task(pipe.receive())
    try:
        yield pipe
    finally:
        receiving.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await receiving
        finally:
            # A task that is cancelled before its first step does not even reach its `finally`.
            pipe.fail("this end closed the connection")
            await socket.close()


async def connect(
    session: aiohttp.ClientSession, server: str, heartbeat_s: float
) -> aiohttp.ClientWebSocketResponse:
    """Return a WebSocket to the engine at `server`; see `open_pipe`."""
    try:
        # Claims are signatures: nothing in them compresses.
        return await session.ws_connect(
            f"{server}/v1/ws", max_msg_size=ANSWER_BYTES_MAX, compress=0, heartbeat=heartbeat_s
        )
    except aiohttp.WSServerHandshakeError as error:
        if error.status in (429, 503):
            raise ServerUnreachable(server, f"not ready (HTTP {error.status})") from error
        raise ProtocolViolated(f"{server} has no WebSocket: HTTP {error.status}") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ServerUnreachable(server, reason_of(error)) from error
