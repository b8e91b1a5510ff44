"""Gives the log its meaning: events in, events out. On a claim's way only this file opens it.

How the events of a frame lie in its payload is `codec.py`'s to say.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from engine.channels.codec import EVENT_SCHEMA_VERSION, EventCodec
from engine.core.events import AnyEvent
from engine.core.types import Position
from engine.monitor.metrics import SYNC_BUCKETS_US
from wal import (
    CorruptLogError,
    CutLogError,
    Files,
    Log,
    LogInUseError,
    LogOptions,
    LogReader,
    OsFiles,
    RecoveryReport,
    VerifyReport,
    WalError,
    first_positions,
    verify,
)
from wal.manifest import SealedSegment
from wal.manifest import SnapshotEntry as Base
from wal.pack import Packed, pack
from wal.snapshots.base import accept_base, weight, write_base

SLOW_US: Final = 20_000
SLOW_KEPT_S: Final = 5.0
SLOW_KEPT: Final = 256
"""Of the commits that took longer than `SLOW_US`, those kept to find the slowest among."""

OS_FILES: Final = OsFiles()


class SyncTimes:
    """How long commits took: counts by `SYNC_BUCKETS_US`, one more for what was slower."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SYNC_BUCKETS_US) + 1)
        self.count = self.sum_us = 0
        self._slow: deque[tuple[float, int]] = deque(maxlen=SLOW_KEPT)

    def add(self, took_us: int) -> None:
        """Count one commit."""
        self.counts[bisect_left(SYNC_BUCKETS_US, took_us)] += 1
        self.count += 1
        self.sum_us += took_us
        if took_us > SLOW_US:
            self._slow.append((time.monotonic(), took_us))

    def slowest_us(self) -> int:
        """Return the longest of the last `SLOW_KEPT_S`; 0 where none was above `SLOW_US`."""
        since = time.monotonic() - SLOW_KEPT_S
        return max((took_us for at, took_us in list(self._slow) if at >= since), default=0)


class ShardJournal:
    """The log of one shard, open for writing. See `ports.Journal`.

    Attributes:
        times: How long commits took.
        whole_wanted: The next checkpoint is to be a base: there is none to build on.
    """

    def __init__(self, directory: Path, options: LogOptions, files: Files = OS_FILES) -> None:
        self._log: Log[AnyEvent] = Log.open(directory, options, EventCodec, files)
        self._seen_last = self._log.last
        self.times = SyncTimes()
        self.whole_wanted = True

    @property
    def epoch(self) -> int:
        """Which incarnation of the shard writes; in every frame."""
        return self._log.epoch

    @property
    def recovery(self) -> RecoveryReport:
        """What opening the log found, and did about it."""
        return self._log.recovery

    @property
    def bytes_written(self) -> int:
        """Bytes this incarnation has put into the log."""
        return self._log.statistics().bytes

    @property
    def last(self) -> Position:
        """Position of the newest event, 0 when there is none."""
        return Position(self._log.last)

    def append(self, events: Sequence[AnyEvent]) -> Position:
        """Stage events; return the position of the first."""
        return Position(self._log.append(events))

    def commit(self) -> Position:
        """Return once all that is staged is on disk."""
        started = time.perf_counter_ns()
        last = Position(self._log.commit())
        self.times.add((time.perf_counter_ns() - started) // 1_000)
        return last

    def idle(self) -> bool:
        """See `ports.Journal`; lets a checkpoint count, too, that is on the disk."""
        self._log.settle_snapshot()
        seen, self._seen_last = self._seen_last, self._log.last
        return seen == self._seen_last and self._log.idle()

    def checkpoint(self, state: Callable[[bool], Iterable[bytes]], *, wait: bool = False) -> bool:
        """See `ports.Journal`."""
        if not self._log.settle_snapshot(wait=wait):
            return False
        whole = self.whole_wanted
        self._log.begin_snapshot(state(whole), increment=not whole)
        self.whole_wanted = False
        return True

    @property
    def checkpoints(self) -> int:
        """How many checkpoints of this incarnation count."""
        return self._log.statistics().snapshots

    @property
    def spare_failures(self) -> int:
        """How often a segment could not be prepared ahead; the log makes it when it must."""
        return self._log.statistics().spare_failures

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of those checkpoints."""
        return self._log.statistics().snapshot_bytes

    def checkpoint_weight(self) -> tuple[int, int, int]:
        """Return the bytes of the newest base, how many increments follow it, and their bytes."""
        return weight(self._log.snapshots)

    def adopt_base(self, base: Base, older: Base | None) -> int:
        """Let a base count that was merged; cut the log below `older`. Returns segments cut."""
        return self._log.adopt_base(base, older)

    def newest_checkpoint(self) -> list[tuple[Position, Iterator[bytes]]]:
        """Return the newest checkpoint that verifies: a base and its increments, with positions.

        Whoever asks goes on from there, so the next checkpoint may be an increment.
        """
        found = self._log.checkpoint()
        self.whole_wanted = not found
        return [(Position(position), chunks) for position, chunks in found]

    def read_batches(self, start: int) -> Iterator[tuple[Position, list[AnyEvent]]]:
        """Yield events from position `start` on, frame by frame, each with its first position."""
        for first, events in self._log.read_batches(start):  # type: ignore[arg-type]
            yield Position(first), events

    @property
    def sealed(self) -> tuple[SealedSegment, ...]:
        """The segments that never change again, oldest first."""
        return self._log.sealed

    def oldest_unpacked(self, before_ns: int, leave: Container[str]) -> str | None:
        """Return the oldest segment sealed before a time that is not packed, but for `leave`."""
        for entry in self.sealed:
            if not entry.packed and entry.name not in leave:
                return entry.name if entry.wall_ns < before_ns else None
        return None

    def adopt(self, packed: Packed) -> bool:
        """Let a packed segment take the place of the original; whether it was still of use."""
        return self._log.adopt(packed)

    def close(self) -> None:
        """Seal the log."""
        self._log.close()


def read_committed(directory: Path, start: int = 1) -> Iterator[tuple[Position, list[AnyEvent]]]:
    """Yield the durable events of a shard's log from `start` on, beside its live writer.

    This is the seam for followers: each reads in log order with a cursor of its own.

    Raises:
        CorruptLogError: the log is damaged.
    """
    reader: LogReader[AnyEvent] = LogReader(directory, codec=EventCodec)
    for first, events in reader.read_batches(start):  # type: ignore[arg-type]
        yield Position(first), events


def committed_checkpoint(
    directory: Path, until: int | None = None
) -> list[tuple[Position, Iterator[bytes]]]:
    """Return the newest checkpoint that verifies and is no later than position `until`.

    Returns:
        A base, then the increments upon it, each with its position; empty when there is none.

    Raises:
        CorruptLogError: the log is damaged.
    """
    reader: LogReader[AnyEvent] = LogReader(directory, codec=EventCodec)
    found = reader.checkpoint(until)  # type: ignore[arg-type]
    return [(Position(position), chunks) for position, chunks in found]


def pack_segment(
    directory: Path,
    name: str,
    files: Files = OS_FILES,
    keep_going: Callable[[], None] = lambda: None,
) -> Packed | None:
    """Write the packed form of a sealed segment beside it, for `ShardJournal.adopt`.

    Returns:
        None when it is not smaller. `keep_going` is called now and then; what it raises ends it.

    Raises:
        CorruptLogError: the segment is damaged.
        PackingError: it cannot be packed.
        OSError: the disk refused.
    """
    return pack(files, directory, name, EventCodec, keep_going)


def segment_starts(directory: Path) -> list[Position]:
    """Return the position of the first event of each segment of a shard's log, oldest first."""
    return [Position(first) for first in first_positions(directory)]


def verify_directory(
    directory: Path, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Judge every byte of a shard's log; `progress` is told bytes judged and bytes in all."""
    return verify(directory, EventCodec, progress)


__all__ = [
    "EVENT_SCHEMA_VERSION",
    "Base",
    "CorruptLogError",
    "CutLogError",
    "EventCodec",
    "Files",
    "LogInUseError",
    "LogOptions",
    "Packed",
    "RecoveryReport",
    "ShardJournal",
    "VerifyReport",
    "WalError",
    "accept_base",
    "committed_checkpoint",
    "pack_segment",
    "read_committed",
    "segment_starts",
    "verify_directory",
    "write_base",
]
