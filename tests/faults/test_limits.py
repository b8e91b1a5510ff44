"""Short writes, stopped writers and files taken away; more of it is in `python -m tests.faults`."""

from pathlib import Path

import pytest

from tests.faults import limits
from tests.faults.test_syscalls import problems, rows_of
from wal import Log, LogFailedError


@pytest.mark.slow
def test_writes_cut_short_and_writers_that_meet_lose_nothing():
    short, meetings = rows_of(limits, 0.02)
    assert problems([short, meetings]) == []
    assert short.tried > 20
    assert "0 of them left a part" not in " ".join(short.notes)
    assert meetings.tried >= 8


def test_nothing_is_committed_to_a_file_that_was_removed(tmp_path: Path):
    log: Log[bytes] = Log.open(tmp_path)
    log.append([b"here"])
    log.commit()
    for segment in (tmp_path / "wal").glob("*.wal"):
        segment.unlink()
    log.append([b"nowhere"])
    with pytest.raises(LogFailedError, match="removed"):
        log.commit()
    log.abandon()
