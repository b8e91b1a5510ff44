"""Make a base of a base and its increments, by their files alone, beside the log's writer.

The one rule: the writer adopts nothing that was not read back from the disk; and it may cut the log
only below the base before, which was read back just then.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from wal.errors import CorruptLogError, WalError
from wal.files import Files, How
from wal.format import SNAPSHOTS, SnapshotKind
from wal.manifest import SnapshotEntry, read_manifest
from wal.snapshots.lineage import newest_lineage
from wal.snapshots.snapshot import (
    name_snapshot,
    place_of,
    read_snapshot,
    verify_snapshot,
    write_snapshot,
)

Merge = Callable[[list[tuple[int, Iterator[bytes]]]], Iterable[bytes]]
"""Makes the chunks of one base of those of a base and its increments, each with its position."""


def write_base(files: Files, directory: Path, epoch: int, merge: Merge) -> SnapshotEntry:
    """Write the base that the newest snapshots amount to, under a temporary name.

    Args:
        files: The disk.
        directory: The log; nothing but the temporary file is touched.
        epoch: The incarnation of the writer this is for.
        merge: Makes one of many.

    Raises:
        CorruptLogError: one of the snapshots is damaged.
        WalError: there are no increments, or another writer took over.
        OSError: the disk refused.
    """
    manifest = read_manifest(files, directory)
    if manifest.epoch != epoch:
        raise WalError(f"a base for epoch {epoch}, but the log is at {manifest.epoch}")
    found = newest_lineage(
        manifest.snapshots, lambda entry: verify_snapshot(files, directory, entry)
    )
    for entry, fault in found.refused:
        raise CorruptLogError(entry.path, 0, fault)
    if len(found.entries) < 2:
        raise WalError("there are no increments to make a base of")
    tip = place_of(files, directory, found.entries[-1], manifest.shard_id)
    place = msgspec.structs.replace(tip, epoch=epoch, kind=SnapshotKind.BASE, base_lsn=0)
    line = [
        (entry.position, read_snapshot(files, directory, entry, manifest.shard_id))
        for entry in found.entries
    ]
    return write_snapshot(files, directory / SNAPSHOTS, place, merge(line))


def accept_base(files: Files, directory: Path, base: SnapshotEntry) -> SnapshotEntry | None:
    """Read a base back from the disk and give it its name; `Log.adopt_base` lets it count.

    Returns:
        The base before it, read back as well; None when there is none or it is damaged.

    Raises:
        LogFailedError: the disk gave back other bytes than it was given.
        OSError: the disk refused.
    """
    name_snapshot(files, directory / SNAPSHOTS, base)
    manifest = read_manifest(files, directory, How.READ)
    older = [one for one in manifest.snapshots if one.kind == SnapshotKind.BASE]
    if not older or verify_snapshot(files, directory, older[-1]):
        return None
    return older[-1]


def weight(snapshots: Iterable[SnapshotEntry]) -> tuple[int, int, int]:
    """Return the bytes of the newest base, how many increments follow it, and their bytes."""
    base_bytes = count = increment_bytes = 0
    for entry in snapshots:
        if entry.kind == SnapshotKind.BASE:
            base_bytes, count, increment_bytes = entry.size, 0, 0
        else:
            count += 1
            increment_bytes += entry.size
    return base_bytes, count, increment_bytes
