"""Files that are missing, doubled, swapped or foreign are told apart from a log that is whole."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.wal.disk import (
    SMALL,
    change,
    copied,
    fill,
    live_segment,
    record,
    records_of,
    sealed_segments,
)
from wal import CorruptLogError, Log, LogOptions, WalError, inspect, verify
from wal.segment import encode_segment_header, parse_segment_header


def _write(directory: Path, options: LogOptions = SMALL) -> Path:
    log = Log.open(directory, options)
    fill(log, frames=40, size=300)
    log.abandon()
    assert len(sealed_segments(directory)) >= 2
    return directory


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("segments") / "log")


@pytest.fixture(scope="module")
def other_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = LogOptions(shard_id=1, segment_bytes=16 << 10, spare_in_background=False)
    return _write(tmp_path_factory.mktemp("foreign") / "log", options)


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Path:
    return copied(written, tmp_path / "log")


def _swap(first: Path, second: Path) -> None:
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


MISSING = "MANIFEST missing"
DAMAGES: dict[str, Callable[[Path, list[Path], Path], object]] = {
    "first missing": lambda log, sealed, live: sealed[0].unlink(),
    "last sealed missing": lambda log, sealed, live: sealed[-1].unlink(),
    "live missing": lambda log, sealed, live: live.unlink(),
    "all missing": lambda log, sealed, live: shutil.rmtree(log / "wal"),
    "sealed short": lambda log, sealed, live: sealed[0].write_bytes(sealed[0].read_bytes()[:-1]),
    "sealed long": lambda log, sealed, live: sealed[0].write_bytes(sealed[0].read_bytes() + b"\0"),
    "sealed empty": lambda log, sealed, live: sealed[0].write_bytes(b""),
    "two swapped": lambda log, sealed, live: _swap(sealed[0], sealed[1]),
    "one in the place of another": lambda log, sealed, live: shutil.copy(sealed[0], sealed[1]),
    "a sealed one as the live one": lambda log, sealed, live: shutil.copy(sealed[-1], live),
    "renamed": lambda log, sealed, live: sealed[0].rename(sealed[0].with_name("0-0.wal")),
    MISSING: lambda log, sealed, live: (log / "MANIFEST").unlink(),
    "MANIFEST empty": lambda log, sealed, live: (log / "MANIFEST").write_bytes(b""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_set_of_files_keeps_the_log_shut(log: Path, name: str) -> None:
    sealed, live = sealed_segments(log), live_segment(log)
    DAMAGES[name](log, sealed, live)
    with pytest.raises(CorruptLogError, match="it is missing" if name == MISSING else None):
        Log.open(log, SMALL)
    if name == MISSING:
        with pytest.raises(WalError, match="no MANIFEST"):
            verify(log)
    else:
        assert not verify(log).ok


@pytest.mark.parametrize("which", ["sealed", "live", "manifest"])
def test_files_of_another_shard_are_refused(log: Path, other_shard: Path, which: str) -> None:
    if which == "sealed":
        shutil.copy(sealed_segments(other_shard)[0], sealed_segments(log)[0])
    elif which == "live":
        shutil.copy(live_segment(other_shard), live_segment(log))
    else:
        shutil.copy(other_shard / "MANIFEST", log / "MANIFEST")
    with pytest.raises(CorruptLogError):
        Log.open(log, SMALL)
    assert not verify(log).ok


@pytest.mark.parametrize("field", ["shard_id", "epoch", "number", "first_lsn", "first_position"])
def test_a_header_that_belongs_elsewhere_is_refused(log: Path, field: str) -> None:
    live = live_segment(log)
    header = parse_segment_header(live.read_bytes()[:4096])
    wrong = msgspec.structs.replace(header, **{field: getattr(header, field) + 1})
    change(live, lambda data: data.__setitem__(slice(0, 4096), encode_segment_header(wrong)))
    assert [damage.offset for damage in verify(log).damages] == [0]
    with pytest.raises(CorruptLogError, match="does not belong"):
        Log.open(log, SMALL)


def test_an_older_manifest_is_noticed(log: Path) -> None:
    older = (log / "MANIFEST").read_bytes()
    with Log.open(log, SMALL) as opened:
        fill(opened, frames=1)
    (log / "MANIFEST").write_bytes(older)
    with pytest.raises(CorruptLogError):
        Log.open(log, SMALL)


def test_a_manifest_from_before_a_rotation_is_noticed(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=2, size=300)
        older = (tmp_path / "MANIFEST").read_bytes()
        fill(log, frames=30, size=300)
    (tmp_path / "MANIFEST").write_bytes(older)
    with pytest.raises(CorruptLogError, match="newer than the log"):
        Log.open(tmp_path, SMALL)


def test_a_stray_copy_is_put_aside_with_an_alarm(log: Path) -> None:
    stray = log / "wal" / "copy of a segment.wal"
    shutil.copy(sealed_segments(log)[0], stray)
    (log / "wal" / "notes.txt").write_text("what is this?")
    assert verify(log).strays == ("wal/copy of a segment.wal", "wal/notes.txt")
    with Log.open(log, SMALL) as opened:
        assert opened.recovery.quarantined == (
            "quarantine/copy of a segment.wal", "quarantine/notes.txt",
        )  # fmt: skip
    assert inspect(log).quarantine == ("copy of a segment.wal", "notes.txt")


def test_evidence_is_never_overwritten(log: Path) -> None:
    for text in ("one", "two"):
        (log / "wal" / "notes.txt").write_text(text)
        Log.open(log, SMALL).close()
    assert (log / "quarantine" / "notes.txt").read_text() == "one"
    assert (log / "quarantine" / "notes.txt.2").read_text() == "two"


def test_unfinished_files_are_removed(log: Path) -> None:
    for name in ("next.pre", "0-0.wal.tmp"):
        (log / "wal" / name).write_bytes(bytes(5000))
    (log / "wal" / "99999999999999999999-00000009.wal").write_bytes(b"header".ljust(9000, b"\0"))
    (log / "snap" / "1.snap.tmp").write_bytes(b"half")
    (log / "MANIFEST.tmp").write_bytes(b"half")
    with Log.open(log, SMALL) as opened:
        assert len(opened.recovery.removed) == 5
        assert opened.recovery.quarantined == ()
    assert verify(log).strays == ()


def test_an_epoch_and_a_number_that_differ_are_read_right(tmp_path: Path) -> None:
    for _ in range(5):
        Log.open(tmp_path, SMALL).close()
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=2)
    (segment,) = inspect(tmp_path).segments
    assert (segment.number, segment.epoch) == (1, 6)
    assert verify(tmp_path).ok
    assert records_of(tmp_path) == [record(position) for position in range(1, 7)]


def test_a_log_of_another_codec_is_refused(log: Path) -> None:
    other = LogOptions(segment_bytes=16 << 10, spare_in_background=False, codec_id=9)
    with pytest.raises(CorruptLogError, match="codec 0"):
        Log.open(log, other)


def test_a_log_is_opened_only_as_the_shard_it_is(log: Path) -> None:
    other = LogOptions(shard_id=1, segment_bytes=16 << 10, spare_in_background=False)
    with pytest.raises(CorruptLogError, match="shard 0, opened as 1"):
        Log.open(log, other)


def test_inspect_tells_what_there_is(log: Path) -> None:
    report = inspect(log)
    assert [segment.sealed for segment in report.segments] == [True] * (
        len(report.segments) - 1
    ) + [False]
    assert report.last_position == 120
    assert sum(segment.records for segment in report.segments) == 120
    assert report.segments[-1].last_lsn == report.last_lsn
    with pytest.raises(WalError, match="no log"):
        inspect(log / "nowhere")
