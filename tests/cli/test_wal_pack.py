"""The segments of a stopped engine are packed by command; damaged ones are left as they are."""

import pytest

from engine.channels.journal import ShardJournal
from tests.channels.test_packing import LOG, events_of, journal_of, manifest_of
from tests.wal.disk import flip


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
