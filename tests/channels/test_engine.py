"""An engine in one process: starts, serves, drains, starts again, and refuses what it must."""

import asyncio

import pytest

from engine.app import StartFailed, running
from engine.channels.options import PlacementOptions
from engine.channels.placement import PlacementMismatch
from engine.config import Config
from engine.core.rejections import RejectCode, Rejected
from engine.verify.options import VerifyOptions
from tests.channels.intake.test_router import claims_of
from tests.channels.mortal import Told
from tests.channels.world import channel_id, item, opening


def config_for(directory, **placement):
    fields = {"runtime": "inline", "shards": 2} | placement
    return Config(
        datadir=str(directory),
        placement=PlacementOptions(**fields),
        verify=VerifyOptions(verifiers=1, verify_timeout_s=10),
    )


def submit(engine, *items):
    told = Told(items)
    engine.router.submit(claims_of(*items), told.submission)
    return told


NAMES = [f"channel {number}" for number in range(8)]


async def open_all(engine, names=NAMES):
    outcomes = await asyncio.gather(*(engine.router.execute(opening(name)) for name in names))
    assert [outcome.rejected for outcome in outcomes] == [None] * len(names)


@pytest.mark.parametrize(
    "placement", ["sharded", pytest.param("dedicated", marks=pytest.mark.slow)]
)
async def test_what_was_answered_is_there_after_a_stop_and_a_start(tmp_path, placement):
    config = config_for(tmp_path, placement=placement)
    claims = [item(name, 10, 1) for name in NAMES]
    async with running(config) as engine:
        await open_all(engine)
        assert await submit(engine, *claims).words() == ["accepted"] * 8
    async with running(config) as engine:
        assert await submit(engine, *claims).words() == ["duplicate"] * 8
        for name in NAMES:
            _, view = await engine.router.read(channel_id(name))
            assert view.channel.claimed == 10
        shards = {(await engine.router.read(channel_id(name)))[0] for name in NAMES}
        assert shards == (set(range(8)) if placement == "dedicated" else {0, 1})


async def test_a_stop_answers_what_is_under_way(tmp_path):
    async with running(config_for(tmp_path)) as engine:
        await open_all(engine)
        told = submit(engine, *(item(NAMES[0], number, number) for number in range(1, 900)))
        while not len(engine.router.views):  # noqa: ASYNC110 - the first look brings it
            await asyncio.sleep(0)
    assert await told.words() == ["accepted"] * 899


async def test_an_operators_rule_is_asked(tmp_path):
    class Never:
        name = "never"

        def check(self, channel, claim, at):
            return Rejected(RejectCode.RISK_REFUSED, detail=self.name)

        def saw_bad_signature(self, channel_id, at):
            pass

    async with running(config_for(tmp_path), rules=(Never(),)) as engine:
        await open_all(engine)
        assert await submit(engine, item(NAMES[0], 1, 1)).words() == ["risk_refused"]


async def test_the_feed_gives_the_events_of_every_shard_in_order(tmp_path):
    async with running(config_for(tmp_path, shards=1)) as engine:
        await open_all(engine, NAMES[:1])
        await submit(engine, *(item(NAMES[0], number, number) for number in (1, 2, 3))).answers()
        found = await engine.feed.claims(0, channel_id(NAMES[0]), 1, 10)
        while len(found) < 2:  # the newest frame is read once a later one proves it
            found = await engine.feed.claims(0, channel_id(NAMES[0]), 1, 10)
        assert [(entry.claim.sequence, entry.position) for entry in found] == [(2, 4), (3, 5)]


# What refuses to start ----------------------------------------------------------------------------


def start_failed(why):
    """Expect it, however many task groups it came out of."""
    failure = pytest.RaisesExc(StartFailed, match=why)
    return pytest.RaisesGroup(failure, flatten_subgroups=True, allow_unwrapped=True)


async def start(config):
    async with running(config):
        pass


async def test_another_layout_than_the_directory_has_is_refused(tmp_path):
    await start(config_for(tmp_path))
    with pytest.raises(PlacementMismatch):
        await start(config_for(tmp_path, shards=3))


@pytest.mark.slow
async def test_a_second_engine_on_the_same_directory_is_refused(tmp_path):
    async with running(config_for(tmp_path)) as engine:
        await open_all(engine)
        with start_failed(r"another writer holds .*pid=\d+ epoch=\d+"):
            await start(config_for(tmp_path))
        assert await submit(engine, item(NAMES[0], 1, 1)).words() == ["accepted"]


async def test_a_corrupt_log_refuses_to_start_and_the_place_is_named(tmp_path):
    config = config_for(tmp_path, shards=1)
    async with running(config) as engine:
        await open_all(engine)
        await submit(engine, *(item(name, 10, 1) for name in NAMES)).answers()
    spoil(tmp_path / "shard-0000")
    with start_failed(r"^shard 0 does not start: [^\n]*\.wal at byte \d+[^\n]*\Z"):
        await start(config)


def spoil(directory):
    """Turn one bit in the middle of the oldest frames of a log, and lose its checkpoints."""
    segment = min((directory / "wal").glob("*.wal"))
    data = bytearray(segment.read_bytes())
    data[4_096 + 100] ^= 1
    segment.write_bytes(data)


async def test_a_shard_that_does_not_start_for_a_channel_ends_nobody_else(tmp_path):
    async with running(config_for(tmp_path, placement="dedicated", shards=1)) as engine:
        await open_all(engine, NAMES[:1])
        (tmp_path / "shard-0001").write_text("no directory, so no log")
        refused = await engine.router.execute(opening(NAMES[1]))
        assert refused.rejected == Rejected(RejectCode.UNAVAILABLE)
        assert await submit(engine, item(NAMES[0], 10, 1)).words() == ["accepted"]
        (tmp_path / "shard-0001").unlink()
        await open_all(engine, NAMES[1:2])
