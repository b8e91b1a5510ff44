"""① The door: uvicorn on uvloop. Claims go by bare ASGI, everything else through Starlette."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Final

import uvicorn

from engine.gateway.asgi import Receive, Scope, Send
from engine.gateway.claims import ClaimsDoor
from engine.gateway.edge import EdgeProtocol
from engine.gateway.frames import FrameSocket
from engine.gateway.options import GatewayOptions
from engine.gateway.routes import build_routes
from engine.gateway.state import GatewayState
from engine.gateway.websocket import WebSocketDoor

CLAIMS_PATH: Final = "/v1/claims"
CHANNELS_PATH: Final = "/v1/channels/"
CLAIMS_END: Final = "/claims"
SOCKET_PATH: Final = "/v1/ws"
WS_PING_S: Final = 20.0
STOP_MAX_S: Final = 15
"""How long a stop waits for calls that shards do not answer, in whole seconds."""


class Gateway:
    """The ASGI application of an engine."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state
        self._claims = ClaimsDoor(state)
        self._sockets = WebSocketDoor(state)
        self._rest = build_routes(state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call; the claim path is looked for first."""
        path = scope["path"]
        if scope["type"] == "websocket":
            if path == SOCKET_PATH:
                await self._sockets(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1000})
        elif path == CLAIMS_PATH:
            await self._claims.many(scope, receive, send)
        elif scope["method"] == "POST" and path.endswith(CLAIMS_END):
            channel = path.removeprefix(CHANNELS_PATH).removesuffix(CLAIMS_END)
            await self._claims.one(scope, receive, send, channel)
        else:
            await self._rest(scope, receive, send)

    async def drain(self) -> None:
        """Take nothing new, and let what is under way be answered."""
        self.state.draining = True
        await self._sockets.drain()


class _Server(uvicorn.Server):
    """uvicorn, but the signals are ours, and it says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@contextlib.asynccontextmanager
async def listening(gateway: Gateway, door: socket.socket | None = None) -> AsyncIterator[str]:
    """Listen while the block runs; yields the address, such as `http://127.0.0.1:8480`.

    Args:
        gateway: The application.
        door: A socket that was bound before; None to bind one now.

    Raises:
        OSError: the address cannot be had.
    """
    options = gateway.state.options
    door = door or bind(options)
    config = uvicorn.Config(
        gateway,
        http=partial(EdgeProtocol, options),  # type: ignore[arg-type]
        ws=FrameSocket,
        ws_max_size=options.body_bytes_max,
        ws_per_message_deflate=False,
        ws_ping_interval=WS_PING_S,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=STOP_MAX_S,
        interface="asgi3",
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([door]))
    try:
        listens = asyncio.create_task(server.listens.wait())
        await asyncio.wait((listens, serving), return_when=asyncio.FIRST_COMPLETED)
        if not listens.done():
            listens.cancel()
            await serving  # raises what kept it from listening
        host, port = door.getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        for connection in server.server_state.connections:
            connection.hurry()  # type: ignore[union-attr]  # both kinds are ours
        await gateway.drain()
        server.should_exit = True
        await serving


def bind(options: GatewayOptions) -> socket.socket:
    """Return a socket at the configured address, which nobody else can have from now on.

    Raises:
        OSError: the address cannot be had.
    """
    host, port = options.host, options.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio turns Nagle off only where it is, and an answer is two writes.
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError:
        door.close()
        raise
    return door


def hear_stop(told: asyncio.Event) -> None:
    """Set `told` at SIGTERM or SIGINT from now on; again where something else took the signals."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        loop.add_signal_handler(number, told.set)
