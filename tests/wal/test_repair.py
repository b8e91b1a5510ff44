"""A repair keeps all that can be proven, puts the rest aside whole, and can be begun again."""

import shutil
from pathlib import Path

import pytest

from tests.wal.disk import (
    QUICK,
    SMALL,
    BreakingFiles,
    Killed,
    change,
    copied,
    fill,
    flip,
    frame_starts,
    live_segment,
    record,
    sealed_segments,
)
from tests.wal.test_pack import pack_all
from wal import CorruptLogError, LengthPrefixed, Log, LogInUseError, Position, verify
from wal.backup import LogCopy
from wal.format import MANIFEST_NAME, QUARANTINE
from wal.manifest import decode_manifest
from wal.repairs.repair import Repair

CHANGING = ("write", "sync", "resize", "rename", "unlink", "make_directory")


class Written:
    """A log of several segments, checkpoints in it, its writer gone without a word."""

    def __init__(self, directory: Path, *, closed: bool = False) -> None:
        self.directory = directory
        log = Log.open(directory, SMALL, files=QUICK)
        self.records: list[bytes] = []
        self.checkpoints: list[int] = []
        for round_ in range(6):
            self.records += fill(log, 30, size=100)
            if round_ in (1, 3):
                self.checkpoints.append(log.last)
                log.snapshot(log.last, [b"%d" % log.last])
        log.idle()
        if closed:
            log.snapshot(log.last, [b"%d" % log.last])
            self.checkpoints.append(log.last)
            log.close()
        else:
            log.abandon()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written") / "log")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("closed") / "log", closed=True)


@pytest.fixture
def log(written: Written, tmp_path: Path) -> Path:
    return copied(written.directory, tmp_path / "log")


def repaired(directory: Path, *copies: Path, rebuild: bool = False, files=QUICK):
    with Repair(directory, LengthPrefixed, copies, rebuild=rebuild, files=files) as repair:
        repair.quarantine.complete()
        plan = repair.plan()
        if plan.is_needed:
            repair.apply(plan)
    return plan


def readable(directory: Path) -> tuple[int, list[bytes]]:
    """Open the log as a start does; return where its records begin, and all of them."""
    report = verify(directory)
    assert report.ok, report.damages
    with Log.open(directory, SMALL, files=QUICK) as log:
        sealed = decode_manifest((directory / MANIFEST_NAME).read_bytes()).sealed
        start = sealed[0].first_position if sealed else 1
        found = list(log.read(Position(start)))
        assert [position for position, _ in found] == list(range(start, log.last + 1))
        return start, [record for _, record in found]


def damage(segment: Path, frame: int) -> None:
    flip(segment, (frame_starts(segment)[frame] + 70) * 8)


def in_quarantine(directory: Path) -> set[str]:
    return {path.name for path in (directory / QUARANTINE).iterdir()}


# Nothing to do, and nothing allowed ---------------------------------------------------------------


def test_a_sound_log_needs_no_repair(log):
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    assert not repaired(log).is_needed
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file()} == before


def test_a_torn_tail_is_no_damage(log, written):
    live = live_segment(log)
    *_, last, end = frame_starts(live)
    change(live, lambda data: data.__setitem__(slice(last + 8, end), bytes(end - last - 8)))
    plan = repaired(log)
    assert not plan.is_needed
    assert plan.torn_bytes > 0


def test_a_log_in_use_is_left_alone(log):
    with Log.open(log, SMALL, files=QUICK), pytest.raises(LogInUseError):
        repaired(log)


def test_looking_changes_nothing(log):
    damage(sealed_segments(log)[2], 5)
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    with Repair(log, LengthPrefixed, files=QUICK) as repair:
        plan = repair.plan()
        list(repair.kept_batches(plan, Position(1)))
        list(repair.lost_frames(plan))
    assert plan.is_needed
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file()} == before


# What is kept -------------------------------------------------------------------------------------


def test_damage_behind_the_last_checkpoint_cuts_there(log, written):
    segments = sealed_segments(log)
    damage(segments[-1], 3)
    plan = repaired(log)
    end = plan.choice.end_position
    assert written.checkpoints[-1] < end < len(written.records)
    assert readable(log) == (1, written.records[:end])
    assert segments[-1].name in in_quarantine(log)


def test_damage_below_a_checkpoint_costs_history_and_nothing_else(log, written):
    segments = sealed_segments(log)
    damage(segments[0], 3)
    plan = repaired(log)
    assert plan.choice.end_position == len(written.records)
    start, records = readable(log)
    assert records == written.records[start - 1 :]
    assert 1 < start <= written.checkpoints[-1] + 1
    assert segments[0].name in in_quarantine(log)


def test_damage_in_the_last_segment_of_a_closed_log_is_bridged_by_its_checkpoint(closed, tmp_path):
    log = copied(closed.directory, tmp_path / "log")
    damage(sealed_segments(log)[-1], 2)
    plan = repaired(log)
    assert plan.choice.bridge is not None
    assert plan.choice.end_position == len(closed.records) == closed.checkpoints[-1]
    start, records = readable(log)
    assert (start, records) == (len(closed.records) + 1, [])
    with Log.open(log, SMALL, files=QUICK) as again:
        ((position, chunks),) = again.checkpoint()[-1:]
        assert (position, list(chunks)) == (len(closed.records), [b"%d" % len(closed.records)])
        assert again.append([b"next"]) == len(closed.records) + 1
        again.commit()
    assert verify(log).ok


def test_damage_in_the_live_segment_cuts_there(log, written):
    live = live_segment(log)
    damage(live, 2)
    plan = repaired(log)
    assert readable(log) == (1, written.records[: plan.choice.end_position])
    assert live.name in in_quarantine(log)
    lost = written.records[plan.choice.end_position :]
    assert lost


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_segment_that_is_missing_is_as_a_damaged_one(log, written, which):
    sealed_segments(log)[which].unlink()
    plan = repaired(log)
    start, records = readable(log)
    assert records == written.records[start - 1 : plan.choice.end_position]


def test_a_segment_with_a_damaged_header_is_left_out_whole(log, written):
    flip(sealed_segments(log)[-1], 300)
    plan = repaired(log)
    assert plan.choice.end_position == decode_end(log)
    readable(log)


def decode_end(log: Path) -> int:
    return decode_manifest((log / MANIFEST_NAME).read_bytes()).sealed[-1].last_position


def test_bytes_behind_the_end_of_a_segment_cost_nothing(log, written):
    segment = sealed_segments(log)[1]
    change(segment, lambda data: data.extend(b"junk"))
    assert repaired(log).is_needed
    assert readable(log) == (1, written.records)


def test_a_bad_checkpoint_is_put_aside_and_the_log_stays_whole(log, written):
    newest = max((log / "snap").iterdir())
    flip(newest, 1_000)
    assert repaired(log).is_needed
    assert readable(log) == (1, written.records)
    assert newest.name in in_quarantine(log)


def test_damage_everywhere_leaves_what_the_newest_sound_checkpoint_stands_for(log, written):
    for segment in [*sealed_segments(log), live_segment(log)]:
        damage(segment, 1)
    plan = repaired(log)
    assert plan.choice.end_position >= written.checkpoints[-1]
    readable(log)


def test_a_log_of_which_nothing_is_left_begins_again(log):
    for segment in [*sealed_segments(log), live_segment(log)]:
        flip(segment, 300)
    for snapshot in (log / "snap").iterdir():
        flip(snapshot, 300)
    repaired(log)
    assert readable(log) == (1, [])


def test_a_copy_brings_back_what_is_damaged_here(log, written, tmp_path):
    copy = LogCopy(log, tmp_path / "copy", files=QUICK)
    copy.copy_files()
    copy.finish()
    for segment in [*sealed_segments(log), live_segment(log)]:
        damage(segment, 1)
    plan = repaired(log, tmp_path / "copy")
    assert len(plan.fetched) == len(plan.faults)
    assert readable(log) == (1, written.records)


def test_a_copy_of_another_log_brings_nothing(log, written, tmp_path):
    Written(tmp_path / "other")
    for segment in sealed_segments(log):
        damage(segment, 3)  # the first one stands at the same place in both
    assert repaired(log, tmp_path / "other").fetched == ()


# What is lost -------------------------------------------------------------------------------------


def test_frames_behind_the_damage_are_told_with_their_records(log, written):
    segment = sealed_segments(log)[-1]
    damage(segment, 3)
    with Repair(log, LengthPrefixed, files=QUICK) as repair:
        plan = repair.plan()
        lost = list(repair.lost_frames(plan))
    told = [record for frame in lost for record in frame.records]
    missing = written.records[plan.choice.end_position :]
    assert told == missing[3:]  # a frame of three is the one that is damaged
    assert not lost[0].sound
    assert lost[-1].sound


# The MANIFEST -------------------------------------------------------------------------------------


def test_without_a_manifest_it_says_so_and_makes_one_when_told_to(log, written):
    (log / MANIFEST_NAME).unlink()
    with pytest.raises(CorruptLogError, match="missing"):
        repaired(log)
    plan = repaired(log, rebuild=True)
    assert plan.warnings
    assert readable(log) == (1, written.records)


def test_a_manifest_that_is_damaged_is_kept_as_evidence(log, written):
    flip(log / MANIFEST_NAME, 400)
    damaged = (log / MANIFEST_NAME).read_bytes()
    repaired(log, rebuild=True)
    assert readable(log) == (1, written.records)
    assert (log / QUARANTINE / MANIFEST_NAME).read_bytes() == damaged


def test_a_manifest_that_is_too_old_is_noticed_and_can_be_made_anew(log, written, tmp_path):
    old = (log / MANIFEST_NAME).read_bytes()
    with Log.open(log, SMALL, files=QUICK) as more:
        newer = fill(more, 5)
    (log / MANIFEST_NAME).write_bytes(old)
    with pytest.raises(CorruptLogError, match="yet newer"):
        repaired(log)
    repaired(log, rebuild=True)
    assert readable(log) == (1, [*written.records, *newer])


def test_a_new_manifest_is_under_an_epoch_that_nobody_had(log):
    before = decode_manifest((log / MANIFEST_NAME).read_bytes()).epoch
    (log / MANIFEST_NAME).unlink()
    repaired(log, rebuild=True)
    assert decode_manifest((log / MANIFEST_NAME).read_bytes()).epoch > before + 60_000


# Broken off ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cut", "history"])
def test_a_repair_that_is_killed_at_any_call_can_be_run_again(written, tmp_path, kind):
    broken = copied(written.directory, tmp_path / "broken")
    damage(sealed_segments(broken)[-1 if kind == "cut" else 0], 3)
    whole = copied(broken, tmp_path / "whole")
    plan = repaired(whole)
    expected = readable(whole)
    at, killed = 0, True
    while killed:
        at += 1
        log = copied(broken, tmp_path / "log")
        files = BreakingFiles(at, calls=CHANGING)
        try:
            repaired(log, files=files)
            killed = False
        except Killed:
            files.die()
        evidence = {path.name for path in log.rglob("*") if path.is_file()}
        assert {Path(path).name for path in plan.quarantined} <= evidence
        repaired(log)
        assert readable(log) == expected, at
    assert at > 20
    shutil.rmtree(tmp_path / "log")


# Packed segments ----------------------------------------------------------------------------------


@pytest.fixture
def packed(log) -> Path:
    """The same log after its sealed segments were packed."""
    with Log.open(log, SMALL, files=QUICK) as writer:
        assert pack_all(writer, log) >= 3
        fill(writer, 1)
        writer.idle()
    return log


@pytest.mark.parametrize("which", [0, -3])
def test_a_damaged_packed_segment_is_repaired_like_any_other(packed, written, which):
    segments = [path for path in sealed_segments(packed) if path.suffix == ".pack"]
    damage(segments[which], 0)
    plan = repaired(packed)
    start, records = readable(packed)
    assert start + len(records) - 1 == plan.choice.end_position >= written.checkpoints[-1]
    older = written.records[start - 1 :]
    assert records[: len(older)] == older[: len(records)]
    assert segments[which].name in in_quarantine(packed)


def test_a_part_of_a_packed_segment_that_is_kept_stays_packed(packed, written):
    for snapshot in (packed / "snap").iterdir():
        flip(snapshot, 300)
    (segment,) = [path for path in sealed_segments(packed) if path.suffix == ".pack"][-1:]
    change(segment, lambda data: data.extend(b"junk"))
    repaired(packed)
    start, records = readable(packed)
    assert (start, records[: len(written.records)]) == (1, written.records)
    kept = decode_manifest((packed / MANIFEST_NAME).read_bytes()).sealed
    assert sum(entry.packed for entry in kept) >= 3


def test_a_manifest_is_made_anew_from_packed_segments_too(packed, written):
    (packed / MANIFEST_NAME).unlink()
    repaired(packed, rebuild=True)
    start, records = readable(packed)
    assert (start, records[: len(written.records)]) == (1, written.records)


def test_frames_behind_damage_in_a_packed_segment_are_told(packed, written):
    segment = [path for path in sealed_segments(packed) if path.suffix == ".pack"][-1]
    for snapshot in (packed / "snap").iterdir():
        flip(snapshot, 300)
    damage(segment, 0)
    with Repair(packed, LengthPrefixed, files=QUICK) as repair:
        plan = repair.plan()
        lost = list(repair.lost_frames(plan))
    told = [data for frame in lost for data in frame.records or ()]
    first = len(written.records) + 1
    assert told == [record(number) for number in (first, first + 1, first + 2)]
