"""`/v1/ws`: binary frames, text commands, subscriptions, and readers that are too slow."""

import asyncio
import contextlib
import socket
import struct

import aiohttp
import msgspec
import pytest

from engine.core.types import SEQUENCE_MAX
from engine.gateway.websocket import CLAIMS_AHEAD_MAX
from tests.builders import text_table
from tests.gateway.world import Payer, Socket, encoded

pack = msgspec.msgpack.encode
ACCEPTED, DUPLICATE, BUFFERED, REJECTED = range(4)


# Binary frames ------------------------------------------------------------------------------------


CLAIMS = """
    sequence amount status code
    1        100    0      None
    1        100    1      None
    1        200    3      sequence_conflict
    2        100    3      amount_not_increasing
    2        1001   3      amount_over_capacity
    2        300    0      None
    4        500    2      None
"""


async def test_each_claim_of_a_table_gets_its_answer(door):
    payer = await door.payer()
    rows = text_table(CLAIMS)
    wires = [payer.wire(int(row["sequence"]), int(row["amount"])) for row in rows]
    async with door.socket() as ws:
        answers = await ws.frame(1, *wires)
    seen = [(str(status), str(code)) for status, code, _, _ in answers]
    assert seen == [(row["status"], row["code"]) for row in rows]


async def test_an_answer_has_the_position_of_its_claim(door):
    payer = await door.payer()
    async with door.socket() as ws:
        first, again = await ws.frame(9, payer.wire(1, 10), payer.wire(1, 10))
    position = (await payer.balance())["position"]
    assert first == [ACCEPTED, None, 1, position]
    assert again == [DUPLICATE, None, 1, position]


async def test_frames_are_pipelined_and_their_numbers_tie_the_answers(door):
    payers = [await door.payer() for _ in range(3)]
    async with door.socket() as ws:
        for number in range(30):
            await ws.post(number, *(payer.wire(number + 1, number + 1) for payer in payers))
        answers = {}
        for _ in range(30):
            number, given = msgspec.msgpack.decode(await ws.raw.receive_bytes(timeout=10))
            answers[number] = given
    assert sorted(answers) == list(range(30))
    for number, given in answers.items():
        assert [(a[0], a[2]) for a in given] == [(ACCEPTED, number + 1)] * 3


async def test_a_claim_may_say_its_mark_and_its_time(door):
    payer = await door.payer()
    async with door.socket() as ws:
        answers = await ws.frame(
            1,
            [*payer.wire(1, 10), 0],
            [*payer.wire(2, 20), 11],
            [*payer.wire(2, 20), bytes(32)],
            [*payer.wire(2, 20), 10, 1],
            [*payer.wire(2, 20), 10, None],
        )
    codes = [code for _, code, _, _ in answers]
    assert codes == [None, "conflict", "conflict", "clock_skew", None]


async def test_amounts_give_the_order_where_the_channel_says_so(door):
    payer = await door.payer(sequencing="amount")
    async with door.socket() as ws:
        answers = await ws.frame(1, payer.wire(None, 10), payer.wire(None, 20))
    assert [answer[:3] for answer in answers] == [[ACCEPTED, None, 1], [ACCEPTED, None, 2]]


async def test_a_buffered_claim_is_answered_again_under_its_number(door):
    payer = await door.payer()
    async with door.socket() as ws:
        early = await ws.frame(7, payer.wire(2, 20), payer.wire(3, 30))
        assert [answer[:3] for answer in early] == [[BUFFERED, None, 2], [BUFFERED, None, 3]]
        await ws.post(8, payer.wire(1, 10))
        heard = {}
        while heard.get(7, early)[1][0] == BUFFERED:
            number, given = msgspec.msgpack.decode(await ws.raw.receive_bytes(timeout=10))
            heard[number] = given
    assert [answer[0] for answer in heard[7]] == [ACCEPTED, ACCEPTED]
    assert heard[8][0][0] == ACCEPTED


async def test_a_claim_that_was_held_too_long_is_answered_with_the_gap(door):
    payer = await door.payer()
    async with door.socket() as ws:
        ((status, *_),) = await ws.frame(7, payer.wire(2, 20))
        assert status == BUFFERED
        ((status, code, sequence, _),) = await ws.answers(7)
    assert (status, code, sequence) == (REJECTED, "sequence_gap", 2)


async def test_decisions_that_come_together_are_one_answer(door):
    payer = await door.payer(capacity="100000")
    early = [payer.wire(n, n) for n in range(2, 202)]
    async with door.socket() as ws:
        assert {answer[0] for answer in await ws.frame(1, *early)} == {BUFFERED}
        await ws.post(2, payer.wire(1, 1))
        again = 0
        decided = 0
        while decided < len(early):
            number, given = msgspec.msgpack.decode(await ws.raw.receive_bytes(timeout=10))
            if number == 1:
                again += 1
                decided = sum(answer[0] == ACCEPTED for answer in given)
        assert (await ws.ask("ping"))["status"] == "success"
    assert again < 10


async def test_no_claims_get_no_answers(door):
    async with door.socket() as ws:
        assert await ws.frame(0) == []


BAD_CLAIMS = [
    [],
    [None],
    "claim",
    7,
    {},
    [b"c" * 31, 1, 5, b"s"],
    [b"c" * 33, 1, 5, b"s"],
    ["c" * 32, 1, 5, b"s"],
    [b"c" * 32, 0, 5, b"s"],
    [b"c" * 32, -1, 5, b"s"],
    [b"c" * 32, SEQUENCE_MAX + 1, 5, b"s"],
    [b"c" * 32, 1.0, 5, b"s"],
    [b"c" * 32, True, 5, b"s"],
    [b"c" * 32, 1, 0, b"s"],
    [b"c" * 32, 1, -5, b"s"],
    [b"c" * 32, 1, 5.0, b"s"],
    [b"c" * 32, 1, True, b"s"],
    [b"c" * 32, 1, "5", b"s"],
    [b"c" * 32, 1, None, b"s"],
    [b"c" * 32, 1, 5, b""],
    [b"c" * 32, 1, 5, b"s" * 73],
    [b"c" * 32, 1, 5, "s"],
    [b"c" * 32, 1, 5],
    [b"c" * 32, 1, 5, b"s", b"p" * 31],
    [b"c" * 32, 1, 5, b"s", -1],
    [b"c" * 32, 1, 5, b"s", 0, -1],
    [b"c" * 32, 1, 5, b"s", 0, 2**63],
    [b"c" * 32, 1, 5, b"s", 0, 0, 0],
]


@pytest.mark.parametrize("bad", BAD_CLAIMS, ids=lambda bad: repr(bad)[:60])
async def test_a_claim_that_is_none_is_malformed_in_its_place(door, bad):
    payer = await door.payer()
    async with door.socket() as ws:
        answers = await ws.frame(5, payer.wire(1, 10), bad, payer.wire(2, 20))
    assert [answer[:2] for answer in answers] == [
        [ACCEPTED, None],
        [REJECTED, "malformed"],
        [ACCEPTED, None],
    ]
    assert answers[2][3] == (await payer.balance())["position"]


@pytest.mark.parametrize("amount", [2**63 - 1, 2**63, 2**64 - 1])
async def test_an_amount_of_64_bits_is_over_the_capacity_and_nothing_else(door, amount):
    payer = await door.payer()
    async with door.socket() as ws:
        (answer,) = await ws.frame(5, payer.wire(1, amount))
    assert answer[:2] == [REJECTED, "amount_over_capacity"]


NONSENSE = [
    b"",
    b"\xc1",
    pack(None),
    pack([]),
    pack([5]),
    pack([5, None]),
    pack([5, {}]),
    pack([5, [], 1]),
    pack(["5", []]),
    pack([-1, []]),
    pack([5.0, []]),
    pack([5, []]) + b"x",
    pack([5, [[]]])[:-1],
    pack([5, [None] * 4_097]),
    b"\x92\x05\xdd\xff\xff\xff\xff",
    b"\x92\x05\x91\x94\xc6\xff\xff\xff\xff",
    b"\x92\x05\x91" + b"\x91" * 200_000,
    b"\x91" * 200_000,
    b"\x81" * 200_000,
]


@pytest.mark.parametrize("frame", NONSENSE, ids=lambda frame: repr(frame[:12]))
async def test_a_frame_that_is_none_is_answered_and_the_connection_stays(door, frame):
    async with door.socket() as ws:
        await ws.raw.send_bytes(frame)
        heard = await ws.heard()
        assert (heard["status"], heard["error"]) == ("error", "malformed")
        assert heard.get("id") in (None, 5)
        assert await ws.frame(6) == []


async def test_a_frame_with_too_many_claims_is_refused_under_its_number(door):
    async with door.socket() as ws:
        await ws.raw.send_bytes(pack([5, [None] * 4_097]))
        assert (await ws.heard())["id"] == 5


# What the protocol itself forbids -----------------------------------------------------------------


def piece(octets: bytes, opcode: int = 0, *, is_last: bool = False) -> bytes:
    """A masked piece of a message; the mask is zero."""
    return bytes([is_last << 7 | opcode, 0x80 | len(octets)]) + bytes(4) + octets


async def test_a_message_that_is_too_large_closes_with_1009(door):
    async with door.socket() as ws:
        await ws.raw.send_bytes(bytes(door.state.options.body_bytes_max + 1))
        assert (await ws.raw.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
        assert ws.raw.close_code == 1009


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([piece(b"\xff\xfe", 1, is_last=True)], 1007),
        ([piece(b"{", 1), piece(b"\xed\xa0\x80", is_last=True)], 1007),
        ([piece(b"", 2)] + [piece(b"")] * 5_000, 1009),
        ([piece(b"", 3, is_last=True)], 1002),
    ],
    ids=["not utf-8", "a surrogate in pieces", "pieces without end", "an opcode of nobody"],
)
async def test_what_the_protocol_forbids_closes_with_its_code(door, pieces, code, caplog):
    async with door.socket() as ws:
        writer = ws.raw._writer.transport
        writer.write(b"".join(pieces))
        assert (await ws.raw.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
        assert ws.raw.close_code == code
    assert caplog.records == []


async def test_another_path_has_no_websocket(door):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await door.session.ws_connect(f"{door.url}/v1/wss")
    assert refused.value.status in (403, 404)


# Text ---------------------------------------------------------------------------------------------


async def test_submit_is_answered_as_over_http(door):
    payer = await door.payer()
    claims = [payer.claim(1, 10), payer.claim(1, 10), {"amount": "1"}, payer.claim(2, 20)]
    async with door.socket() as ws:
        heard = await ws.ask("submit", claims=claims)
    assert (heard["id"], heard["status"], heard["type"]) == (7, "success", "response")
    results = heard["result"]["results"]
    assert [r["status"] for r in results] == ["accepted", "duplicate", "rejected", "accepted"]
    over_http = await door.results(claims[0])
    assert over_http[0].keys() == results[1].keys()


async def test_channel_info_and_balance_are_those_of_http(door):
    payer = await door.payer()
    async with door.socket() as ws:
        info = (await ws.ask("channel_info", channel_id=payer.id))["result"]
        balance = (await ws.ask("balance", channel_id=payer.id))["result"]
        session = await ws.ask("balance", channel_id=payer.id, consistency="session")
    assert info == (await door.get(payer.path)).json
    there = await payer.balance()
    assert balance.keys() == there.keys()
    assert {**balance, "age_ms": 0} == {**there, "age_ms": 0}
    assert session["status"] == "success"


async def test_channel_verify_says_whether_and_changes_nothing(door):
    payer = await door.payer()
    fields = {
        "channel_id": payer.id,
        "public_key": payer.key.public_key.hex(),
        "signature": payer.sign(10).hex(),
    }
    async with door.socket() as ws:
        good = await ws.ask("channel_verify", amount="10", **fields)
        bad = await ws.ask("channel_verify", amount="11", **fields)
    assert good["result"] == {"signature_verified": True}
    assert bad["result"] == {"signature_verified": False}
    assert (await payer.balance())["claimed"] == "0"


async def test_server_info_and_ping_answer(door):
    async with door.socket() as ws:
        assert (await ws.ask("server_info"))["result"]["shards"]
        assert (await ws.ask("ping"))["status"] == "success"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "malformed"),
        ("{", "malformed"),
        ("[]", "malformed"),
        ("null", "malformed"),
        ('{"id":1}', "malformed"),
        ('{"id":1,"command":"teleport"}', "unknownCmd"),
        ('{"id":1,"command":"ping","more":1}', "malformed"),
        ('{"id":{},"command":"ping"}', "malformed"),
        ('{"id":1,"command":"submit"}', "malformed"),
        ('{"id":1,"command":"submit","claims":7}', "malformed"),
        ('{"id":1,"command":"balance"}', "malformed"),
        ('{"id":1,"command":"balance","channel_id":"00"}', "malformed"),
        ('{"id":1,"command":"channel_verify","amount":"1"}', "malformed"),
        ('{"id":1,"command":"subscribe","channels":["00"]}', "malformed"),
        ('{"id":1,"command":"subscribe","channels":[1]}', "malformed"),
        ('{"id":1,"command":"channel_info","channel_id":"%s"}' % ("0" * 64), "unknown_channel"),
        ('{"id":1,"command":"submit","claims":' + "[" * 200_000, "malformed"),
        ('{"id":"\\ud800","command":"ping"}', "malformed"),
    ],
    ids=lambda text: text[:50],
)
async def test_a_text_frame_that_is_none_is_answered_and_the_connection_stays(door, text, error):
    async with door.socket() as ws:
        await ws.raw.send_str(text)
        heard = await ws.heard()
        assert (heard["status"], heard["type"], heard["error"]) == ("error", "response", error)
        assert heard["error_message"]
        assert isinstance(heard["error_code"], int)
        assert (await ws.ask("ping"))["status"] == "success"


async def test_an_answer_carries_the_id_it_was_asked_with(door):
    async with door.socket() as ws:
        for given in (0, -1, 2**53, "a word", None):
            await ws.raw.send_bytes(pack([1, []]))
            await ws.answers(1)
            await ws.raw.send_str(encoded({"id": given, "command": "ping"}).decode())
            assert (await ws.heard()).get("id") == given


# Subscriptions ------------------------------------------------------------------------------------


async def until_claimed(ws: Socket, payer: Payer, claimed: str) -> list[dict]:
    """Every change of the payer's channel up to the one that says `claimed`."""
    changes = []
    while not changes or changes[-1]["claimed"] != claimed:
        heard = await ws.heard()
        if heard.get("type") == "balance" and heard["channel_id"] == payer.id:
            changes.append(heard)
    return changes


async def test_a_subscriber_hears_the_present_balance_and_then_each_durable_change(door):
    payer = await door.payer()
    await door.results(payer.claim(1, 10))
    async with door.socket() as ws:
        await ws.raw.send_str(
            encoded({"id": 1, "command": "subscribe", "channels": [payer.id]}).decode()
        )
        (present,) = await until_claimed(ws, payer, "10")
        assert present["position"] == (await payer.balance())["position"]
        await door.results(payer.claim(2, 20))
        (change,) = await until_claimed(ws, payer, "20")
        assert change.items() >= {"available": "980", "capacity": "1000", "sequence": 2}.items()
        await door.post(f"{payer.path}/fund", {"amount": "500"})
        assert (await ws.heard())["capacity"] == "1500"


async def test_a_held_claim_is_told_of_when_it_is_durable_and_not_before(door):
    payer = await door.payer()
    async with door.socket() as ws:
        await ws.ask("subscribe", channels=[payer.id])
        await door.results(payer.claim(2, 20))
        await door.results(payer.claim(1, 10))
        changes = await until_claimed(ws, payer, "20")
    assert [c["claimed"] for c in changes if c["claimed"] != "0"] in (["10", "20"], ["20"])


async def test_who_unsubscribes_or_leaves_is_told_no_more(door):
    payer, other = await door.payer(), await door.payer()
    listeners = door.state.router.views._listeners
    async with door.socket() as ws:
        await ws.ask("subscribe", channels=[payer.id, other.id])
        assert {payer.channel_id, other.channel_id} <= listeners.keys()
        await ws.ask("unsubscribe", channels=[payer.id, payer.id])
        assert payer.channel_id not in listeners
        await door.results(payer.claim(1, 10))
        await door.results(other.claim(1, 10))
        while (heard := await ws.heard())["claimed"] != "10":
            pass
        assert heard["channel_id"] == other.id
        (connection,) = door.gateway._sockets._connections
    await connection.ended.wait()
    assert other.channel_id not in listeners


async def test_the_channel_that_waits_longest_is_told_of_first(door):
    payers = [await door.payer() for _ in range(3)]
    views = door.state.router.views
    async with door.socket() as ws:
        await ws.ask("subscribe", channels=[payer.id for payer in payers])
        for _ in payers:
            await ws.heard()
        (connection,) = door.gateway._sockets._connections
        for payer in payers:
            connection._balances.hear(views.get(payer.channel_id).balance(payer.channel_id))
        heard = [(await ws.heard())["channel_id"] for _ in payers]
    assert heard == [payer.id for payer in payers]


async def test_a_subscription_to_a_channel_nobody_opened_subscribes_to_none(door):
    payer = await door.payer()
    async with door.socket() as ws:
        heard = await ws.ask("subscribe", channels=[payer.id, Payer(door).id])
        assert heard["error"] == "unknown_channel"
        assert payer.channel_id not in door.state.router.views._listeners


# Slow readers -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def deaf(door):
    """A connection whose client sends and does not read, with little room in between."""
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    bare.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(bare, (door.host, door.port))
        fields = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        key = "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        await loop.sock_sendall(
            bare, f"GET /v1/ws HTTP/1.1\r\nhost: here\r\n{fields}{key}\r\n".encode()
        )
        assert (await loop.sock_recv(bare, 12)).endswith(b"101")
        yield bare
    finally:
        bare.close()


def masked(octets: bytes) -> bytes:
    return struct.pack(">BBH4x", 0x82, 0x80 | 126, len(octets)) + octets


async def flood(bare: socket.socket, frame: bytes) -> None:
    """Send a frame again and again until nothing goes in any more."""
    loop = asyncio.get_running_loop()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await loop.sock_sendall(bare, frame)
            sent += 1

    sending, before = asyncio.create_task(send()), -1
    # However long the machine takes for it.
    while sent != before or not sent:
        before = sent
        await asyncio.sleep(0.3)
    sending.cancel()


async def test_who_does_not_read_answers_is_read_from_no_more(door):
    refused = [bytes(32), 1, 1, b"s"]
    async with deaf(door) as bare:
        (connection,) = door.gateway._sockets._connections
        while connection._claims_ahead < CLAIMS_AHEAD_MAX:
            await flood(bare, masked(pack([1, [refused] * 200])))
        assert CLAIMS_AHEAD_MAX <= connection._claims_ahead < CLAIMS_AHEAD_MAX + 200
        payer = await door.payer()
        assert (await door.results(payer.claim(1, 10)))[0]["status"] == "accepted"


async def test_who_answers_no_ping_is_given_up_with_all_that_it_did_not_read(door):
    async with deaf(door) as bare:
        (connection,) = door.gateway._sockets._connections
        while connection._frames.writable.is_set():
            await flood(bare, masked(pack([1, [[bytes(32), 1, 1, b"s"]] * 200])))
        connection._frames.keepalive_timeout()  # as after 40 s in which nothing was heard
        await asyncio.wait_for(connection.ended.wait(), 10)


async def test_who_says_no_more_and_does_not_read_is_not_kept(door):
    frame, loop = masked(pack([1, [[bytes(32), 1, 1, b"s"]] * 100])), asyncio.get_running_loop()
    async with deaf(door) as bare:
        (connection,) = door.gateway._sockets._connections
        while connection._frames.writable.is_set():
            await loop.sock_sendall(bare, frame)
            await asyncio.sleep(0.001)
        bare.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(connection.ended.wait(), 10)


async def test_of_many_changes_a_slow_reader_is_told_the_newest(door):
    payer = await door.payer(capacity="1000000")
    async with door.socket() as quick, door.socket() as slow:
        await slow.ask("subscribe", channels=[payer.id])
        slow.raw._writer.transport.pause_reading()
        for n in range(20):
            claims = [payer.wire(n * 10 + i, n * 10 + i) for i in range(1, 11)]
            await quick.frame(n, *claims)
        slow.raw._writer.transport.resume_reading()
        changes = await until_claimed(slow, payer, "200")
    claimed = [int(change["claimed"]) for change in changes]
    assert claimed == sorted(claimed)
