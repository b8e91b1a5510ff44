"""Checkpoints of channels: what an increment holds, and that nothing is lost by merging them."""

import os
import random
import shutil
import signal
import subprocess
from functools import partial

import msgspec
import pytest

from engine.channels.actor import ChannelActor
from engine.channels.background.merge import MergeOptions, Merger, Merging, merging_of
from engine.channels.background.process import keep_going_for
from engine.channels.checkpoint import (
    CheckpointHead,
    RecoveryBroken,
    UnorderedCheckpointError,
    checkpoint_chunks,
    joined,
    load,
    merged,
)
from engine.channels.codec import EventCodec
from engine.channels.journal import ShardJournal
from engine.channels.record import ALL_KEPT, record_of
from engine.channels.recovery import recover, recover_committed, state_hash
from engine.core import commands
from engine.core.types import Sequencing
from engine.validation.dedup import ENTRY, RetryWindow
from engine.validation.options import RetryLimits, ValidationOptions
from tests.builders import NOON
from tests.channels.world import LOG, MS, Desk, channel_id, item
from tests.lengths import often
from tests.wal.disk import QUICK, flip
from wal.format import SnapshotKind

SMALL = ValidationOptions(retry_claims_max=3, retry_window_s=1)
NAMES = ["a", "b", "c", "d", "e"]


def snapshots(desk):
    return desk.log._log.snapshots


def line_of(desk):
    """Return the newest checkpoint: position and chunks of a base and its increments."""
    return [(position, list(chunks)) for position, chunks in desk.log._log.checkpoint()]


def again(line):
    return [(position, iter(chunks)) for position, chunks in line]


def merger_of(desk, *, increments_max=2, cut=False, in_background=False):
    options = MergeOptions(increments_max=increments_max, cut=cut)
    return Merger(desk.log, desk.directory, options, QUICK, in_background=in_background)


def live(desk, step):
    """Do something that changes some of the channels."""
    for name in NAMES[step % 3 :: 2]:
        channel = desk.view(name).channel
        desk.submit(item(name, channel.claimed + 1 + step, channel.sequence + 1))


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "log", SMALL, files=QUICK)
    desk.open(*NAMES, capacity=1_000_000)
    return desk


# What is in one -----------------------------------------------------------------------------------


def test_the_first_checkpoint_is_whole_and_the_next_hold_what_changed(desk):
    assert desk.shard.checkpoint()
    desk.submit(item("a", 1, 1), item("c", 1, 1))
    assert desk.shard.checkpoint()
    desk.do(commands.FundChannel, "b", amount=5)
    assert desk.shard.checkpoint()
    heads = [msgspec.msgpack.decode(chunks[0], type=CheckpointHead) for _, chunks in line_of(desk)]
    assert [head.records for head in heads] == [5, 2, 1]
    assert [head.channels for head in heads] == [5, 5, 5]
    assert [head.since for head in heads] == [0, heads[0].position, heads[1].position]
    assert [one.kind for one in snapshots(desk)] == [0, 1, 1]


def test_no_checkpoint_is_made_of_nothing_new(desk):
    assert desk.shard.checkpoint()
    assert not desk.shard.checkpoint()
    desk.restart(clean=True)
    assert desk.recovered.events == 0
    assert len(snapshots(desk)) == 1
    desk.restart(clean=True)
    assert len(snapshots(desk)) == 1


def test_a_clean_stop_leaves_nothing_to_replay_and_no_base_to_write(desk):
    desk.shard.checkpoint()
    desk.submit(item("a", 1, 1))
    before = desk.live_hash()
    desk.restart(clean=True)
    assert (desk.recovered.events, desk.live_hash()) == (0, before)
    assert [one.kind for one in snapshots(desk)] == [0, 1]


def test_increments_go_on_after_a_crash_with_what_was_replayed(desk):
    desk.shard.checkpoint()
    desk.submit(item("a", 1, 1))
    desk.restart()
    desk.submit(item("b", 1, 1))
    desk.shard.checkpoint()
    assert [one.kind for one in snapshots(desk)] == [0, 1]
    before = desk.live_hash()
    desk.restart()
    assert (desk.recovered.events, desk.live_hash()) == (0, before)


def test_an_increment_holds_only_the_answers_that_are_new(tmp_path):
    desk = Desk(tmp_path, ValidationOptions(), files=QUICK)
    desk.open("a", capacity=1_000_000)
    for number in range(1, 301):
        desk.submit(item("a", number, number))
    desk.shard.checkpoint()
    desk.submit(item("a", 1_000, 301))
    desk.shard.checkpoint()
    whole, increment = (one.size for one in snapshots(desk))
    assert whole > 300 * ENTRY.size
    assert increment < 1_000
    before = desk.live_hash()
    desk.restart()
    assert desk.live_hash() == before


@pytest.mark.parametrize("seed", range(20))
def test_answers_joined_are_those_that_a_window_kept(seed):
    chance = random.Random(seed)
    limits = RetryLimits(claims_max=chance.choice([1, 3, 8]), window_ns=chance.choice([5, 50]))
    live, copy, since, at = RetryWindow(), b"", 0, 0
    for position in range(1, 200):
        at += chance.choice([0, 1, 20])
        live.remember(position * 10, position, at, limits)
        if not chance.randrange(6):
            record = record_of(ChannelActor(None, position, position, live), since)
            copy, since = joined(copy, record), position
            assert copy == bytes(live)


# What is refused ----------------------------------------------------------------------------------


def test_an_increment_without_what_it_builds_on_is_refused(desk):
    for step in range(3):
        live(desk, step)
        desk.shard.checkpoint()
    line = line_of(desk)
    assert state_hash(load(again(line)).actors) == desk.live_hash()
    with pytest.raises(RecoveryBroken, match="builds on"):
        load(again(line[1:]))
    with pytest.raises(RecoveryBroken, match="builds on"):
        load(again([line[0], line[2]]))
    with pytest.raises(RecoveryBroken, match="builds on"):
        load(again([*line, line[0]]))


@pytest.mark.parametrize("changes", [{"claimed_sum": 1}, {"channels": 4}, {"schema": 9}], ids=str)
def test_an_increment_that_does_not_add_up_is_refused(desk, changes):
    for step in range(2):
        live(desk, step)
        desk.shard.checkpoint()
    (base, (position, (head, *rest))) = line_of(desk)
    fields = msgspec.msgpack.decode(head, type=CheckpointHead)
    spoiled = msgspec.msgpack.encode(msgspec.structs.replace(fields, **changes))
    for read in (load, lambda line: list(merged(line))):
        with pytest.raises(RecoveryBroken):
            read(again([base, (position, [spoiled, *rest])]))
    with pytest.raises(RecoveryBroken, match="cannot be read"):
        load(again([base, (position, [head, b"\xc1"])]))


def test_an_increment_whose_older_answers_are_missing_is_refused(desk):
    desk.submit(item("a", 1, 1), item("a", 2, 2))
    desk.shard.checkpoint()
    desk.submit(item("a", 3, 3))
    desk.shard.checkpoint()
    ((position, (head, records)), increment) = line_of(desk)
    fields = msgspec.msgpack.decode(records)
    for record in fields:
        record[3] = record[3][: ENTRY.size]
    line = [(position, [head, msgspec.msgpack.encode(fields)]), increment]
    for read in (load, lambda line: list(merged(line))):
        with pytest.raises(RecoveryBroken, match="answers of a channel"):
            read(again(line))


# Merging ------------------------------------------------------------------------------------------


def test_a_merged_base_is_to_the_byte_the_one_that_a_shard_would_write(desk):
    for step in range(7):
        live(desk, step)
        desk.clock.forward(300)
        desk.shard.checkpoint()
    made = list(merged(again(line_of(desk))))
    last_at = msgspec.msgpack.decode(made[0], type=CheckpointHead).last_at
    assert made == list(checkpoint_chunks(desk.shard._actors, desk.shard.position, last_at))


def test_a_base_in_another_order_is_read_but_not_merged(desk):
    desk.shard.checkpoint()
    live(desk, 1)
    desk.shard.checkpoint()
    ((position, (head, records)), increment) = line_of(desk)
    other_way = msgspec.msgpack.encode(msgspec.msgpack.decode(records)[::-1])
    line = [(position, [head, other_way]), increment]
    assert state_hash(load(again(line)).actors) == desk.live_hash()
    with pytest.raises(UnorderedCheckpointError):
        list(merged(again(line)))


def test_bases_are_made_as_they_become_due_and_the_log_is_cut(desk):
    merger = merger_of(desk, cut=True)
    for step in range(40):
        live(desk, step)
        desk.shard.checkpoint()
        merger.look()
        desk.log._log._live._rotate()
    assert merger.bases == 19
    kinds = [one.kind for one in snapshots(desk)]
    assert kinds.count(SnapshotKind.BASE) == 2
    assert len(desk.log._log.sealed) < 10
    before = desk.live_hash()
    desk.restart()
    assert desk.live_hash() == before
    with pytest.raises(ValueError, match="the log was cut: it begins at position"):
        recover(desk.log, SMALL.retries, from_genesis=True)
    with pytest.raises(ValueError, match="the log was cut: it begins at position"):
        recover_committed(desk.directory, SMALL.retries, from_genesis=True)


def test_small_bases_are_outweighed_by_their_increments(desk):
    merger = merger_of(desk, increments_max=100)
    for step in range(60):
        live(desk, step)
        desk.shard.checkpoint()
        merger.look()
    assert 2 <= merger.bases <= 60 // 16


def test_damaged_increments_make_the_next_checkpoint_a_whole_one(desk, capsys):
    merger = merger_of(desk)
    for step in range(3):
        live(desk, step)
        desk.shard.checkpoint()
    flip(desk.directory / snapshots(desk)[1].path, 900)
    merger.look()
    assert (merger.bases, desk.log.whole_wanted) == (0, True)
    live(desk, 4)
    desk.shard.checkpoint()
    assert [one.kind for one in snapshots(desk)] == [0, 1, 1, 0]
    for step in range(12):
        live(desk, step)
        desk.shard.checkpoint()
        merger.look()
    assert merger.bases > 0
    before = desk.live_hash()
    desk.restart()
    assert desk.live_hash() == before


def test_a_base_for_another_epoch_or_another_parent_is_not_made(desk):
    for step in range(3):
        live(desk, step)
        desk.shard.checkpoint()
    for epoch, parent in ((7, os.getppid()), (1, os.getpid())):
        made = merging_of(desk.directory, epoch, keep_going=partial(keep_going_for, parent))
        assert (made.base, made.damaged) == (None, False)
        assert made.error
    assert not list((desk.directory / "snap").glob("*.tmp"))


@pytest.mark.slow
def test_a_process_makes_the_base_and_is_gone_afterwards(desk):
    merger = merger_of(desk, in_background=True)
    for step in range(3):
        live(desk, step)
        desk.shard.checkpoint()
    merger.look()
    merger._thread.join(60)
    process = merger._process
    assert process.code == 0
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    merger.look()
    assert merger.bases == 1
    before = desk.live_hash()
    desk.restart()
    assert (desk.live_hash(), desk.recovered.events) == (before, 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "closed"])
def test_a_process_stopped_half_way_leaves_nothing_that_matters(desk, how, monkeypatch):
    def never_done(command, **streams):
        assert command[1:3] == ["-m", "engine.channels.background.merge"]
        return start([command[0], "-c", "import threading; threading.Event().wait()"], **streams)

    start = subprocess.Popen
    monkeypatch.setattr("engine.channels.background.process.subprocess.Popen", never_done)
    merger = merger_of(desk, in_background=True)
    for step in range(3):
        live(desk, step)
        desk.shard.checkpoint()
    merger.look()
    while merger._process is None:
        assert merger._thread.is_alive()
    if how == "killed":
        os.kill(merger._process.pid, signal.SIGKILL)
        merger._thread.join(60)
        merger.look()
    else:
        merger.close()
    assert merger.bases == 0
    assert merger._process.code == -signal.SIGKILL
    assert not desk.log.whole_wanted
    (desk.directory / "snap" / f"{snapshots(desk)[-1].name}.tmp").write_bytes(b"half a base")
    before = desk.live_hash()
    desk.restart()
    assert desk.live_hash() == before
    assert not list((desk.directory / "snap").glob("*.tmp"))


def test_how_it_went_comes_back_from_the_process_as_it_was(desk):
    for step in range(3):
        live(desk, step)
        desk.shard.checkpoint()
    made = merging_of(desk.directory, 1)
    assert made.base is not None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Merging) == made


# Any history --------------------------------------------------------------------------------------


def some_life(desk, chance):
    """Claims, commands, pauses, checkpoints, bases and crashes, as they come."""
    merger = merger_of(desk)
    for _ in range(chance.randrange(20, 60)):
        what = chance.randrange(12)
        if what < 6:
            live(desk, chance.randrange(6))
        elif what == 6:
            desk.do(commands.FundChannel, chance.choice(NAMES), amount=chance.randrange(1, 9))
        elif what == 7:
            name = chance.choice([*NAMES, "f", "g", "h"])
            desk.open(name, capacity=1_000_000, sequencing=chance.choice(list(Sequencing)))
        elif what == 8:
            desk.clock.now += chance.choice([1, 400, 2_000]) * MS
        elif what == 9:
            desk.restart(clean=not chance.randrange(3))
            merger = merger_of(desk)
        else:
            desk.shard.checkpoint()
            merger.look()


def judged(directory, limits):
    """Return how a start finds a log, from its checkpoints and from its first event."""
    journal = ShardJournal(directory, LOG, QUICK)
    try:
        tail = recover(journal, limits)
        whole = recover(journal, limits, from_genesis=True)
        committed = recover_committed(directory, limits)
    finally:
        journal._log.abandon()
    hashes = {state_hash(found.actors) for found in (tail, whole, committed)}
    assert (tail.position, tail.last_at) == (whole.position, whole.last_at)
    assert committed.position == whole.position
    return hashes


def any_history(folder, number):
    chance = random.Random(number)
    desk = Desk(folder / "log", SMALL, files=QUICK)
    desk.open(*NAMES, capacity=1_000_000)
    some_life(desk, chance)
    state = desk.live_hash()
    until = chance.randrange(desk.shard.position + 1)
    then = [
        state_hash(recover_committed(desk.directory, SMALL.retries, until, from_genesis=way).actors)
        for way in (False, True)
    ]
    assert then[0] == then[1]
    desk.crash()
    damaged = list((desk.directory / "snap").iterdir())
    chance.shuffle(damaged)
    for count in range(min(3, len(damaged))):
        copy = folder / f"copy-{count}"
        shutil.copytree(desk.directory, copy)
        for spoiled in damaged[: count + 1]:
            target = copy / "snap" / spoiled.name
            flip(target, chance.randrange(target.stat().st_size * 8))
        assert judged(copy, SMALL.retries) == {state}
    assert judged(desk.directory, SMALL.retries) == {state}


@pytest.mark.parametrize("number", range(3))
def test_any_history_and_any_damaged_checkpoints_give_the_state_of_the_log(tmp_path, number):
    any_history(tmp_path, number)


@pytest.mark.slow
def test_many_histories(tmp_path):
    for number in range(100, 100 + often(16, 40)):
        any_history(tmp_path / str(number), number)
        shutil.rmtree(tmp_path / str(number))


@pytest.mark.parametrize("number", range(5))
def test_a_frame_that_was_passed_leaves_the_codec_as_one_that_was_read(tmp_path, number):
    chance = random.Random(number)
    desk = Desk(tmp_path / "log", SMALL, files=QUICK)
    desk.open(*NAMES, capacity=1_000_000)
    some_life(desk, chance)
    events = desk.events()
    writer, frames, first = EventCodec(), [], 1
    while first <= len(events):
        some = events[first - 1 : first - 1 + chance.randrange(1, 9)]
        frames.append((first, some, writer.encode(first, some)))
        first += len(some)
    passer = EventCodec()
    start = chance.randrange(len(frames))
    for first, some, payload in frames[:start]:
        passer.skip(first, len(some), payload)
    for first, some, payload in frames[start:]:
        assert passer.decode(first, len(some), payload) == some
    first, some, payload = frames[0]
    with pytest.raises(ValueError, match="another place"):
        EventCodec().skip(first + 1, len(some), payload)
    with pytest.raises(ValueError, match="another place"):
        EventCodec().skip(first, len(some) + 1, payload)


def test_the_totals_are_those_of_the_channels(desk):
    for step in range(5):
        live(desk, step)
    desk.shard.checkpoint()
    ((_, (head, *_)),) = line_of(desk)
    said = msgspec.msgpack.decode(head, type=CheckpointHead)
    claimed = sum(desk.view(name).channel.claimed for name in NAMES)
    assert (said.claimed_sum, said.channels, said.position) == (claimed, 5, desk.shard.position)
    assert said.last_at == NOON
    assert record_of(desk.shard._actors[channel_id("a")]).kept == ALL_KEPT


def test_more_drops_than_64_bits_hold_are_in_checkpoints_and_bases(tmp_path):
    largest = 10**17
    names = [f"rich {number}" for number in range(190)]
    desk = Desk(tmp_path)
    desk.open(*names, capacity=largest)
    desk.submit(*(item(name, largest, 1) for name in names))
    assert sum(desk.view(name).channel.claimed for name in names) > 1 << 64
    assert desk.shard.checkpoint(wait=True)
    desk.open("one more")
    assert desk.shard.checkpoint(wait=True)
    desk.log._log.settle_snapshot(wait=True)
    line, live = line_of(desk), desk.live_hash()
    base = desk.shard.position, merged(again(line))
    assert len(line) == 2
    assert state_hash(load(again(line)).actors) == state_hash(load([base]).actors) == live
    desk.crash()
    desk.start()
    assert desk.live_hash() == live
