"""The second opinion: it judges alone, tells how far it is, and is not disturbed by a writer."""

import ast
import threading
from pathlib import Path

import pytest

import wal.verifier.verification
from tests.wal.disk import QUICK, SMALL, QuickFiles, fill, flip, live_segment, sealed_segments
from wal import Log, verify
from wal.format import SEGMENTS

PARTS = sorted(Path(str(wal.verifier.verification.__file__)).parent.glob("*.py"))
ALLOWED = {"wal.codec", "wal.errors", "wal.files", "wal.format"} | {
    f"wal.verifier.{part.stem}" for part in PARTS
}


def test_it_shares_nothing_with_the_writer_but_the_format() -> None:
    assert len(PARTS) > 3
    for part in PARTS:
        tree = ast.parse(part.read_text())
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name for name in names if name and name.startswith("wal")} <= ALLOWED


def test_it_counts_what_there_is_and_tells_its_progress(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=50, size=300)
        log.snapshot(log.last, [b"state"])
    told: list[tuple[int, int]] = []
    report = verify(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert (report.records, report.last_position) == (150, 150)
    assert report.frames == report.last_lsn
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == report.bytes


def test_each_damaged_file_is_named_once(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=60, size=300)
    paths = sealed_segments(tmp_path)[:2]
    for path in paths:
        flip(path, 5000 * 8)
        flip(path, 6000 * 8)
    assert [tmp_path / damage.segment for damage in verify(tmp_path).damages] == paths


class Suspicious:
    """A codec that knows which records there can be."""

    def encode(self, first: int, records: object) -> bytes:
        raise NotImplementedError

    def decode(self, first: int, count: int, payload: bytes) -> list[bytes]:
        raise ValueError("not mine")


def test_a_payload_the_codec_refuses_is_damage(tmp_path: Path) -> None:
    with Log.open(tmp_path, SMALL) as log:
        fill(log, frames=1)
    (damage,) = verify(tmp_path, codec=Suspicious).damages
    assert (damage.offset, "not mine" in damage.reason) == (4096, True)


def test_a_writer_at_work_is_not_taken_for_damage(tmp_path: Path) -> None:
    log = Log.open(tmp_path, SMALL)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            fill(log, frames=3, size=200)
            log.snapshot(log.last, [b"state"])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(15):
            assert verify(tmp_path).damages == ()
    finally:
        done.set()
        thread.join()
    log.close()
    assert verify(tmp_path).last_position == log.last


class BusyWriter(QuickFiles):
    """The disk under a writer that begins new segments whenever somebody lists them."""

    def __init__(self, log: Log[bytes]) -> None:
        self._log = log

    def scan(self, directory: Path) -> dict[str, int]:
        if directory.name == SEGMENTS:
            fill(self._log, frames=80, size=300)
        return super().scan(directory)


def test_segments_that_a_writer_begins_meanwhile_are_not_newer_than_their_log(
    tmp_path: Path,
) -> None:
    with Log.open(tmp_path, SMALL, files=QUICK) as log:
        fill(log, frames=1)
        assert verify(tmp_path, files=BusyWriter(log)).damages == ()
        assert log.statistics().rotations > 1


@pytest.mark.parametrize("proven", [True, False])
def test_a_torn_tail_is_no_damage_but_rot_is(tmp_path: Path, proven: bool) -> None:
    log = Log.open(tmp_path, SMALL)
    fill(log, frames=2)
    end = log._live._writer.offset
    if proven:
        log.idle()
    log.abandon()
    flip(live_segment(tmp_path), (end - 60) * 8)
    report = verify(tmp_path)
    assert report.ok is not proven
    assert (report.torn_bytes > 0) is not proven
    assert report.last_position == 3
