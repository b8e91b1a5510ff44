"""Who does not read, or never stops sending, costs a bounded amount and holds up nobody else."""

import gc
import json
import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import pytest

from tests.gateway.wire.world import Client, Server, Speaker

MIB = 1 << 20
UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nhost: here\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a frame as a client sends it, under a mask of zeros."""
    if len(payload) < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | len(payload))
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, len(payload))
    return head + bytes(4) + payload


@contextmanager
def deaf(client: Client) -> Iterator[socket.socket]:
    """A WebSocket whose client reads no more than it is made to, with little room in between."""
    with socket.socket() as bare:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        bare.settimeout(20)
        bare.connect(("127.0.0.1", client.port))
        bare.sendall(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += bare.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        yield bare


def frames(bare: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield (opcode, payload) of the frames a server sends."""
    stream = bare.makefile("rb")
    with stream:
        while head := stream.read(2):
            size = head[1]
            if size == 126:
                (size,) = struct.unpack(">H", stream.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", stream.read(8))
            yield head[0] & 15, stream.read(size)


@contextmanager
def growth() -> Iterator[list[int]]:
    """Give the most memory, in bytes, that Python had in use during the block, at its end."""
    gc.collect()
    tracemalloc.start()
    most: list[int] = []
    try:
        yield most
        most.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def pay(speaker: Speaker, payer, first: int, count: int) -> None:
    """Have claims over 1, 2, 3, … drops accepted, in frames of 100, one after the other."""
    for start in range(first, first + count, 100):
        speaker.frame(start, *(payer.wire(number, number) for number in range(start, start + 100)))
        _, answers = speaker.answer()
        assert {status for status, _, _, _ in answers} == {0}


def slow_reader(client: Client, changes: int) -> int:
    """Return how many changes a reader was told that read nothing while there were `changes`."""
    payer = client.payer(capacity="1000000")
    with deaf(client) as bare, client.websocket() as speaker:
        asked = {"id": 1, "command": "subscribe", "channels": [payer.id]}
        bare.sendall(masked(1, json.dumps(asked).encode()))
        pay(speaker, payer, 1, changes)
        heard = []
        for opcode, payload in frames(bare):
            told = json.loads(payload) if opcode == 1 else {}
            if told.get("type") == "balance":
                heard.append((int(told["claimed"]), told["sequence"], told["position"]))
                if told["claimed"] == str(changes):
                    break
    assert [claimed for claimed, _, _ in heard] == sorted({claimed for claimed, _, _ in heard})
    claimed, sequence, position = heard[-1]
    assert (claimed, sequence) == (changes, changes)
    assert position == payer.balance()["position"]
    return len(heard)


def test_a_slow_reader_is_told_the_last_balance(client):
    slow_reader(client, 500)


@pytest.mark.slow
def test_a_reader_that_slept_through_many_changes_costs_nothing_and_is_told_the_last(client):
    with growth() as most:
        slow_reader(client, 5_000)
    assert most[0] < 16 * MIB


def test_one_that_does_not_read_holds_up_nobody(client):
    payer, follower = client.payer(capacity="1000000"), client.payer(capacity="1000000")
    with deaf(client) as bare, client.websocket() as speaker:
        asked = {"id": 1, "command": "subscribe", "channels": [payer.id, follower.id]}
        bare.sendall(masked(1, json.dumps(asked).encode()))
        flood = masked(2, msgspec.msgpack.encode([1, [[bytes(32), 1, 1, b"s"]] * 500]))
        bare.settimeout(0.3)
        with suppress(TimeoutError):
            while True:
                bare.sendall(flood)
        assert speaker.ask("subscribe", channels=[follower.id])["status"] == "success"
        assert speaker.told()["claimed"] == "0"
        started = time.monotonic()
        speaker.frame(1, follower.wire(1, 5))
        assert speaker.answer()[1][0][0] == 0
        assert speaker.told()["claimed"] == "5"
        assert client.results(payer.claim(1, 5))[0]["status"] == "accepted"
        assert time.monotonic() - started < 5


@pytest.mark.slow
def test_one_that_asks_and_does_not_read_is_read_from_no_more(client):
    """What a command is answered is many times what it costs to send."""
    asked = masked(1, b'{"command": "server_info"}') * 1_000
    with growth() as most, deaf(client) as bare:
        bare.settimeout(3)
        with suppress(TimeoutError):
            for _ in range(600):  # 19 MB, far more than sockets hold
                bare.sendall(asked)
    assert most[0] < 16 * MIB


@pytest.mark.slow
def test_a_flood_of_pings_nobody_reads_the_answers_of_takes_no_memory(client):
    ping = masked(9, bytes(125)) * 500
    with growth() as most, deaf(client) as bare:
        for _ in range(150):  # 10 MB
            bare.sendall(ping)
        bare.sendall(masked(2, msgspec.msgpack.encode([1, []])))
        bare.settimeout(20)
        assert any(opcode == 2 for opcode, _ in frames(bare))
    assert most[0] < 4 * MIB


def test_a_ping_is_answered_with_its_payload(client):
    with client.websocket() as speaker:
        assert speaker.raw.ping(b"are you there").wait(20)


def listeners(server: Server) -> int:
    """Return how many wait for changes of some channel."""

    async def count() -> int:
        return sum(map(len, server.gateway.state.router.views._listeners.values()))

    counted: int = server.inside(count())
    return counted


def test_who_leaves_without_a_word_is_forgotten(server, client):
    before = listeners(server)
    payer = client.payer()
    with deaf(client) as bare:
        asked = {"id": 1, "command": "subscribe", "channels": [payer.id]}
        bare.sendall(masked(1, json.dumps(asked).encode()))
        assert any(b'"subscribed":1' in payload for _, payload in frames(bare))
        assert listeners(server) == before + 1
        # Without a close frame: a reset, as when a machine is gone.
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    give_up_at = time.monotonic() + 20
    while listeners(server) != before:
        assert time.monotonic() < give_up_at
        client.results(payer.claim(1, 5))


def test_only_what_is_on_disk_is_told(server, client):
    """While the disk stands still there is no change to hear of; the claim is not answered."""
    payer = client.payer()
    shard = int(payer.channel["position"].partition("-")[0])
    (lane,) = [each for each in server.gateway.state.router.lanes if each.shard.number == shard]
    journal = lane.shard._host.result()._shard._journal
    stands, may_go = threading.Event(), threading.Event()
    commit = journal.commit

    def standing(*arguments):
        stands.set()
        assert may_go.wait(20)
        return commit(*arguments)

    with client.websocket() as speaker, client.websocket() as follower:
        follower.ask("subscribe", channels=[payer.id])
        assert follower.told()["claimed"] == "0"
        journal.commit = standing
        try:
            speaker.frame(1, payer.wire(1, 5))
            assert stands.wait(20)
            for heard in (speaker, follower):
                with pytest.raises(TimeoutError):
                    heard.raw.recv(0.2)
            assert payer.balance("?consistency=eventual")["claimed"] == "0"
        finally:
            journal.commit = commit
            may_go.set()
        assert speaker.answer() == (1, [[0, None, 1, payer.channel["position"]]])
        assert follower.told()["claimed"] == "5"


def test_frames_are_answered_by_number_in_whatever_order(client):
    early, late = client.payer(), client.payer()
    with client.websocket() as speaker:
        speaker.frame(1, early.wire(2, 7), late.wire(1, 5))
        number, answers = speaker.answer()
        assert (number, [status for status, _, _, _ in answers]) == (1, [2, 0])
        speaker.frame(2, late.wire(2, 6))
        speaker.frame(3, early.wire(1, 5))
        got = dict(speaker.answer() for _ in range(3))
    assert {number: [status for status, _, _, _ in got[number]] for number in got} == {
        1: [0, 0], 2: [0], 3: [0],
    }  # fmt: skip
    assert early.balance()["claimed"] == "7"


def test_a_client_that_sends_a_byte_at_a_time_is_served_all_the_same(client):
    payer = client.payer()
    body = json.dumps(payer.claim(1, 5)).encode()
    head = f"POST {payer.path}/claims HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n"
    with client.raw() as bare:
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in (head + "\r\n").encode() + body:
            bare.sendall(bytes([octet]))
        assert b"200 OK" in bare.recv(4_096)
    assert payer.balance()["claimed"] == "5"


def test_a_body_is_asked_for_before_it_is_sent(client):
    payer = client.payer()
    body = json.dumps(payer.claim(1, 5)).encode()
    head = f"POST {payer.path}/claims HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n"
    with client.raw((head + "expect: 100-continue\r\n\r\n").encode()) as bare:
        assert bare.recv(4_096).startswith(b"HTTP/1.1 100 Continue")
        bare.sendall(body)
        assert bare.recv(4_096).startswith(b"HTTP/1.1 200 OK")


def test_scraping_goes_on_while_claims_come(client):
    payer = client.payer(capacity="1000000")
    done = threading.Event()
    pages = []

    def scrape() -> None:
        scraper = Client(client.port)
        while not done.is_set():
            pages.append(scraper.get("/metrics").body)
        scraper.close()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        with client.websocket() as speaker:
            pay(speaker, payer, 1, 500)
    finally:
        done.set()
        thread.join(20)
    assert len(pages) > 2
    assert all(b"paychan_claims_total" in page for page in pages)


def test_the_server_holds_no_more_descriptors_than_before(client):
    client.get("/livez")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with client.raw(b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n") as bare:
            while bare.recv(4_096):
                pass
        with client.websocket() as speaker:
            assert speaker.ask("ping")["status"] == "success"
    give_up_at = time.monotonic() + 20
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < give_up_at
        client.get("/livez")
