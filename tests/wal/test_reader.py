"""A reader beside the writer sees what is proven durable, all of it, and nothing else."""

import threading
from pathlib import Path

import pytest

from tests.wal.disk import (
    SMALL,
    fill,
    flip,
    frame_starts,
    live_segment,
    records_of,
    sealed_segments,
)
from wal import CorruptLogError, Log, LogReader, Position, WalError
from wal.frame import FrameEncoder


def seen(reader: LogReader[bytes], start: int = 1) -> list[bytes]:
    return [data for _, data in reader.read(Position(start))]


def test_the_newest_frame_is_shown_once_a_later_one_proves_it(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    reader = LogReader(tmp_path)
    assert seen(reader) == []
    written = fill(log, frames=1)
    assert seen(reader) == []
    written += fill(log, frames=1)
    assert seen(reader) == written[:3]
    log.idle()
    assert seen(reader) == written
    assert list(reader.read(Position(5))) == [(5, written[4]), (6, written[5])]
    assert seen(reader, 7) == []
    log.close()
    assert seen(reader) == written


def test_a_foreign_frame_is_no_proof(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=2)
    end = log._live._writer.offset
    log.abandon()
    foreign = FrameEncoder(1, 2, 9, bytes(32), 1).encode(b"x", 1, 0, 1).data
    with live_segment(tmp_path).open("r+b") as live:
        live.seek(end)
        live.write(foreign)
    assert seen(LogReader(tmp_path)) == written[:3]


def test_a_torn_tail_is_never_shown(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=2)
    log.abandon()
    live = live_segment(tmp_path)
    for bit in range(frame_starts(live)[1] * 8, frame_starts(live)[2] * 8, 31):
        flip(live, bit)
        assert seen(LogReader(tmp_path)) in ([], written[:3])
        flip(live, bit)


def test_a_cursor_goes_through_rotations_crashes_and_empty_lives(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    reader = LogReader(tmp_path, poll_s=0.001)
    got: list[bytes] = []
    follower = reader.follow()
    written: list[bytes] = []
    for end in ("", "abandon", "abandon", "close", "close", ""):
        if end:
            log.close() if end == "close" else log.abandon()
            log = Log.open(tmp_path, SMALL)
            # A life without a frame leaves a segment behind that the next one replaces.
            log.abandon()
            log = Log.open(tmp_path, SMALL)
        written += fill(log, frames=30, size=250)
        log.idle()
        got += [next(follower)[1] for _ in range(len(written) - len(got))]
        assert got == written
    follower.close()
    log.close()
    assert records_of(tmp_path) == written


def test_a_reader_standing_in_an_empty_segment_moves_on_with_the_log(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    follower = LogReader(tmp_path, poll_s=0.001).follow()
    got: list[tuple[int, bytes]] = []
    waiting = threading.Thread(target=lambda: got.append(next(follower)))
    waiting.start()
    for _ in range(3):
        log.abandon()
        log = Log.open(tmp_path, SMALL)
    written = fill(log, frames=1)
    log.idle()
    waiting.join(10)
    assert got == [(1, written[0])]
    follower.close()
    log.close()


def test_a_writer_at_full_speed_never_shows_a_half_frame(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    reader = LogReader(tmp_path, poll_s=0)
    got: list[bytes] = []
    last = 3 * 250

    def follow() -> None:
        for position, data in reader.follow():
            got.append(data)
            if position == last:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    written = fill(log, frames=250, size=100)
    log.idle()
    thread.join(30)
    assert got == written
    log.close()


def test_follow_ends_when_the_reader_is_closed(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=1)
        log.idle()
        reader = LogReader(tmp_path)
        follower = reader.follow()
        assert next(follower)[0] == 1
        reader.close()
        assert len(list(follower)) == 2


def test_damage_is_told_not_skipped(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=60, size=300)
        for path in (sealed_segments(tmp_path)[0], live_segment(tmp_path)):
            bit = (frame_starts(path)[1] + 70) * 8
            flip(path, bit)
            with pytest.raises(CorruptLogError) as caught:
                seen(LogReader(tmp_path))
            assert (tmp_path / caught.value.segment, caught.value.offset) == (
                path, frame_starts(path)[1],
            )  # fmt: skip
            flip(path, bit)


def test_there_must_be_a_log(tmp_path: Path) -> None:
    with pytest.raises(WalError, match="no log"):
        next(LogReader(tmp_path).read())
    with pytest.raises(ValueError, match="begin at 1"):
        next(LogReader(tmp_path).read(Position(0)))
