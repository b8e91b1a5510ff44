"""Binary frames without ASGI in between: cut out of what comes, taken and answered on the spot.

uvicorn's WebSocket costs some 50 µs a frame: a parser of generators, a queue, two tasks to wake.
Nearly all frames here are whole, binary and masked; those are read here, the payload unmasked in C.
Every other frame is websockets' to read and to judge, byte for byte as it came.

    binary frame of a client = 82 | 80 + size | [size of 2 or 8 bytes] | mask of 4 | payload

The one rule: websockets' parser only ever sees whole frames that are not read here.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # C where it is built
from websockets.protocol import OPEN

from engine.gateway.edge import EdgeWebSocket

FRAMES: Final = "paychan.frames"
"""Where an ASGI scope has its `FrameSocket`, among `extensions`."""

WHOLE_BINARY: Final = 0x82
MASKED: Final = 0x80
MASK_BYTES: Final = 4
HEAD_BYTES: Final = 2
SIZE_BYTES: Final = {126: 2, 127: 8}
"""What the seven bits of a size say where the size itself comes behind them."""

_HEAD: Final = struct.Struct(">BB").pack
_HEAD_16: Final = struct.Struct(">BBH").pack
_HEAD_64: Final = struct.Struct(">BBQ").pack

Take = Callable[[bytes], bool]
"""Takes a frame at once, or says that it has to wait for its turn."""


class FrameSocket(EdgeWebSocket):
    """A WebSocket that hands binary frames to `Take`, and writes them, without a task between."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._take: Take | None = None
        self._begun = bytearray()
        """The first bytes of a frame that is not whole yet."""
        self._worth_a_look = 0
        """How many bytes must have begun before there is a frame, or its head."""
        self._theirs = 0
        """Bytes still to come of a frame that websockets reads."""
        self._all_theirs = False

    def hand_over(self, take: Take) -> None:
        """Ask `take` first for every binary frame from now on."""
        self._take = take

    def send_frame(self, payload: bytes) -> bool:
        """Send a binary frame; False where it has to wait, or can be sent no more."""
        if self.conn.state is not OPEN or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(head_of(len(payload)) + payload)
        return True

    def handle_connect(self, event: Any) -> None:
        """Tell the application where frames can be had."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][FRAMES] = self  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.conn.state is OPEN and not self._all_theirs:
            self._read(data)
            return
        # Who sends frames before the handshake is answered: where they end is not known here.
        self._all_theirs |= self.handshake_initiated and not self.handshake_complete
        self._leave(data)

    def _leave(self, data: bytes) -> None:
        """Leave everything to websockets, what has begun here included."""
        begun, self._begun = self._begun, bytearray()
        super().data_received(bytes(begun) + data)

    def _read(self, data: bytes | bytearray) -> None:
        if self._begun:
            self._begun += data
            if len(self._begun) < self._worth_a_look:
                return
            data, self._begun = self._begun, bytearray()
        at, have = 0, len(data)
        while at < have and self.conn.state is OPEN:  # what comes after a close is nobody's
            if self._theirs:
                upto = min(have, at + self._theirs)
                self._theirs -= upto - at
                super().data_received(bytes(data[at:upto]))
                at = upto
                continue
            start, end = payload_bounds(data, at)
            if start <= have and not self._is_ours(data, at, end - start):
                self._theirs = end - at
                continue
            if end > have:
                self._begun = bytearray(memoryview(data)[at:])
                self._worth_a_look = (end if start <= have else start) - at
                return
            self._hand(unmasked(data, start, end))
            at = end

    def _is_ours(self, data: bytes | bytearray, at: int, size: int) -> bool:
        """Say whether a frame with a whole head is a whole binary message within bounds."""
        return (
            data[at] == WHOLE_BINARY
            and data[at + 1] >= MASKED
            and size <= self.config.ws_max_size
            and self.conn.cur_size is None  # else a message in pieces is under way
        )

    def _hand(self, payload: bytes) -> None:
        # A frame behind one that waits must wait as well: claims are taken in the order they come.
        if self._take is not None and self.queue.empty() and self._take(payload):
            return
        self.curr_msg_data_type, self.frames = "bytes", [payload]
        self.send_receive_event_to_app()


def payload_bounds(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return where the payload of the frame at `at` begins and ends.

    While the head is not whole, both lie beyond `data`, and the beginning no further than its end.
    """
    start = at + HEAD_BYTES
    if len(data) < start:
        return start, start
    size = data[at + 1] & ~MASKED
    if width := SIZE_BYTES.get(size, 0):
        start += width
        if len(data) < start:
            return start, start
        size = int.from_bytes(data[start - width : start], "big")
    if data[at + 1] & MASKED:
        start += MASK_BYTES
    return start, start + size


def unmasked(data: bytes | bytearray, start: int, end: int) -> bytes:
    """Return a payload as its sender meant it."""
    mask = bytes(data[start - MASK_BYTES : start])
    # It takes any buffer: without a copy first, for a frame may be large.
    return apply_mask(memoryview(data)[start:end], mask)  # type: ignore[arg-type]


def head_of(size: int) -> bytes:
    """Return what comes before the `size` bytes of a binary frame of a server."""
    if size < 126:
        return _HEAD(WHOLE_BINARY, size)
    if size < 1 << 16:
        return _HEAD_16(WHOLE_BINARY, 126, size)
    return _HEAD_64(WHOLE_BINARY, 127, size)
