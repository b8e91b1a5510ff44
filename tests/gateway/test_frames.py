"""Frames read without ASGI: the same messages, answers and closes as websockets makes of the bytes.

The judge is uvicorn's own WebSocket, which every byte goes through in the class that is built on.
"""

import asyncio
import struct
from itertools import pairwise

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from engine.gateway.edge import EdgeWebSocket
from engine.gateway.frames import FRAMES, FrameSocket, head_of, payload_bounds

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\x37\xfa\x21\x3d"
SIZE_MAX = 70_000
TEXT, BINARY, MORE, CLOSE, PING = 0x81, 0x82, 0x80, 0x88, 0x89
PADDING = bytes(14)
"""Of no meaning; whatever has begun becomes a whole head, so that both have had to judge it."""


def frame(first: int, payload: bytes, *, masked: bool = True, width: int = 0) -> bytes:
    size = len(payload)
    width = width or (0 if size < 126 else 2 if size < 1 << 16 else 8)
    seven = {0: size, 2: 126, 8: 127}[width]
    head = bytes((first, seven | (0x80 if masked else 0)))
    head += size.to_bytes(width, "big") if width else b""
    if not masked:
        return head + payload
    mask = int.from_bytes((MASK * (size // 4 + 1))[:size], "big")
    return head + MASK + (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")


class Line:
    """A transport that keeps what is written, and what it was told."""

    def __init__(self):
        self.written = b""
        self.closed = False

    def write(self, octets):
        self.written += octets

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return default

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    resume_reading = pause_reading


class Reader:
    """An application that reads like `Connection`: at once while it waits, else in its turn."""

    def __init__(self, *, takes=True):
        self.seen = []
        self.at_once = 0
        self._takes = takes
        self._waits = False

    def take(self, payload):
        if not self._waits:
            return False
        self.at_once += 1
        self.seen.append(bytes(payload))
        return True

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        if self._takes and FRAMES in scope["extensions"]:
            scope["extensions"][FRAMES].hand_over(self.take)
        while True:
            self._waits = True
            message = await receive()
            self._waits = False
            if message["type"] == "websocket.disconnect":
                return
            self.seen.append(message["bytes"] if "bytes" in message else message["text"])
            await asyncio.sleep(0)  # whatever it does with it, it may have to wait


async def heard(kind, pieces, reader, early=b""):
    """Return what a WebSocket of a kind wrote, and whether it closed."""
    config = uvicorn.Config(
        reader, ws_max_size=SIZE_MAX, ws_per_message_deflate=False, ws_ping_interval=None
    )
    config.load()
    line, protocol = Line(), kind(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(line)
    protocol.data_received(UPGRADE)
    if early:
        protocol.data_received(early)
    await settled()
    for piece in pieces:
        if not line.closed:
            protocol.data_received(piece)
            await settled()
    protocol.connection_lost(None)
    await asyncio.gather(*protocol.tasks)
    return line.written, line.closed


async def settled():
    for _ in range(6):
        await asyncio.sleep(0)


def both(whole, pieces, early=b""):
    """Let both read the same; return (application, what it led to) of each.

    The judge gets frames one by one: it drops messages that come in one piece with a wrong frame.
    """

    async def run():
        theirs, ours = Reader(), Reader()
        return (
            (theirs, await heard(EdgeWebSocket, whole, theirs, early)),
            (ours, await heard(FrameSocket, pieces, ours, early)),
        )

    return asyncio.run(run())


def cut(octets, at):
    """Return `octets` in pieces that end at the given places."""
    places = sorted({place % (len(octets) + 1) for place in at} | {0, len(octets)})
    return [octets[a:b] for a, b in pairwise(places)]


payloads = st.one_of(
    st.binary(max_size=200), st.sampled_from([125, 126, 65_535, 65_536]).map(bytes)
)
plain = payloads.map(lambda payload: frame(BINARY, payload))
texts = st.text(max_size=50).map(lambda text: frame(TEXT, text.encode()))
pings = st.binary(max_size=20).map(lambda payload: frame(PING, payload))
in_pieces = st.lists(st.binary(max_size=50), min_size=2, max_size=4).map(
    lambda parts: b"".join(
        frame((0x02 if not n else 0) | (0x80 if n == len(parts) - 1 else 0), part)
        for n, part in enumerate(parts)
    )
)
wide = st.tuples(st.binary(max_size=50), st.sampled_from([2, 8])).map(
    lambda made: frame(BINARY, made[0], width=made[1])
)
wrong = st.sampled_from(
    [
        frame(BINARY, b"bare", masked=False),
        frame(0xC2, b"reserved bit"),
        frame(0x83, b"no such kind"),
        frame(MORE, b"of nothing"),
        frame(PING, bytes(126)),
        frame(0x09, b"a ping in pieces"),
        frame(TEXT, b"\xff"),
        frame(BINARY, bytes(SIZE_MAX + 1)),
        bytes((BINARY, 0xFF)) + b"\xff" * 8 + MASK,
        frame(CLOSE, struct.pack(">H", 1000)),
        frame(CLOSE, b"\x00"),
        frame(0x02, b"begun") + frame(BINARY, b"another"),
    ]
)
good = st.one_of(plain, texts, pings, in_pieces, wide)
streams = st.lists(st.one_of(good, wrong), max_size=6)
places = st.lists(st.integers(0, 200_000), max_size=6)


@settings(max_examples=150, deadline=None)
@given(streams, places)
@example([frame(BINARY, b"one"), frame(TEXT, b"two"), frame(BINARY, b"three")], [])
@example([bytes((BINARY, 0xFF)) + b"\xff" * 8 + MASK], [4])
@example([frame(0x02, b"a"), frame(PING, b""), frame(MORE, b"b"), frame(BINARY, b"c")], [])
def test_what_comes_is_read_as_websockets_reads_it(stream, at):
    (theirs, wrote), (ours, wrote_ours) = both(
        [*stream, PADDING], cut(b"".join(stream) + PADDING, at)
    )
    assert ours.seen == theirs.seen
    assert wrote_ours == wrote


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), places)
def test_bytes_of_any_kind_are_read_as_websockets_reads_them(octets, at):
    octets += PADDING
    single = [octets[at : at + 1] for at in range(len(octets))]
    (theirs, wrote), (ours, wrote_ours) = both(single, cut(octets, at))
    assert (ours.seen, wrote_ours) == (theirs.seen, wrote)


@settings(max_examples=50, deadline=None)
@given(st.lists(good, max_size=6), places, st.integers(1, 300))
def test_who_does_not_wait_for_the_handshake_is_read_by_websockets(stream, at, early):
    octets = b"".join(stream)
    pieces = cut(octets[early:], at)
    (theirs, wrote), (ours, wrote_ours) = both(pieces, pieces, octets[:early])
    assert (ours.seen, wrote_ours) == (theirs.seen, wrote)
    assert ours.at_once == 0


def test_frames_that_come_while_the_reader_waits_are_taken_at_once():
    frames = [frame(BINARY, bytes([number])) for number in range(5)]
    _, (ours, _) = both(frames, [b"".join(frames)])
    assert ours.at_once == 5


def test_a_frame_does_not_overtake_one_that_waits():
    pieces = [frame(TEXT, b"a") + frame(BINARY, b"b"), frame(BINARY, b"c")]
    _, (ours, _) = both(pieces, pieces)
    assert ours.seen == ["a", b"b", b"c"]
    assert ours.at_once == 1


def test_an_application_that_takes_none_gets_them_in_its_turn():
    async def run():
        reader = Reader(takes=False)
        await heard(FrameSocket, [frame(BINARY, b"a") + frame(BINARY, b"b")], reader)
        return reader

    reader = asyncio.run(run())
    assert (reader.seen, reader.at_once) == ([b"a", b"b"], 0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 1 << 20])
def test_a_frame_is_written_as_websockets_writes_it(size):
    head = head_of(size)
    octets = head + bytes(size)
    assert head == frame(BINARY, bytes(size), masked=False)[: len(head)]
    assert payload_bounds(octets, 0) == (len(head), len(octets))


def test_nothing_is_sent_where_it_has_to_wait_or_can_no_more():
    async def run():
        said = []

        async def app(scope, receive, send):
            socket = scope["extensions"][FRAMES]
            said.append(socket.send_frame(b"before"))
            await receive()
            await send({"type": "websocket.accept"})
            said.append(socket.send_frame(b"open"))
            socket.pause_writing()
            said.append(socket.send_frame(b"no room"))
            socket.resume_writing()
            await send({"type": "websocket.close"})
            said.append(socket.send_frame(b"closed"))

        written, _ = await heard(FrameSocket, [], app)
        return said, written

    said, written = asyncio.run(run())
    assert said == [False, True, False, False]
    assert b"open" in written
    assert b"no room" not in written
