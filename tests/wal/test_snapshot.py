"""A snapshot is given back as it was made, or an older one is, or none."""

import errno
from pathlib import Path

import msgspec
import pytest

from tests.wal.disk import NEVER, SMALL, BreakingFiles, SteadyFiles, change, copied, fill, flip
from wal import (
    SNAPSHOT_CHUNK_BYTES_MAX,
    CorruptLogError,
    Log,
    LogFailedError,
    LogOptions,
    Position,
    verify,
)
from wal.files import How
from wal.format import MANIFEST_NAME
from wal.manifest import decode_manifest, encode_manifest


def snapshot_names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "snap").iterdir())


def test_chunks_come_back_as_they_were_cut(tmp_path: Path) -> None:
    chunks = [b"a", bytes(SNAPSHOT_CHUNK_BYTES_MAX), b"\0" * 77]
    with Log.open(tmp_path, SMALL) as log:
        assert log.checkpoint() == []
        fill(log, frames=1)
        log.snapshot(Position(3), iter(chunks))
    with Log.open(tmp_path, SMALL) as log:
        assert log.recovery.snapshot_position == 3
        (found,) = log.checkpoint()
        assert (found[0], list(found[1])) == (3, chunks)
        assert list(log.read(Position(4))) == []


def test_a_snapshot_of_nothing_is_one(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        log.snapshot(Position(0), [])
        log.snapshot(Position(0), [b"genesis"])
        (found,) = log.checkpoint()
        assert (found[0], list(found[1])) == (0, [b"genesis"])
    assert verify(tmp_path).ok


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        for number in range(6):
            fill(log, frames=1)
            log.snapshot(log.last, [b"%d" % number])
        names = snapshot_names(tmp_path)
    assert len(names) == SMALL.snapshots_kept
    assert verify(tmp_path).snapshots == SMALL.snapshots_kept


def test_two_snapshots_of_one_place_never_share_a_name(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=1)
        log.snapshot(Position(3), [b"one"])
        log.snapshot(Position(3), [b"other"])
        assert len(snapshot_names(tmp_path)) == 2
        (found,) = log.checkpoint()
        assert list(found[1]) == [b"other"]


def test_a_snapshot_that_cannot_be_made_leaves_nothing_and_the_log_goes_on(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        written = fill(log, frames=1)
        for position, chunks in ((2, [b"x"]), (3, [b"x", b""]), (3, [bytes((1 << 20) + 1)])):
            with pytest.raises(ValueError, match="snapshot"):
                log.snapshot(Position(position), chunks)
        assert snapshot_names(tmp_path) == []
        written += fill(log, frames=1)
        assert [data for _, data in log.read()] == written


@pytest.mark.parametrize("call", ["write", "sync", "rename", "read", "open"])
def test_a_disk_that_refuses_a_snapshot_ends_the_log(tmp_path: Path, call: str) -> None:
    files = BreakingFiles(NEVER, OSError(errno.EIO, "refused"), [call], once=True)
    log = Log.open(tmp_path, SMALL, files=files)
    fill(log, frames=1)
    files.break_next()
    with pytest.raises(LogFailedError):
        log.snapshot(Position(3), [b"state"])
    with pytest.raises(LogFailedError):
        log.commit()
    log.close()
    with Log.open(tmp_path, SMALL) as log:
        assert log.last == 3


def test_a_snapshot_that_reads_back_otherwise_is_not_named(tmp_path: Path) -> None:
    class LyingFiles(SteadyFiles):
        def open(self, path: Path, how: How) -> int:
            if how is How.DISK and path.name.endswith(".snap.tmp"):
                flip(path, 1000)
            return super().open(path, how)

    log = Log.open(tmp_path, SMALL, files=LyingFiles())
    fill(log, frames=1)
    with pytest.raises(LogFailedError, match="other bytes"):
        log.snapshot(Position(3), [b"state" * 100])
    log.close()
    assert verify(tmp_path).snapshots == 0


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long", "other"])
def test_an_older_snapshot_serves_when_the_newest_does_not(tmp_path: Path, damage: str) -> None:
    with Log.open(tmp_path, SMALL) as log:
        for text in (b"older", b"newer"):
            fill(log, frames=1)
            log.snapshot(log.last, [text])
        older, newer = (tmp_path / "snap" / name for name in snapshot_names(tmp_path))
        if damage == "missing":
            newer.unlink()
        elif damage == "other":
            newer.write_bytes(older.read_bytes())
        else:
            ends = {"empty": b"", "short": newer.read_bytes()[:-1], "long": bytes(999)}
            newer.write_bytes(ends[damage])
        (found,) = log.checkpoint()
        assert list(found[1]) == [b"older"]
    assert [found.segment for found in verify(tmp_path).damages] == [f"snap/{newer.name}"]
    with Log.open(tmp_path, SMALL) as log:
        assert log.recovery.snapshot_position == 3
        assert len(log.recovery.snapshots_refused) == 1
    assert verify(tmp_path).ok


def test_without_any_snapshot_that_verifies_the_whole_log_is_checked(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        written = fill(log, frames=1)
        log.snapshot(log.last, [b"state"])
    (tmp_path / "snap" / snapshot_names(tmp_path)[0]).write_bytes(b"")
    with Log.open(tmp_path, SMALL) as log:
        assert log.checkpoint() == []
        assert [data for _, data in log.read()] == written


def test_a_snapshot_of_another_shard_is_refused(tmp_path: Path) -> None:
    for shard_id in (0, 1):
        options = LogOptions(shard_id=shard_id, segment_bytes=8192, spare_in_background=False)
        with Log.open(tmp_path / str(shard_id), options) as log:
            fill(log, frames=1)
            log.snapshot(log.last, [b"state"])
    (name,) = snapshot_names(tmp_path / "0")
    foreign = (tmp_path / "1" / "snap" / name).read_bytes()
    (tmp_path / "0" / "snap" / name).write_bytes(foreign)
    with Log.open(tmp_path / "0", SMALL) as log:
        assert log.checkpoint() == []


def test_a_snapshot_newer_than_the_log_is_corruption(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log", SMALL)
    fill(log, frames=2)
    before = copied(tmp_path / "log", tmp_path / "before")
    log.snapshot(log.last, [b"state"])
    log.close()
    manifest = decode_manifest((tmp_path / "log" / MANIFEST_NAME).read_bytes())
    copied(tmp_path / "log" / "snap", before / "snap")
    with pytest.raises(CorruptLogError, match="newer than the log"):
        _with_newer_strays(before)
    change(before / MANIFEST_NAME, lambda data: _name_snapshots(data, manifest.snapshots))
    with pytest.raises(CorruptLogError, match="was durable"):
        Log.open(before, SMALL)


def test_a_snapshot_above_the_end_of_a_closed_log_is_corruption(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=2)
        log.snapshot(log.last, [b"state"])
    (entry,) = decode_manifest((tmp_path / MANIFEST_NAME).read_bytes()).snapshots
    above = msgspec.structs.replace(entry, lsn=entry.lsn + 2)
    change(tmp_path / MANIFEST_NAME, lambda data: _name_snapshots(data, (above,)))
    assert not verify(tmp_path).ok
    with pytest.raises(CorruptLogError, match="the log ends at 3"):
        Log.open(tmp_path, SMALL)


def _with_newer_strays(directory: Path) -> None:
    """Cut the live segment so that the stray snapshot is newer than it, then open."""
    (live,) = (directory / "wal").iterdir()
    live.write_bytes(live.read_bytes()[:4096])
    Log.open(directory, SMALL)


def _name_snapshots(data: bytearray, snapshots: object) -> None:
    manifest = decode_manifest(bytes(data))
    data[:] = encode_manifest(msgspec.structs.replace(manifest, snapshots=snapshots))
