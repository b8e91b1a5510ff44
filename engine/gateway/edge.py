"""What uvicorn leaves open: how long and how large a head may be, and how many may be connected.

A connection whose head does not come in time, or does not end, costs memory and a descriptor for
nothing; it is answered and closed.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from engine.core.rejections import RejectCode
from engine.gateway.asgi import Receive, Scope, Send, respond
from engine.gateway.options import GatewayOptions
from engine.gateway.patience import Hurried
from engine.gateway.problems import Problem

FRAGMENTS_MAX: Final = 4_096
"""Pieces of one WebSocket message; their size is bounded elsewhere, but they may be empty."""

UNSENT_MAX: Final = 1 << 20
"""Bytes that may wait for a client that does not read; beyond it its pings get no answer, and its
frames wait in the socket."""

CLOSE_NOT_UTF8: Final = 1007
CLOSE_TOO_BIG: Final = 1009


class HeadTooLarge(Exception):  # noqa: N818  (stops the parser, which knows no other way)
    """The head of a call, or the trailer of its body, is beyond the limit."""


class EdgeProtocol(Hurried, HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on the head of a call and on how many are connected."""

    def __init__(self, options: GatewayOptions, **rest: Any) -> None:
        super().__init__(**rest)
        self._options = options
        self._head_bytes = 0
        self._in_head = True
        self._fields_bytes = 0
        self._is_too_large = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the head of the first call."""
        super().connection_made(transport)
        if len(self.connections) > self._options.connections_max:
            self.app = _crowded
            self.ws_protocol_class = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._head_came()
        self._end_patience()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to another protocol."""
        self._end_patience()
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """End the connection, after what is under way on it."""
        self.hurry()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Count what comes before the head is complete."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > self._options.head_bytes_max:
            self._refuse_large_head()

    def on_message_begin(self) -> None:
        """Begin to count the fields of a head, which may have come in one piece with others."""
        self._fields_bytes = 0
        if self._head_timer is None:
            self._await_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        super().on_url(url)
        self._measure(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field, of the head or of the trailer of a body that might never end."""
        super().on_header(name, value)
        self._measure(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Go on as uvicorn does; the body has bounds of its own."""
        self._head_came()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Make ready for the next call; an idle connection is uvicorn's keep-alive timer's."""
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not, or was not let, read."""
        if self._is_too_large:
            self._refuse_large_head()
        else:
            self._give_up(400, "this is no HTTP/1.1")

    def _awaited(self) -> object:
        """Return what the peer has not taken, or the call whose body it has not sent."""
        if unsent := super()._awaited():
            return unsent
        call = self.cycle
        return call if call is not None and call.more_body and not call.response_complete else None

    def _measure(self, size: int) -> None:
        self._fields_bytes += size
        if self._fields_bytes > self._options.head_bytes_max:
            self._is_too_large = True
            raise HeadTooLarge

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._options.head_timeout_s, self._too_slow)

    def _head_came(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        most = self._options.head_timeout_s
        self._give_up(408, f"the head of a call did not come within {most} s")

    def _refuse_large_head(self) -> None:
        most = self._options.head_bytes_max
        self._give_up(431, f"the head of a call has at most {most} bytes")

    def _give_up(self, status: int, detail: str) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            problem = Problem(status, RejectCode.MALFORMED.value, detail)
            self.transport.write(_raw(problem))
        self.transport.close()


class EdgeWebSocket(Hurried, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket; nothing a client sends ends in a log line or an endless list.

    Attributes:
        lost: Set once there is no connection any more.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._end_patience()
        super().connection_lost(exc)
        self.lost.set()

    def shutdown(self) -> None:
        """End the connection."""
        self.hurry()
        super().shutdown()

    def eof_received(self) -> None:
        """End the connection because nothing more comes."""
        super().eof_received()
        self.hurry()

    def handle_close(self, event: Any) -> None:
        """End the connection because the peer does."""
        super().handle_close(event)
        self.hurry()

    def handle_parser_exception(self) -> None:
        """End the connection because the peer does not keep to the protocol."""
        super().handle_parser_exception()
        self.hurry()

    def handle_ping(self) -> None:
        """Answer a ping; a client that only pings and never reads is owed nothing for them."""
        if self.transport.get_write_buffer_size() > UNSENT_MAX:
            self.conn.data_to_send()
        else:
            super().handle_ping()

    def keepalive_timeout(self) -> None:
        """Give up a peer that answers no ping, and with it what it does not read."""
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():  # to close would be to wait for it
            self.transport.abort()

    def handle_cont(self, event: Any) -> None:
        """Take a further piece of a message."""
        if len(self.frames) >= FRAGMENTS_MAX:
            self._fail(CLOSE_TOO_BIG, f"a message has at most {FRAGMENTS_MAX} pieces")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand over a whole message."""
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._fail(CLOSE_NOT_UTF8, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem(503, RejectCode.OVERLOADED.value, "too many are connected")
    headers = [*problem.headers(), (b"connection", b"close")]
    await respond(send, problem.status, problem.body(), headers)


def _raw(problem: Problem) -> bytes:
    body = problem.body()
    fields = [*problem.headers(), (b"content-length", b"%d" % len(body))]
    if (b"connection", b"close") not in fields:
        fields.append((b"connection", b"close"))
    lines = [f"HTTP/1.1 {problem.status} Refused".encode()]
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join([*lines, b"", body])
