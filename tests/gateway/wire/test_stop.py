"""An engine that stops takes nothing new, answers what it took, and forgets nothing of it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from tests.gateway.wire.world import Client, Server, Speaker


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
            assert speaker.answer() == (2, [[3, "overloaded", None, None]])
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
