"""The load: a process of its own that sends ready-made messages and times the answers.

Reads a `Job` as JSON on standard input and writes a `stream.Tally` as JSON on standard output.
"""

import asyncio
import contextlib
import gc
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.frames import read_frames
from bench.stream import UNCUT, Cut, Pace, Stream, Tally, summed_up
from bench.wire import (
    BINARY,
    CLOSE,
    COUNT_HTTP,
    HEAD_END,
    PING,
    PONG,
    UPGRADE,
    HttpReader,
    Transport,
    WebsocketReader,
    count_frame,
    websocket_message,
)

ANSWERS_MAX_S: Final = 30.0
"""How long answers may come after the last message; what has none then is counted as such."""

CALM_S: Final = 0.1
"""With so long between two messages they are sent to the moment: the engine is idle, and a timer
of milliseconds would be a good part of what is measured."""

EARLY_S: Final = 0.002

UPGRADED: Final = b"HTTP/1.1 101"


class Job(msgspec.Struct, frozen=True):
    """What to send where: one file of messages per connection, `rate` in claims a second over all.

    `window` is how many messages of a connection may be without an answer in a closed loop.
    """

    url: str
    transport: Transport
    files: list[str]
    window: int
    seconds: float
    rate: float = 0.0
    claims_per_frame: int = 1
    cut: Cut = UNCUT

    def paces(self) -> list[Pace]:
        """Return when each connection sends; they take turns, so that a rate is no row of bursts.

        HTTP has one call under way a connection, so that the claims of a channel stay in order.
        """
        count = len(self.files)
        pause_s = self.claims_per_frame * count / self.rate if self.rate else 0.0
        open_loop = self.rate and not self.transport.startswith("http")
        window = math.inf if open_loop else self.window
        early_s = EARLY_S if pause_s / count >= CALM_S else 0.0
        return [
            Pace(self.seconds, window, pause_s, number * pause_s / count, early_s)
            for number in range(count)
        ]


class _Link(asyncio.Protocol):
    """A connection: hands its stream's messages on, and what comes back to its stream."""

    def __init__(self, file: str, pace: Pace) -> None:
        self.stream = Stream(read_frames(file), self._write, pace)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by what it does

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"no connection came about: {exc}"))
        self.stream.gone()

    def _write(self, message: memoryview) -> None:
        self.transport.write(message)


class _Websocket(_Link):
    """Binary frames, pipelined."""

    def __init__(self, file: str, pace: Pace, transport: Transport) -> None:
        super().__init__(file, pace)
        self._reader = WebsocketReader()
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        super().connection_made(transport)
        self.transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self.ready.done():
            data = self._upgraded(data)
        for opcode, payload in self._reader.feed(data):
            if opcode == BINARY:
                number, (accepted, others) = count_frame(payload)
                self.stream.answer(number, accepted, others)
            elif opcode == PING:
                self.transport.write(websocket_message(payload, PONG))
            elif opcode == CLOSE:
                self.transport.close()
            else:  # a frame was malformed: nothing of this run would count
                raise SystemExit(f"the engine says {payload[:400]!r}")

    def _upgraded(self, data: bytes) -> bytes:
        """Read the answer to the request; return what comes after it."""
        self._head += data
        head, whole, rest = self._head.partition(HEAD_END)
        if not whole:
            return b""
        if head.startswith(UPGRADED):
            self.ready.set_result(None)
        else:
            self.ready.set_exception(ConnectionError(f"no WebSocket: {head[:200]!r}"))
        return rest


class _Http(_Link):
    """Calls, one after the other."""

    def __init__(self, file: str, pace: Pace, transport: Transport) -> None:
        super().__init__(file, pace)
        self._reader = HttpReader()
        self._count = COUNT_HTTP[transport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin at once."""
        super().connection_made(transport)
        self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for status, body in self._reader.feed(data):
            self.stream.answer(self.stream.oldest(), *self._count(status, body))


async def drive(job: Job) -> Tally:
    """Send every file over a connection of its own and sum up."""
    kind: Callable[[str, Pace, Transport], _Link]
    kind = _Websocket if job.transport.startswith("ws") else _Http
    place = urlsplit(job.url)
    loop = asyncio.get_running_loop()
    links: list[_Link] = []
    for file, pace in zip(job.files, job.paces(), strict=True):
        link = kind(file, pace, job.transport)
        await loop.create_connection(partial(_same, link), place.hostname or "", place.port or 0)
        links.append(link)
    await asyncio.gather(*(link.ready for link in links))
    gc.collect()
    gc.disable()
    started, cpu = time.perf_counter(), time.process_time()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(job.seconds + ANSWERS_MAX_S):
            await asyncio.gather(*(link.stream.run() for link in links))
    used = time.process_time() - cpu
    for one in links:
        one.stream.gone()
        one.transport.close()
    return summed_up([link.stream for link in links], started, used, job.cut)


def _same(link: _Link) -> _Link:
    return link


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        tally = uvloop.run(drive(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
        sys.stdout.write(msgspec.json.encode(tally).decode() + "\n")
