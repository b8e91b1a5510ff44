"""After any stop: what was acknowledged is there, what was not is whole or absent."""

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.wal.disk import (
    NEVER,
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
    records_of,
    sealed_segments,
)
from wal import CorruptLogError, Log, LogFailedError, LogOptions, Position, verify
from wal.format import MANIFEST_NAME
from wal.frame import FrameEncoder

KEPT = 3


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose live segment holds three acknowledged frames and one that need not survive."""
    directory = tmp_path_factory.mktemp("crashed") / "log"
    log = Log.open(directory, SMALL, files=QUICK)
    fill(log, frames=KEPT + 1, records=20, size=100)
    log.abandon()
    return directory


@pytest.fixture
def again(crashed: Path, tmp_path: Path) -> Callable[[], Path]:
    return lambda: copied(crashed, tmp_path / "log")


ALL = [record(position, 100) for position in range(1, 20 * (KEPT + 1) + 1)]
ACKED = ALL[: 20 * KEPT]

Edit = Callable[[bytearray, list[int]], object]


def _swap_frames(data: bytearray, starts: list[int]) -> None:
    first, second = data[starts[0] : starts[1]], data[starts[1] : starts[2]]
    data[starts[0] : starts[2]] = second + first


CORRUPT, TORN, WHOLE = "corrupt", "torn", "whole"
TABLE: list[tuple[str, Edit, str]] = [
    ("nothing", lambda data, at: None, WHOLE),
    ("last frame zero", lambda data, at: _put(data, at[3], bytes(at[4] - at[3])), "cut"),
    ("last payload zero", lambda data, at: _put(data, at[3] + 64, bytes(at[4] - at[3] - 64)), TORN),
    ("last header zero", lambda data, at: _put(data, at[3], bytes(64)), TORN),
    ("last frame garbage", lambda data, at: _put(data, at[3], _noise(at[4] - at[3])), TORN),
    ("garbage after the end", lambda data, at: _put(data, at[4], _noise(600)), "tail"),
    ("file cut in the last frame", lambda data, at: _cut(data, at[3] + 99), TORN),
    ("file cut after the last frame", lambda data, at: _cut(data, at[4]), WHOLE),
    ("first frame zero", lambda data, at: _put(data, at[0], bytes(at[1] - at[0])), CORRUPT),
    ("third frame zero", lambda data, at: _put(data, at[2], bytes(at[3] - at[2])), CORRUPT),
    ("third header zero", lambda data, at: _put(data, at[2], bytes(64)), CORRUPT),
    ("third payload rots", lambda data, at: _put(data, at[2] + 90, b"rot"), CORRUPT),
    ("third rots, fourth torn", lambda data, at: (
        _put(data, at[2] + 90, b"rot"), _put(data, at[3] + 70, _noise(300))), CORRUPT),
    ("a frame repeated", lambda data, at: _put(data, at[4], data[at[2] : at[3]]), CORRUPT),
    ("a frame dropped", lambda data, at: data.__delitem__(slice(at[1], at[2])), CORRUPT),
    ("two frames swapped", _swap_frames, CORRUPT),
    ("a frame of another epoch", lambda data, at: _put(data, at[4], _other_epoch()), CORRUPT),
    ("a foreign frame behind a torn one", lambda data, at: (
        _put(data, at[3], _noise(300)), _put(data, at[4], _other_epoch())), CORRUPT),
    ("garbage far behind", lambda data, at: data.extend(bytes(2 << 20) + b"\1"), CORRUPT),
    ("header block rots", lambda data, at: _put(data, 2000, b"\1"), CORRUPT),
    ("file cut in the header block", lambda data, at: _cut(data, 4000), CORRUPT),
    ("file empty", lambda data, at: _cut(data, 0), CORRUPT),
]  # fmt: skip


def _put(data: bytearray, at: int, new: bytes) -> None:
    data[at : at + len(new)] = new


def _cut(data: bytearray, at: int) -> None:
    del data[at:]


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _other_epoch() -> bytes:
    return FrameEncoder(9, 1, 1, bytes(32), 1).encode(b"x" * 9, 1, 0, 1).data


@pytest.mark.parametrize(("edit", "outcome"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_each_damage_is_told_apart(again: Callable[[], Path], edit: Edit, outcome: str) -> None:
    directory = again()
    live = live_segment(directory)
    starts = frame_starts(live)
    change(live, lambda data: edit(data, starts))
    report = verify(directory)
    if outcome == CORRUPT:
        before = sorted((path, path.read_bytes()) for path in directory.glob("*/*"))
        with pytest.raises(CorruptLogError) as caught:
            Log.open(directory, SMALL, files=QUICK)
        assert caught.value.segment == f"wal/{live.name}"
        assert sorted((path, path.read_bytes()) for path in directory.glob("*/*")) == before
        assert (report.damages[0].segment, report.damages[0].offset) == (
            caught.value.segment, caught.value.offset,
        )  # fmt: skip
        return
    assert report.ok
    with Log.open(directory, SMALL, files=QUICK) as log:
        assert [data for _, data in log.read()] == (ALL if outcome in (WHOLE, "tail") else ACKED)
        found = log.recovery
    assert bool(found.cut_bytes) == (outcome in (TORN, "tail"))
    assert found.cut_bytes == report.torn_bytes
    assert found.quarantined == tuple(
        f"quarantine/{path.name}" for path in (directory / "quarantine").iterdir()
    )
    assert verify(directory).ok


def test_a_tail_is_kept_before_it_is_cut_and_the_log_goes_on(again: Callable[[], Path]) -> None:
    directory = again()
    live = live_segment(directory)
    starts = frame_starts(live)
    flip(live, (starts[3] + 80) * 8)
    tail = live.read_bytes()[starts[3] : starts[4]].rstrip(b"\0")
    with Log.open(directory, SMALL, files=QUICK) as log:
        found = log.recovery
        assert (found.cut_segment, found.cut_offset) == (f"wal/{live.name}", starts[3])
        assert (found.cut_lsn, found.cut_bytes) == (4, len(tail))
        assert (directory / found.quarantined[0]).read_bytes() == tail
        assert not live.exists()
        new = fill(log, frames=2)
        assert [data for _, data in log.read()] == ACKED + new


def test_a_file_cut_at_any_byte_of_the_last_frame_loses_nothing_before_it(
    again: Callable[[], Path],
) -> None:
    directory = again()
    live = live_segment(directory)
    starts = frame_starts(live)
    whole = live.read_bytes()
    for end in range(starts[3], starts[4], 37):
        directory = again()
        live.write_bytes(whole[:end])
        assert records_of(directory) in (ACKED, ALL)
    for end in range(starts[4] - 8, starts[4] + 1):
        directory = again()
        live.write_bytes(whole[:end])
        assert records_of(directory) in (ACKED, ALL)


def _torn(random: random.Random, old: bytes, new: bytes, sector: int, start: int) -> bytes:
    """Return `new` as a broken-off write may leave it over `old`: any sectors, of three kinds."""
    torn = bytearray(new)
    first = -(start % sector)
    for at in range(first, len(new), sector):
        part = slice(max(at, 0), min(at + sector, len(new)))
        kind = random.randrange(4)
        if kind == 1:
            torn[part] = old[part]
        elif kind == 2:
            torn[part] = bytes(part.stop - part.start)
        elif kind == 3:
            torn[part] = random.randbytes(part.stop - part.start)
    return bytes(torn)


def _tear(crashed: Path, scratch: Path, rounds: range) -> Iterator[tuple[int, list[bytes]]]:
    directory = copied(crashed, scratch / "log")
    live = live_segment(directory)
    starts = frame_starts(live)
    whole = live.read_bytes()
    manifest = (directory / MANIFEST_NAME).read_bytes()
    new = whole[starts[3] : starts[4]]
    for number in rounds:
        chance = random.Random(number)
        sector = chance.choice((512, 4096))
        torn = _torn(chance, bytes(len(new)), new, sector, starts[3])
        for path in directory.glob("*/*"):
            path.unlink()
        live.write_bytes(whole[: starts[3]] + torn + whole[starts[4] :])
        (directory / MANIFEST_NAME).write_bytes(manifest)
        with Log.open(directory, SMALL, files=QUICK) as log:
            yield number, [data for _, data in log.read()]


def test_no_pattern_of_torn_sectors_loses_or_alarms(crashed: Path, tmp_path: Path) -> None:
    for number, found in _tear(crashed, tmp_path, range(250)):
        assert found in (ACKED, ALL), number


@pytest.mark.slow
def test_no_pattern_of_torn_sectors_loses_or_alarms_for_long(crashed: Path, tmp_path: Path) -> None:
    for number, found in _tear(crashed, tmp_path, range(250, 1_000)):
        assert found in (ACKED, ALL), number


def test_what_the_manifest_knows_to_be_durable_is_never_cut(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    log = Log.open(directory, SMALL, files=QUICK)
    fill(log, frames=3)
    log.snapshot(Position(9), [b"state"])
    log.abandon()
    live = live_segment(directory)
    starts = frame_starts(live)
    change(live, lambda data: _put(data, starts[2], bytes(starts[3] - starts[2])))
    assert not verify(directory).ok
    with pytest.raises(CorruptLogError, match="was durable") as caught:
        Log.open(directory, SMALL, files=QUICK)
    assert caught.value.offset == starts[2]


def test_what_idle_proved_is_never_cut(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    fill(log, frames=2)
    log.idle()
    log.abandon()
    live = live_segment(tmp_path)
    flip(live, (frame_starts(live)[1] + 70) * 8)
    with pytest.raises(CorruptLogError, match="follows"):
        Log.open(tmp_path, SMALL)


# Crashes at every call ----------------------------------------------------------------------------

TINY = LogOptions(segment_bytes=8192, spare_in_background=False, snapshots_kept=1)


class Run:
    """A short life of a log, broken off anywhere: rotations, snapshots, a close and a start."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def __call__(self, directory: Path, files: BreakingFiles) -> None:
        for _ in range(2):
            log = Log.open(directory, TINY, files=files)
            self._check(log)
            for _ in range(3):
                self._commit(log)
                log.idle()
            log.snapshot(log.last, [b"%d" % log.last])
            self._commit(log)
            log.snapshot(log.last, [b"%d" % log.last])
            log.close()

    def _commit(self, log: Log[bytes]) -> None:
        log.append([record(log.last + index, 500) for index in (1, 2, 3)])
        self.acknowledged = log.commit()

    def _check(self, log: Log[bytes]) -> None:
        """Say that nothing acknowledged is missing and nothing else came in."""
        found = [data for _, data in log.read()]
        assert found == [record(position, 500) for position in range(1, len(found) + 1)]
        assert self.acknowledged <= len(found) <= self.acknowledged + 3
        self.acknowledged = len(found)
        for snapshot in log.checkpoint():
            assert b"".join(snapshot[1]) == b"%d" % snapshot[0]

    def check(self, directory: Path) -> None:
        with Log.open(directory, TINY, files=QUICK) as log:
            self._check(log)
        report = verify(directory)
        assert report.ok, report.damages


EVERY = pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])


def _calls_of_a_whole_run(directory: Path) -> int:
    files = BreakingFiles(NEVER)
    Run()(directory, files)
    return len(files.taken)


def _kill(directory: Path, at: int, run: Run) -> bool:
    """Run until call `at`, then be gone. Say whether that call came."""
    files = BreakingFiles(at)
    try:
        run(directory, files)
    except Killed:
        return True
    finally:
        files.die()
    return False


@EVERY
def test_a_kill_at_any_call_loses_nothing(tmp_path: Path, step: int) -> None:
    calls = _calls_of_a_whole_run(tmp_path / "whole")
    assert calls > 200
    for at in range(1, calls + 1, step):
        run = Run()
        directory = tmp_path / str(at)
        assert _kill(directory, at, run)
        run.check(directory)


@pytest.mark.slow
def test_kills_three_deep_in_the_start_lose_nothing(tmp_path: Path) -> None:
    calls = _calls_of_a_whole_run(tmp_path / "whole")
    for at in range(20, calls, 15):
        for second in range(1, 60, 4):
            run = Run()
            directory = tmp_path / f"{at}-{second}"
            assert _kill(directory, at, run)
            for depth in range(3):
                _kill(directory, second + 3 * depth, run)
            run.check(directory)


@EVERY
@pytest.mark.parametrize(
    ("call", "code"),
    [
        *((call, errno.EIO) for call in ("open", "read", "write", "sync", "rename", "resize")),
        *((call, errno.ENOSPC) for call in ("write", "sync", "resize")),
        ("unlink", errno.EROFS),
        ("open", errno.EMFILE),
    ],
)
def test_an_error_at_any_call_ends_the_log_and_loses_nothing(
    tmp_path: Path, call: str, code: int, step: int
) -> None:
    at = 1 - step
    came = True
    while came:
        at += step
        run = Run()
        directory = tmp_path / str(at)
        files = BreakingFiles(at, OSError(code, "injected"), [call], once=True)
        with suppress(LogFailedError):
            run(directory, files)
        came = files.broke
        files.die()
        run.check(directory)
    assert at > 3


def test_a_crash_in_the_first_start_leaves_a_log_that_can_be_begun(tmp_path: Path) -> None:
    files = BreakingFiles(NEVER)
    Log.open(tmp_path / "whole", TINY, files=files).abandon()
    for at in range(1, len(files.taken) + 1):
        broken = BreakingFiles(at)
        with pytest.raises(Killed):
            Log.open(tmp_path / str(at), TINY, files=broken)
        broken.die()
        with Log.open(tmp_path / str(at), TINY, files=QUICK) as log:
            assert log.last == 0
            fill(log, frames=1)


def test_a_torn_first_frame_left_by_an_interrupted_start_is_no_newer_log(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    log.abandon()
    live = live_segment(tmp_path)
    change(live, lambda data: _put(data, 4096, _first_frame(log)[:-40]))
    files = BreakingFiles(1, calls=["unlink"])
    with pytest.raises(Killed):
        Log.open(tmp_path, SMALL, files=files)
    files.die()
    assert live.exists()
    assert live != live_segment(tmp_path)
    with Log.open(tmp_path, SMALL) as log:
        assert f"quarantine/{live.name}" in log.recovery.quarantined
        assert log.last == 0


def _first_frame(log: Log[bytes]) -> bytes:
    return log._live._writer.encode(b"x" * 99, 1, 8, 1).data


@pytest.mark.parametrize(
    ("wrong", "chain_bit"),
    [((1, 1, 5), 0), ((1, 1, 3), 0), ((1, 2, 4), 0), ((2, 1, 4), 0), ((1, 1, 4), 1)],
    ids=["gap", "again", "segment", "epoch", "chain"],
)
def test_a_frame_must_fit_its_place_and_the_chain(
    tmp_path: Path, wrong: tuple[int, int, int], chain_bit: int
) -> None:
    log = Log.open(tmp_path, SMALL)
    fill(log, frames=3)
    chain, offset = log._live.chain, log._live._writer.offset
    log.abandon()
    chain = bytes([chain[0] ^ chain_bit]) + chain[1:]
    frame = FrameEncoder(*wrong, chain, 1).encode(b"\1\0\0\0x", 1, 0, 1 << 62)
    change(live_segment(tmp_path), lambda data: _put(data, offset, frame.data))
    assert [damage.offset for damage in verify(tmp_path).damages] == [offset]
    with pytest.raises(CorruptLogError) as caught:
        Log.open(tmp_path, SMALL)
    assert caught.value.offset == offset


def test_a_crash_between_seal_and_manifest_is_taken_up(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=2)
    log._live._writer.seal(0, log._live._clock())
    log.abandon()
    assert records_of(tmp_path) == written
    assert len(sealed_segments(tmp_path)) == 1
