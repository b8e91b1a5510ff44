"""Who holds a log, and that a writer whose LOCK went away leaves the MANIFEST to the next one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wal.disk import SMALL, SteadyFiles, fill
from wal import Log, LogFailedError, verify
from wal.format import LOCK_NAME, MANIFEST_NAME, TEMPORARY


def removed(lock: Path) -> None:
    lock.unlink()


def moved(lock: Path) -> None:
    lock.rename(lock.with_name("LOCK.old"))


def emptied(lock: Path) -> None:
    lock.write_bytes(b"")


@pytest.mark.parametrize("act", [removed, moved, emptied])
def test_a_writer_without_its_lock_writes_no_manifest(
    tmp_path: Path, act: Callable[[Path], None]
) -> None:
    log = Log.open(tmp_path, SMALL, files=SteadyFiles())
    fill(log, 1, 5)
    act(tmp_path / LOCK_NAME)
    before = (tmp_path / MANIFEST_NAME).read_bytes()
    with pytest.raises(LogFailedError, match="LOCK"):
        log.snapshot(log.last, [b"state"])
    assert (tmp_path / MANIFEST_NAME).read_bytes() == before
    log.abandon()


def test_a_writer_that_was_followed_leaves_the_manifest_of_the_next_one(tmp_path: Path) -> None:
    stale = Log.open(tmp_path, SMALL, files=SteadyFiles())
    fill(stale, 1, 5)
    (tmp_path / LOCK_NAME).unlink()
    with Log.open(tmp_path, SMALL, files=SteadyFiles()) as log:
        draft = tmp_path / (MANIFEST_NAME + TEMPORARY)
        draft.write_bytes(b"of the next writer")
        with pytest.raises(LogFailedError, match="LOCK was replaced"):
            stale.snapshot(stale.last, [b"state"])
        stale.abandon()
        assert draft.read_bytes() == b"of the next writer"
        written = fill(log, 6, 9)
    with Log.open(tmp_path, SMALL, files=SteadyFiles()) as log:
        assert [record for _, record in log.read()][-len(written) :] == written
        assert log.epoch == 3
    assert verify(tmp_path).ok


class Overtaken(SteadyFiles):
    """A disk on which the next writer comes while a draft of the MANIFEST is being synced."""

    def __init__(self, lock: Path) -> None:
        super().__init__()
        self.lock = lock
        self.drafts = 0

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        super().sync(handle, data_only=data_only)
        if self.drafts and (self.lock.parent / (MANIFEST_NAME + TEMPORARY)).exists():
            self.drafts -= 1
            self.lock.unlink(missing_ok=True)
            self.lock.write_bytes(b"node=other pid=1 epoch=2\n")


def test_a_writer_looks_again_right_before_it_replaces_the_manifest(tmp_path: Path) -> None:
    files = Overtaken(tmp_path / LOCK_NAME)
    log = Log.open(tmp_path, SMALL, files=files)
    fill(log, 1, 5)
    before = (tmp_path / MANIFEST_NAME).read_bytes()
    files.drafts = 1
    with pytest.raises(LogFailedError, match="LOCK was replaced"):
        log.snapshot(log.last, [b"state"])
    assert files.drafts == 0
    assert (tmp_path / MANIFEST_NAME).read_bytes() == before
    log.abandon()
