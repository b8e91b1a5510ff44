"""The past is what the log says, whatever checkpoint one begins at, by position or by time."""

import asyncio
import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from engine.app import running
from engine.channels import feed as feed_module
from engine.channels.background.merge import merging_of
from engine.channels.feed import Feed, HistoryUnreadable
from engine.channels.journal import (
    OS_FILES,
    CutLogError,
    accept_base,
    read_committed,
    segment_starts,
)
from engine.channels.offline import history
from engine.channels.offline.history import BeforeTheLog, Until, channel_at, position_of, shard_at
from engine.channels.recovery import Recovered, begun, replay_into, state_hash
from engine.core.events import ClaimReceived
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


# The history of a channel's claims ----------------------------------------------------------------


@pytest.fixture
def copy(past, tmp_path) -> Path:
    """A log of one's own, to do something to."""
    return Path(shutil.copytree(past[0], tmp_path / past[0].name))


def cut_below_a_base(directory: Path) -> list:
    """Go on with a log and let it go below a base, as `log_kept = "checkpointed"` does.

    Returns:
        All its events, those that are gone as well.
    """
    desk = Desk(directory)
    for number in range(ROUNDS + 1, ROUNDS + 10):
        desk.submit(item("a", 10 * number, number))
        desk.restart(clean=True)
    events = desk.events()
    for number in (1, 2):
        made = merging_of(directory, desk.log.epoch)
        assert made.base is not None, made.error
        cut = desk.log.adopt_base(made.base, accept_base(OS_FILES, directory, made.base))
        assert bool(cut) is (number == 2)
        if number == 1:
            desk.submit(item("b", 1_000 + number, ROUNDS + number))
            desk.restart(clean=True)
    desk.shard.close()
    return events


def claims_in(events: list, name: str, since: int = 1) -> list[tuple[int, int]]:
    """The accepted claims of a channel as (position, sequence)."""
    return [
        (position, event.sequence)
        for position, event in enumerate(events, 1)
        if position >= since
        and event.channel_id == channel_id(name)
        and type(event) is ClaimReceived
    ]


def read(directory: Path, name: str, after: int = 0, limit: int = 1_000) -> list[tuple[int, int]]:
    feed = Feed(directory.parent)
    found = asyncio.run(feed.claims(0, channel_id(name), after, limit))
    return [(entry.position, entry.claim.sequence) for entry in found]


def test_a_history_is_all_that_the_log_has_of_a_channel(past):
    directory, events = past
    assert read(directory, "a") == claims_in(events, "a")
    assert read(directory, "a", after=7, limit=20) == claims_in(events, "a")[7:27]
    assert asyncio.run(Feed(directory.parent).begins_at(0)) == 1


@pytest.fixture
def looked_at(monkeypatch) -> list:
    """The positions of all events that passes look at from now on."""
    positions: list[int] = []

    def counted(directory, start):
        for first, batch in read_committed(directory, start):
            positions.extend(range(first, first + len(batch)))
            yield first, batch

    monkeypatch.setattr(feed_module, "read_committed", counted)
    return positions


async def test_pages_of_a_history_are_one_pass_together(past, looked_at):
    directory, events = past
    feed, after, pages = Feed(directory.parent), 0, []
    while page := (await feed.claims(0, channel_id("a"), after, 8))[:7]:  # as a gateway asks
        pages += page
        after = page[-1].claim.sequence
    assert [(entry.position, entry.claim.sequence) for entry in pages] == claims_in(events, "a")
    assert len(looked_at) < 2 * len(events)


async def test_who_waits_for_a_claim_looks_at_what_is_new_only(past, looked_at):
    feed = Feed(past[0].parent)
    for _ in range(20):
        assert await feed.claims(0, channel_id("a"), ROUNDS, 1) == []
    assert len(looked_at) == len(past[1])


async def test_nobody_looks_behind_the_newest_claim_of_a_channel(past, looked_at):
    directory, events = past
    ((newest, _),) = claims_in(events, "rare")
    found = await Feed(directory.parent).claims(0, channel_id("rare"), 0, 10, until=newest)
    assert [entry.position for entry in found] == [newest]
    assert max(looked_at) < newest + 5


async def test_what_is_remembered_of_histories_is_bounded(past, monkeypatch):
    monkeypatch.setattr(feed_module, "STARTS_KEPT", 3)
    feed = Feed(past[0].parent)
    for after in range(10):
        await feed.claims(0, channel_id("a"), after, 1)
    assert len(feed._starts) == 3


def test_a_pass_gives_others_the_interpreter_every_now_and_then(past, monkeypatch):
    rests: list[float] = []
    clock = SimpleNamespace(monotonic=itertools.count(step=1.0).__next__, sleep=rests.append)
    monkeypatch.setattr(feed_module, "time", clock)
    read(past[0], "a")
    assert len(rests) > ROUNDS  # after each frame, for each takes a second
    assert min(rests) > 0


def test_the_history_of_a_log_that_was_cut_begins_at_the_oldest_event_that_is_kept(copy):
    events = cut_below_a_base(copy)
    oldest = asyncio.run(Feed(copy.parent).begins_at(0))
    kept = claims_in(events, "a", since=oldest)
    assert 0 < len(kept) < ROUNDS
    assert read(copy, "a") == kept
    assert read(copy, "rare") == []


def test_a_log_that_is_cut_while_it_is_read_is_read_from_there(past, monkeypatch):
    directory, events = past
    first = segment_starts(directory)[1]

    def is_cut(directory, start):
        for position, batch in read_committed(directory, start):
            if start == 1 and position > 5:
                raise CutLogError(first)
            yield position, batch

    monkeypatch.setattr(feed_module, "read_committed", is_cut)
    assert read(directory, "a") == claims_in(events, "a", since=first)


def test_a_log_that_is_damaged_has_no_history_and_the_log_says_so_once(copy):
    segment = sorted((copy / "wal").iterdir())[0]
    octets = bytearray(segment.read_bytes())
    octets[5_000] ^= 1
    segment.write_bytes(octets)
    feed = Feed(copy.parent)

    async def ask_twice() -> None:
        for _ in range(2):
            with pytest.raises(HistoryUnreadable, match="shard 0"):
                await feed.claims(0, channel_id("a"), 0, 1_000)

    with capture_logs() as lines:
        asyncio.run(ask_twice())
    (line,) = lines
    assert (line["event"], line["shard"]) == ("history_unreadable", 0)
    assert segment.name in line["error"]


ASKED = [lambda feed: feed.claims(0, b"", 0, 1), lambda feed: feed.begins_at(0)]


@pytest.mark.parametrize("ask", ASKED)
def test_a_log_without_its_manifest_has_no_history(copy, ask):
    (copy / "MANIFEST").unlink()
    with pytest.raises(HistoryUnreadable, match="no log in"):
        asyncio.run(ask(Feed(copy.parent)))


@pytest.mark.parametrize("ask", ASKED)
def test_a_log_on_another_machine_has_no_history_here(tmp_path, ask):
    with pytest.raises(HistoryUnreadable, match="on this machine"):
        asyncio.run(ask(Feed(tmp_path)))


# A running engine ---------------------------------------------------------------------------------


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
