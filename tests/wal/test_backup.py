"""A copy of a log is checked against the hashes it must have, and is no log before it is whole."""

import pytest

from tests.wal.disk import QUICK, SMALL, BreakingFiles, Killed, fill, flip, records_of
from wal import CorruptLogError, Log, WalError, verify
from wal.backup import LogCopy


@pytest.fixture
def source(tmp_path):
    with Log.open(tmp_path / "log", SMALL, files=QUICK) as log:
        fill(log, 80, size=100)
        log.snapshot(log.last, [b"state"])
        fill(log, 20, size=100)
    return tmp_path / "log"


def copy_of(source, target, files=QUICK):
    copy = LogCopy(source, target, files=files)
    try:
        copy.copy_files()
        return copy.finish()
    finally:
        copy.close()


def test_a_damaged_segment_is_named_and_nothing_is_a_log(source, tmp_path):
    segment = min((source / "wal").iterdir())
    flip(segment, (4_096 + 80) * 8)
    with pytest.raises(CorruptLogError) as told:
        copy_of(source, tmp_path / "copy")
    assert told.value.segment == f"wal/{segment.name}"
    assert not (tmp_path / "copy" / "MANIFEST").exists()


def test_a_missing_segment_is_named(source, tmp_path):
    segment = min((source / "wal").iterdir())
    segment.unlink()
    with pytest.raises(CorruptLogError, match="missing"):
        copy_of(source, tmp_path / "copy")


def test_a_bad_checkpoint_stays_behind_and_the_copy_is_whole_without_it(source, tmp_path):
    (checkpoint,) = (source / "snap").iterdir()
    flip(checkpoint, 1_000)
    report = copy_of(source, tmp_path / "copy")
    assert report.snapshots_left == (f"snap/{checkpoint.name}",)
    assert verify(tmp_path / "copy").ok
    assert records_of(tmp_path / "copy") == records_of(source)


def test_a_copy_does_not_go_over_another(source, tmp_path):
    copy_of(source, tmp_path / "copy")
    with pytest.raises(WalError, match="not empty"):
        copy_of(source, tmp_path / "copy")


@pytest.mark.slow
def test_a_copy_that_is_killed_at_any_call_is_no_log_or_a_whole_one(source, tmp_path):
    at, killed = 0, True
    while killed:
        at += 1
        target = tmp_path / f"copy-{at}"
        files = BreakingFiles(at, calls=("write", "sync", "rename", "unlink", "make_directory"))
        try:
            copy_of(source, target, files)
            killed = False
        except Killed:
            files.die()
        if (target / "MANIFEST").exists():
            assert verify(target).ok
    assert at > 10
