"""An engine that stops takes nothing new, answers what it took, and forgets nothing of it."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from tests.gateway.wire.test_flow import UPGRADE, deaf, frames, masked
from tests.gateway.wire.world import Client, Server, Speaker

STOP_S = 20.0
"""Within which a stop must end whatever peers do: it is a second or two, more beside other tests,
and a peer that is waited for holds it for 25."""


def until_closed(speaker: Speaker) -> tuple[list, int | None]:
    """Return the answers that still come, and the code of the close."""
    answers = []
    while True:
        try:
            answers.append(speaker.answer())
        except ConnectionClosed as closed:
            return answers, closed.rcvd and closed.rcvd.code


@contextmanager
def disk_held(server: Server) -> Iterator[threading.Event]:
    """Make every commit wait, until what is given is set or the block ends."""
    may_go = threading.Event()

    def standing(commit):
        def wait(*arguments):
            may_go.wait(60)  # longer than any client waits: a failure is told by the test
            return commit(*arguments)

        return wait

    for lane in server.gateway.state.router.lanes:
        journal = lane.shard._host.result()._shard._journal
        journal.commit = standing(journal.commit)
    try:
        yield may_go
    finally:
        may_go.set()


def wait_for_one_under_way(client: Client) -> None:
    while not any(shard["under_way"] for shard in client.get("/v1/server").json["shards"]):
        pass


def test_what_is_under_way_is_answered_and_kept_and_nothing_else_taken(tmp_path):
    with Server(tmp_path) as server:
        client = Client(server.port)
        payer, other = client.payer(), client.payer()
        with disk_held(server) as may_go, client.websocket() as speaker:
            speaker.frame(1, payer.wire(1, 5))
            wait_for_one_under_way(client)
            server.stop()
            ready = client.get("/readyz")
            while ready.status == 200:  # until the stop is under way
                ready = client.get("/readyz")
            assert ready.problem["code"] == "unavailable"
            for path, body in (
                ("/v1/claims", {"claims": [other.claim(1, 5)]}),
                (f"{other.path}/claims", other.claim(1, 5)),
                (f"{other.path}/request-close", None),
            ):
                problem = client.post(path, body).problem
                assert (problem["status"], problem["code"]) == (503, "overloaded")
                assert problem["retryable"]
            speaker.frame(2, other.wire(1, 5))
            with client.websocket() as late:
                assert until_closed(late) == ([], 1001)
            may_go.set()
            answers, code = until_closed(speaker)
        client.close()
    assert [(number, each[0][0]) for number, each in answers] == [(1, 0)]
    assert code == 1001
    with Server(tmp_path) as server:
        again = Client(server.port)
        payer._client = other._client = again
        assert payer.balance()["claimed"] == "5"
        assert other.balance()["claimed"] == "0"
        assert other.channel["state"] == "Active"
        assert again.results(payer.claim(1, 5))[0]["status"] == "duplicate"
        again.close()


def test_nobody_is_let_in_once_it_has_stopped(tmp_path):
    with Server(tmp_path) as server:
        client = Client(server.port)
        client.payer()
        with client.websocket() as idle:
            server.stop()
            assert until_closed(idle) == ([], 1001)
    with pytest.raises((ConnectionRefusedError, http.client.RemoteDisconnected)):
        client.get("/livez")
    client.close()


def test_what_came_over_http_before_the_stop_is_answered(tmp_path):
    with Server(tmp_path) as server:
        client, asker = Client(server.port), Client(server.port)
        payer = client.payer()
        with disk_held(server):
            results = []
            thread = threading.Thread(
                target=lambda: results.append(asker.results(payer.claim(1, 5)))
            )
            thread.start()
            wait_for_one_under_way(client)
            server.stop()
            while client.get("/readyz").status == 200:
                pass
        thread.join(20)
        asker.close()
        client.close()
    assert results[0][0]["status"] == "accepted"


# Peers that would have it wait --------------------------------------------------------------------


@contextmanager
def stopping_in_time(server: Server) -> Iterator[None]:
    """Stop the server at the end of the block, and fail if that takes long."""
    yield
    began = time.monotonic()
    server.stop()
    server._thread.join(STOP_S)
    assert not server._thread.is_alive(), f"still there after {time.monotonic() - began:.0f} s"


def test_one_that_floods_and_does_not_read_is_not_waited_for(tmp_path):
    with Server(tmp_path) as server:
        client = Client(server.port)
        flood = masked(2, msgspec.msgpack.encode([1, [[bytes(32), 1, 1, b"s"]] * 500]))
        with deaf(client) as bare, stopping_in_time(server):
            bare.settimeout(0.5)
            with suppress(TimeoutError):
                while True:
                    bare.sendall(flood)
        client.close()


class Flooder:
    """Sends frames for as long as it can, the first one again in the end, and reads all answers."""

    def __init__(self, client: Client, sent: list[bytes]) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self.under_way = threading.Event()
        self._client = client
        self._sent = itertools.chain(sent, itertools.repeat(sent[0] * 50))
        self._threads = [threading.Thread(target=work) for work in (self._send, self._read)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._client.raw(UPGRADE) as self._bare:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self._bare.recv(1)
            for thread in self._threads:
                thread.start()
            yield
            for thread in self._threads:
                thread.join(20)

    def _send(self) -> None:
        with suppress(OSError):
            for frame in self._sent:
                self._bare.sendall(frame)

    def _read(self) -> None:
        with suppress(ConnectionResetError):  # behind the close, for not having said so in turn
            for opcode, payload in frames(self._bare):
                self.heard.append((opcode, payload))
                if len(self.heard) == 300:
                    self.under_way.set()


def test_one_that_floods_and_reads_is_told_of_all_that_was_taken_and_not_waited_for(tmp_path):
    with Server(tmp_path) as server:
        client = Client(server.port)
        payer = client.payer(capacity="1000000")
        claims = [payer.wire(number, number) for number in range(1, 2_001)]
        packed = (msgspec.msgpack.encode([number, [one]]) for number, one in enumerate(claims, 1))
        flooder = Flooder(client, [masked(2, frame) for frame in packed])
        with flooder.at_work(), stopping_in_time(server):
            assert flooder.under_way.wait(20)
        client.close()
    answers = [msgspec.msgpack.decode(payload) for opcode, payload in flooder.heard if opcode == 2]
    taken = {number for number, ((status, *_),) in answers if status == 0}
    assert flooder.heard[-1] == (8, (1001).to_bytes(2))
    with Server(tmp_path) as server:
        payer._client = again = Client(server.port)
        assert taken == set(range(1, payer.channel["sequence"] + 1))
        again.close()


def test_a_call_whose_body_never_ends_is_not_waited_for(tmp_path):
    head = b"POST /v1/claims HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n{"
    with Server(tmp_path) as server:
        client = Client(server.port)
        with client.raw(head), stopping_in_time(server):
            client.get("/livez")
        client.close()
