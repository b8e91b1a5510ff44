"""Snapshots that build on each other: what is left of them after damage, a cut, or a crash."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.wal.disk import NEVER, QUICK, BreakingFiles, Killed, QuickFiles, fill, flip, record
from wal import CorruptLogError, CutLogError, Log, LogFailedError, LogOptions, LogReader, verify
from wal.errors import WalError
from wal.files import Files, How
from wal.format import SnapshotKind
from wal.manifest import SnapshotEntry, read_manifest
from wal.snapshots.base import accept_base, weight, write_base
from wal.snapshots.lineage import kept, newest_lineage, whole

TINY = LogOptions(segment_bytes=8192, spare_in_background=False, snapshots_kept=2)


def spanning(first: int, last: int) -> bytes:
    """Return what a snapshot in these tests says: which records it stands for."""
    return b"%d-%d" % (first, last)


def merged(line: list[tuple[int, Iterator[bytes]]]) -> Iterator[bytes]:
    yield spanning(1, span_of(line))


def span_of(line: list[tuple[int, Iterator[bytes]]]) -> int:
    """Return the last record of a base and its increments, of which each continues the other."""
    end = 0
    for position, chunks in line:
        first, last = (int(number) for number in b"".join(chunks).split(b"-"))
        assert (first, last) == (end + 1, position)
        end = last
    return end


def keep(log: Log[bytes], *, base: bool = False) -> None:
    """Snapshot the log as it stands: what is new, or all of it."""
    newest = log.snapshots[-1].position if log.snapshots else 0
    log.begin_snapshot([spanning(1 if base else newest + 1, log.last)], increment=not base)
    assert log.settle_snapshot(wait=True)


def make_base(log: Log[bytes], directory: Path, files: Files, *, cut: bool = False) -> int:
    base = write_base(files, directory, log.epoch, merged)
    older = accept_base(files, directory, base)
    return log.adopt_base(base, older if cut else None)


def entries(directory: Path) -> tuple[SnapshotEntry, ...]:
    return read_manifest(QUICK, directory).snapshots


def path_of(directory: Path, kind: SnapshotKind, position: int) -> Path:
    (entry,) = [
        entry for entry in entries(directory) if (entry.kind, entry.position) == (kind, position)
    ]
    return directory / entry.path


@pytest.fixture
def two_bases(tmp_path: Path) -> Path:
    """A log with a base at 3, increments at 6, 9 and 12, a base of those at 12, one more at 15."""
    with Log.open(tmp_path, TINY, files=QUICK) as log:
        fill(log, frames=1)
        keep(log, base=True)
        for _ in range(3):
            fill(log, frames=1)
            keep(log)
        make_base(log, tmp_path, QUICK)
        fill(log, frames=1)
        keep(log)
        fill(log, frames=1)
    return tmp_path


BASE, INCREMENT = SnapshotKind.BASE, SnapshotKind.INCREMENT


@pytest.mark.parametrize(
    ("damaged", "chain"),
    [
        ([], [12, 15]),
        ([(INCREMENT, 15)], [12]),
        ([(BASE, 12)], [3, 6, 9, 12, 15]),
        ([(BASE, 12), (INCREMENT, 15)], [3, 6, 9, 12]),
        ([(BASE, 12), (INCREMENT, 9)], [3, 6]),
        ([(BASE, 12), (BASE, 3)], []),
        ([(BASE, 3), (INCREMENT, 6)], [12, 15]),
        ([(INCREMENT, 15), (BASE, 12), (INCREMENT, 6)], [3]),
    ],
    ids=str,
)
def test_what_is_left_of_the_snapshots_is_used(
    two_bases: Path, damaged: list[tuple[SnapshotKind, int]], chain: list[int]
) -> None:
    for kind, position in damaged:
        flip(path_of(two_bases, kind, position), 1_000)
    reader: LogReader[bytes] = LogReader(two_bases)
    assert [position for position, _ in reader.checkpoint()] == chain
    with Log.open(two_bases, TINY, files=QUICK) as log:
        line = log.checkpoint()
        assert [position for position, _ in line] == chain
        assert log.recovery.snapshot_position == (chain[-1] if chain else None)
        assert span_of(line) == (chain[-1] if chain else 0)  # type: ignore[arg-type]
        assert [data for _, data in log.read()] == [record(number) for number in range(1, 19)]
        fill(log, frames=1)
        keep(log, base=not chain)
        assert span_of(log.checkpoint()) == 21  # type: ignore[arg-type]
    left = {(one.kind, one.position) for one in entries(two_bases)}
    unseen = not chain or chain[-1] < 15 or damaged == [(BASE, 3), (INCREMENT, 6)]
    assert unseen or not left & set(damaged)


@pytest.mark.parametrize(
    ("until", "chain"), [(2, []), (3, [3]), (8, [3, 6]), (14, [12]), (15, [12, 15]), (99, [12, 15])]
)
def test_a_reader_finds_the_snapshots_below_a_position(
    two_bases: Path, until: int, chain: list[int]
) -> None:
    line = LogReader(two_bases).checkpoint(until)  # type: ignore[arg-type, var-annotated]
    assert [position for position, _ in line] == chain


def test_verify_names_an_increment_that_builds_on_nothing(two_bases: Path) -> None:
    assert verify(two_bases).ok
    with Log.open(two_bases, TINY, files=QUICK) as log:
        live = log._live
        left = tuple(one for one in live.manifest.snapshots if one.position not in (3, 6))
        live._keep(msgspec.structs.replace(live.manifest, snapshots=left))
    (damage,) = verify(two_bases).damages
    assert damage.reason.startswith("builds on a snapshot of frame")
    assert damage.segment.endswith(".inc")


def entry(kind: SnapshotKind, lsn: int, base_lsn: int = 0) -> SnapshotEntry:
    return SnapshotEntry(
        name=f"{lsn}-{kind}", lsn=lsn, position=lsn, size=10, sha256=b"", kind=kind,
        base_lsn=base_lsn,
    )  # fmt: skip


ROW = (
    entry(BASE, 1), entry(INCREMENT, 2, 1), entry(INCREMENT, 3, 2), entry(BASE, 3),
    entry(INCREMENT, 4, 3), entry(BASE, 4), entry(INCREMENT, 5, 4),
)  # fmt: skip


def names(row: tuple[SnapshotEntry, ...]) -> list[str]:
    return [one.name for one in row]


def test_bases_are_counted_and_increments_go_with_them() -> None:
    assert names(kept(ROW, 3)) == names(ROW)
    assert names(kept(ROW, 2)) == ["3-0", "4-1", "4-0", "5-1"]
    assert names(kept(ROW[::-1], 1)) == ["4-0", "5-1"]


def test_no_file_is_verified_twice_and_none_that_is_not_needed() -> None:
    seen: list[str] = []

    def fault_of(one: SnapshotEntry) -> str:
        seen.append(one.name)
        return "bad" if one.lsn == 4 or one.name == "2-1" else ""

    found = newest_lineage(ROW, fault_of)
    assert names(found.entries) == ["3-0"]
    assert seen == ["5-1", "4-0", "4-1", "3-0"]
    assert {one.name for one, _ in found.refused} == {"5-1", "4-0", "4-1"}


def test_what_leads_nowhere_is_told_apart() -> None:
    assert names(whole(ROW)) == names(ROW)
    assert names(whole(ROW[1:])) == ["3-0", "4-1", "4-0", "5-1"]


def test_weight_counts_from_the_newest_base() -> None:
    assert weight(()) == (0, 0, 0)
    assert weight(ROW) == (10, 1, 10)
    assert weight(ROW[:3]) == (10, 2, 20)


# Making a base ------------------------------------------------------------------------------------


def test_no_base_is_made_of_damaged_or_missing_increments(two_bases: Path) -> None:
    with Log.open(two_bases, TINY, files=QUICK) as log:
        make_base(log, two_bases, QUICK)
        with pytest.raises(WalError, match="no increments"):
            write_base(QUICK, two_bases, log.epoch, merged)
        fill(log, frames=1)
        keep(log)
        with pytest.raises(WalError, match="for epoch 1"):
            write_base(QUICK, two_bases, 1, merged)
        flip(path_of(two_bases, INCREMENT, 21), 999)
        with pytest.raises(CorruptLogError, match="hash"):
            write_base(QUICK, two_bases, log.epoch, merged)
        assert not list((two_bases / "snap").glob("*.tmp"))


def test_a_base_that_reads_back_otherwise_is_not_named(two_bases: Path) -> None:
    with Log.open(two_bases, TINY, files=QUICK) as log:
        base = write_base(QUICK, two_bases, log.epoch, merged)
        flip(two_bases / "snap" / (base.name + ".tmp"), 700)
        with pytest.raises(LogFailedError, match="other bytes"):
            accept_base(QUICK, two_bases, base)


def test_a_base_is_given_back_as_the_one_to_cut_below_only_if_it_is_sound(two_bases: Path) -> None:
    with Log.open(two_bases, TINY, files=QUICK) as log:
        base = write_base(QUICK, two_bases, log.epoch, merged)
        flip(path_of(two_bases, BASE, 12), 999)
        assert accept_base(QUICK, two_bases, base) is None
        assert log.adopt_base(base, None) == 0


# Cutting ------------------------------------------------------------------------------------------


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A log of several segments that was cut below the older of its two bases."""
    with Log.open(tmp_path, TINY, files=QUICK) as log:
        for step in range(3):
            fill(log, frames=10, size=400)
            keep(log, base=not step)
            if step:
                assert make_base(log, tmp_path, QUICK, cut=True) > 0
        fill(log, frames=10)
    return tmp_path


def first_kept(directory: Path) -> int:
    return read_manifest(QUICK, directory).sealed[0].first_position


def test_a_log_is_cut_below_the_second_newest_base_and_stays_sound(cut: Path) -> None:
    first = first_kept(cut)
    older, newer = [one for one in entries(cut) if one.kind == BASE]
    assert 30 < first <= older.position + 1 < newer.position
    assert verify(cut).ok
    with Log.open(cut, TINY, files=QUICK) as log:
        assert next(log.read(first))[1][:8] == b"%08d" % first  # type: ignore[arg-type]
        for refused in (lambda: next(log.read()), lambda: next(LogReader(cut).read())):
            with pytest.raises(CutLogError, match=f"begins at position {first}"):
                refused()
        assert span_of(log.checkpoint()) == 90  # type: ignore[arg-type]
    flip(path_of(cut, BASE, newer.position), 999)
    with Log.open(cut, TINY, files=QUICK) as log:
        assert log.recovery.snapshot_position == newer.position  # by the increment upon the older
    flip(path_of(cut, BASE, older.position), 999)
    with pytest.raises(CorruptLogError, match="no snapshot verifies"):
        Log.open(cut, TINY, files=QUICK)


def test_the_last_sealed_segment_is_never_cut(tmp_path: Path) -> None:
    for turn in range(4):
        with Log.open(tmp_path, TINY, files=QUICK) as log:
            if turn:
                fill(log, frames=1)
                keep(log)
                make_base(log, tmp_path, QUICK, cut=True)
            else:
                fill(log, frames=1)
                keep(log, base=True)
    with Log.open(tmp_path, TINY, files=QUICK) as log:
        assert log.last == 12
        assert 1 < log.sealed[0].first_position <= 10
    assert verify(tmp_path).ok


@pytest.mark.parametrize("part", ["wal", "snap"])
def test_what_a_cut_left_lying_is_removed_without_alarm(tmp_path: Path, part: str) -> None:
    class Forgetful(QuickFiles):
        forget = False

        def unlink(self, path: Path) -> None:
            if not self.forget or path.parent.name != part:
                super().unlink(path)

    files = Forgetful()
    with Log.open(tmp_path, TINY, files=files) as log:
        for step in range(4):
            fill(log, frames=10, size=400)
            keep(log, base=not step)
            files.forget = step > 1
            if step:
                make_base(log, tmp_path, files, cut=True)
            files.forget = False
    named = {one.name for one in (*entries(tmp_path), *read_manifest(QUICK, tmp_path).sealed)}
    strays = {path.name for path in (tmp_path / part).iterdir()} - named
    assert strays
    with Log.open(tmp_path, TINY, files=QUICK) as log:
        assert {Path(name).name for name in log.recovery.removed} == strays
        assert log.recovery.quarantined == ()


def test_a_log_whose_first_segment_is_gone_from_the_manifest_is_corrupt(cut: Path) -> None:
    with Log.open(cut, TINY, files=QUICK) as log:
        live = log._live
        live._keep(msgspec.structs.replace(live.manifest, retained_lsn=1))
    with pytest.raises(CorruptLogError, match="the log begins at"):
        Log.open(cut, TINY, files=QUICK)


# Beside the log -----------------------------------------------------------------------------------

BESIDE = LogOptions(segment_bytes=8192)


class GatedFiles(QuickFiles):
    """A disk that takes its time with snapshots, until it is let go."""

    def __init__(self, error: OSError | None = None) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.error = error

    def open(self, path: Path, how: How) -> int:
        if how is How.CREATE and path.parent.name == "snap":
            self.reached.set()
            assert self.go_on.wait(60)
            if self.error is not None:
                raise self.error
        return super().open(path, how)


def test_commits_go_on_while_a_snapshot_is_written(tmp_path: Path) -> None:
    files = GatedFiles()
    with Log.open(tmp_path, BESIDE, files=files) as log:
        fill(log, frames=1)
        log.begin_snapshot([b"state"])
        assert files.reached.wait(60)
        assert not log.settle_snapshot()
        with pytest.raises(WalError, match="under way"):
            log.begin_snapshot([b"another"])
        written = fill(log, frames=200)
        assert log.last == 603
        assert log.snapshots == ()
        files.go_on.set()
        assert log.settle_snapshot(wait=True)
        ((position, chunks),) = log.checkpoint()
        assert (position, list(chunks)) == (3, [b"state"])
    with Log.open(tmp_path, BESIDE, files=QUICK) as log:
        assert log.recovery.snapshot_position == 3
        assert len(list(log.read())) == 3 + len(written)


def test_what_a_snapshot_meets_beside_the_log_ends_it(tmp_path: Path) -> None:
    files = GatedFiles(OSError(errno.EIO, "refused"))
    log = Log.open(tmp_path, BESIDE, files=files)
    fill(log, frames=1)
    log.begin_snapshot([b"state"])
    fill(log, frames=1)
    files.go_on.set()
    with pytest.raises(LogFailedError):
        log.settle_snapshot(wait=True)
    with pytest.raises(LogFailedError):
        log.append([b"more"])
    log.close()
    with Log.open(tmp_path, BESIDE, files=QUICK) as log:
        assert (log.last, log.checkpoint()) == (6, [])


def test_a_close_waits_for_the_snapshot_under_way(tmp_path: Path) -> None:
    files = GatedFiles()
    log = Log.open(tmp_path, BESIDE, files=files)
    fill(log, frames=1)
    log.begin_snapshot([b"state"])
    threading.Timer(0.05, files.go_on.set).start()
    log.close()
    with Log.open(tmp_path, BESIDE, files=QUICK) as log:
        assert log.recovery.snapshot_position == 3


def test_an_increment_needs_something_to_build_on(tmp_path: Path) -> None:
    with Log.open(tmp_path, TINY, files=QUICK) as log:
        with pytest.raises(WalError, match="to build on"):
            log.begin_snapshot([b"x"], increment=True)
        fill(log, frames=1)
        keep(log, base=True)


# A crash at any call ------------------------------------------------------------------------------


def life(log: Log[bytes], directory: Path, files: Files, told: Callable[[int], None]) -> None:
    """Increments, bases, cuts and rotations; `told` hears of each position acknowledged."""
    for step in range(5):
        for _ in range(4):
            fill(log, frames=1, size=500)
            told(log.last)
        keep(log, base=not log.snapshots)
        if step in (1, 3):
            make_base(log, directory, files, cut=True)


def judge(directory: Path, acknowledged: int) -> None:
    """What was acknowledged is there, from the snapshots or from the log behind them."""
    with Log.open(directory, TINY, files=QUICK) as log:
        assert log.last >= acknowledged
        line = log.checkpoint()
        end = span_of(line)  # type: ignore[arg-type]
        assert log.recovery.snapshots_refused == ()
        assert log.recovery.quarantined == () or log.recovery.cut_bytes
        numbers = [int(data[:8]) for _, data in log.read(end + 1)]  # type: ignore[arg-type]
        assert numbers == list(range(end + 1, log.last + 1))
        fill(log, frames=1, size=500)
        keep(log, base=not line)
    report = verify(directory)
    assert report.ok, report.damages


def crash_at(directory: Path, call: int) -> bool:
    """Live until call number `call`, then see what is left; whether it came to that call."""
    files = BreakingFiles(call)
    acknowledged = [0]
    log = None
    try:
        log = Log.open(directory, TINY, files=files)
        life(log, directory, files, acknowledged.append)
        log.close()
    except Killed:
        pass
    broke = files.broke
    files.die()
    judge(directory, acknowledged[-1])
    return broke


def test_no_file_goes_before_the_manifest_has_let_go_of_it(tmp_path: Path) -> None:
    gone = 0
    while True:
        directory, files = tmp_path / str(gone), BreakingFiles(NEVER, calls=["unlink"])
        log = Log.open(directory, TINY, files=files)
        for step in range(2):
            fill(log, frames=10, size=400)
            keep(log, base=not step)
        base = write_base(files, directory, log.epoch, merged)
        older = accept_base(files, directory, base)
        files.break_after(gone)
        try:
            log.adopt_base(base, older)
        except Killed:
            files.die()
        else:
            log.close()
            break
        judge(directory, 60)
        gone += 1
    assert gone > 3


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 41])
def test_a_crash_at_any_call_of_increments_bases_and_cuts_loses_nothing(
    tmp_path: Path, step: int
) -> None:
    call = 11
    while crash_at(tmp_path / str(call), call):
        call += step
    assert call > 400
    assert first_kept(tmp_path / str(call)) > 1
