"""Whoever looks at a log beside its writer never takes the writer's work for damage."""

import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.wal.disk import QUICK, SMALL, QuickFiles, fill, live_segment
from wal import Log, LogOptions, inspect, verify
from wal.backup import LogCopy
from wal.files import How, OsFiles

LARGE = LogOptions(segment_bytes=8 << 20, spare_in_background=False)


class BusyFiles(QuickFiles):
    """A disk on which another process writes the log whenever this one has read of `watched`."""

    def __init__(self, watched: Path, work) -> None:
        self._watched = watched
        self._work = work
        self._handles: set[int] = set()

    def open(self, path: Path, how: How) -> int:
        handle = super().open(path, how)
        if path == self._watched:
            self._handles.add(handle)
        return handle

    def close(self, handle: int) -> None:
        self._handles.discard(handle)
        super().close(handle)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        data = super().read(handle, size, offset)
        if handle in self._handles:
            self._work()
        return data


@pytest.fixture
def busy(tmp_path: Path):
    """A log with some frames, and a disk that adds three more after each read of the live one."""
    with Log.open(tmp_path / "log", LARGE, files=QUICK) as log:
        fill(log, 40)
        yield log, BusyFiles(live_segment(tmp_path / "log"), lambda: fill(log, 3))


def test_verify_raises_no_false_alarm(busy, tmp_path):
    log, files = busy
    before = log.last
    report = verify(tmp_path / "log", files=files)
    assert (report.ok, report.damages) == (True, ())
    assert before <= report.last_position <= log.last


def test_inspect_counts_what_was_there(busy, tmp_path):
    log, files = busy
    before = log.last
    assert before <= inspect(tmp_path / "log", files=files).last_position <= log.last


def test_a_copy_has_all_that_was_committed_before(busy, tmp_path):
    log, files = busy
    before = log.last
    copy = LogCopy(tmp_path / "log", tmp_path / "copy", files=files)
    copy.copy_files()
    report = copy.finish()
    assert before <= report.last_position <= log.last
    assert verify(tmp_path / "copy").last_position == report.last_position


def test_what_was_damaged_is_damage_beside_a_writer_too(busy, tmp_path):
    _, files = busy
    live = live_segment(tmp_path / "log")
    with live.open("r+b") as file:
        file.seek(4_096 + 80)
        byte = file.read(1)[0]
        file.seek(4_096 + 80)
        file.write(bytes([byte ^ 1]))
    report = verify(tmp_path / "log", files=files)
    assert [damage.offset for damage in report.damages] == [4_096]


@pytest.mark.slow
def test_no_false_alarm_in_many_looks_at_a_writer_that_never_rests(tmp_path):
    stopped = threading.Event()

    def write() -> None:
        with Log.open(tmp_path / "log", SMALL, files=QUICK) as log:
            fill(log, 5)
            begun.set()
            while not stopped.is_set():
                fill(log, 20)
                if log.last > 20_000:
                    log.snapshot(log.last, [b"state"])

    begun = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(60)
    try:
        for number in range(3):
            assert verify(tmp_path / "log").damages == ()
            inspect(tmp_path / "log")
            copy = LogCopy(tmp_path / "log", tmp_path / f"copy-{number}", files=QUICK)
            copy.copy_files()
            copy.finish()
            assert verify(tmp_path / f"copy-{number}").damages == ()
    finally:
        stopped.set()
        writer.join(60)


def test_a_file_that_is_gone_before_it_is_looked_at_is_not_there(tmp_path, monkeypatch):
    """So it is with `next.pre`: listed a moment before the writer gives it its name."""
    for name in ("one", "next.pre", "two"):
        (tmp_path / name).write_bytes(b"abc")
    scandir = os.scandir

    @contextmanager
    def scandir_then_rename(directory):
        with scandir(directory) as entries:
            listed = list(entries)
            (tmp_path / "next.pre").unlink()
            yield listed

    monkeypatch.setattr("wal.files.os.scandir", scandir_then_rename)
    assert OsFiles().scan(tmp_path) == {"one": 3, "two": 3}
