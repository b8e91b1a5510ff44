"""The log is shown, judged and folded by command; damage has its own exit code."""

import pytest
from msgspec.structs import replace

from engine.channels.journal import LogOptions, ShardJournal
from engine.core.transition import replay
from tests import builders
from tests.channels.world import Desk, channel_id, item

OTHER_ID = bytes(reversed(range(32)))


@pytest.fixture
def shard(tmp_path):
    """A data directory with one shard: two channels, three claims of the first."""
    return build(tmp_path / "shard-0000")


def build(directory):
    """Write that log; the signatures of its claims are words."""
    directory.mkdir(parents=True)
    journal = ShardJournal(directory, LogOptions(shard_id=0, segment_bytes=65_536))
    channel = None
    commands = [builders.claim_command(n, 100 * n) for n in (1, 2, 3)]
    events = list(builders.taken(builders.decide_open(builders.open_command(), builders.NOON)))
    channel = replay(None, events)
    for command in commands:
        made = builders.taken(builders.decide(channel, command, builders.NOON))
        channel = replay(channel, made)
        events += made
    other = builders.open_command(channel_id=OTHER_ID, funded=False)
    events += builders.taken(builders.decide_open(other, builders.NOON))
    journal.append(events)
    journal.commit()
    journal.close()
    return directory


def damage(shard):
    """Flip a bit of an acknowledged claim."""
    segment = max(shard.rglob("*.wal"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    place = data.index(b"signature of 200") if b"signature of 200" in data else len(data) // 2
    data[place] ^= 1
    segment.write_bytes(data)


@pytest.mark.parametrize("verb", ["inspect", "verify", "replay"])
def test_a_directory_without_a_log_is_not_found(run, tmp_path, verb):
    seen = run("wal", verb, tmp_path)
    assert seen.code == 3
    assert "--datadir" in seen.err


@pytest.mark.parametrize("verb", ["inspect", "verify", "replay"])
def test_a_shard_may_be_named_or_the_data_directory(run, shard, verb):
    one, all_ = run("wal", verb, shard), run("wal", verb, shard.parent)
    assert (one.code, all_.code) == (0, 0)
    assert one.out == all_.out


def test_inspect_counts_what_is_there(run, shard):
    seen = run("wal", "inspect", shard).line
    assert seen["shard"] == "shard-0000"
    assert seen["report"]["last_position"] == 6
    assert sum(segment["records"] for segment in seen["report"]["segments"]) >= 6


def test_verify_finds_a_sound_log_sound(run, shard):
    seen = run("wal", "verify", shard)
    assert (seen.code, seen.err) == (0, "")
    assert (seen.line["ok"], seen.line["last_position"]) == (True, 6)


def test_verify_says_where_the_damage_is(run, shard):
    damage(shard)
    seen = run("wal", "verify", shard)
    assert seen.code == 6
    assert seen.line["ok"] is False
    assert "shard-0000/" in seen.err
    assert "at byte " in seen.err


def test_replay_shows_the_channels_as_they_are(run, shard):
    seen = run("wal", "replay", shard)
    ours, other = sorted(seen.lines, key=lambda row: row["state"])
    assert (ours["channel_id"], ours["claimed"], ours["sequence"]) == (
        builders.CHANNEL_ID.hex().upper(),
        "300",
        3,
    )
    assert (other["state"], other["claimed"]) == ("Pending", "0")
    assert "6 events, 2 channels, state " in seen.err


def test_replay_shows_them_as_they_were(run, shard):
    (row,) = run("wal", "replay", shard, "--until", 4).lines
    assert (row["claimed"], row["position"]) == ("200", 4)


def test_replay_shows_one_channel_or_says_that_there_is_none(run, shard):
    (row,) = run("wal", "replay", shard, "--channel", OTHER_ID.hex()).lines
    assert row["channel_id"] == OTHER_ID.hex().upper()
    assert run("wal", "replay", shard, "--channel", "AB" * 32).code == 3


def test_replay_of_a_damaged_log_ends_with_the_code_of_damage(run, shard):
    damage(shard)
    seen = run("wal", "replay", shard)
    assert seen.code == 6
    assert seen.out == ""


def test_replay_proves_that_the_checkpoints_lead_where_the_log_does(run, shard):
    seen = run("wal", "replay", shard, "--from-genesis")
    assert seen.code == 0
    assert "the same as from the checkpoint at" in seen.err


def test_replay_notices_a_checkpoint_that_is_not_what_the_log_says(run, tmp_path):
    desk = Desk(tmp_path / "shard-0000")
    desk.open("a")
    desk.submit(item("a", 10, 1))
    actor = desk.shard._actors[channel_id("a")]
    actor.channel = replace(actor.channel, updated_at=actor.channel.updated_at + 1_000)
    desk.shard.close()
    assert run("wal", "verify", tmp_path).code == 0
    seen = run("wal", "replay", tmp_path, "--from-genesis")
    assert (seen.code, "NOT the same" in seen.err) == (6, True)


def test_replay_tells_the_events_that_led_to_a_channel(run, shard):
    name = builders.CHANNEL_ID.hex()
    seen = run("wal", "replay", shard, "--channel", name, "--until", "0-4", "--events", 2)
    assert (seen.line["claimed"], seen.line["sequence"]) == ("200", 2)
    told = [(row["position"], row["event"], row["amount"]) for row in seen.line["events"]]
    assert told == [("0-3", "ClaimReceived", "100"), ("0-4", "ClaimReceived", "200")]


@pytest.mark.parametrize(
    ("until", "channels"),
    [
        ("@1800000000", 2),
        ("@1799999999.999999", 0),
        ("2027-01-15T08:00:00Z", 2),
        ("2027-01-15T07:59:59+00:00", 0),
    ],
)
def test_replay_takes_a_time(run, shard, until, channels):
    seen = run("wal", "replay", shard, "--until", until)
    assert (seen.code, len(seen.lines)) == (0, channels)


@pytest.mark.parametrize("until", ["0", "-1", "0-0", "@", "@x", "yesterday", "2027-01-15T08:00:00"])
def test_replay_says_what_a_place_may_be(run, shard, until):
    assert run("wal", "replay", shard, "--until", until).code == 2
