"""The client against a real engine, which is killed and started again in between."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.signing import DESTINATION, SOURCE, Payer, make_payer, sign
from engine.channels.host import shard_directory
from engine.channels.journal import read_committed
from engine.client import Client, ClientOptions, Refused, Result, Status
from engine.core.claim import Claim, claim_digest
from engine.core.commands import OpenChannel
from engine.core.events import ClaimReceived
from engine.core.types import ChannelId, Drops, Sequencing, State
from tests.cli.serving import Served, serving, start

CAPACITY = 10**9


def opening(payer: Payer, sequencing: Sequencing = Sequencing.STRICT) -> OpenChannel:
    return OpenChannel(
        channel_id=ChannelId(payer.channel_id),
        source=SOURCE,
        destination=DESTINATION,
        public_key=payer.public_key,
        capacity=Drops(CAPACITY),
        settle_delay_s=60,
        sequencing=sequencing,
        funded=True,
    )


def claim(payer: Payer, sequence: int, *, numbered: bool = True) -> Claim:
    amount = 10 * sequence
    return Claim(payer.channel_id, amount, sign(payer, amount), sequence if numbered else None)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("client") / "data") as served:
        yield served


@pytest.fixture
async def client(engine):
    async with Client(engine.url) as client:
        yield client


@pytest.fixture
async def payer(client, request) -> Payer:
    payer = make_payer(0, "secp256k1", series=request.node.name)
    await client.open_channel(opening(payer))
    return payer


async def test_claims_go_in_and_the_balance_says_so(client, payer):
    results = await client.submit([claim(payer, n) for n in range(1, 601)])
    assert {result.status for result in results} == {Status.ACCEPTED}
    assert [result.sequence for result in results] == list(range(1, 601))
    assert [result.amount for result in results] == [10 * n for n in range(1, 601)]
    balance = await client.balance(payer.channel_id)
    assert (balance.claimed, balance.available, balance.sequence) == (6_000, CAPACITY - 6_000, 600)
    assert balance.position == results[-1].position


async def test_refusals_come_in_their_places(client, payer):
    forged = Claim(payer.channel_id, 20, sign(payer, 21), 2)
    results = await client.submit(
        [
            claim(payer, 1),
            forged,
            Claim(payer.channel_id, CAPACITY + 1, sign(payer, CAPACITY + 1), 2),
            Claim(bytes(32), 1, forged.signature, 1),
            Claim(b"short", 0, b"", 0),
            claim(payer, 2),
        ]
    )
    assert [result.code for result in results] == [
        None,
        "bad_signature",
        "amount_over_capacity",
        "unknown_channel",
        "malformed",
        None,
    ]


async def test_claims_out_of_order_are_decided_in_order(client, payer):
    results = await client.submit([claim(payer, n) for n in (3, 1, 4, 2)])
    assert {result.status for result in results} == {Status.ACCEPTED}
    positions = {result.sequence: int(result.position.split("-")[1]) for result in results}
    assert positions[1] < positions[2] < positions[3] < positions[4]


@pytest.mark.slow
async def test_a_gap_that_nobody_fills_is_refused_when_time_is_up(client, payer):
    first, gap = await client.submit([claim(payer, 1), claim(payer, 3)])
    assert first.status is Status.ACCEPTED
    assert (gap.status, gap.code) == (Status.REJECTED, "sequence_gap")


async def test_a_chain_of_claims_is_checked(client, payer):
    first = claim(payer, 1)
    digest = claim_digest(payer.channel_id, 1, 10, None)
    second = Claim(payer.channel_id, 20, sign(payer, 20), 2, previous=digest)
    wrong = Claim(payer.channel_id, 30, sign(payer, 30), 3, previous=digest)
    results = await client.submit([first, second, wrong])
    assert [result.code for result in results] == [None, None, "conflict"]


async def test_a_channel_goes_through_its_life(client, payer):
    funded = await client.fund(payer.channel_id, 5, previous=CAPACITY)
    assert funded.capacity == CAPACITY + 5
    with pytest.raises(Refused) as seen:
        await client.fund(payer.channel_id, 5, previous=CAPACITY)
    assert seen.value.problem.code == "conflict"
    assert (await client.dispute(payer.channel_id, "why")).state is State.DISPUTED
    assert (await client.resolve(payer.channel_id, State.SETTLING)).state is State.SETTLING
    assert (await client.settle(payer.channel_id)).state is State.SETTLED
    (late,) = await client.submit([claim(payer, 1)])
    assert late.code == "not_active"


async def test_channels_come_page_by_page_in_order(client):
    payers = [make_payer(number, "ed25519", "pages") for number in range(7)]
    told: list[tuple[int, int]] = []
    await client.open_channels([opening(p) for p in payers], lambda *now: told.append(now))
    assert told[-1] == (7, 7)
    ids = [info.channel_id async for info in client.channels(page=3)]
    assert ids == sorted(set(ids))
    assert {payer.channel_id for payer in payers} <= set(ids)


async def test_a_subscriber_hears_the_balance_now_and_every_later_mark(client, payer):
    changes = client.subscribe([payer.channel_id])
    assert (await anext(changes)).claimed == 0
    await client.submit([claim(payer, n) for n in range(1, 101)])
    async for change in changes:
        assert change.channel_id == payer.channel_id
        if change.sequence == 100:
            break
    assert (change.claimed, change.available) == (1_000, CAPACITY - 1_000)
    await changes.aclose()


async def test_many_submissions_share_a_connection(client):
    payers = [make_payer(number, "secp256k1", "shared") for number in range(8)]
    await client.open_channels([opening(payer) for payer in payers])
    submissions = [client.submit([claim(p, n) for n in range(1, 51)]) for p in payers]
    for results in await asyncio.gather(*submissions):
        assert {result.status for result in results} == {Status.ACCEPTED}


# Killed and started again -------------------------------------------------------------------------


class Killer:
    """Kills the engine when so many claims are answered, and starts it again on its port."""

    def __init__(self, datadir: Path, served: Served, at: list[int]) -> None:
        self.served = served
        self.acknowledged_before: list[int] = []
        self._datadir = datadir
        self._at = at
        self._one_at_a_time = asyncio.Lock()
        self._restarts: list[asyncio.Task[None]] = []

    def __call__(self, done: int, total: int) -> None:
        if self._at and done >= self._at[0]:
            self._at.pop(0)
            self.acknowledged_before.append(done)
            self._restarts.append(asyncio.create_task(self._kill_and_start()))

    async def _kill_and_start(self) -> None:
        # The client is served a moment before `start` returns: the next kill must wait for it,
        # or it kills the dead and finds the living on the port.
        async with self._one_at_a_time:
            self.served.kill()
            self.served = await asyncio.to_thread(start, self._datadir, self.served.port)

    async def finished(self) -> None:
        await asyncio.gather(*self._restarts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "claims_each", "kills"), [(10, 500, [500, 2_000, 3_500]), (2, 4_000, [1_000])]
)
async def test_a_killed_engine_loses_nothing_acknowledged_and_keeps_the_order(
    tmp_path, channels, claims_each, kills
):
    """Half of the channels have no numbers; few channels have more under way than is remembered."""
    datadir = tmp_path / "data"
    payers = [make_payer(number, "mixed", "killed") for number in range(channels)]
    by_amount = {payer.channel_id for payer in payers[channels // 2 :]}
    claims = [
        claim(payer, n, numbered=payer.channel_id not in by_amount)
        for n in range(1, claims_each + 1)
        for payer in payers
    ]
    killer = Killer(datadir, start(datadir), list(kills))
    try:
        async with Client(killer.served.url, ClientOptions(retry_s=60.0)) as client:
            for payer in payers:
                how = Sequencing.AMOUNT if payer.channel_id in by_amount else Sequencing.STRICT
                await client.open_channel(opening(payer, how))
            results = await client.submit(claims, killer)
            await killer.finished()
            assert len(killer.acknowledged_before) == len(kills)
            assert all(r.is_durable for r in results), Counter(r.code for r in results)
            for payer in payers:
                balance = await client.balance(payer.channel_id)
                assert (balance.claimed, balance.sequence) == (10 * claims_each, claims_each)
        assert await asyncio.to_thread(killer.served.stop) == 0
    finally:
        killer.served.kill()
    assert on_disk(datadir) == acknowledged(results)


Taken = dict[bytes, list[tuple[int | None, int, str | None]]]


def acknowledged(results: list[Result]) -> Taken:
    """Return (sequence, amount, position) of each channel's claims, in the order submitted."""
    taken: Taken = defaultdict(list)
    for result in results:
        taken[result.channel_id].append((result.sequence, result.amount, result.position))
    return taken


def on_disk(datadir: Path) -> Taken:
    """Return the same of the claims in the logs, in the order of the logs."""
    taken: Taken = defaultdict(list)
    for number in range(2):
        for first, events in read_committed(shard_directory(datadir, number)):
            for position, event in enumerate(events, first):
                if isinstance(event, ClaimReceived):
                    where = f"{number}-{position}"
                    taken[event.channel_id].append((event.sequence, event.amount, where))
    return taken
