"""A call is made again where that is safe, and only there; refusals come as values."""

import contextlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from aiohttp import web

from engine.client import Client, ClientOptions, ProtocolViolated, Refused, ServerUnreachable
from engine.core.claim import Claim
from engine.core.commands import OpenChannel
from engine.core.types import ChannelId, Drops, State, TimeNs

CHANNEL_ID = ChannelId(bytes(range(32)))
PATIENT = ClientOptions(backoff_first_s=0.001, backoff_max_s=0.005, retry_s=5.0)
SHORT = ClientOptions(backoff_first_s=0.001, backoff_max_s=0.005, retry_s=0.05)
CHANNEL = {
    "channel_id": CHANNEL_ID.hex().upper(),
    "source": "rDx69ebzbowuqztksVDmZXjizTd12BVr4x",
    "destination": "rLFtVprxUEfsH54eCWKsZrEQzMDsx1wqso",
    "public_key": "02" + "AB" * 32,
    "capacity": "18446744073709551615",
    "settle_delay": 60,
    "state": "Active",
    "expiration": "2026-08-01T12:00:00.000001Z",
    "claimed": "7",
    "something_new": {"of": "a later engine"},
}
OPENING = OpenChannel(
    channel_id=CHANNEL_ID,
    source="rDx69ebzbowuqztksVDmZXjizTd12BVr4x",
    destination="rLFtVprxUEfsH54eCWKsZrEQzMDsx1wqso",
    public_key=b"\x02" + b"\xab" * 32,
    capacity=Drops(10**17),
    settle_delay_s=60,
    cancel_after=TimeNs(1_785_585_600_000_001_000),
)


class Script:
    """Answers calls with the next of its answers, and the last one for ever."""

    def __init__(self, *answers: web.Response | str) -> None:
        self._answers = list(answers)
        self.seen: list[tuple[str, str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.seen.append((request.method, request.path_qs, body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer == "drop":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if isinstance(answer, str):
            return web.Response(text=answer)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


@contextlib.asynccontextmanager
async def client_of(script: Script, options: ClientOptions = PATIENT) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with Client(f"http://{host}:{port}", options, Random(1)) as client:
            yield client
    finally:
        await runner.cleanup()


def problem(status: int, code: str, **fields: object) -> web.Response:
    return web.json_response(
        {"code": code, "detail": "why", "status": status} | fields, status=status
    )


def channel() -> web.Response:
    return web.json_response(CHANNEL)


# Values -------------------------------------------------------------------------------------------


async def test_a_channel_comes_as_bytes_and_integers():
    async with client_of(Script(channel())) as client:
        info = await client.channel(CHANNEL_ID)
    assert info.channel_id == CHANNEL_ID
    assert info.capacity == 2**64 - 1
    assert info.state is State.ACTIVE
    assert info.expiration is not None
    assert info.expiration.microsecond == 1


async def test_an_opening_goes_out_as_the_api_says():
    script = Script(channel())
    async with client_of(script) as client:
        await client.open_channel(OPENING)
    assert script.seen == [
        (
            "POST",
            "/v1/channels",
            {
                "channel_id": CHANNEL_ID.hex().upper(),
                "source": OPENING.source,
                "destination": OPENING.destination,
                "public_key": "02" + "AB" * 32,
                "capacity": "100000000000000000",
                "settle_delay": 60,
                "sequencing": "strict",
                "funded": False,
                "cancel_after": "2026-08-01T12:00:00.000001Z",
            },
        )
    ]


@pytest.mark.parametrize(
    ("call", "path", "body"),
    [
        (lambda c: c.confirm_funding(CHANNEL_ID), "confirm-funding", {}),
        (lambda c: c.fund(CHANNEL_ID, 5, 10), "fund", {"amount": "5", "previous": "10"}),
        (lambda c: c.fund(CHANNEL_ID, 5), "fund", {"amount": "5"}),
        (lambda c: c.request_close(CHANNEL_ID), "request-close", {}),
        (lambda c: c.settle(CHANNEL_ID), "settle", {}),
        (lambda c: c.settle(CHANNEL_ID, 0), "settle", {"redeemed": "0"}),
        (lambda c: c.dispute(CHANNEL_ID, "late"), "dispute", {"reason": "late"}),
        (
            lambda c: c.resolve(CHANNEL_ID, State.SETTLED, 3),
            "resolve",
            {"outcome": "Settled", "redeemed": "3"},
        ),
    ],
)
async def test_a_command_is_one_call(call, path, body):
    script = Script(channel())
    async with client_of(script) as client:
        assert (await call(client)).claimed == 7
    assert script.seen == [("POST", f"/v1/channels/{CHANNEL['channel_id']}/{path}", body)]


async def test_one_claim_over_http_says_all_there_is():
    answer = {
        "channel_id": CHANNEL["channel_id"],
        "amount": "20",
        "sequence": 2,
        "status": "rejected",
        "code": "amount_over_capacity",
        "message": "too much",
        "expected": "10",
        "actual": "20",
        "retryable": False,
        "claimed": "5",
        "available": "5",
    }
    script = Script(web.json_response({"results": [answer]}))
    claim = Claim(CHANNEL_ID, 20, b"\x01", 2, previous=b"\xab" * 32, sent_at=10**18)
    async with client_of(script) as client:
        result = await client.submit_one(claim)
    assert (result.expected, result.actual, result.claimed) == (10, 20, 5)
    ((_, _, body),) = script.seen
    assert body["claims"][0]["previous"] == "AB" * 32
    assert body["claims"][0]["sent_at"] == "2001-09-09T01:46:40Z"


async def test_a_claim_the_engine_could_not_read_keeps_its_own_fields():
    answer = {"channel_id": None, "amount": None, "status": "rejected", "code": "malformed"}
    async with client_of(Script(web.json_response({"results": [answer]}))) as client:
        result = await client.submit_one(Claim(b"\x01", 20, b"\x01"))
    assert (result.channel_id, result.amount, result.code) == (b"\x01", 20, "malformed")


async def test_pages_are_fetched_until_one_is_not_full():
    def page(*numbers: int) -> web.Response:
        ids = (bytes([number]) * 32 for number in numbers)
        channels = [CHANNEL | {"channel_id": id_.hex().upper()} for id_ in ids]
        return web.json_response({"channels": channels})

    script = Script(page(1, 2), page(3, 4), page(5))
    async with client_of(script) as client:
        found = [info.channel_id[0] async for info in client.channels(State.ACTIVE, page=2)]
    assert found == [1, 2, 3, 4, 5]
    assert script.seen[1][1] == (f"/v1/channels?limit=2&starting_after={'02' * 32}&state=Active")


async def test_many_channels_are_opened_and_counted():
    told: list[tuple[int, int]] = []
    async with client_of(Script(channel())) as client:
        opened = await client.open_channels([OPENING] * 5, lambda *now: told.append(now))
        assert await client.open_channels([]) == []
    assert len(opened) == 5
    assert told == [(n, 5) for n in range(1, 6)]


async def test_the_first_opening_that_is_refused_is_raised_as_itself():
    async with client_of(Script(channel(), problem(409, "conflict"))) as client:
        with pytest.raises(Refused) as seen:
            await client.open_channels([OPENING] * 100)
    assert seen.value.problem.code == "conflict"


# Refusals -----------------------------------------------------------------------------------------


async def test_a_refusal_carries_its_code_and_is_not_repeated():
    script = Script(problem(404, "unknown_channel", request_id="r1"))
    async with client_of(script) as client:
        with pytest.raises(Refused) as seen:
            await client.channel(CHANNEL_ID)
    assert len(script.seen) == 1
    found = seen.value.problem
    assert (found.status, found.code, found.detail, found.request_id) == (
        404,
        "unknown_channel",
        "why",
        "r1",
    )


async def test_a_refusal_that_is_no_problem_keeps_its_status():
    async with client_of(Script(web.Response(status=502, text="<html>"))) as client:
        with pytest.raises(Refused) as seen:
            await client.channel(CHANNEL_ID)
    assert (seen.value.problem.status, seen.value.problem.title) == (502, "Bad Gateway")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"channel_id": "zz"}', "\ud83d"])
async def test_an_answer_that_is_none_is_a_violation_of_the_protocol(text):
    answer = web.Response(body=text.encode(errors="surrogatepass"))
    async with client_of(Script(answer)) as client:
        with pytest.raises(ProtocolViolated):
            await client.channel(CHANNEL_ID)


# Patience -----------------------------------------------------------------------------------------


async def test_an_engine_too_busy_is_asked_again_when_it_said():
    script = Script(problem(503, "overloaded", retry_after_ms=20), channel())
    async with client_of(script) as client:
        await client.fund(CHANNEL_ID, 5)
    assert len(script.seen) == 2


@pytest.mark.parametrize("trouble", ["drop", problem(503, "unavailable")])
async def test_a_read_is_repeated_when_its_answer_is_lost(trouble):
    script = Script(trouble, trouble, channel())
    async with client_of(script) as client:
        await client.channel(CHANNEL_ID)
        await client.open_channel(OPENING)
    assert len(script.seen) == 4


async def test_a_command_whose_outcome_is_unknown_is_not_repeated():
    script = Script(problem(503, "unavailable"), channel())
    async with client_of(script) as client:
        with pytest.raises(Refused):
            await client.fund(CHANNEL_ID, 5)
    assert len(script.seen) == 1


async def test_a_command_whose_connection_was_lost_is_not_repeated():
    script = Script("drop", channel())
    async with client_of(script) as client:
        with pytest.raises(ServerUnreachable):
            await client.fund(CHANNEL_ID, 5)
    assert len(script.seen) == 1


async def test_patience_ends():
    script = Script(problem(503, "overloaded"))
    async with client_of(script, SHORT) as client:
        with pytest.raises(Refused):
            await client.channel(CHANNEL_ID)
    assert len(script.seen) > 2


async def test_a_ping_has_no_patience():
    async with client_of(Script(channel())) as client:
        await client.ping()
    async with client_of(Script(web.Response(status=503))) as client:
        with pytest.raises(ServerUnreachable):
            await client.ping()
    with pytest.raises(ServerUnreachable):
        await client_closed()


async def client_closed() -> None:
    async with client_of(Script(channel())) as client:
        address = client.server
    async with Client(address) as client:
        await client.ping()
