"""Choose what a damaged log can go on from: of two ways, the one that reaches further.

Either the log ends before the first damage. Or it begins, like one that was cut, at a checkpoint
behind the damage: then what lay before is lost as history, but not what it added up to.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wal.manifest import SealedSegment, SnapshotEntry
from wal.repairs.pieces import Piece
from wal.snapshots.lineage import newest_lineage

FaultOf = Callable[[SnapshotEntry], str]


class Choice(NamedTuple):
    """How the log will be.

    Attributes:
        kept: its segments; of the last one perhaps only a part.
        bridge: the checkpoint it goes on right behind, because no frame behind that is sound.
        lost: segments with frames beyond the new end.
        dropped: segments before the checkpoint that the log will begin at.
    """

    kept: tuple[Piece, ...]
    bridge: SnapshotEntry | None
    lost: tuple[Piece, ...]
    dropped: tuple[Piece, ...]

    @property
    def end_lsn(self) -> int:
        """The newest frame that is kept, or that the checkpoint stands for."""
        if self.kept:
            return self.kept[-1].lsn
        return self.bridge.lsn if self.bridge is not None else 0

    @property
    def begin_position(self) -> int:
        """The oldest record that is kept, or the next one where none is."""
        if self.kept:
            return self.kept[0].entry.first_position
        return self.end_position + 1

    @property
    def end_position(self) -> int:
        """The newest record of the same."""
        if self.kept:
            return self.kept[-1].position
        return self.bridge.position if self.bridge is not None else 0


def choose(
    pieces: Sequence[Piece],
    snapshots: Sequence[SnapshotEntry],
    fault_of: FaultOf,
    retained_lsn: int,
) -> Choice:
    """Return what to keep of the segments `pieces`, in the order of the log."""
    kept, bridge = _kept(pieces, snapshots, fault_of, retained_lsn)
    bare = Choice(kept, bridge, (), ())
    lost = tuple(piece for piece in pieces if _reaches_beyond(piece, bare))
    names = {piece.entry.name for piece in (*kept, *lost)}
    dropped = tuple(piece for piece in pieces if piece.entry.name not in names and piece.is_large)
    return bare._replace(lost=lost, dropped=dropped)


def usable(
    snapshots: Sequence[SnapshotEntry], fault_of: FaultOf, end_lsn: int
) -> tuple[SnapshotEntry, ...]:
    """Return the checkpoints that stay: sound with all they build on, and not beyond the end."""
    candidates = [entry for entry in snapshots if entry.lsn <= end_lsn]
    names = {
        entry.name
        for tip in candidates
        for entry in newest_lineage(candidates, fault_of, tip.position).entries
    }
    return tuple(entry for entry in snapshots if entry.name in names)


def _kept(
    pieces: Sequence[Piece],
    snapshots: Sequence[SnapshotEntry],
    fault_of: FaultOf,
    retained_lsn: int,
) -> tuple[tuple[Piece, ...], SnapshotEntry | None]:
    """Return the segments to keep, or else the checkpoint to go on from."""
    front = _run(pieces, 0)
    end_lsn, end_position = (front[-1].lsn, front[-1].position) if front else (0, 0)
    if retained_lsn > 1 and not newest_lineage(snapshots, fault_of, end_position).entries:
        end_lsn = -1  # the front of a log that was cut says nothing without a checkpoint
    newest = newest_lineage(snapshots, fault_of).entries
    if not newest or newest[-1].lsn <= end_lsn:
        return front, None
    tip = newest[-1]
    sound_there = [
        index
        for index, piece in enumerate(pieces)
        # By records: a seal or a watermark between the two holds nothing that could be missed.
        if piece.has_frames
        and piece.entry.first_position <= tip.position + 1
        and piece.lsn >= tip.lsn
    ]
    if not sound_there:
        return (), tip
    begin = sound_there[-1]
    while begin and pieces[begin - 1].reaches_its_end:
        begin -= 1
    return _run(pieces, begin), None


def _run(pieces: Sequence[Piece], begin: int) -> tuple[Piece, ...]:
    """Return the segments from `begin` on up to the first damage, the sound part of it included."""
    run = []
    for piece in pieces[begin:]:
        if piece.has_frames:
            run.append(piece)
        if not piece.reaches_its_end:
            break
    return tuple(run)


def _reaches_beyond(piece: Piece, choice: Choice) -> bool:
    """Say whether a segment holds, or held, frames beyond the new end of the log."""
    entry = piece.entry
    if isinstance(entry, SealedSegment):
        return entry.last_lsn > choice.end_lsn
    was_cut = not piece.reaches_its_end and piece in choice.kept
    return was_cut or piece.lsn > choice.end_lsn or entry.first_lsn > choice.end_lsn
