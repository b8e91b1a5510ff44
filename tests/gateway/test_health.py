"""Is it alive, is it ready, what is it, what has it done: and how it stops."""

import asyncio
import contextlib
import re
import socket

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.monitor.metrics import ACK_BUCKETS_S, METRICS, SYNC_BUCKETS_US
from tests.gateway.test_websocket import deaf, masked
from tests.gateway.world import door_to_engine


@pytest.fixture
def fresh(monkeypatch):
    """Have the shards asked at each scrape."""
    monkeypatch.setattr("engine.gateway.health.KEPT_S", 0)


async def scraped(door):
    """Every sample by (name, labels)."""
    answer = await door.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_a_healthy_engine_is_alive_and_ready(door):
    for path in ("/livez", "/readyz"):
        assert (await door.get(path)).status == 200


async def test_an_engine_without_one_of_its_shards_is_alive_and_not_ready(door):
    lane = door.state.router.lanes[1]
    lane._up.clear()
    try:
        answer = await door.get("/readyz")
        assert (answer.status, answer.code) == (503, "unavailable")
        assert "shard 1" in answer.json["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert (await door.get("/livez")).status == 200
    finally:
        lane._up.set()


async def test_an_engine_without_a_verifier_is_alive_and_not_ready(door, monkeypatch):
    for seat in door.state.pool._seats:
        monkeypatch.setattr(seat, "up", False)
    answer = await door.get("/readyz")
    assert (answer.status, answer.json["detail"]) == (503, "no verifier is up")
    assert (await door.get("/livez")).status == 200
    assert (await scraped(door))["paychan_verifiers_up", ()] == 0


async def test_the_server_says_version_and_sizes(door):
    server = (await door.get("/v1/server")).json
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", server["version"])
    assert [shard["shard"] for shard in server["shards"]] == [0, 1]
    assert all(shard["up"] and shard["epoch"] >= 1 for shard in server["shards"])
    assert server["ready"] is True


async def test_every_metric_of_the_table_is_there_and_none_else(door, fresh):
    payer = await door.payer()
    await door.results(payer.claim(1, 10), payer.claim(9, 90))
    text = (await door.get("/metrics")).body.decode()
    helped = set(re.findall(r"^# HELP (paychan_\w+) ", text, re.MULTILINE))
    assert helped == set(METRICS)
    assert "process_resident_memory_bytes" in text


async def test_claims_are_counted_by_result_and_code(door):
    payer = await door.payer()
    before = await scraped(door)
    await door.results(
        payer.claim(1, 10), payer.claim(1, 10), {}, payer.claim(2, 20) | {"signature": "30"}
    )
    async with door.socket() as ws:
        await ws.frame(1, payer.wire(2, 20), [])
    after = await scraped(door)
    grown = {
        tuple(value for _, value in labels): after[name, labels] - before.get((name, labels), 0)
        for name, labels in after
        if name == "paychan_claims_total"
    }
    assert {key: count for key, count in grown.items() if count} == {
        ("", "accepted"): 2,
        ("", "duplicate"): 1,
        ("malformed", "rejected"): 2,
        ("bad_signature", "rejected"): 1,
    }
    requests = "paychan_claim_ack_duration_seconds_count", ()
    assert after[requests] - before[requests] == 2


async def test_times_are_histograms_with_the_agreed_buckets(door, fresh):
    seen = await scraped(door)
    bounds = [
        float(dict(labels)["le"])
        for name, labels in seen
        if name == "paychan_claim_ack_duration_seconds_bucket"
    ]
    assert bounds == [*ACK_BUCKETS_S, float("inf")]
    syncs = [
        (float(dict(labels)["le"]), count)
        for (name, labels), count in seen.items()
        if name == "paychan_wal_sync_duration_seconds_bucket" and ("shard", "0") in labels
    ]
    assert [bound for bound, _ in syncs] == [
        *(bound / 1_000_000 for bound in SYNC_BUCKETS_US),
        float("inf"),
    ]
    counts = [count for _, count in syncs]
    assert counts == sorted(counts)
    total = seen["paychan_wal_sync_duration_seconds_count", (("shard", "0"),)]
    assert counts[-1] == total > 0


async def test_a_held_claim_shows_until_it_is_decided(door, fresh):
    payer = await door.payer()
    await door.results(payer.claim(2, 20))
    held = sum(v for (name, _), v in (await scraped(door)).items() if name == "paychan_held_claims")
    assert held >= 1


async def test_no_channel_is_ever_a_label(door):
    payer = await door.payer()
    await door.results(payer.claim(1, 10))
    text = (await door.get("/metrics")).body.decode().upper()
    assert payer.id not in text


async def test_scraping_often_costs_the_shards_next_to_nothing(door, monkeypatch):
    asked = []
    for lane in door.state.router.lanes:
        ask = lane.shard.ask
        monkeypatch.setattr(
            lane.shard, "ask", lambda *step, ask=ask: asked.append(step[0]) or ask(*step)
        )
    pages = await asyncio.gather(*(scraped(door) for _ in range(20)))
    assert asked.count("statistics") <= len(door.state.router.lanes)
    assert {len([name for name, _ in page if name == "paychan_channels"]) for page in pages} == {2}


# Stopping -----------------------------------------------------------------------------------------


async def test_an_engine_that_stops_answers_what_it_took_and_takes_no_more(tmp_path):
    async with door_to_engine(tmp_path) as door:
        payer = await door.payer()
        url = door.url
        async with door.socket() as ws, aiohttp.ClientSession() as session:
            door.session = session
            for number in range(1, 51):
                await ws.post(number, payer.wire(number, number))
            assert (await ws.answers(1))[0][0] == 0
            draining = asyncio.ensure_future(door.gateway.drain())
            await asyncio.sleep(0)
            assert (await door.get("/readyz")).status == 503
            assert (await door.get("/livez")).status == 200
            answer = await door.post("/v1/claims", {"claims": [payer.claim(99, 99)]})
            assert (answer.status, answer.code) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            answer = await door.post(f"{payer.path}/claims", payer.claim(99, 99))
            assert (answer.status, answer.code) == (503, "overloaded")
            answer = await door.post(f"{payer.path}/request-close")
            assert (answer.status, answer.code) == (503, "overloaded")
            assert (await payer.balance())["capacity"] == "1000"
            heard = []
            while (message := await ws.raw.receive(timeout=10)).type is aiohttp.WSMsgType.BINARY:
                heard.append(msgspec.msgpack.decode(message.data))
            await draining
            assert ws.raw.close_code == 1001
            claimed = int((await payer.balance())["claimed"])
    # All that was taken is answered; what came later was left in the socket.
    answers = {number: answer for number, (answer,) in heard}
    assert sorted(answers) == list(range(2, claimed + 1))
    assert {(status, code) for status, code, _, _ in answers.values()} <= {(0, None)}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(url.removeprefix("http://").split(":"))


async def test_who_does_not_read_cannot_keep_an_engine_from_stopping(tmp_path):
    frame = masked(msgspec.msgpack.encode([1, [[bytes(32), 1, 1, b"s"]] * 200]))
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(15),
        contextlib.AsyncExitStack() as until_after_the_stop,
        door_to_engine(tmp_path) as door,
    ):
        bare = await until_after_the_stop.enter_async_context(deaf(door))
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(bare, frame)
