"""Whatever happens on the way: every claim is answered, and a channel's claims keep their order."""

import asyncio
from random import Random

import msgspec
import pytest

from engine.client import Client, ClientOptions, ServerUnreachable, Status
from engine.core.claim import Claim
from tests.client.double import EngineDouble, Frame, Trouble, claims_of
from tests.lengths import often

FAST = ClientOptions(
    claims_per_frame_max=4,
    frames_in_flight_max=4,
    backoff_first_s=0.001,
    backoff_max_s=0.01,
    retry_s=10.0,
)
IMPATIENT = msgspec.structs.replace(FAST, retry_s=0.3)


def interleaved(*channels: list[Claim]) -> list[Claim]:
    """One claim of each channel in turn."""
    return [claim for round_ in zip(*channels, strict=True) for claim in round_]


async def submit(double: EngineDouble, claims: list[Claim], options: ClientOptions = FAST):
    async with double.running(), Client(double.url, options, Random(1)) as client:
        return await client.submit(claims)


async def test_answers_come_in_the_order_of_the_claims():
    claims = interleaved(*(claims_of(channel, 7) for channel in range(5)))
    results = await submit(EngineDouble(), claims)
    assert [(r.channel_id, r.sequence, r.amount) for r in results] == [
        (c.channel_id, c.sequence, c.amount) for c in claims
    ]
    assert {r.status for r in results} == {Status.ACCEPTED}
    assert all(r.position and r.is_durable for r in results)


async def test_nothing_submitted_is_nothing_sent():
    double = EngineDouble()
    assert await submit(double, []) == []
    assert double.connections == 0


async def test_a_refusal_that_stays_is_not_sent_again():
    good, other = claims_of(1, 2), Claim(bytes([1]) * 32, 15, b"s", 1)
    double = EngineDouble()
    results = await submit(double, [*good, other])
    assert [r.code for r in results] == [None, None, "sequence_conflict"]
    assert not results[2].retryable
    assert double.frames == 1


async def test_frames_are_full_and_no_more_than_the_window_are_under_way():
    seen: list[int] = []
    double = EngineDouble(lambda frame: seen.append(len(frame.claims)))
    await submit(double, interleaved(*(claims_of(channel, 4) for channel in range(5))))
    assert seen == [4] * 5


async def test_an_unanswered_window_stops_the_sending():
    arrived = asyncio.Semaphore(0)

    def hold(frame: Frame) -> Trouble:
        arrived.release()
        return Trouble(hold_back=1_000)

    double = EngineDouble(hold)
    async with double.running(), Client(double.url, FAST) as client:
        sending = asyncio.create_task(client.submit(claims_of(1, 40)))
        for _ in range(FAST.frames_in_flight_max):
            await arrived.acquire()
        await asyncio.wait([sending], timeout=0.1)
        assert double.frames == FAST.frames_in_flight_max
        double.trouble = lambda _: None
        await double.release()
        assert {r.status for r in await sending} == {Status.ACCEPTED}


async def test_progress_counts_final_answers():
    told: list[tuple[int, int]] = []
    async with EngineDouble().running() as double, Client(double.url, FAST) as client:
        await client.submit(claims_of(1, 10), lambda done, total: told.append((done, total)))
    assert told[-1] == (10, 10)
    assert told == sorted(set(told))


async def test_an_error_of_the_caller_s_progress_reaches_the_caller():
    def fail(done: int, total: int) -> None:
        raise LookupError

    async with EngineDouble().running() as double, Client(double.url, FAST) as client:
        with pytest.raises(LookupError):
            await client.submit(claims_of(1, 10), fail)


# What is sent again -------------------------------------------------------------------------------


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("code", ["overloaded", "unavailable", "wrong_key"])
async def test_what_was_refused_for_the_moment_is_sent_again_in_order(code, numbered):
    def trouble(frame: Frame) -> Trouble | None:
        return Trouble(refuse_from=1, code=code) if frame.count in (1, 2, 4) else None

    double = EngineDouble(trouble)
    claims = claims_of(1, 30, numbered=numbered)
    results = await submit(double, claims)
    assert {r.status for r in results} <= {Status.ACCEPTED, Status.DUPLICATE}
    assert double.marks[bytes([1]) * 32].taken == [claim.amount for claim in claims]


async def test_a_claim_that_was_taken_though_the_answer_was_unavailable_is_a_duplicate():
    def trouble(frame: Frame) -> Trouble | None:
        return Trouble(refuse_from=0, code="unavailable", applied=True) if frame.count < 3 else None

    results = await submit(EngineDouble(trouble), claims_of(1, 4))
    assert {r.status for r in results} == {Status.DUPLICATE}


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_a_lost_connection_is_made_again_and_nothing_is_lost_or_doubled(drop):
    def trouble(frame: Frame) -> Trouble | None:
        return Trouble(drop=drop) if frame.count in (2, 5) else None

    double = EngineDouble(trouble)
    claims = interleaved(claims_of(1, 20), claims_of(2, 20, numbered=False))
    results = await submit(double, claims)
    assert double.connections == 3
    assert all(r.is_durable for r in results)
    for channel in (1, 2):
        assert double.marks[bytes([channel]) * 32].taken == [10 * n for n in range(1, 21)]


async def test_an_engine_that_comes_back_on_its_port_gets_the_rest():
    double = EngineDouble(lambda frame: Trouble(silent=True) if frame.count > 2 else None)
    claims = claims_of(1, 40)
    async with Client("http://127.0.0.1:1", FAST) as client:
        async with double.running():
            client.server = double.url
            sending = asyncio.create_task(client.submit(claims))
            while double.frames < 4:
                await asyncio.wait([sending], timeout=0.01)
        double.trouble = lambda _: None
        async with double.running(int(double.url.rpartition(":")[2])):
            results = await sending
    assert all(r.is_durable for r in results)
    assert double.marks[bytes([1]) * 32].taken == [claim.amount for claim in claims]


async def test_a_connection_that_owes_an_answer_too_long_is_given_up():
    double = EngineDouble(lambda frame: Trouble(silent=True) if frame.count == 1 else None)
    options = msgspec.structs.replace(FAST, answer_timeout_s=0.2)
    results = await submit(double, claims_of(1, 4), options)
    assert double.connections == 2
    assert {r.status for r in results} == {Status.DUPLICATE}


async def test_nonsense_from_the_engine_is_not_taken_for_answers():
    async def nonsense(frame: Frame) -> None:
        await frame.socket.send_bytes(b"\x92\x01\xa3abc")

    double = EngineDouble()
    take, double._take = double._take, nonsense  # type: ignore[method-assign]

    def recover(frame: Frame) -> Trouble | None:
        return None

    async with double.running(), Client(double.url, FAST) as client:
        sending = asyncio.create_task(client.submit(claims_of(1, 4)))
        while double.connections < 3:
            await asyncio.wait([sending], timeout=0.01)
        double.trouble, double._take = recover, take  # type: ignore[method-assign]
        assert {r.status for r in await sending} == {Status.ACCEPTED}


async def test_a_claim_that_was_taken_but_is_no_longer_remembered_is_found_in_the_history():
    """The answers to twelve claims are lost, and the engine repeats only the last three."""
    double = EngineDouble(lambda frame: Trouble(drop="after") if frame.count == 1 else None)
    double.remembered_max = 3
    options = msgspec.structs.replace(FAST, claims_per_frame_max=12)
    numbered, by_amount = claims_of(1, 12), claims_of(2, 12, numbered=False)
    for claims in (numbered, by_amount):
        double.frames = 0
        results = await submit(double, claims, options)
        assert {r.status for r in results} == {Status.DUPLICATE}
        assert [r.position for r in results] == [f"0-{n}" for n in range(1, 13)]
        assert [r.sequence for r in results] == list(range(1, 13))


async def test_a_claim_refused_as_used_at_its_first_try_is_not_looked_up():
    one, two = claims_of(1, 2)
    double = EngineDouble()
    double.remembered_max = 1
    results = await submit(double, [one, two, one])
    assert [r.code for r in results] == [None, None, "sequence_used"]
    assert double.histories == 0


# Early claims -------------------------------------------------------------------------------------


async def test_the_later_answer_to_an_early_claim_is_awaited():
    one, two, three = claims_of(1, 3)
    double = EngineDouble()
    results = await submit(double, [three, two, one])
    assert [r.status for r in results] == [Status.ACCEPTED] * 3
    assert double.marks[one.channel_id].taken == [10, 20, 30]


async def test_a_gap_that_nobody_fills_is_final():
    one, _, three = claims_of(1, 3)
    double = EngineDouble()
    async with double.running(), Client(double.url, FAST) as client:
        sending = asyncio.create_task(client.submit([one, three]))
        while not double.marks[one.channel_id].early:
            await asyncio.wait([sending], timeout=0.01)
        await double.give_up_early()
        first, last = await sending
    assert first.status is Status.ACCEPTED
    assert (last.status, last.code, last.retryable) == (Status.REJECTED, "sequence_gap", True)
    assert double.frames == 1


async def test_a_gap_that_a_claim_sent_again_will_fill_is_not_final():
    """The first frame is refused, the others find the hold full: all are sent again."""
    double = EngineDouble(lambda frame: Trouble(refuse_from=0) if frame.count == 1 else None)
    double.hold_max = 2
    claims = claims_of(1, 24)
    results = await submit(double, claims)
    assert all(r.is_durable for r in results)
    assert double.marks[claims[0].channel_id].taken == [claim.amount for claim in claims]


async def test_an_early_claim_whose_connection_was_lost_is_sent_again():
    one, two = claims_of(1, 2)
    double = EngineDouble()
    async with double.running(), Client(double.url, FAST) as client:
        early = asyncio.create_task(client.submit([two]))
        while not double.marks[one.channel_id].early:
            await asyncio.wait([early], timeout=0.01)
        ((_, frame, _),) = double.marks[one.channel_id].early.pop(2)
        await frame.socket.close()
        while not double.marks[one.channel_id].early:
            await asyncio.wait([early], timeout=0.01)
        assert [r.status for r in await client.submit([one])] == [Status.ACCEPTED]
        assert [r.status for r in await early] == [Status.ACCEPTED]


# When patience ends -------------------------------------------------------------------------------


async def test_nobody_at_the_address_is_said_after_the_patience():
    double = EngineDouble()
    async with double.running():
        pass
    async with Client(double.url, IMPATIENT) as client:
        with pytest.raises(ServerUnreachable) as seen:
            await client.submit(claims_of(1, 1))
    assert seen.value.server == double.url


async def test_what_was_answered_is_kept_when_the_engine_goes_away_for_good():
    double = EngineDouble(lambda frame: Trouble(drop="before") if frame.count > 1 else None)
    results = await submit(double, claims_of(1, 8), IMPATIENT)
    assert [r.status for r in results] == [Status.ACCEPTED] * 4 + [Status.REJECTED] * 4
    assert {r.code for r in results[4:]} == {"unavailable"}
    assert all(r.retryable and r.message for r in results[4:])


async def test_a_channel_refused_without_end_keeps_the_last_answer():
    double = EngineDouble(lambda frame: Trouble(refuse_from=0))
    results = await submit(double, claims_of(1, 8), IMPATIENT)
    assert {r.code for r in results} == {"overloaded"}


@pytest.mark.parametrize(("amount", "sequence"), [(2**64, 1), (1, 2**63)])
async def test_a_number_that_no_frame_can_carry_is_an_error_of_the_caller(amount, sequence):
    async with Client() as client:
        with pytest.raises(ValueError, match="claim 0"):
            await client.submit([Claim(bytes(32), amount, b"", sequence)])


# Anything -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed",
    [
        *range(6),
        40,
        97,
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 100 + often(40, 100))),
    ],
)
async def test_any_mixture_of_troubles_ends_with_every_claim_taken_once_and_in_order(seed):
    random = Random(seed)

    def trouble(frame: Frame) -> Trouble | None:
        if frame.count > 120 or random.random() < 0.5:
            return None
        return random.choice(
            [
                Trouble(refuse_from=random.randrange(4)),
                Trouble(refuse_from=random.randrange(4), code="unavailable", applied=True),
                Trouble(drop="before"),
                Trouble(drop="after"),
                Trouble(hold_back=random.randrange(1, 4)),
            ]
        )

    double = EngineDouble(trouble)
    double.hold_max = random.choice([1, 3, 256])
    options = msgspec.structs.replace(FAST, answer_timeout_s=0.3)
    claims = interleaved(*(claims_of(n, 20, numbered=n != 2) for n in range(3)))
    results = await submit(double, claims, options)
    assert all(r.is_durable for r in results), f"seed {seed}"
    for channel in range(3):
        taken = double.marks[bytes([channel]) * 32].taken
        assert taken == [10 * n for n in range(1, 21)], f"seed {seed}"
