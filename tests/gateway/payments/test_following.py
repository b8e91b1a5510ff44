"""Payments followed over a WebSocket: the tables of subscriptions, slow readers, and the end."""

import asyncio
import contextlib
import threading

import pytest

from engine.gateway.payments.desk import PaymentsDesk
from engine.gateway.payments.following import PaymentsFollowed
from engine.gateway.payments.options import PaymentsOptions
from engine.payments.errors import StoreUnavailableError
from engine.payments.tower import ControlTower
from tests.gateway.payments.shop import PREIMAGE, UNKNOWN
from tests.payments.builders import begun, make_attempt, make_info, mk, settle, shard
from tests.payments.model import ModelDB


async def following(ws, payments) -> dict:
    answer = await ws.ask("subscribe", payments=payments)
    assert answer["status"] == "success", answer
    return answer["result"]


async def stream(ws) -> list[str]:
    """Return what is told up to the end of a payment: status and number of attempts."""
    told = []
    while (heard := await ws.heard())["type"] == "payment":
        told.append(f"{heard['status']} {len(heard['attempts'])}")
    assert heard["type"] == "payment_end"
    return told


# Rows 197 to 204 of the tables ------------------------------------------------------------------


async def test_a_payment_that_is_not_there_cannot_be_followed(shop):
    one = await shop.begun()
    async with shop.socket() as ws:
        answer = await ws.ask("subscribe", payments=[one, UNKNOWN])
        assert (answer["error"], answer["error_code"]) == ("payment_not_initiated", 404)
        assert await shop.door.state.payments.call(ControlTower.subscriptions) == 0
        await shop.give_up(one)
        assert (await ws.ask("ping"))["status"] == "success"  # and nothing was told before it
        assert (await ws.ask("unsubscribe", payments=[]))["result"]["payments"] == 0


async def test_each_stream_of_a_payment_that_succeeds_ends_so(shop):
    one = await shop.begun()
    async with shop.socket() as s1, shop.socket() as s2, shop.socket() as s3:
        assert await following(s1, [one]) == {
            "subscribed": 0,
            "payments": 1,
            "all_payments": False,
        }
        index = await shop.tried(one)
        await following(s2, [one])
        await shop.settle(one, index)
        await following(s3, [one])
        assert await stream(s1) == ["INITIATED 0", "IN_FLIGHT 1", "SUCCEEDED 1"]
        assert await stream(s2) == ["IN_FLIGHT 1", "SUCCEEDED 1"]
        heard = await s3.heard()
        assert heard["attempts"][0]["settle"]["preimage"] == PREIMAGE
        assert {"type": "payment", **(await shop.get(f"/{one}")).json} == heard
        assert await s3.heard() == {"type": "payment_end", "identifier": one}
        assert (await s3.ask("unsubscribe", payments="all"))["result"]["payments"] == 0


async def test_each_stream_of_a_payment_that_fails_ends_so(shop):
    one = await shop.begun()
    async with shop.socket() as before, shop.socket() as after:
        await following(before, [one])
        index = await shop.tried(one)
        await shop.fail(one, index, reason="INTERNAL")
        await shop.give_up(one, "TIMEOUT")
        await following(after, [one])
        told = await stream(before)
        assert told == ["INITIATED 0", "IN_FLIGHT 1", "IN_FLIGHT 1", "FAILED 1"]
        heard = await after.heard()
        assert (heard["status"], heard["failure_reason"]) == ("FAILED", "TIMEOUT")
        assert (await after.heard())["type"] == "payment_end"


async def test_who_follows_all_payments_is_told_of_each_change(shop):
    first = await shop.begun()
    async with shop.socket() as ws:
        assert (await following(ws, "all"))["all_payments"] is True
        index = await shop.tried(first)
        second = await shop.begun()
        other = await shop.tried(second)
        await shop.settle(first, index)
        await shop.settle(second, other)
        told = [await ws.heard() for _ in range(6)]
        await shop.delete(all_payments="true")
        assert [(each["identifier"], each["status"]) for each in told] == [
            (first, "INITIATED"),
            (first, "IN_FLIGHT"),
            (second, "INITIATED"),
            (second, "IN_FLIGHT"),
            (first, "SUCCEEDED"),
            (second, "SUCCEEDED"),
        ]
        await ws.raw.send_str('{"id": 9, "command": "ping"}')
        assert (await ws.heard())["id"] == 9  # and nothing else was told


async def test_what_is_in_flight_is_told_at_once_and_nothing_else(shop):
    mk(shop.store, ["Failed", "Succeeded"])
    (one,) = mk(shop.store, ["InFlight"])
    async with shop.socket() as ws:
        await following(ws, "all")
        assert (await ws.heard())["identifier"] == one.hex().upper()
        await ws.raw.send_str('{"id": 9, "command": "ping"}')
        assert (await ws.heard())["id"] == 9


async def test_a_writer_never_waits_for_a_reader_that_has_gone(shop):
    one = await shop.begun()
    async with shop.socket() as ws:
        await following(ws, [one])
        await following(ws, "all")
    index = await shop.tried(one)
    assert (await shop.settle(one, index)).json["status"] == "SUCCEEDED"
    assert await subscriptions(shop) == 0


async def subscriptions(shop) -> int:
    """Return how many subscriptions there are, once the connections that ended have tidied up."""
    for connection in tuple(shop.door.gateway._sockets._connections):
        await asyncio.wait_for(connection.ended.wait(), 10)
    return await shop.door.state.payments.call(ControlTower.subscriptions)


# Beyond the tables ------------------------------------------------------------------------------


async def test_a_payment_that_is_deleted_is_followed_no_more(shop):
    one = await shop.begun()
    async with shop.socket() as ws:
        await following(ws, [one])
        await shop.delete(f"/{one}")
        assert await stream(ws) == ["INITIATED 0"]


async def test_who_unsubscribes_hears_no_more(shop):
    one, other = await shop.begun(), await shop.begun()
    async with shop.socket() as ws:
        await following(ws, [one, other])
        assert {(await ws.heard())["identifier"] for _ in range(2)} == {one, other}
        left = (await ws.ask("unsubscribe", payments=[one]))["result"]
        assert (left["payments"], left["all_payments"]) == (1, False)
        await shop.give_up(one)
        await shop.give_up(other)
        assert (await ws.heard())["identifier"] == other


async def test_who_subscribes_again_is_told_the_present_state(shop):
    one = await shop.begun()
    async with shop.socket() as ws:
        for _ in range(3):
            assert (await following(ws, [one, one.lower()]))["payments"] == 1
            assert (await ws.heard())["status"] == "INITIATED"
        assert await shop.door.state.payments.call(ControlTower.subscriptions) == 1
        await shop.give_up(one)
        assert await stream(ws) == ["FAILED 0"]


async def test_channels_and_payments_are_followed_on_one_connection(shop):
    payer, one = await shop.door.payer(), await shop.begun()
    async with shop.socket() as ws:
        answer = await ws.ask("subscribe", channels=[payer.id], payments=[one])
        assert answer["result"] == {"subscribed": 1, "payments": 1, "all_payments": False}
        assert {(await ws.heard())["type"] for _ in range(2)} == {"balance", "payment"}


async def test_where_a_channel_is_unknown_no_payment_is_followed(shop):
    one = await shop.begun()
    async with shop.socket() as ws:
        answer = await ws.ask("subscribe", channels=[UNKNOWN], payments=[one])
        assert answer["error"] == "unknown_channel"
        assert (await ws.ask("unsubscribe", payments=[]))["result"]["payments"] == 0
    assert await subscriptions(shop) == 0


BAD = [
    ({"payments": ["AB"]}, "wrong_length", 400),
    ({"payments": ["x"]}, "malformed", 400),
    ({"payments": "none"}, "malformed", 400),
    ({"payments": 7}, "malformed", 400),
    ({"payments": [f"{number:064X}" for number in range(6)]}, "malformed", 400),
]


@pytest.mark.parametrize(("fields", "code", "status"), BAD, ids=range(len(BAD)))
async def test_a_bad_subscription_is_refused(shop, fields, code, status):
    async with shop.socket() as ws:
        answer = await ws.ask("subscribe", **fields)
        assert (answer["error"], answer["error_code"]) == (code, status)


async def test_an_engine_without_payments_says_how_to_have_them(door, shop):
    desk, door.state.payments = door.state.payments, None
    try:
        async with door.socket() as ws:
            answer = await ws.ask("subscribe", payments="all")
            assert (answer["error"], answer["error_code"]) == ("payments_off", 404)
            assert (await ws.ask("unsubscribe", payments="all"))["status"] == "success"
        for answer in (await shop.get(), await shop.post(body={}), await shop.get("/in-flight")):
            assert (answer.status, answer.code) == (404, "payments_off")
            assert "payments.url" in answer.json["detail"]
    finally:
        door.state.payments = desk


async def test_a_subscription_that_nobody_waits_for_any_more_is_not_kept(monkeypatch):
    entered, goes_on = threading.Event(), threading.Event()
    with ModelDB() as store:
        one, fetch = begun(store), store.fetch_payment

        def slow(identifier: bytes):
            entered.set()
            assert goes_on.wait(20)
            return fetch(identifier)

        monkeypatch.setattr(store, "fetch_payment", slow)
        desk = PaymentsDesk(store, PaymentsOptions(threads=1))
        opening = asyncio.create_task(PaymentsFollowed(desk, lambda: None).open([one.hex()]))
        assert await asyncio.to_thread(entered.wait, 20)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        goes_on.set()
        assert await desk.call(ControlTower.subscriptions) == 0  # after it: there is one thread
        await desk.close()


# Slow readers -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def model_behind(door, tower_updates_max: int):
    """Put a model behind the gateway whose tower lets few updates wait."""
    before = door.state.payments
    with ModelDB() as store:
        desk = PaymentsDesk(store, PaymentsOptions())
        tower = ControlTower(store, updates_max=tower_updates_max)
        desk._tower = door.state.payments = tower
        door.state.payments = desk
        try:
            yield desk
        finally:
            door.state.payments = before
            await desk.close()


def many_updates(tower: ControlTower, payments: int) -> None:
    """Change payments in one thread; the loop, and with it every reader, has no turn meanwhile."""
    for number in range(payments):
        info = make_info()
        tower.init_payment(info.identifier, info)
        tower.register_attempt(info.identifier, make_attempt(number + 1))


async def test_a_reader_of_all_that_falls_too_far_behind_is_cut_off_and_told_so(door):
    async with model_behind(door, tower_updates_max=10) as desk, door.socket() as ws:
        await following(ws, "all")
        many_updates(desk._tower, payments=20)  # in the loop's own thread: nobody reads
        heard = await ws.heard()
        assert heard["type"] == "payment_end"
        assert (heard["payments"], heard["error"]) == ("all", "subscription_lagged")
        assert heard["error_code"] == 503
        again = await following(ws, "all")
        assert again["all_payments"] is True
        told = [await ws.heard() for _ in range(20)]
        assert {each["status"] for each in told} == {"IN_FLIGHT"}


async def test_a_slow_reader_of_one_payment_misses_steps_and_never_the_end(door):
    async with model_behind(door, tower_updates_max=4) as desk, door.socket() as ws:
        one = begun(desk._tower._store, value_msat=10_000)
        await following(ws, [one.hex()])
        assert (await ws.heard())["status"] == "INITIATED"
        for index in range(1, 31):
            desk._tower.register_attempt(one, make_attempt(index, shard(total=10_000)))
        for index in range(1, 31):
            desk._tower.settle_attempt(one, index, settle())
        told = await stream(ws)
    assert told[-1] == "SUCCEEDED 30"
    assert len(told) <= 5


async def test_a_stream_of_all_whose_store_fails_ends_and_says_so(door, monkeypatch):
    async with model_behind(door, tower_updates_max=4) as desk, door.socket() as ws:
        for _ in range(9):
            begun(desk._tower)
        fetch, pages = desk._tower._store.fetch_in_flight_payments, []

        def fails_later(*page):
            pages.append(page)
            if len(pages) > 3:
                raise StoreUnavailableError("gone")
            return fetch(*page)

        monkeypatch.setattr(desk._tower._store, "fetch_in_flight_payments", fails_later)
        await following(ws, "all")
        while (heard := await ws.heard())["type"] == "payment":
            pass
        assert (heard["type"], heard["payments"]) == ("payment_end", "all")
        assert (heard["error"], heard["error_code"]) == ("unavailable", 503)
        assert len(pages) == 4
        assert await desk.call(ControlTower.subscriptions) == 0
        await following(ws, [])
        assert (await ws.ask("unsubscribe", payments="all"))["result"]["all_payments"] is False


async def test_much_in_flight_does_not_wait_in_memory_for_a_slow_reader(door):
    async with model_behind(door, tower_updates_max=8) as desk, door.socket() as ws:
        identifiers = [begun(desk._tower).hex().upper() for _ in range(50)]
        await following(ws, "all")
        (subscription,) = desk._tower._of_all
        assert len(subscription._waiting) <= 4
        assert [(await ws.heard())["identifier"] for _ in identifiers] == identifiers
        assert len(subscription._waiting) == 0
