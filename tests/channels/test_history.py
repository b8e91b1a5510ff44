"""The past is what the log says, whatever checkpoint one begins at, by position or by time."""

from pathlib import Path

import pytest

from engine.app import running
from engine.channels.journal import read_committed, segment_starts
from engine.channels.offline import history
from engine.channels.offline.history import BeforeTheLog, Until, channel_at, position_of, shard_at
from engine.channels.recovery import Recovered, begun, replay_into, state_hash
from engine.validation.options import ValidationOptions
from tests.builders import NOON
from tests.channels.test_engine import NAMES, config_for, open_all, submit
from tests.channels.world import MS, Desk, channel_id, item

LIMITS = ValidationOptions().retries
ROUNDS = 60


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """A log of several segments with checkpoints in it, and all its events by position."""
    desk = Desk(tmp_path_factory.mktemp("past") / "shard-0000")
    desk.open("a", "b", "rare", capacity=10**6)
    desk.submit(item("rare", 1, 1))
    for number in range(1, ROUNDS + 1):
        desk.clock.forward(1_000)
        desk.submit(item("a", 10 * number, number), item("b", number, number))
        if number % 15 == 0:
            desk.restart(clean=True)  # a segment of its own, and a checkpoint at its end
    events = desk.events()
    desk.shard.close()
    return desk.directory, events


def folded(events: list, until: int) -> Recovered:
    recovered = begun()
    replay_into(recovered, 1, events[:until], LIMITS)
    return recovered


def test_every_position_gives_the_fold_of_the_events_up_to_it(past):
    directory, events = past
    for until in range(1, len(events) + 1):
        seen = shard_at(directory, Until(position=until), LIMITS)
        assert state_hash(seen.actors) == state_hash(folded(events, until).actors), until
        assert seen.position == until


def test_it_begins_at_a_checkpoint_unless_it_is_told_not_to(past):
    directory, events = past
    quick = shard_at(directory, Until(position=len(events)), LIMITS)
    whole = shard_at(directory, Until(position=len(events)), LIMITS, from_genesis=True)
    assert (quick.checkpoint_position, whole.checkpoint_position) == (len(events), 0)
    assert state_hash(quick.actors) == state_hash(whole.actors)


def test_a_moment_stands_for_the_newest_event_by_then(past):
    directory, events = past
    times = [event.at for event in events]
    for at in {*times, *(time + 1 for time in times), *(time - 1 for time in times)}:
        expected = sum(time <= at for time in times)
        assert position_of(directory, Until(at=at)) == expected
    assert position_of(directory, Until(at=NOON - 1)) == 0


def test_a_moment_is_found_without_reading_all_segments(past, monkeypatch):
    directory, events = past
    begun = []

    def counted(directory, start=1):
        begun.append(start)
        return read_committed(directory, start)

    monkeypatch.setattr(history, "read_committed", counted)
    position_of(directory, Until(at=events[-1].at))
    segments = len(segment_starts(directory))
    assert segments >= 4
    assert len(set(begun)) < segments


@pytest.mark.parametrize(("wanted", "told"), [(0, 0), (3, 3), (1_000, ROUNDS + 2)])
def test_the_events_that_led_to_a_state_are_told(past, wanted, told):
    directory, events = past
    then = channel_at(directory, channel_id("a"), Until(position=len(events)), LIMITS, wanted)
    ours = [
        (position, event)
        for position, event in enumerate(events, 1)
        if event.channel_id == channel_id("a")
    ]
    assert len(ours) == ROUNDS + 2
    assert [(past.position, past.event) for past in then.events] == ours[len(ours) - told :]


def test_a_channel_that_is_seldom_used_is_looked_for_where_it_was_used_last(past):
    directory, _ = past
    then = channel_at(directory, channel_id("rare"), Until(), LIMITS)
    assert (then.channel.claimed, then.channel.version, len(then.events)) == (1, 3, 3)
    assert then.events[-1].position == then.position == then.claim_position


def test_a_channel_that_was_not_opened_by_then_was_not_there(past):
    directory, _ = past
    assert channel_at(directory, channel_id("rare"), Until(position=4), LIMITS) is None
    assert channel_at(directory, channel_id("nobody"), Until(), LIMITS) is None


def test_a_place_before_a_log_that_was_cut_is_refused(past, monkeypatch):
    def cut(*_, **__):
        raise ValueError("this place lies before the oldest segment that is kept")

    monkeypatch.setattr(history, "recover_committed", cut)
    with pytest.raises(BeforeTheLog, match="oldest segment"):
        shard_at(past[0], Until(position=1), LIMITS)


async def test_a_running_engine_tells_its_past(tmp_path):
    async with running(config_for(tmp_path)) as engine:
        await open_all(engine)
        before = None
        for number in (1, 2, 3):
            told = submit(engine, item(NAMES[0], number * 10, number))
            assert await told.words() == ["accepted"]
            (answer,) = await told.answers()
            before = before or answer.position
        while (now := await engine.state_at(channel_id(NAMES[0]))).channel.sequence < 3:
            continue  # the newest frame is seen once a later one proves it
        then = await engine.state_at(channel_id(NAMES[0]), Until(position=before), events_max=1)
        assert (now.channel.claimed, then.channel.claimed) == (30, 10)
        assert [(past.position, past.event.amount) for past in then.events] == [(before, 10)]
        earlier = await engine.state_at(channel_id(NAMES[0]), Until(at=now.channel.updated_at - MS))
        assert earlier is None or earlier.channel.sequence < 3
