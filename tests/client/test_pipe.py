"""One connection's frames: answers find their frames, and an end is told to everybody."""

import asyncio

import aiohttp
import msgspec
import pytest

from engine.client import (
    ProtocolViolated,
    ServerUnreachable,
    decode_answers,
    encode_claims,
    open_pipe,
)
from engine.core.claim import Claim
from tests.client.double import EngineDouble, Frame, Trouble, claims_of


async def test_answers_in_any_order_find_their_frames():
    double = EngineDouble(lambda frame: Trouble(hold_back=2) if frame.count == 1 else None)
    frames = [encode_claims(claims_of(channel, channel)) for channel in (1, 2, 3)]
    async with (
        double.running(),
        aiohttp.ClientSession() as session,
        open_pipe(session, double.url) as pipe,
    ):
        futures = [await pipe.send(frame) for frame in frames]
        answers = [decode_answers(await future) for future in futures]
    assert [len(found) for found in answers] == [1, 2, 3]
    assert answers[2][2].position == "0-3"


def test_a_claim_is_four_fields_and_two_more_where_it_says_them():
    plain, full = Claim(b"c", 1, b"s", 2), Claim(b"c", 1, b"s", None, previous=3, sent_at=4)
    assert msgspec.msgpack.decode(encode_claims([plain, full])) == [
        [b"c", 2, 1, b"s"],
        [b"c", None, 1, b"s", 3, 4],
    ]


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_who_waits_is_told_when_the_connection_ends(drop):
    double = EngineDouble(lambda frame: Trouble(drop=drop))
    async with (
        double.running(),
        aiohttp.ClientSession() as session,
        open_pipe(session, double.url) as pipe,
    ):
        future = await pipe.send(encode_claims(claims_of(1, 1)))
        with pytest.raises(ServerUnreachable):
            await future
        assert pipe.is_broken
        with pytest.raises(ServerUnreachable):
            await pipe.send(b"\x90")


async def test_who_waits_is_told_when_this_end_closes():
    double = EngineDouble(lambda frame: Trouble(silent=True))
    async with double.running(), aiohttp.ClientSession() as session:
        async with open_pipe(session, double.url) as pipe:
            future = await pipe.send(encode_claims(claims_of(1, 1)))
        with pytest.raises(ServerUnreachable):
            await future


@pytest.mark.parametrize(
    "nonsense", [b"", b"\x92", b"\xc0", b"\x93\x01\x90\x90", b"\x92\xa1x\x90", "text"]
)
async def test_nonsense_ends_the_connection(nonsense):
    async def answer(frame: Frame) -> None:
        send = frame.socket.send_str if isinstance(nonsense, str) else frame.socket.send_bytes
        await send(nonsense)

    double = EngineDouble()
    double._take = answer  # type: ignore[method-assign]
    async with (
        double.running(),
        aiohttp.ClientSession() as session,
        open_pipe(session, double.url) as pipe,
    ):
        future = await pipe.send(encode_claims(claims_of(1, 1)))
        with pytest.raises(ProtocolViolated):
            await future


async def test_a_waiter_that_gave_up_does_not_disturb_the_others():
    double = EngineDouble(lambda frame: Trouble(hold_back=1) if frame.count == 1 else None)
    async with (
        double.running(),
        aiohttp.ClientSession() as session,
        open_pipe(session, double.url) as pipe,
    ):
        gone = await pipe.send(encode_claims(claims_of(1, 1)))
        gone.cancel()
        await (await pipe.send(encode_claims(claims_of(2, 1))))
        await (await pipe.send(encode_claims(claims_of(3, 1))))
        assert not pipe.is_broken
        await asyncio.gather(gone, return_exceptions=True)


async def test_an_address_without_a_websocket_is_told_from_one_without_anybody(unused_tcp_port):
    async with aiohttp.ClientSession() as session, EngineDouble().running() as double:
        with pytest.raises(ProtocolViolated, match="HTTP 404"):
            async with open_pipe(session, double.url + "/elsewhere"):
                pass
        with pytest.raises(ServerUnreachable):
            async with open_pipe(session, f"http://127.0.0.1:{unused_tcp_port}"):
                pass
