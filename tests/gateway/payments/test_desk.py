"""Calls wait in bounded numbers; a store that is away, full or gone is said so, and comes back."""

import asyncio
import threading

import pytest
import structlog

from engine.gateway.payments.desk import PaymentsDesk, payments_desk
from engine.gateway.payments.options import PaymentsOptions
from engine.gateway.problems import Problem
from engine.payments import StoreError
from engine.payments.errors import (
    StoreDamagedError,
    StoreFullError,
    StoreLockedError,
    StoreOutcomeUnknownError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UnknownStoreError,
)
from tests.gateway.payments.shop import creation
from tests.payments.model import ModelDB

FAULTS = [
    (StoreUnavailableError, "unavailable"),
    (StoreOutcomeUnknownError, "unavailable"),
    (StoreLockedError, "unavailable"),
    (StoreDamagedError, "unavailable"),
    (StoreReadOnlyError, "unavailable"),
    (StoreFullError, "storage_full"),
]


@pytest.fixture
def store():
    with ModelDB() as store:
        yield store


@pytest.fixture
def faulty(store, monkeypatch):
    """Make the store fail as it is told."""

    def fail(error: Exception | None) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise error

        if error is None:
            monkeypatch.undo()
        else:
            for name in ("query_payments", "init_payment", "fetch_payment"):
                monkeypatch.setattr(store, name, refuse)

    return fail


@pytest.mark.parametrize(("kind", "code"), FAULTS, ids=[kind.__name__ for kind, _ in FAULTS])
async def test_a_store_that_is_at_fault_is_503_until_it_is_well(shop, faulty, kind, code):
    secret = "postgresql://user:secret@db/payments went away"
    with structlog.testing.capture_logs() as logs:
        faulty(kind(secret))
        for answer in (await shop.get(), await shop.post(body=creation())):
            assert (answer.status, answer.code) == (503, code)
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json["retryable"]
            assert b"secret" not in answer.body
        async with shop.socket() as ws:
            told = await ws.ask("subscribe", payments=["AB" * 32])
            assert (told["error"], told["error_code"]) == (code, 503)
        faulty(None)
        assert (await shop.get()).json["payments"] == []
    assert "secret" not in str(logs)
    assert [line["event"] for line in logs] == ["payments_store_failed", "payments_store_back"]


async def test_an_engine_that_stops_takes_no_change_and_shows_what_there_is(shop):
    one = await shop.begun()
    shop.door.state.draining = True
    try:
        for answer in (await shop.give_up(one), await shop.delete(all_payments="true")):
            assert (answer.status, answer.code) == (503, "overloaded")
        assert (await shop.get(f"/{one}")).json["status"] == "INITIATED"
    finally:
        shop.door.state.draining = False


class Gate:
    """Work that waits for the test."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def work(self, _: object) -> str:
        self.entered.release()
        assert self.open.wait(20)
        return "done"


async def test_so_many_calls_run_so_many_wait_and_the_next_is_refused(store):
    desk, gate = PaymentsDesk(store, PaymentsOptions(threads=2, calls_waiting_max=3)), Gate()
    calls = [asyncio.create_task(desk.call(gate.work)) for _ in range(5)]
    for _ in range(2):
        assert await asyncio.to_thread(gate.entered.acquire, timeout=20)
    for _ in range(3):
        with pytest.raises(Problem) as refused:
            await desk.call(gate.work)
        assert (refused.value.status, refused.value.code) == (503, "overloaded")
    gate.open.set()
    assert await asyncio.gather(*calls) == ["done"] * 5
    assert await desk.call(gate.work) == "done"
    await desk.close()


async def test_a_caller_that_gives_up_keeps_its_thread_busy_and_no_longer_its_place(store):
    desk, gate = PaymentsDesk(store, PaymentsOptions(threads=1, calls_waiting_max=1)), Gate()
    runs, waits = (asyncio.create_task(desk.call(gate.work)) for _ in range(2))
    assert await asyncio.to_thread(gate.entered.acquire, timeout=20)
    for call in (waits, runs):
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    later = asyncio.create_task(desk.call(gate.work))  # in the place of the one that waited
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="too many calls wait"):
        await desk.call(gate.work)
    gate.open.set()
    assert await later == "done"
    await desk.close()


async def test_a_desk_that_has_closed_does_nothing(store):
    desk = PaymentsDesk(store, PaymentsOptions())
    await desk.close()
    with pytest.raises(Problem, match="stopping"):
        await desk.call(lambda tower: tower.next_attempt_index())
    assert store.attempt_index == 0


async def test_an_empty_url_serves_no_payments():
    async with payments_desk(PaymentsOptions()) as desk:
        assert desk is None


async def test_a_bad_url_is_refused_when_the_engine_starts():
    with pytest.raises(UnknownStoreError, match="no store has a URL like"):
        async with payments_desk(PaymentsOptions(url="redis://payments")):
            pass


async def test_a_store_is_closed_with_its_desk(monkeypatch, store):
    monkeypatch.setattr("engine.gateway.payments.desk.open_payment_db", lambda url: store)
    async with payments_desk(PaymentsOptions(url="model://")) as desk:
        assert await desk.call(lambda tower: tower.next_attempt_index()) == 1
    with pytest.raises(StoreError, match="closed"):
        store.next_attempt_index()
