"""What is committed can be read again, in order, in whole, by whoever asks."""

import errno
import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.disk import NEVER, QUICK, SMALL, BreakingFiles, SteadyFiles, fill, record, records_of
from wal import (
    Log,
    LogFailedError,
    LogFullError,
    LogInUseError,
    LogOptions,
    Position,
    WalError,
)
from wal.codec import LengthPrefixed

batches = st.lists(st.lists(st.binary(max_size=200), max_size=8), max_size=12)
reopenings = st.lists(st.sampled_from(["close", "abandon", "idle", ""]), min_size=12, max_size=12)


@pytest.mark.slow
@settings(deadline=None)  # it asks a real disk, which may be busy
@given(batches, reopenings)
def test_what_was_committed_is_read_back_through_any_closes_and_crashes(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], ends: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = Log.open(directory, SMALL, files=QUICK)
    written: list[bytes] = []
    for batch, end in zip(batches, ends, strict=False):
        assert log.append(batch) == len(written) + 1
        written += batch
        assert log.commit() == log.last == len(written)
        if end == "idle":
            log.idle()
        elif end:
            log.close() if end == "close" else log.abandon()
            log = Log.open(directory, SMALL, files=QUICK)
            assert log.recovery.cut_bytes == 0
    assert list(log.read()) == list(enumerate(written, 1))
    for start in range(1, len(written) + 2):
        assert [data for _, data in log.read(Position(start))] == written[start - 1 :]
    log.close()


def test_a_commit_is_one_frame_and_one_sync(tmp_path: Path) -> None:
    files = BreakingFiles(NEVER, calls=["write", "sync"])
    with Log.open(tmp_path, SMALL, files=files) as log:
        files.taken.clear()
        fill(log, frames=1, records=100)
        assert files.taken == ["write", "sync"]
        assert (log.statistics().frames, log.statistics().records) == (1, 100)


@pytest.mark.parametrize(
    ("records", "size", "frames"),
    [(4096, 0, 1), (4097, 0, 2), (10_000, 1, 3), (2, 600_000, 2), (3, 400_000, 2)],
)
def test_a_commit_above_the_limits_is_cut_into_frames(
    tmp_path: Path, records: int, size: int, frames: int
) -> None:
    with Log.open(tmp_path, LogOptions(segment_bytes=4 << 20, spare_in_background=False)) as log:
        written = [bytes([number % 251]) * size for number in range(records)]
        log.append(written)
        assert log.commit() == records
        assert log.statistics().frames == frames
        assert [data for _, data in log.read()] == written


class Unmeasured:
    """A codec that cannot say beforehand how large a payload gets, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self._plain = LengthPrefixed()

    def encode(self, first: Position, records: list[bytes]) -> bytes:
        self.seen += records
        return self._plain.encode(first, [b"%d" % len(self.seen), *records])

    def decode(self, first: Position, count: int, payload: bytes) -> list[bytes]:
        number, *records = self._plain.decode(first, count + 1, payload)
        self.seen += records
        if int(number) != len(self.seen):
            raise ValueError("this frame was encoded after others than those before it")
        return records


@pytest.mark.parametrize("empty_before", [True, False])
def test_a_codec_that_encoded_in_vain_is_not_used_again(tmp_path: Path, empty_before: bool) -> None:
    options = LogOptions(segment_bytes=4 << 20, spare_in_background=False)
    written = [bytes([number]) * 300_000 for number in range(9)]
    with Log.open(tmp_path, options, codec=Unmeasured) as log:
        if not empty_before:
            log.append([b"small"])
            log.commit()
            written.insert(0, b"small")
        log.append(written[-9:])
        log.commit()
        assert [data for _, data in log.read()] == written
    with Log.open(tmp_path, options, codec=Unmeasured) as log:
        assert [data for _, data in log.read()] == written


def test_each_segment_begins_with_a_codec_of_its_own(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL, codec=Unmeasured) as log:
        written = fill(log, frames=60, size=300)
        assert log.statistics().rotations > 2
        assert [data for _, data in log.read()] == written
        for start in (1, 20, 90, 180):
            assert [data for _, data in log.read(Position(start))] == written[start - 1 :]


def test_a_record_no_frame_can_hold_ends_the_log(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    log.append([bytes(2 << 20)])
    with pytest.raises(ValueError, match="1 MiB"):
        log.commit()
    with pytest.raises(LogFailedError):
        log.append([b""])
    log.close()
    assert records_of(tmp_path) == []


def test_a_frame_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        written = fill(log, frames=2)
        written += fill(log, frames=2, records=1, size=50_000)
        written += fill(log, frames=2)
        assert [data for _, data in log.read()] == written
    assert records_of(tmp_path) == written


def test_staged_records_that_were_not_committed_are_gone(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=1)
    log.append([b"never committed"])
    assert [data for _, data in log.read()] == written
    log.close()
    assert records_of(tmp_path) == written


def test_a_second_opener_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    with pytest.raises(LogInUseError):
        Log.open(tmp_path, SMALL)
    log.abandon()
    Log.open(tmp_path, SMALL).close()


def _try_to_open(directory: Path, answer: "multiprocessing.Queue[str]") -> None:
    try:
        Log.open(directory, SMALL).close()
        answer.put("opened")
    except LogInUseError:
        answer.put("refused")


@pytest.mark.slow
def test_another_process_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with Log.open(tmp_path, SMALL):
        process = context.Process(target=_try_to_open, args=(tmp_path, answer))
        process.start()
        assert answer.get(timeout=30) == "refused"
        process.join()


def test_each_open_is_a_new_epoch_and_leaves_nothing_when_nothing_is_written(
    tmp_path: Path,
) -> None:
    for epoch in (1, 2, 3):
        log = Log.open(tmp_path, SMALL)
        assert log.epoch == epoch
        log.close() if epoch % 2 else log.abandon()
    Log.open(tmp_path, SMALL).close()
    assert list((tmp_path / "wal").iterdir()) == []


def test_idle_proves_the_newest_records_once(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        assert not log.idle()
        fill(log, frames=1)
        assert log.idle()
        assert not log.idle()
        assert log.statistics().watermarks == 1
        assert log.last == 3


def test_idle_at_the_end_of_a_segment_seals_it(tmp_path: Path) -> None:
    with Log.open(tmp_path, LogOptions(segment_bytes=8192, spare_in_background=False)) as log:
        for size in range(3200, 3800, 8):
            fill(log, frames=1, records=1, size=size)
            assert log.idle()
        assert log.statistics().watermarks < 75
        assert not log.idle()


def test_a_segment_is_sealed_when_it_is_old(tmp_path: Path) -> None:
    files = SteadyFiles()
    with Log.open(tmp_path, LogOptions(segment_bytes=65536, segment_age_s=10), files=files) as log:
        fill(log, frames=3)
        files.now += 11_000_000_000
        fill(log, frames=1)
        assert log.statistics().rotations == 1


def test_a_clock_that_steps_back_is_held_and_counted(tmp_path: Path) -> None:
    files = SteadyFiles()
    log = Log.open(tmp_path, SMALL, files=files)
    written = fill(log, frames=2)
    files.now -= 3_600_000_000_000
    written += fill(log, frames=2)
    assert log.statistics().clock_steps_back > 0
    log.abandon()
    assert records_of(tmp_path, files) == written


def test_follow_goes_on_through_rotations_until_the_log_is_closed(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=2)
    got: list[bytes] = []
    news = threading.Event()

    def follow() -> None:
        for _, data in log.follow(Position(2)):
            got.append(data)
            news.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert news.wait(10)
    written += fill(log, frames=60, size=300)
    log.close()
    thread.join(10)
    assert got == written[1:]


def test_follow_yields_what_was_durable_and_then_tells_of_the_failure(tmp_path: Path) -> None:
    files = BreakingFiles(NEVER, OSError(errno.EIO, "refused"), ["sync"])
    log = Log.open(tmp_path, SMALL, files=files)
    written = fill(log, frames=2)
    follower = log.follow()
    assert [next(follower)[1] for _ in written] == written
    files.break_next()
    log.append([b"lost"])
    with pytest.raises(LogFailedError):
        log.commit()
    with pytest.raises(LogFailedError):
        next(follower)
    log.close()


@pytest.mark.parametrize("start", [0, -1, 8])
def test_reading_from_no_position_is_refused(tmp_path: Path, start: int) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=2)
        with pytest.raises(ValueError, match="neither nor next"):
            next(log.read(Position(start)))


@pytest.mark.parametrize("call", ["write", "sync"])
def test_after_a_failed_commit_the_log_answers_nothing_and_touches_nothing(
    tmp_path: Path, call: str
) -> None:
    files = BreakingFiles(NEVER, OSError(errno.EIO, "refused"), [call], once=True)
    log = Log.open(tmp_path, SMALL, files=files)
    written = fill(log, frames=2)
    files.break_next()
    log.append([b"never acknowledged"])
    with pytest.raises(LogFailedError, match="refused"):
        log.commit()
    calls = len(files.taken)
    for use in (log.commit, log.idle, log.checkpoint, lambda: log.append([b""])):
        with pytest.raises(LogFailedError):
            use()
    with pytest.raises(LogFailedError):
        next(log.read())
    with pytest.raises(LogFailedError):
        log.snapshot(Position(6), [b"state"])
    log.close()
    assert len(files.taken) == calls
    assert records_of(tmp_path)[:6] == written


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_a_name(tmp_path: Path, code: int) -> None:
    files = BreakingFiles(NEVER, OSError(code, "full"), ["resize"])
    log = Log.open(tmp_path, SMALL, files=files)
    files.break_next()
    with pytest.raises(LogFullError):
        fill(log, frames=100, size=300)
    log.close()
    acknowledged = log.last
    assert len(records_of(tmp_path)) == acknowledged


def test_a_spare_that_cannot_be_prepared_is_reported_and_met_again(tmp_path: Path) -> None:
    files = BreakingFiles(NEVER, OSError(errno.ENOSPC, "no room"), ["resize"], once=True)
    options = LogOptions(segment_bytes=16 << 10)
    with Log.open(tmp_path, options, files=files) as log:
        files.break_next()
        written = fill(log, frames=40, size=300)
        assert log.statistics().spare_failures == 1
        assert "no room" in log.statistics().spare_error
        assert [data for _, data in log.read()] == written


def test_a_spare_is_ready_before_it_is_needed(tmp_path: Path) -> None:
    with Log.open(tmp_path, LogOptions(segment_bytes=3 << 20)) as log:
        fill(log, frames=5, records=1, size=1 << 18)
        log._live._spare._wait()
        assert (tmp_path / "wal" / "next.pre").stat().st_size == 3 << 20


def test_short_writes_are_continued(tmp_path: Path) -> None:
    class ShortFiles(SteadyFiles):
        def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
            return super().write(handle, bytes(data[:997]), offset)

    with Log.open(tmp_path, SMALL, files=ShortFiles()) as log:
        written = fill(log, frames=30, size=300)
    assert records_of(tmp_path) == written


def test_a_codec_that_fails_ends_the_log(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=1)
    log.append([3])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        log.commit()
    with pytest.raises(LogFailedError):
        log.commit()
    log.close()
    assert records_of(tmp_path) == written


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    log.close()
    log.close()
    with pytest.raises(WalError, match="closed"):
        log.append([b""])


@pytest.mark.parametrize(
    "wrong", [{"segment_bytes": 0}, {"snapshots_kept": 0}, {"zstd_level": 99}, {"shard_id": -1}]
)
def test_options_out_of_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LogOptions(**wrong)


def test_compression_is_used_only_where_it_saves(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        log.append([b"\0" * 4000])
        log.commit()
        assert log.statistics().bytes < 300
        log.append([record(1, 1000)])
        log.commit()
        assert log.statistics().bytes < 300 + 1000 + 160
        assert [len(data) for _, data in log.read()] == [4000, 1008]
