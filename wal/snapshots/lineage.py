"""Choose the snapshots that rebuild the newest state: a base, and the increments upon it.

The one rule: what is chosen has been verified, every file of it. A base and an increment may stand
at one place of the log; they say the same, and either can carry what was built upon that place.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from wal.format import SnapshotKind
from wal.manifest import SnapshotEntry

FaultOf = Callable[[SnapshotEntry], str]
"""Return what is wrong with a snapshot's file, or an empty string."""


class Lineage(NamedTuple):
    """A base and its increments, in the order they build on each other; empty when none verify.

    `refused` are the snapshots that were looked at and cannot be used, each with the reason.
    """

    entries: tuple[SnapshotEntry, ...]
    refused: tuple[tuple[SnapshotEntry, str], ...]


def newest_lineage(
    snapshots: Iterable[SnapshotEntry], fault_of: FaultOf, until: int | None = None
) -> Lineage:
    """Return the snapshots that lead to the newest place, no later than record `until`."""
    search = _Search(snapshots, fault_of, until)
    for tip_lsn in sorted(search.by_lsn, reverse=True):
        line = search.down_from(tip_lsn)
        if line:
            return Lineage(line, tuple(search.refused.values()))
    return Lineage((), tuple(search.refused.values()))


class _Search:
    """What is known so far: no file is verified twice."""

    def __init__(
        self, snapshots: Iterable[SnapshotEntry], fault_of: FaultOf, until: int | None
    ) -> None:
        self._fault_of = fault_of
        self._verified: set[str] = set()
        self.refused: dict[str, tuple[SnapshotEntry, str]] = {}
        self.by_lsn: dict[int, list[SnapshotEntry]] = {}
        for entry in sorted(snapshots, key=lambda entry: entry.kind):  # bases first
            if until is None or entry.position <= until:
                self.by_lsn.setdefault(entry.lsn, []).append(entry)

    def down_from(self, tip_lsn: int) -> tuple[SnapshotEntry, ...]:
        """Return a base and what leads from it to `tip_lsn`; nothing if a link is missing."""
        line: list[SnapshotEntry] = []
        step = self._first_good(tip_lsn)
        while step is not None:
            line.append(step)
            if step.kind == SnapshotKind.BASE:
                return tuple(reversed(line))
            step = self._first_good(step.base_lsn)
        for orphan in line:
            self.refused[orphan.name] = (orphan, "what it builds on is missing or damaged")
        return ()

    def _first_good(self, lsn: int) -> SnapshotEntry | None:
        for entry in self.by_lsn.get(lsn, ()):
            if entry.name in self.refused:
                continue
            fault = "" if entry.name in self._verified else self._fault_of(entry)
            if not fault:
                self._verified.add(entry.name)
                return entry
            self.refused[entry.name] = (entry, fault)
        return None


def kept(snapshots: Iterable[SnapshotEntry], bases: int) -> tuple[SnapshotEntry, ...]:
    """Return the newest `bases` bases and the increments since the oldest of them, in order."""
    ordered = sorted(snapshots, key=lambda entry: (entry.lsn, -entry.kind))
    places = [entry.lsn for entry in ordered if entry.kind == SnapshotKind.BASE]
    if len(places) <= bases:
        return tuple(ordered)
    oldest = places[-bases]
    return tuple(
        entry
        for entry in ordered
        if entry.lsn > oldest or (entry.lsn == oldest and entry.kind == SnapshotKind.BASE)
    )


def whole(snapshots: Iterable[SnapshotEntry]) -> tuple[SnapshotEntry, ...]:
    """Return those that lead down to a base by what is named here, in order."""
    places: set[int] = set()
    reached = []
    for entry in sorted(snapshots, key=lambda entry: (entry.lsn, entry.kind)):
        if entry.kind == SnapshotKind.BASE or entry.base_lsn in places:
            places.add(entry.lsn)
            reached.append(entry)
    return tuple(sorted(reached, key=lambda entry: (entry.lsn, -entry.kind)))
