"""Packed segments: the same records, joined to the log as before, and one form whole always."""

import errno
from hashlib import sha256
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.wal.disk import (
    NEVER,
    QUICK,
    SMALL,
    BreakingFiles,
    Killed,
    copied,
    fill,
    flip,
    frame_starts,
    record,
    sealed_segments,
)
from tests.wal.test_order import MANIFEST, Watched
from wal import CorruptLogError, Log, LogFailedError, LogReader, Position, inspect, verify
from wal.codec import LengthPrefixed
from wal.files import Files
from wal.format import CHAIN_BYTES, CRC, MANIFEST_NAME, SEGMENTS, SNAPSHOT_HEADER, Flag
from wal.frame import BadFrame, FrameEncoder, genesis
from wal.manifest import Manifest, SegmentEntry, decode_manifest, encode_manifest
from wal.pack import Packed, PackingError, pack, packed_name
from wal.segment import Link, SegmentHeader, SegmentScan, Source, encode_segment_header
from wal.verifier.segment import Broken, Expected, SegmentJudge

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
    for index in range(len(manifest_of(packed_log).snapshots)):
        directory = copied(packed_log, tmp_path / "log")
        manifest = manifest_of(directory)
        snapshot = manifest.snapshots[index]
        (inside,) = (s for s in manifest.sealed if s.first_lsn <= snapshot.lsn <= s.last_lsn)
        assert inside.packed
        forged = with_another_chain((directory / snapshot.path).read_bytes())
        (directory / snapshot.path).write_bytes(forged)
        entry = replace(snapshot, sha256=sha256(forged).digest())
        snapshots = (*manifest.snapshots[:index], entry, *manifest.snapshots[index + 1 :])
        write_manifest_of(directory, replace(manifest, snapshots=snapshots))
        (damage,) = verify(directory, files=QUICK).damages
        assert (damage.segment, damage.reason) == (
            snapshot.path, "the snapshot stands for another history",
        )  # fmt: skip


def with_another_chain(data: bytes) -> bytes:
    """Return a snapshot that says it continues another log, all its checksums right."""
    *head, chain, size, root = SNAPSHOT_HEADER.unpack_from(data)
    fixed = SNAPSHOT_HEADER.pack(*head, chain[::-1], size, root)
    fixed += CRC.pack(google_crc32c.value(fixed))
    body = fixed + data[len(fixed) : -CHAIN_BYTES]
    return body + sha256(body).digest()


def write_manifest_of(directory: Path, manifest: Manifest) -> None:
    (directory / MANIFEST_NAME).write_bytes(encode_manifest(manifest))


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
            entry = replace(packed.entry, **{field: wrong})
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


def test_it_stops_when_it_is_told_to(log_of: Path) -> None:
    def stop() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        pack(QUICK, log_of, sealed_segments(log_of)[0].name, LengthPrefixed, stop)
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


@pytest.mark.slow
def test_every_flipped_bit_of_a_packed_segment_is_noticed(packed_log: Path, tmp_path: Path) -> None:
    directory = copied(packed_log, tmp_path / "log")
    for path in sealed_segments(directory):
        for bit in range(0, 8 * path.stat().st_size, 4_099):
            flip(path, bit)
            (damage,) = verify(directory, files=QUICK).damages
            assert damage.segment == f"{SEGMENTS}/{path.name}"
            flip(path, bit)
    assert verify(directory, files=QUICK).ok


@pytest.mark.parametrize(
    ("field", "value"), [("packed_chain", b""), ("packed_chain", bytes(32)), ("after", bytes(32))]
)
def test_the_manifest_tells_the_forms_apart(
    packed_log: Path, tmp_path: Path, field: str, value: bytes
) -> None:
    directory = copied(packed_log, tmp_path / "log")
    manifest = manifest_of(directory)
    last = replace(manifest.sealed[-1], **{field: value})
    write_manifest_of(directory, replace(manifest, sealed=(*manifest.sealed[:-1], last)))
    assert not verify(directory, files=QUICK).ok
    if not value:
        with pytest.raises(CorruptLogError, match="does not belong"):
            list(LogReader(directory).read(Position(RECORDS)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_frame_of_the_other_form_is_refused(tmp_path: Path, packed: bool) -> None:
    chain = genesis(0)
    link = Link("segment", 0, 1, 1, 1, 1, chain, packed)
    header = SegmentHeader(
        shard_id=0, epoch=1, number=1, first_lsn=1, first_position=1, created_ns=0,
        segment_id=bytes(16), chain=chain, packed=packed,
    )  # fmt: skip
    raw = (chain if packed else b"") + LengthPrefixed().encode(Position(1), [b"record"])
    flags = Flag.EPOCH_START | (0 if packed else Flag.PACKED)
    frame = FrameEncoder(1, 1, 1, chain, 1).encode(raw, 1, flags, 0)
    data = encode_segment_header(header) + frame.data
    (tmp_path / "segment").write_bytes(data)
    source = Source(QUICK, tmp_path / "segment")
    with pytest.raises(BadFrame, match="the reverse"):
        SegmentScan(source, link).next()
    source.close()
    expected = Expected(0, 1, 1, 1, 1, chain, packed)
    judge = SegmentJudge(lambda at, size: data[at : at + size], expected, LengthPrefixed(), True)
    judge.header()
    with pytest.raises(Broken, match="the reverse"):
        judge.frame()


def test_a_packed_form_is_named_when_it_is_durable_and_the_original_goes_after(
    tmp_path: Path,
) -> None:
    files = Watched()
    with Log.open(tmp_path / "log", SMALL, files=files) as log:
        fill(log, frames=200, records=1)
        files.done.clear()
        packed = pack(files, tmp_path / "log", log.sealed[0].name, LengthPrefixed)
        assert files.done == ["write 1.pack", "sync 1.pack"]
        assert packed is not None
        files.done.clear()
        assert log.adopt(packed)
        assert files.done == ["rename 1.pack", "sync wal", *MANIFEST, "unlink 1.wal"]


def test_a_packed_file_is_no_live_segment(packed_log: Path, tmp_path: Path) -> None:
    directory = copied(packed_log, tmp_path / "log")
    manifest = manifest_of(directory)
    last = manifest.sealed[-1]
    live = SegmentEntry(**{name: getattr(last, name) for name in SegmentEntry.__struct_fields__})
    wrong = replace(manifest, sealed=manifest.sealed[:-1], live=live, snapshots=())
    write_manifest_of(directory, wrong)
    with pytest.raises(CorruptLogError, match="does not belong"):
        Log.open(directory, SMALL, files=QUICK)
    assert not verify(directory, files=QUICK).ok


def packing(directory: Path, files: BreakingFiles) -> None:
    """Pack and adopt the first segment on a disk that may break."""
    log = Log.open(directory, SMALL, files=files)
    try:
        files.begin()
        packed = pack(files, directory, log.sealed[0].name, LengthPrefixed)
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
@pytest.mark.parametrize(
    ("error", "every"),
    [(None, 1), (OSError(errno.EIO, "io"), 2), (OSError(errno.ENOSPC, "full"), 3)],
)
def test_packing_may_end_at_any_call(
    plain: Path, tmp_path: Path, error: OSError | None, every: int
) -> None:
    calls = calls_of_packing(plain, tmp_path / "count")
    assert {"open", "read", "write", "sync", "rename", "unlink"} == set(calls)
    forms = set()
    for at in range(len(calls), 0, -every):
        directory = copied(plain, tmp_path / "log")
        files = LateFiles(at, error)
        with pytest.raises((Killed, OSError, LogFailedError)):
            packing(directory, files)
        before = verify(directory, files=QUICK)
        assert before.ok, (at, calls[at - 1], before.damages)
        with Log.open(directory, SMALL, files=QUICK) as log:
            assert [data for _, data in log.read()] == EXPECTED
            assert log.recovery.quarantined == ()
            forms.add(log.sealed[0].packed)
        after = verify(directory, files=QUICK)
        assert after.ok
        assert after.strays == ()
        assert after.quarantine == ()
    assert forms == {False, True}


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


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
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
