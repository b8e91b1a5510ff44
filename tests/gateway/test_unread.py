"""Frames refused unread: what is answered is what reading them would have led to."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.channels.messages import Status
from engine.core.rejections import RejectCode
from engine.gateway.edge import UNSENT_MAX
from engine.gateway.schemas import CLAIMS_MAX, decode_frame
from engine.gateway.unread import refused_unread
from engine.gateway.websocket import Connection
from tests.gateway.test_frames import frame as masked_frame
from tests.gateway.test_websocket import deaf, flood, masked

pack = msgspec.msgpack.encode
CLAIM = [bytes(32), None, 1, b"s"]
SMALL = [bytes(32), None, 1, bytes(4)]
REFUSED = [3, "overloaded", None, None]


@pytest.mark.parametrize("number", [0, 127, 128, 255, 256, 65_535, 65_536, 2**32, 2**63 - 1])
@pytest.mark.parametrize("count", [1, 15, 16, 17, CLAIMS_MAX])
def test_each_claim_is_refused_under_the_number_of_its_frame(number, count):
    answer, refused = refused_unread(pack([number, [CLAIM] * count]))
    assert refused == count
    assert msgspec.msgpack.decode(answer) == [number, [REFUSED] * count]


UNPLAIN = {
    "nothing": b"",
    "no claims": pack([1, []]),
    "too many claims": pack([1, [CLAIM] * (CLAIMS_MAX + 1)]),
    "more claims said than there are": b"\x92\x01\xdc\x10\x00" + pack(CLAIM),
    "a number below 0": pack([-1, [CLAIM]]),
    "a number of 64 bits": pack([2**63, [CLAIM]]),
    "a text for a number": pack(["1", [CLAIM]]),
    "a map": pack({1: [CLAIM]}),
    "a list of three": pack([1, [CLAIM], 0]),
    "cut short": pack([1, [CLAIM]])[:2],
}


@pytest.mark.parametrize("name", UNPLAIN)
def test_what_is_not_plain_is_read(name):
    assert refused_unread(UNPLAIN[name]) is None


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x92\x01\x91" + tail))
def test_an_answer_to_any_bytes_is_one_and_never_longer_than_they_are(octets):
    told = refused_unread(octets)
    if told is not None:
        answer, count = told
        assert msgspec.msgpack.decode(answer)[1] == [REFUSED] * count
        assert len(answer) < len(octets)


numbers = st.integers(0, 2**63 - 1)
claims = st.tuples(
    st.binary(min_size=32, max_size=32),
    st.none() | st.integers(1, 2**63 - 1),
    st.integers(1, 2**64 - 1),
    st.binary(min_size=1, max_size=72),
)


@given(numbers, st.lists(claims, min_size=1, max_size=40))
def test_a_frame_that_can_be_read_is_refused_as_one_of_so_many_claims(number, sent):
    octets = pack([number, sent])
    read, decoded = decode_frame(octets)
    answer, count = refused_unread(octets)
    assert (read, len(decoded)) == (number, count)
    assert msgspec.msgpack.decode(answer) == [number, [REFUSED] * count]


# Behind a real socket -----------------------------------------------------------------------------


@pytest.fixture
def crowd(door, monkeypatch):
    """A switch: no shard has room, or all have."""
    for lane in door.state.router.lanes:
        monkeypatch.setattr(lane._batcher, "look", lambda: None)  # which finds the queue empty

    def switch(*full):
        for lane, is_full in zip(door.state.router.lanes, full, strict=True):
            lane._batcher.is_full = is_full

    yield switch
    switch(False, False)


async def test_a_frame_is_refused_while_no_shard_has_room_and_taken_afterwards(door, crowd):
    payer = await door.payer()
    counted = door.state.router.answered[Status.REJECTED, RejectCode.OVERLOADED]
    async with door.socket() as ws:
        crowd(True, True)
        assert await ws.frame(7, payer.wire(1, 10), payer.wire(2, 20)) == [REFUSED] * 2
        answered = door.state.router.answered[Status.REJECTED, RejectCode.OVERLOADED]
        assert answered == counted + 2
        crowd(False, False)
        answers = await ws.frame(8, payer.wire(1, 10), payer.wire(2, 20))
        assert [status for status, *_ in answers] == [Status.ACCEPTED] * 2


async def test_a_frame_is_read_while_one_shard_has_room(door, crowd):
    payers = [await door.payer() for _ in range(8)]
    async with door.socket() as ws:
        crowd(True, False)
        answers = await ws.frame(1, *(payer.wire(1, 10) for payer in payers))
    assert [status for status, *_ in answers] == [Status.ACCEPTED] * 8


async def test_what_cannot_be_refused_unread_is_answered_as_ever(door, crowd):
    crowd(True, True)
    async with door.socket() as ws:
        await ws.raw.send_bytes(b"\x92\x01")
        assert (await ws.heard())["error"] == "malformed"
        assert await ws.frame(2) == []


async def test_a_frame_behind_a_command_waits_for_its_turn(door):
    payer = await door.payer()
    async with door.socket() as ws:
        text = msgspec.json.encode({"command": "submit", "claims": [payer.claim(1, 10)]})
        binary = pack([2, [payer.wire(2, 20)]])
        writer = ws.raw._writer.transport  # in one piece: both are there when the first is read
        writer.write(masked_frame(0x81, text) + masked_frame(0x82, binary))
        first = msgspec.json.decode(await ws.raw.receive_str(timeout=10))
        assert first["result"]["results"][0]["status"] == "accepted"
        assert (await ws.answers(2))[0][0] == Status.ACCEPTED


async def test_who_reads_no_refusals_is_read_from_no_more(door, crowd):
    crowd(True, True)
    count = 1_500
    frame = masked(pack([1, [SMALL] * count]))
    async with deaf(door) as bare:
        (connection,) = door.gateway._sockets._connections
        await flood(bare, frame)
        waiting = sum(len(message["bytes"]) for message in connection._out)
        assert waiting <= connection._bytes_ahead < UNSENT_MAX + 16 * count
        assert connection._bytes_ahead >= UNSENT_MAX
        crowd(False, False)
        payer = await door.payer()
        assert (await door.results(payer.claim(1, 10)))[0]["status"] == "accepted"


async def test_who_reads_the_refusals_late_gets_each_of_them(door, crowd):
    crowd(True, True)
    async with door.socket() as ws:
        ws.raw._writer.transport.pause_reading()
        (connection,) = door.gateway._sockets._connections
        sent = 0
        async with asyncio.timeout(60):
            while not connection._out:
                posting = asyncio.create_task(ws.post(sent, *[SMALL] * 1_500))
                sent += 1
                # A post may wait until somebody reads again.
                while not (posting.done() or connection._out):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        ws.raw._writer.transport.resume_reading()
        await posting
        heard = [
            msgspec.msgpack.decode(await ws.raw.receive_bytes(timeout=10)) for _ in range(sent)
        ]
        assert sorted(number for number, _ in heard) == list(range(sent))
        assert connection._bytes_ahead == 0


class Ends:
    """Both ends of a connection without a socket."""

    def __init__(self):
        self.messages = asyncio.Queue()
        self.take = None
        self.sent = []

    def hand_over(self, take):
        self.take = take

    def send_frame(self, payload):
        self.sent.append(payload)
        return True

    async def send(self, message):
        self.sent.append(message)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0)


async def test_a_frame_is_not_taken_at_once_while_the_reader_is_at_something_else(door):
    payer, ends, empty = await door.payer(), Ends(), pack([1, []])
    connection = Connection(door.state, ends.messages.get, ends.send, ends)
    running = asyncio.create_task(connection.run())
    ends.messages.put_nowait({"type": "websocket.connect"})
    await ends.until(lambda: ends.take is not None and ends.take(empty))
    text = msgspec.json.encode({"command": "balance", "channel_id": payer.id}).decode()
    ends.messages.put_nowait({"type": "websocket.receive", "text": text})
    await ends.until(lambda: not connection._listens)
    assert ends.messages.empty()
    assert not ends.take(empty)
    await ends.until(lambda: connection._listens)
    assert ends.take(empty)
    ends.messages.put_nowait({"type": "websocket.disconnect"})
    await running
