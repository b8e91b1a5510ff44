"""Messages as they go over the wire, made before the clock starts, and the reading of answers.

The load shares the machine with the engine, so it must cost little: what it sends lies ready in a
file, bytes for bytes, and what comes back is only looked at as far as it is counted.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import msgspec

Transport = Literal["ws", "ws-single", "http", "http-single", "inprocess"]
WireClaim = tuple[bytes, int | None, int, bytes]
"""Channel, sequence or None, amount, signature."""

HOST: Final = b"paychan"
UPGRADE: Final = (
    b"GET /v1/ws HTTP/1.1\r\nHost: " + HOST + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: cGF5Y2hhbiBiZW5jaG1hcg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK: Final = bytes.fromhex("37fa213d")
"""RFC 6455 wants an unpredictable one against proxies; the server takes it off all the same."""

BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length:"

_encode: Final = msgspec.msgpack.Encoder().encode
_json: Final = msgspec.json.Encoder().encode


def frame_of(number: int, claims: Sequence[WireClaim]) -> bytes:
    """Return a binary frame without its envelope."""
    return _encode((number, claims))


def websocket_message(payload: bytes, opcode: int = BINARY) -> bytes:
    """Return a message of a client: one frame, masked (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    mask = int.from_bytes((MASK * (size // 4 + 1))[:size], "big")
    masked = (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")
    return head + MASK + masked


def http_batch(claims: Sequence[WireClaim]) -> bytes:
    """Return a call with many claims."""
    names = ("channel_id", "sequence", "amount", "signature")
    body = _encode({"claims": [dict(zip(names, claim, strict=True)) for claim in claims]})
    kind = b"application/msgpack"
    return _call(b"/v1/claims", kind, body, b"Accept: " + kind + b"\r\n")


def http_single(claim: WireClaim) -> bytes:
    """Return a call with one claim."""
    channel_id, sequence, amount, signature = claim
    channel = channel_id.hex().upper()
    body = {"channel_id": channel, "amount": str(amount), "signature": signature.hex().upper()}
    path = f"/v1/channels/{channel}/claims".encode()
    return _call(path, b"application/json", _json(body | {"sequence": sequence}), b"")


def _call(path: bytes, kind: bytes, body: bytes, more: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (
        path,
        HOST,
        kind,
        len(body),
        more,
        body,
    )


def message(transport: Transport, number: int, claims: Sequence[WireClaim]) -> bytes:
    """Return what one connection sends for these claims."""
    match transport:
        case "http":
            return http_batch(claims)
        case "http-single":
            return http_single(claims[0])
        case "inprocess":
            return frame_of(number, claims)
        case _:
            return websocket_message(frame_of(number, claims))


# Answers ------------------------------------------------------------------------------------------


class _Answer(msgspec.Struct, array_like=True, gc=False):
    """What counts of `[status, code | nil, sequence, position]`."""

    status: int
    code: str | None


class _Result(msgspec.Struct, gc=False):
    """What counts of a result object."""

    status: str
    code: str | None = None


class _Results(msgspec.Struct, gc=False):
    results: list[_Result]


WORDS: Final = ("accepted", "duplicate", "buffered", "rejected")
_answers: Final = msgspec.msgpack.Decoder(tuple[int, list[_Answer]]).decode
_results: Final = msgspec.msgpack.Decoder(_Results).decode
_result: Final = msgspec.json.Decoder(_Result).decode

Counted = tuple[int, list[str]]
"""How many claims were accepted, and a word for each of the others."""


def count_frame(payload: bytes) -> tuple[int, Counted]:
    """Return the number of the frame that is answered, and what the answer says."""
    number, answers = _answers(payload)
    if not any([answer.status for answer in answers]):  # noqa: C419  (twice as fast as a generator)
        return number, (len(answers), [])
    others = [answer.code or WORDS[answer.status] for answer in answers if answer.status]
    return number, (len(answers) - len(others), others)


def count_batch(status: int, body: bytes) -> Counted:
    """Return what the answer to a call with many claims says; a refused call is one word."""
    if status != 200:
        return 0, [f"http_{status}"]
    results = _results(body).results
    others = [one.code or one.status for one in results if one.status != "accepted"]
    return len(results) - len(others), others


def count_single(status: int, body: bytes) -> Counted:
    """Return what the answer to a call with one claim says."""
    result = _result(body) if status < 300 else _Result(f"http_{status}")
    return (1, []) if result.status == "accepted" else (0, [result.status])


class WebsocketReader:
    """Cuts what a server sends into messages, after the answer to `UPGRADE`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (opcode, payload) of every whole message so far.

        Raises:
            ValueError: a message in several frames, which paychan never sends.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        while (end := _websocket_end(buffer, at)) is not None:
            first, start, at = buffer[at], end[0], end[1]
            if not first & 0x80:
                raise ValueError("a message came in several frames")
            yield first & 0x0F, bytes(buffer[start:at])
        del buffer[:at]


def _websocket_end(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Return where the payload of the frame at `at` begins and ends; None until it is whole."""
    have = len(buffer)
    if have < at + 2:
        return None
    size, start = buffer[at + 1], at + 2
    if size > 125:
        width = 2 if size == 126 else 8
        size, start = int.from_bytes(buffer[start : start + width], "big"), start + width
        if have < start:
            return None
    return (start, start + size) if have >= start + size else None


class HttpReader:
    """Cuts what a server sends into answers that have a `Content-Length`."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (status, body) of every whole answer so far.

        Raises:
            ValueError: an answer does not say how long it is.
        """
        self._buffer += data
        while (head_end := self._buffer.find(HEAD_END)) >= 0:
            head = self._buffer[:head_end]
            body = head_end + len(HEAD_END)
            end = body + _content_length(head)
            if len(self._buffer) < end:
                return
            answer = int(head[9:12]), self._buffer[body:end]
            self._buffer = self._buffer[end:]
            yield answer


def _content_length(head: bytes) -> int:
    at = head.lower().find(LENGTH)
    if at < 0:
        raise ValueError(f"an answer without a length: {head[:80]!r}")
    return int(head[at + len(LENGTH) :].partition(b"\r\n")[0])


Count = Callable[[int, bytes], Counted]
COUNT_HTTP: Final[dict[str, Count]] = {"http": count_batch, "http-single": count_single}
