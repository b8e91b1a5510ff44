"""Bring a damaged log back to one that a start accepts, keeping as much as can be proven.

The one rule: nothing is cut in place. What the new MANIFEST does not name goes to quarantine whole,
and no earlier than that MANIFEST is on the disk. So every step can be broken off and begun again.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from wal.codec import Position
from wal.errors import CorruptLogError, WalError
from wal.files import Files, How, OsFiles
from wal.format import MANIFEST_NAME, SEGMENTS, SNAPSHOTS, SPARE_NAME, TEMPORARY
from wal.lock import take_lock
from wal.manifest import (
    Manifest,
    SealedSegment,
    SegmentEntry,
    SnapshotEntry,
    read_manifest,
    write_manifest,
)
from wal.quarantine import Quarantine
from wal.recovery import prepare_directories
from wal.repairs.choosing import Choice, choose, usable
from wal.repairs.mending import kept_entry, write_bridge
from wal.repairs.pieces import Fault, MakeCodec, Piece, examine, frames_of
from wal.repairs.rebuild import rebuilt_manifest
from wal.repairs.salvage import Salvaged, salvage
from wal.replay import Place
from wal.snapshots.lineage import newest_lineage
from wal.snapshots.snapshot import read_snapshot, verify_snapshot
from wal.survey import newest_frame_of

Progress = Callable[[int, int], None]


class RepairPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a log and what can be kept of it.

    Attributes:
        faults: everything that is wrong, in the order of the log.
        warnings: what nobody can know any more, in words.
        fetched: files of copies that take the place of damaged ones.
        choice: what is kept and what is not.
        base: the checkpoint, base first, that the newest state is built from.
        was_lsn: the newest frame that the log is known to have had.
        torn_bytes: an interrupted write at the end, which is no fault; a start cuts it by itself.
        quarantined: files that will be put aside.
    """

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    fetched: tuple[str, ...]
    choice: Choice
    base: tuple[SnapshotEntry, ...]
    was_lsn: int
    torn_bytes: int
    quarantined: tuple[str, ...]

    @property
    def is_needed(self) -> bool:
        """Whether anything is wrong, or the MANIFEST is a new one."""
        return bool(self.faults or self.warnings)


class Repair:
    """Holds a log alone while it is looked at and repaired. Use it in a `with` block."""

    def __init__(
        self,
        directory: Path,
        make_codec: MakeCodec,
        copies: Sequence[Path] = (),
        *,
        rebuild: bool = False,
        files: Files | None = None,
    ) -> None:
        """Name the log and what takes its records.

        Args:
            directory: The log.
            make_codec: What takes its records.
            copies: Directories of copies, to fetch segments from that are damaged here.
            rebuild: Make a new MANIFEST from the segments, because there is none to be used.
            files: The disk.
        """
        self._files = files or OsFiles()
        self._directory = Path(directory)
        self._make_codec = make_codec
        self._copies = tuple(copies)
        self._rebuild = rebuild
        self._faults_of: dict[str, str] = {}
        self._lock = -1
        self._manifest: Manifest
        self._place: Place

    def __enter__(self) -> Self:
        if not self._directory.is_dir():
            raise WalError(f"no log in {self._directory}")
        self._lock = take_lock(self._files, self._directory)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close(self._lock)

    @property
    def quarantine(self) -> Quarantine:
        """Where evidence goes."""
        return Quarantine(self._files, self._directory)

    def plan(self, progress: Progress = lambda done, total: None) -> RepairPlan:
        """Look at every byte and say what can be kept. Changes nothing.

        `progress` is told the segments judged so far and those in all.

        Raises:
            CorruptLogError: the MANIFEST cannot be used, and a new one was not asked for.
            WalError: there is no log.
        """
        manifest, faults, warnings = self._found_manifest()
        self._manifest = manifest
        self._place = Place(self._files, self._directory, manifest.shard_id, None)
        pieces, damages, fetched = self._pieces(progress)
        snapshots = manifest.snapshots
        faults += damages
        faults += [
            Fault(path=entry.path, offset=0, reason=fault)
            for entry in snapshots
            if (fault := self._fault_of(entry))
        ]
        was_lsn = max([manifest.known_durable_lsn, *(piece.lsn for piece in pieces)])
        if not self._rebuild:
            self._refuse_newer_strangers(was_lsn)
        choice = choose(pieces, snapshots, self._fault_of, manifest.retained_lsn)
        if not faults and choice.end_lsn < was_lsn:
            raise WalError(f"{self._directory}: nothing is wrong, yet not all can be kept")
        return RepairPlan(
            faults=tuple(faults),
            warnings=tuple(warnings),
            fetched=tuple(fetched),
            choice=choice,
            base=newest_lineage(snapshots, self._fault_of, choice.end_position).entries,
            was_lsn=was_lsn,
            torn_bytes=pieces[-1].torn_bytes if pieces else 0,
            quarantined=self._to_quarantine(choice),
        )

    def base_chunks(self, plan: RepairPlan) -> list[tuple[Position, Iterator[bytes]]]:
        """Return the checkpoint below the end: a base and its increments, with positions."""
        shard_id = self._manifest.shard_id
        return [
            (
                Position(entry.position),
                read_snapshot(self._files, self._directory, entry, shard_id),
            )
            for entry in plan.base
        ]

    def kept_batches(
        self, plan: RepairPlan, start: Position
    ) -> Iterator[tuple[Position, list[Any]]]:
        """Yield the records from position `start` on that will be in the log, frame by frame."""
        for piece in plan.choice.kept:
            if piece.position < start:
                continue
            for first, records, _ in frames_of(self._place, piece, self._make_codec):
                skipped = max(0, start - first)
                if records[skipped:]:
                    yield Position(first + skipped), records[skipped:]

    def lost_frames(self, plan: RepairPlan) -> Iterator[Salvaged]:
        """Yield what can still be read of the frames that will not be in the log."""
        for piece in plan.choice.lost:
            yield from salvage(self._place, piece, self._make_codec, plan.choice.end_lsn)

    def apply(self, plan: RepairPlan) -> tuple[str, ...]:
        """Do what `plan`, made in this block, says; return what was put aside.

        Raises:
            OSError: the disk refused; what was there is still there, and it can be done again.
        """
        prepare_directories(self._files, self._directory)
        self._discard_unfinished()
        self.quarantine.keep_manifest()
        manifest = self._new_manifest(plan.choice)
        self.quarantine.announce(plan.quarantined, manifest)
        write_manifest(self._files, self._directory, manifest)
        return self.quarantine.move(plan.quarantined)

    def _discard_unfinished(self) -> None:
        """Remove what a repair or a start that was broken off has written: copies, not evidence."""
        for path in self._present((SEGMENTS,)):
            if self._is_unfinished(path):
                self._files.unlink(self._directory / path)

    def _is_unfinished(self, path: str) -> bool:
        # The epoch that comes next is in no MANIFEST, so no frame was ever written under it.
        return f"-{self._manifest.epoch + 1:08x}." in path

    def _found_manifest(self) -> tuple[Manifest, list[Fault], list[str]]:
        fault = None
        try:
            manifest = read_manifest(self._files, self._directory, How.DISK)
            if not self._rebuild:
                return manifest, [], []
        except FileNotFoundError as error:
            fault = Fault(path=MANIFEST_NAME, offset=0, reason="the file is missing")
            if not self._rebuild:
                raise CorruptLogError(fault.path, 0, fault.reason) from error
        except CorruptLogError as error:
            if not self._rebuild:
                raise
            fault = Fault(path=MANIFEST_NAME, offset=0, reason=error.reason)
        rebuilt, faults, warnings = rebuilt_manifest(self._files, self._directory)
        return rebuilt, ([fault] if fault else []) + faults, warnings

    def _new_manifest(self, choice: Choice) -> Manifest:
        """Write the files that are new; return the MANIFEST that names them and what is kept."""
        before = self._manifest
        epoch = before.epoch + 1
        sealed = [kept_entry(self._place, piece, epoch) for piece in choice.kept]
        if choice.bridge is not None:
            sealed = [write_bridge(self._place, before, choice.bridge, epoch)]
        return msgspec.structs.replace(
            before,
            epoch=epoch,
            sealed=tuple(sealed),
            live=None,
            snapshots=usable(before.snapshots, self._fault_of, choice.end_lsn),
            durable_lsn=sealed[-1].last_lsn if sealed else 0,
            archived_lsn=min(before.archived_lsn, choice.end_lsn),
            retained_lsn=sealed[0].first_lsn if sealed else 1,
            wall_ns=max([before.wall_ns, *(piece.wall_ns for piece in choice.kept)]),
        )

    def _pieces(self, progress: Progress) -> tuple[list[Piece], list[Fault], list[str]]:
        """Judge every segment; take a copy's where that one reaches further."""
        entries: list[SegmentEntry] = [*self._manifest.sealed]
        if self._manifest.live is not None:
            entries.append(self._manifest.live)
        pieces, faults, fetched = [], [], []
        for entry in entries:
            durable_lsn = self._manifest.known_durable_lsn
            piece = examine(self._place, entry, self._make_codec, durable_lsn, None)
            if piece.fault is not None:
                faults.append(piece.fault)
                for copy in self._in_copies(entry):
                    if copy.lsn > piece.lsn and _leads_there(copy, entry):
                        fetched.append(str(copy.path))
                        piece = copy
            pieces.append(piece)
            progress(len(pieces), len(entries))
        return pieces, faults, fetched

    def _in_copies(self, entry: SegmentEntry) -> Iterator[Piece]:
        """Yield the same segment as copies of this log have it, judged."""
        for copy in self._copies:
            for directory in (copy, copy / self._directory.name):
                try:
                    manifest = read_manifest(self._files, directory)
                except (FileNotFoundError, NotADirectoryError, CorruptLogError):
                    continue
                for other in manifest.sealed:
                    if _same_place(other) == _same_place(entry):
                        path = directory / other.path
                        yield examine(self._place, other, self._make_codec, 0, path)

    def _fault_of(self, entry: SnapshotEntry) -> str:
        if entry.name not in self._faults_of:
            fault = verify_snapshot(self._files, self._directory, entry)
            self._faults_of[entry.name] = fault
        return self._faults_of[entry.name]

    def _refuse_newer_strangers(self, end_lsn: int) -> None:
        """Refuse when a file that the MANIFEST does not name proves it too old."""
        named = {entry.path for entry in (*self._manifest.sealed, self._manifest.live) if entry}
        for path in self._present((SEGMENTS,)):
            if path not in named and newest_frame_of(self._files, self._directory / path) > end_lsn:
                reason = f"not in the MANIFEST, yet newer than the log, which ends at {end_lsn}"
                raise CorruptLogError(path, 0, reason)

    def _to_quarantine(self, choice: Choice) -> tuple[str, ...]:
        """Return the files that the new MANIFEST will not name."""
        stay = {
            piece.entry.path
            for piece in choice.kept
            if isinstance(piece.entry, SealedSegment) and piece.is_in_place(self._directory)
        }
        snapshots = usable(self._manifest.snapshots, self._fault_of, choice.end_lsn)
        stay |= {entry.path for entry in snapshots}
        return tuple(
            path
            for path in self._present((SEGMENTS, SNAPSHOTS))
            if path not in stay and not self._is_unfinished(path)
        )

    def _present(self, parts: tuple[str, ...]) -> Iterator[str]:
        """Yield the files that are more than leftovers of an unfinished step."""
        for part in parts:
            try:
                names = sorted(self._files.scan(self._directory / part))
            except FileNotFoundError:
                continue
            for name in names:
                if name != SPARE_NAME and not name.endswith(TEMPORARY):
                    yield f"{part}/{name}"


def _same_place(entry: SegmentEntry) -> tuple[int, int, int, int, bytes]:
    return entry.number, entry.epoch, entry.first_lsn, entry.first_position, entry.before


def _leads_there(copy: Piece, entry: SegmentEntry) -> bool:
    """Say whether a copy of a segment leads where the MANIFEST says, as far as that is known."""
    if not isinstance(entry, SealedSegment) or copy.lsn < entry.last_lsn:
        return copy.has_frames
    return copy.lsn == entry.last_lsn and copy.log_chain == entry.after
