"""Packed segments: the same records, joined to the log as before, and one form whole always."""

import errno
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    record,
    sealed_segments,
)
from wal import CorruptLogError, Log, LogFailedError, LogReader, Position, inspect, verify
from wal.codec import LengthPrefixed
from wal.files import Files
from wal.format import MANIFEST_NAME, SEGMENTS
from wal.manifest import Manifest, SegmentEntry, decode_manifest, encode_manifest
from wal.pack import Packed, PackingError, pack, packed_name

RECORDS = 600


def manifest_of(directory: Path) -> Manifest:
    return decode_manifest((directory / MANIFEST_NAME).read_bytes())


def pack_all(log: Log[bytes], directory: Path, files: Files = QUICK) -> int:
    """Pack every sealed segment that gets smaller; return how many did."""
    count = 0
    for entry in log.sealed:
        if not entry.packed:
            packed = pack(files, directory, entry.name, LengthPrefixed)
            count += packed is not None and log.adopt(packed)
    return count


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log of two epochs, one record a frame: sealed segments, snapshots, watermarks."""
    directory = tmp_path_factory.mktemp("plain")
    with Log.open(directory, SMALL, files=QUICK) as log:
        for _ in range(10):
            fill(log, frames=30, records=1)
            log.snapshot(log.last, [b"state"])
            log.idle()
            log.idle()
    log = Log.open(directory, SMALL, files=QUICK)
    fill(log, frames=300, records=1)
    log.idle()
    log.abandon()
    Log.open(directory, SMALL, files=QUICK).close()
    return directory


@pytest.fixture
def log_of(plain: Path, tmp_path: Path) -> Path:
    return copied(plain, tmp_path / "log")


@pytest.fixture(scope="module")
def packed_log(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = copied(plain, tmp_path_factory.mktemp("packed") / "log")
    with Log.open(directory, SMALL, files=QUICK) as log:
        assert pack_all(log, directory) == len(log.sealed)
    return directory


EXPECTED = [record(position) for position in range(1, RECORDS + 1)]


def test_every_record_comes_back_and_takes_less_room(plain: Path, packed_log: Path) -> None:
    before, after = inspect(plain, QUICK), inspect(packed_log, QUICK)
    assert all(segment.packed for segment in after.segments)
    assert after.bytes < 0.75 * before.bytes
    assert (after.last_lsn, after.last_position) == (before.last_lsn, before.last_position)
    assert [data for _, data in LogReader(packed_log).read()] == EXPECTED
    report = verify(packed_log, files=QUICK)
    assert report.ok, report.damages
    assert report.strays == ()
    assert (report.frames, report.records) == (before.last_lsn, RECORDS)


@pytest.mark.parametrize("start", [1, 2, 57, 180, 181, 301, 599, 600, 601])
def test_reading_begins_at_any_position(packed_log: Path, start: int) -> None:
    reader = LogReader(packed_log)
    assert list(reader.read(Position(start))) == list(enumerate(EXPECTED[start - 1 :], start))


def test_the_log_goes_on_behind_packed_segments(packed_log: Path, tmp_path: Path) -> None:
    directory = copied(packed_log, tmp_path / "log")
    with Log.open(directory, SMALL, files=QUICK) as log:
        fill(log, frames=300, records=1)
        assert pack_all(log, directory) > 0
        assert [data for _, data in log.read()][:RECORDS] == EXPECTED
        assert log.last == 900
    assert verify(directory, files=QUICK).ok
    log = Log.open(directory, SMALL, files=QUICK)
    fill(log, frames=3)
    log.abandon()
    with Log.open(directory, SMALL, files=QUICK) as log:
        assert log.last == 909


def test_snapshots_in_packed_segments_are_still_judged_by_the_chain(
    packed_log: Path, tmp_path: Path
) -> None:
    directory = copied(packed_log, tmp_path / "log")
    manifest = manifest_of(directory)
    assert manifest.snapshots
    for snapshot in manifest.snapshots:
        (inside,) = (s for s in manifest.sealed if s.first_lsn <= snapshot.lsn <= s.last_lsn)
        assert inside.packed
    change(directory / manifest.snapshots[0].path, lambda data: data.__setitem__(48, data[48] ^ 1))
    (damage,) = verify(directory, files=QUICK).damages
    assert damage.segment == manifest.snapshots[0].path


def test_a_reader_that_stands_in_the_original_reads_on(log_of: Path) -> None:
    with Log.open(log_of, SMALL, files=QUICK) as log:
        before, beside = log.read(), LogReader(log_of).read()
        seen = [next(before)[1] for _ in range(5)]
        besides = [next(beside)[1] for _ in range(5)]
        pack_all(log, log_of)
        seen += [data for _, data in before]
        besides += [data for _, data in beside]
    assert seen == EXPECTED
    assert besides == EXPECTED


def test_a_segment_is_packed_once_and_only_as_it_is(log_of: Path) -> None:
    with Log.open(log_of, SMALL, files=QUICK) as log:
        name = log.sealed[0].name
        packed = pack(QUICK, log_of, name, LengthPrefixed)
        assert packed is not None
        assert log.adopt(packed)
        assert not log.adopt(packed)
        with pytest.raises(PackingError, match="no segment"):
            pack(QUICK, log_of, name, LengthPrefixed)
        with pytest.raises(PackingError, match="no segment"):
            pack(QUICK, log_of, packed_name(name), LengthPrefixed)


def test_a_packed_form_of_another_segment_is_not_adopted(log_of: Path) -> None:
    with Log.open(log_of, SMALL, files=QUICK) as log:
        packed = pack(QUICK, log_of, log.sealed[0].name, LengthPrefixed)
        assert packed is not None
        for field, wrong in {
            "after": bytes(32), "last_position": 7, "first_lsn": 3, "size": 5, "plain_bytes": 1,
        }.items():  # fmt: skip
            entry = msgspec.structs.replace(packed.entry, **{field: wrong})
            assert not log.adopt(Packed(entry=entry, temporary=packed.temporary))
            assert packed.temporary not in QUICK.scan(log_of / SEGMENTS)
            again = pack(QUICK, log_of, log.sealed[0].name, LengthPrefixed)
            assert again is not None
        assert [data for _, data in log.read()] == EXPECTED


def test_damage_in_the_original_is_found_and_nothing_is_left(log_of: Path) -> None:
    segment = sealed_segments(log_of)[0]
    flip(segment, 8 * (frame_starts(segment)[3] + 70))
    with pytest.raises(CorruptLogError) as caught:
        pack(QUICK, log_of, segment.name, LengthPrefixed)
    assert caught.value.offset == frame_starts(segment)[3]
    assert not list((log_of / SEGMENTS).glob("*.tmp"))


class Lying(LengthPrefixed):
    """A codec whose packed form loses something."""

    def packed(self) -> "Lossy":
        return Lossy()


class Lossy(LengthPrefixed):
    def decode(self, first: Position, count: int, payload: bytes) -> list[bytes]:
        records = super().decode(first, count, payload)
        return records if first > 1 else [*records[:-1], b"another"]


def test_what_does_not_come_back_as_it_was_is_not_kept(log_of: Path) -> None:
    with pytest.raises(PackingError, match="when it is packed"):
        pack(QUICK, log_of, sealed_segments(log_of)[0].name, Lying)
    assert not list((log_of / SEGMENTS).glob("*.tmp"))


class ForgetfulFiles(BreakingFiles):
    """A disk that gives back other bytes than it was given, once they are read past the cache."""

    def read(self, handle: int, size: int, offset: int) -> bytes:
        data = super().read(handle, size, offset)
        return data[:-1] + b"\1" if "sync" in self.taken and data else data


def test_what_the_disk_does_not_give_back_is_not_kept(log_of: Path) -> None:
    with pytest.raises(PackingError, match="gives back"):
        pack(ForgetfulFiles(NEVER), log_of, sealed_segments(log_of)[0].name, LengthPrefixed)
    assert not list((log_of / SEGMENTS).glob("*.tmp"))


def test_every_flipped_bit_of_a_packed_segment_is_noticed(packed_log: Path, tmp_path: Path) -> None:
    directory = copied(packed_log, tmp_path / "log")
    for path in sealed_segments(directory):
        for bit in range(0, 8 * path.stat().st_size, 4_099):
            flip(path, bit)
            (damage,) = verify(directory, files=QUICK).damages
            assert damage.segment == f"{SEGMENTS}/{path.name}"
            flip(path, bit)
    assert verify(directory, files=QUICK).ok


def test_the_manifest_tells_the_forms_apart(packed_log: Path, tmp_path: Path) -> None:
    for field in ("packed_chain", "after"):
        directory = copied(packed_log, tmp_path / "log")
        manifest = manifest_of(directory)
        last = msgspec.structs.replace(
            manifest.sealed[-1], **{field: b"" if field == "packed_chain" else bytes(32)}
        )
        wrong = msgspec.structs.replace(manifest, sealed=(*manifest.sealed[:-1], last))
        (directory / MANIFEST_NAME).write_bytes(encode_manifest(wrong))
        assert not verify(directory, files=QUICK).ok
        if field == "packed_chain":
            with pytest.raises(CorruptLogError, match="does not belong"):
                list(LogReader(directory).read(Position(RECORDS)))


def test_a_packed_file_is_no_live_segment(packed_log: Path, tmp_path: Path) -> None:
    directory = copied(packed_log, tmp_path / "log")
    manifest = manifest_of(directory)
    last = manifest.sealed[-1]
    live = SegmentEntry(**{name: getattr(last, name) for name in SegmentEntry.__struct_fields__})
    wrong = msgspec.structs.replace(manifest, sealed=manifest.sealed[:-1], live=live, snapshots=())
    (directory / MANIFEST_NAME).write_bytes(encode_manifest(wrong))
    with pytest.raises(CorruptLogError, match="does not belong"):
        Log.open(directory, SMALL, files=QUICK)
    assert not verify(directory, files=QUICK).ok


def packing(directory: Path, files: BreakingFiles) -> None:
    """Pack and adopt the first two segments, one after another, on a disk that may break."""
    log = Log.open(directory, SMALL, files=files)
    try:
        files.begin()
        for entry in log.sealed[:2]:
            packed = pack(files, directory, entry.name, LengthPrefixed)
            assert packed is not None
            assert log.adopt(packed)
    finally:
        files.die()


class LateFiles(BreakingFiles):
    """Counts calls only from `begin` on."""

    def begin(self) -> None:
        self.taken.clear()
        self._begun = True

    def _step(self, name: str) -> None:
        if getattr(self, "_begun", False):
            super()._step(name)


def calls_of_packing(plain: Path, scratch: Path) -> list[str]:
    counting = LateFiles(NEVER)
    packing(copied(plain, scratch), counting)
    return counting.taken


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "io"), OSError(errno.ENOSPC, "full")])
def test_packing_may_end_at_any_call(plain: Path, tmp_path: Path, error: OSError | None) -> None:
    calls = calls_of_packing(plain, tmp_path / "count")
    assert {"open", "read", "write", "sync", "rename", "unlink"} == set(calls)
    forms = set()
    for at in range(1, len(calls) + 1):
        directory = copied(plain, tmp_path / "log")
        files = LateFiles(at, error)
        with pytest.raises((Killed, OSError, LogFailedError)):
            packing(directory, files)
        before = verify(directory, files=QUICK)
        assert before.ok, (at, calls[at - 1], before.damages)
        with Log.open(directory, SMALL, files=QUICK) as log:
            assert [data for _, data in log.read()] == EXPECTED
            assert log.recovery.quarantined == ()
            forms.add(tuple(entry.packed for entry in log.sealed[:2]))
        after = verify(directory, files=QUICK)
        assert after.ok
        assert after.strays == ()
        assert after.quarantine == ()
    assert forms == {(False, False), (True, False), (True, True)}


def test_an_error_while_packing_leaves_the_log_at_work(log_of: Path) -> None:
    files = LateFiles(NEVER, OSError(errno.ENOSPC, "full"), once=True)
    with Log.open(log_of, SMALL, files=files) as log:
        files.begin()
        for call in ("write", "sync", "read"):
            files._calls = frozenset({call})
            files.break_next()
            with pytest.raises(OSError, match="full"):
                pack(files, log_of, log.sealed[0].name, LengthPrefixed)
        fill(log, frames=1)
        assert pack_all(log, log_of) > 0
    assert verify(log_of, files=QUICK).ok


def test_both_forms_are_kept_when_the_one_that_counts_is_damaged(log_of: Path) -> None:
    segment = sealed_segments(log_of)[0]
    original = segment.read_bytes()
    with Log.open(log_of, SMALL, files=QUICK) as log:
        pack_all(log, log_of)
    segment.write_bytes(original)  # as if the unlink had not been reached
    packed = sealed_segments(log_of)[0]
    flip(packed, 8 * 5_000)
    with pytest.raises(CorruptLogError, match="hash"):
        Log.open(log_of, SMALL, files=QUICK)
    assert segment.read_bytes() == original
    flip(packed, 8 * 5_000)
    Log.open(log_of, SMALL, files=QUICK).close()
    assert not segment.exists()


runs = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@settings(max_examples=15, deadline=None)
@given(runs=runs, size=st.integers(0, 200), snapshots=st.sets(st.integers(0, 59), max_size=5))
def test_any_history_comes_back(
    tmp_path_factory: pytest.TempPathFactory, runs: list[int], size: int, snapshots: set[int]
) -> None:
    directory = tmp_path_factory.mktemp("any")
    written = []
    with Log.open(directory, SMALL, files=QUICK) as log:
        for index, count in enumerate(runs):
            written += fill(log, frames=1, records=count, size=size)
            if index in snapshots:
                log.snapshot(log.last, [b"state"])
            if count % 3 == 0:
                log.idle()
    with Log.open(directory, SMALL, files=QUICK) as log:
        pack_all(log, directory)
        assert [data for _, data in log.read()] == written
    report = verify(directory, files=QUICK)
    assert report.ok, report.damages
