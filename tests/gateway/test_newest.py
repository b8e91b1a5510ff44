"""An engine that checks the newest claim only says which claims it covers; others say nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.client.client import Client
from engine.core.claim import Claim
from tests.gateway.world import Door, door_to_engine


@pytest_asyncio.fixture(loop_scope="session")
async def newest(tmp_path: Path) -> AsyncIterator[Door]:
    async with door_to_engine(tmp_path, verification="newest") as door:
        yield door


async def test_an_answer_names_the_claim_that_covers_it(newest):
    payer = await newest.payer()
    results = await newest.results(*(payer.claim(n, 10 * n) for n in (1, 2, 3)))
    assert [result["status"] for result in results] == ["accepted"] * 3
    assert [result.get("covered_by") for result in results] == [3, 3, None]
    assert "covered_by" not in results[2]
    assert [result["claimed"] for result in results] == ["10", "20", "30"]


async def test_a_binary_answer_has_the_covering_sequence_behind_it(newest):
    payer = await newest.payer("ed25519")
    async with newest.socket() as ws:
        answers = await ws.frame(1, *(payer.wire(n, 10 * n) for n in (1, 2)))
    assert [len(answer) for answer in answers] == [5, 4]
    assert (answers[0][0], answers[0][2], answers[0][4]) == (0, 1, 2)


async def test_history_says_it_and_the_best_claim_is_the_checked_one(newest):
    payer = await newest.payer()
    bad = payer.claim(1, 10) | {"signature": payer.sign(11).hex().upper()}
    results = await newest.results(bad, payer.claim(2, 20))
    assert [result["status"] for result in results] == ["accepted", "accepted"]
    best = (await newest.get(f"{payer.path}/best-claim")).json
    assert (best["amount"], best["sequence"]) == ("20", 2)
    assert best["signature"] == payer.sign(20).hex().upper()
    assert best["position"] == results[1]["position"]
    await newest.results(payer.claim(3, 30))  # and now the ones before are proven durable
    past = (await newest.get(f"{payer.path}/claims")).json["claims"]
    assert [claim.get("covered_by") for claim in past][:2] == [2, None]


async def test_metrics_count_what_was_covered_and_what_was_checked_after_all(newest):
    payer = await newest.payer()
    await newest.results(*(payer.claim(n, 10 * n) for n in (1, 2, 3)))
    await newest.results(payer.claim(4, 40), payer.claim(5, 1_001))
    text = (await newest.get("/metrics")).body.decode()
    counts = dict(line.split() for line in text.splitlines() if line.startswith("paychan_covered"))
    assert sum(float(n) for name, n in counts.items() if "checked" not in name) == 2
    assert sum(float(n) for name, n in counts.items() if "checked" in name) == 1


async def test_the_client_tells_it(newest):
    payer = await newest.payer()
    claims = [Claim(payer.channel_id, 10 * n, payer.sign(10 * n), n) for n in (1, 2)]
    async with Client(newest.url) as client:
        results = await client.submit(claims)
        assert [result.covered_by for result in results] == [2, None]
        assert (await client.submit_one(claims[0])).covered_by is None
        past = [claim async for claim in client.history(payer.channel_id)]
    assert all(claim.covered_by in (None, 2) for claim in past)


@pytest.mark.parametrize("curve", ["secp256k1", "ed25519"])
async def test_where_every_signature_is_checked_nothing_is_covered(door, curve):
    payer = await door.payer(curve)
    results = await door.results(*(payer.claim(n, 10 * n) for n in (1, 2)))
    assert all("covered_by" not in result for result in results)
    async with door.socket() as ws:
        answers = await ws.frame(1, *(payer.wire(n, 10 * n) for n in (3, 4)))
    assert [len(answer) for answer in answers] == [4, 4]
