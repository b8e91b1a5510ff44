"""What comes before any claim: heads, bodies and connections that want too much."""

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.gateway.world import JSON, MSGPACK, Answer, Door, door_to_engine

CONNECTIONS_MAX = 16


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(tmp_path_factory) -> AsyncIterator[Door]:
    """A gateway with little patience and room."""
    limits = {"head_timeout_s": 1, "body_timeout_s": 1, "connections_max": CONNECTIONS_MAX}
    async with door_to_engine(tmp_path_factory.mktemp("strict"), **limits) as door:
        yield door


class Wire:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *fields = head.decode().strip().split("\r\n")
            headers = dict(field.lower().split(": ", 1) for field in fields)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


@contextlib.asynccontextmanager
async def wire(door: Door, *pieces: bytes) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    try:
        wire = Wire(reader, writer)
        await wire.send(*pieces)
        yield wire
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def head(path: str = "/v1/claims", **fields: Any) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: here", f"content-type: {JSON}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


EMPTY = b'{"claims":[]}'


async def refused(wire: Wire, status: int) -> None:
    answer = await wire.answer()
    assert (answer.status, answer.code) == (status, "malformed")
    assert await wire.is_closed()


SLOW = {
    "nothing at all": [],
    "half a head": [head()[:-2]],
    "half a second head": [head(content_length=len(EMPTY)), EMPTY, b"POST /v1/cl"],
    "half a body": [head(content_length=100), b'{"claims"'],
    "a chunked body without end": [head(transfer_encoding="chunked"), b"2\r\n{}\r\n"],
}


@pytest.mark.slow
async def test_what_does_not_come_in_time_is_408(strict):
    async def wait(pieces: list[bytes]) -> None:
        async with wire(strict, *pieces) as slow:
            if EMPTY in pieces:
                assert (await slow.answer()).status == 200
            await refused(slow, 408)

    await asyncio.gather(*(wait(pieces) for pieces in SLOW.values()))


# Heads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 1_000])
async def test_a_head_that_is_too_large_is_431_in_however_many_pieces(door, count):
    field = "x" * (80_000 // count)
    lines = "".join(f"x-{n}: {field}\r\n" for n in range(count)).encode()
    async with wire(door, head()[:-2], lines, b"\r\n") as large:
        await refused(large, 431)


async def test_a_head_that_is_too_large_is_431_in_one_piece(door):
    async with wire(door, head(x="x" * 80_000)) as large:
        await refused(large, 431)
    async with wire(door, head("/" + "x" * 80_000)) as large:
        await refused(large, 431)


async def test_a_trailer_that_does_not_end_is_cut_off(door):
    get = b"GET /livez HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    async with wire(door, get) as endless:
        assert (await endless.answer()).status == 200
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await endless.send(b"x: " + b"y" * 10_000 + b"\r\n")
            await endless.is_closed()
        assert endless.reader.at_eof() or endless.reader.exception()


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 100, b"{}\n\n"])
async def test_what_is_no_http_is_400(door, junk):
    async with wire(door, junk) as spoken:
        await refused(spoken, 400)


# Bodies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/claims", "/v1/channels"])
async def test_a_body_that_is_too_large_is_413_and_the_sender_hears_it(door, path):
    body = b" " * (3 << 20)
    answer = await door.post(path, body)
    assert (answer.status, answer.code) == (413, "malformed")


async def test_a_chunked_body_that_is_too_large_is_413_and_the_sender_hears_it(door):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(48):
            yield b" " * 65_536

    headers = {"content-type": JSON}
    answer = await door.call("POST", "/v1/claims", data=pieces(), headers=headers)
    assert (answer.status, answer.code) == (413, "malformed")


async def test_a_large_body_that_was_only_announced_is_413_at_once(door):
    asked = head(content_length=10**12, expect="100-continue")
    async with wire(door, asked) as patient:
        await refused(patient, 413)
    async with wire(door, head(content_length="9" * 18)) as patient:
        await refused(patient, 413)


async def test_the_largest_body_is_taken(door):
    body = EMPTY + b" " * (door.state.options.body_bytes_max - len(EMPTY))
    assert (await door.post("/v1/claims", body)).json == {"results": []}


async def test_a_body_cut_short_harms_nobody(door):
    async with wire(door, head(content_length=1_000), b'{"claims":['):
        pass
    assert (await door.post("/v1/claims", EMPTY)).status == 200


HUGE = [
    (MSGPACK, b"\x81\xa6claims\xdd\xff\xff\xff\xff" + b"\x90" * 1_000_000),
    (MSGPACK, b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * 300_000),
    (JSON, b'{"claims":[' + b"0," * 1_000_000 + b"0]}"),
    (JSON, b'{"claims":[' + b"{}," * 600_000 + b"{}]}"),
    (JSON, b'{"claims":[{"amount":' + b"[[]," * 400_000 + b"0]}]}"),
    (JSON, b'{"claims":[{"amount":"' + b"9" * 2_000_000 + b'"}]}'),
]


@pytest.mark.parametrize("number", range(len(HUGE)))
async def test_a_body_costs_a_small_multiple_of_its_size_whatever_it_claims(door, number):
    content_type, body = HUGE[number]
    gc.collect()
    tracemalloc.start()
    try:
        answer = await door.call(
            "POST", "/v1/claims", data=body, headers={"content-type": content_type}
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status in (200, 400, 413)
    assert peak < 24 << 20


async def test_a_frame_costs_a_small_multiple_of_its_size_whatever_it_claims(door):
    async with door.socket() as socket:
        gc.collect()
        tracemalloc.start()
        try:
            for claims in (b"\xdd\xff\xff\xff\xff", b"\x91\xdd\xff\xff\xff\xff", b"\xdc\x10\x00"):
                await socket.raw.send_bytes(b"\x92\x07" + claims + b"\x80" * 1_000_000)
                assert (await socket.heard())["error"] == "malformed"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 24 << 20


# Connections --------------------------------------------------------------------------------------


async def test_more_connections_than_allowed_are_told_to_come_back(strict):
    async with contextlib.AsyncExitStack() as open_ones:
        for _ in range(CONNECTIONS_MAX):
            await open_ones.enter_async_context(wire(strict, head()[:-2]))
        async with wire(strict, head(content_length=len(EMPTY)), EMPTY) as one_more:
            answer = await one_more.answer()
    assert (answer.status, answer.code) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1


async def test_calls_may_be_pipelined(door):
    call = head(content_length=len(EMPTY)) + EMPTY
    async with wire(door, call * 5) as many:
        for _ in range(5):
            assert msgspec.json.decode((await many.answer()).body) == {"results": []}
