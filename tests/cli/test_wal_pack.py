"""The segments of a stopped engine are packed by command; damaged ones are left as they are."""

import random
from contextlib import closing

import pytest
from msgspec.structs import replace

from engine.channels.journal import LogOptions, ShardJournal
from engine.core.events import ChannelOpened, FundingConfirmed
from tests.builders import CHANNEL_ID, make_event
from tests.channels.test_journal import claim
from tests.channels.test_packing import LOG, events_of, journal_of, manifest_of
from tests.wal.disk import QUICK, flip


@pytest.fixture
def shard(tmp_path):
    """A data directory with one shard of several segments."""
    journal_of(tmp_path / "shard-0000", 300)
    return tmp_path / "shard-0000"


def test_the_events_are_the_same_in_fewer_bytes(run, shard):
    written = events_of(shard)
    line = run("wal", "pack", shard.parent, "--json").line
    assert line["packed"] == len(manifest_of(shard).sealed) > 1
    assert line["bytes_after"] < line["bytes_before"]
    assert line["left"] == 0
    assert events_of(shard) == written
    assert run("wal", "verify", shard).code == 0
    again = run("wal", "pack", shard, "--json").line
    assert (again["packed"], again["bytes_before"]) == (0, line["bytes_after"])


def test_a_running_engine_is_left_alone(run, shard):
    journal = ShardJournal(shard, LOG)
    seen = run("wal", "pack", shard)
    journal.close()
    assert seen.code == 1
    assert "stop the engine" in seen.err


def test_a_damaged_segment_is_named_and_left(run, shard):
    first = manifest_of(shard).sealed[0]
    flip(shard / first.path, 8 * 5_000)
    before = (shard / first.path).read_bytes()
    seen = run("wal", "pack", shard)
    assert seen.code == 6
    assert first.name in seen.err
    assert (shard / first.path).read_bytes() == before


def test_a_repair_says_how_many_packed_events_cannot_be_read(run, tmp_path):
    """One flipped bit takes a whole packed frame, and what lies behind it in the segment."""
    shard, rng = tmp_path / "shard-0000", random.Random(1)
    history = [
        replace(make_event(ChannelOpened), capacity=10**9),
        replace(make_event(FundingConfirmed), version=2),
        *(claim(CHANNEL_ID, n + 2, n, n, signature=rng.randbytes(64)) for n in range(1, 1_200)),
    ]
    with closing(ShardJournal(shard, LogOptions(spare_in_background=False), QUICK)) as journal:
        for start in range(0, len(history), 100):
            journal.append(history[start : start + 100])
            journal.commit()
    assert run("wal", "pack", shard).code == 0
    (segment,) = manifest_of(shard).sealed
    flip(shard / segment.path, 8 * 5_000)  # in the first frame
    line = run("wal", "repair", shard, "--dry-run", "--json").line
    lost = line["claims_lost"] + line["events_unreadable"]
    assert (line["kept_to_position"], lost) == (0, len(history))
    assert line["events_unreadable"] >= 500
