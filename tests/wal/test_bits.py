"""A bit that was acknowledged is watched: where it flips it is found and its place is named.

These flip a spread of them on a real disk; `tests.faults.bytes` flips every one, in memory.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wal.disk import QUICK, copied, fill, flip, frame_starts, live_segment, sealed_segments
from wal import CorruptLogError, Log, LogOptions, Position, verify

OPTIONS = LogOptions(segment_bytes=8192, spare_in_background=False)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two sealed segments, two snapshots, and a live segment whose end is proven."""
    directory = tmp_path_factory.mktemp("bits") / "log"
    with Log.open(directory, OPTIONS, files=QUICK) as log:
        fill(log, frames=4)
        log.snapshot(log.last, [b"first state" * 20, b"of two blocks"])
    with Log.open(directory, OPTIONS, files=QUICK) as log:
        fill(log, frames=4, records=1)
    log = Log.open(directory, OPTIONS, files=QUICK)
    fill(log, frames=2, records=1)
    log.snapshot(log.last, [b"second state"])
    fill(log, frames=2, records=1)
    log.idle()
    log.abandon()
    assert len(sealed_segments(directory)) >= 2
    return directory


@pytest.fixture(scope="module")
def scratch(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that each test may flip in, if it flips back."""
    return copied(stopped, tmp_path_factory.mktemp("scratch") / "log")


def _flips(path: Path, last_byte: int, step: int) -> Iterator[int]:
    """Yield every `step`th bit of a file, flipped while it is yielded."""
    for bit in range(step % 5, last_byte * 8, step):
        flip(path, bit)
        yield bit
        flip(path, bit)


def _acknowledged(directory: Path) -> list[tuple[Path, int]]:
    """Return the files that hold what was acknowledged, with how many bytes of each do."""
    live = live_segment(directory)
    watermark = frame_starts(live)[-2]
    return [
        *((path, path.stat().st_size) for path in sealed_segments(directory)),
        (live, watermark),
        (directory / "MANIFEST", (directory / "MANIFEST").stat().st_size),
    ]


def _check_every(step: int, scratch: Path) -> int:
    checked = 0
    for path, size in _acknowledged(scratch):
        for bit in _flips(path, size, step):
            checked += 1
            (damage,) = verify(scratch).damages
            assert (scratch / damage.segment) == path
            if path.parent.name == "wal":
                assert damage.offset <= bit // 8 < damage.offset + 4096
    return checked


def test_verify_names_the_place_of_a_flipped_bit(scratch: Path) -> None:
    assert verify(scratch).ok
    assert _check_every(211, scratch) > 400
    assert verify(scratch).ok


def _refusals(step: int, stopped: Path, scratch: Path) -> int:
    """Flip bits that the start has to read, and see each start refused with nothing changed."""
    newest = sealed_segments(stopped)[-1]
    checked = 0
    for path, size in _acknowledged(scratch)[-2:]:
        for bit in _flips(path, size, step):
            checked += 1
            with pytest.raises(CorruptLogError) as caught:
                Log.open(scratch, OPTIONS, files=QUICK)
            assert scratch / caught.value.segment == path, bit
    assert (scratch / "wal" / newest.name).read_bytes() == newest.read_bytes()
    return checked


def test_no_start_after_a_flipped_bit(stopped: Path, scratch: Path) -> None:
    assert _refusals(67, stopped, scratch) > 400


def test_no_start_after_a_flipped_bit_in_a_sealed_segment_it_has_to_read(
    stopped: Path, tmp_path: Path
) -> None:
    directory = copied(stopped, tmp_path / "log")
    for snapshot in (directory / "snap").iterdir():
        snapshot.unlink()
    for path in sealed_segments(directory):
        for _ in _flips(path, path.stat().st_size, 1511):
            with pytest.raises(CorruptLogError) as caught:
                Log.open(directory, OPTIONS, files=QUICK)
            assert directory / caught.value.segment == path


def test_a_flipped_bit_in_an_old_segment_is_found_when_it_is_read(
    stopped: Path, tmp_path: Path
) -> None:
    for step in range(7):
        directory = copied(stopped, tmp_path / "log")
        path = sealed_segments(directory)[0]
        flip(path, (4096 + 97 * step) * 8)
        with (
            Log.open(directory, OPTIONS, files=QUICK) as log,
            pytest.raises(CorruptLogError) as caught,
        ):
            list(log.read(Position(1)))
        assert directory / caught.value.segment == path


def _newest_snapshot(directory: Path) -> Path:
    return max((directory / "snap").iterdir())


def test_a_flipped_bit_in_a_snapshot_makes_an_older_one_serve(
    scratch: Path, tmp_path: Path
) -> None:
    for bit in range(0, _newest_snapshot(scratch).stat().st_size * 8, 61):
        directory = copied(scratch, tmp_path / "log")
        path = _newest_snapshot(directory)
        flip(path, bit)
        with Log.open(directory, OPTIONS, files=QUICK) as log:
            assert [name for name, _ in log.recovery.snapshots_refused] == [f"snap/{path.name}"]
            (found,) = log.checkpoint()
            assert b"".join(found[1]) == b"first state" * 20 + b"of two blocks"
            assert len(list(log.read())) == log.last
        assert (directory / "quarantine" / path.name).exists()
        assert verify(directory).ok


def test_verify_names_the_snapshot_of_any_flipped_bit(scratch: Path) -> None:
    path = _newest_snapshot(scratch)
    for _ in _flips(path, path.stat().st_size, 3):
        assert [damage.segment for damage in verify(scratch).damages] == [f"snap/{path.name}"]
