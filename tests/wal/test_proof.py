"""A whole block of the live segment is lost, with all the evidence that lies in it."""

from pathlib import Path

import pytest

from tests.wal.disk import SMALL, SteadyFiles, change, fill, frame_starts, live_segment, records_of
from wal import CorruptLogError, Log, LogFailedError, OsFiles, verify

SECOND_NS = 1_000_000_000


class SyncingFiles(SteadyFiles):
    """The real disk with its syncs, and a clock that is moved by hand."""

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        OsFiles.sync(self, handle, data_only=data_only)


def idle_log(directory: Path, idle_ns: int) -> list[bytes]:
    """Leave a log like a crash would after it was idle for a while; return its records."""
    files = SteadyFiles()
    log: Log[bytes] = Log.open(directory, SMALL, files=files)
    written = fill(log, frames=8)
    assert log.idle()
    files.now += idle_ns
    assert not log.idle()
    log.abandon()
    return written


def lose_the_end(directory: Path, frames: int) -> None:
    """Zero the last frames of the live segment, the one that proves the others included."""
    live = live_segment(directory)
    start, end = frame_starts(live)[-1 - frames], frame_starts(live)[-1]

    def zero(data: bytearray) -> None:
        data[start:end] = bytes(end - start)

    change(live, zero)


@pytest.mark.parametrize("frames", [2, 5, 9])
def test_a_block_that_takes_its_own_proof_along_is_missed(tmp_path: Path, frames: int) -> None:
    idle_log(tmp_path, SECOND_NS)
    lose_the_end(tmp_path, frames)
    assert not verify(tmp_path).ok
    with pytest.raises(CorruptLogError):
        Log.open(tmp_path, SMALL)


def test_nothing_is_missed_when_nothing_was_lost(tmp_path: Path) -> None:
    written = idle_log(tmp_path, SECOND_NS)
    assert verify(tmp_path).ok
    assert records_of(tmp_path) == written


def test_the_manifest_is_written_once_for_a_pause_and_not_for_a_short_one(tmp_path: Path) -> None:
    files = SteadyFiles()
    manifests: list[Path] = []
    rename = files.rename

    def counted(source: Path, target: Path) -> None:
        manifests.append(target)
        rename(source, target)

    files.rename = counted  # type: ignore[method-assign]
    with Log.open(tmp_path, SMALL, files=files) as log:
        fill(log, frames=1)
        manifests.clear()
        for _ in range(10):
            log.idle()
        assert manifests == []
        files.now += SECOND_NS
        for _ in range(10):
            log.idle()
        assert len(manifests) == 1


def test_a_log_that_was_taken_over_does_not_touch_the_manifest(tmp_path: Path) -> None:
    files = SyncingFiles()
    log: Log[bytes] = Log.open(tmp_path, SMALL, files=files)
    fill(log, frames=1)
    log.idle()
    live_segment(tmp_path).unlink()
    before = (tmp_path / "MANIFEST").read_bytes()
    files.now += SECOND_NS
    with pytest.raises(LogFailedError):
        log.idle()
    log.abandon()
    assert (tmp_path / "MANIFEST").read_bytes() == before
