"""Calls straight to a process of this machine: a socket where Ray would take its time.

Ray starts the processes and starts them again; what goes back and forth for every batch goes over
a Unix socket, in order, at a tenth of the CPU of a Ray call.

    request = u32 LE length | msgpack [number, step, argument, ...]
    answer  = u32 LE length | msgpack [number, error, octets], error empty where there is none

The one rule: a line that breaks says so to everybody who waits. Nothing is sent again here.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from engine.verify.errors import MalformedBatchError

FRAME_BYTES_MAX: Final = 4 << 20
"""Several times the largest batch; whoever says more is not one of ours."""

BUFFER_BYTES: Final = 1 << 20
"""Of the kernel, for each direction: a batch is written in one go."""

_LENGTH: Final = struct.Struct("<I")
_CREDENTIALS: Final = struct.Struct("3i")  # SO_PEERCRED: process, user, group
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_request: Final = msgspec.msgpack.Decoder(list[Any]).decode
_decode_answer: Final = msgspec.msgpack.Decoder(tuple[int, str, bytes]).decode

Step = Callable[..., bytes]


class LineBroken(ConnectionError):  # noqa: N818
    """The process at the other end is gone, or no longer speaks to us."""


def _framed(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


# In the process that is called --------------------------------------------------------------------


class Door:
    """Answers calls from this machine, one at a time over all lines, in threads of its own.

    Attributes:
        address: Where `connect` finds it; the kernel forgets it when the process ends.
    """

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps
        self._turn = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.address = f"paychan-{os.getpid()}-{secrets.token_hex(8)}"
        self._listener.bind(f"\0{self.address}")
        self._listener.listen()
        threading.Thread(target=self._welcome, name="door", daemon=True).start()

    def close(self) -> None:
        """Take no more lines."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or `accept` would go on waiting
        self._listener.close()

    def _welcome(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:  # closed
                return
            if _user_of(line) != os.getuid():  # such an address has no permissions of its own
                line.close()
                continue
            threading.Thread(target=self._serve, args=(line,), name="line", daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        with line, contextlib.suppress(OSError, EOFError, msgspec.MsgspecError, ValueError):
            while True:
                number, step, *arguments = _decode_request(_read(line))
                line.sendall(_framed(_encode((number, *self._answer(step, arguments)))))

    def _answer(self, step: str, arguments: list[Any]) -> tuple[str, bytes]:
        with self._turn:
            try:
                return "", self._steps[step](*arguments)
            except Exception as error:  # the caller's to judge; a shard that fails has ended by now
                return f"{type(error).__name__}: {error}", b""


def _user_of(line: socket.socket) -> int:
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(raw)[1]
    return user


def _read(line: socket.socket) -> bytearray:
    """Return the next frame.

    Raises:
        EOFError: the line ended.
        ValueError: what comes is no frame of ours.
    """
    (size,) = _LENGTH.unpack(_read_exactly(line, _LENGTH.size))
    if size > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {size} bytes")
    return _read_exactly(line, size)


def _read_exactly(line: socket.socket, size: int) -> bytearray:
    octets = bytearray(size)
    view = memoryview(octets)
    while view:
        count = line.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return octets


# In the process that calls ------------------------------------------------------------------------


class Line(asyncio.Protocol):
    """Calls to one door, answered in order. Made by `connect`."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._seen = bytearray()
        self._transport: asyncio.Transport

    @property
    def is_up(self) -> bool:
        """Say whether calls can be made."""
        return not self._transport.is_closing()

    def call(self, step: str, *arguments: bytes | int | str) -> "asyncio.Future[bytes]":
        """Start a call at once; its answer is to be awaited.

        Raises (when awaited):
            LineBroken: the other end is gone; whether the step was done is unknown.
            MalformedBatchError: a verifier could not read the batch.
            RuntimeError: the step failed.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if not self.is_up:
            answer.set_exception(LineBroken(f"before {step}"))
            return answer
        self._number += 1
        self._waiting[self._number] = answer
        self._transport.write(_framed(_encode((self._number, step, *arguments))))
        return answer

    def close(self) -> None:
        """End the line; who still waits is told."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._seen += data
        while len(self._seen) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._seen)
            end = _LENGTH.size + size
            if size > FRAME_BYTES_MAX:
                self._transport.abort()
                return
            if len(self._seen) < end:
                return
            body = bytes(self._seen[_LENGTH.size : end])
            del self._seen[:end]
            self._take(body)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(LineBroken(str(error or "the process ended")))
                answer.exception()  # seen: who gave up waiting must not be told by the loop

    def _take(self, body: bytes) -> None:
        try:
            number, error, octets = _decode_answer(body)
        except msgspec.MsgspecError:
            self._transport.abort()
            return
        answer = self._waiting.pop(number, None)
        if answer is None or answer.done():
            return
        if not error:
            answer.set_result(octets)
        elif error.startswith(MalformedBatchError.__name__):
            answer.set_exception(MalformedBatchError(error))
        else:
            answer.set_exception(RuntimeError(error))


async def connect(address: str) -> Line:
    """Return a line to the door at `address`.

    Raises:
        OSError: there is none on this machine.
    """
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.connect(f"\0{address}")  # at once, or not at all; uvloop does not know such addresses
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        _, line = await asyncio.get_running_loop().create_unix_connection(Line, sock=ours)
    except BaseException:
        ours.close()
        raise
    return line
