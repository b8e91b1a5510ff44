"""Gives the log its meaning: events in, events out. The only file of the engine that opens it.

A frame of the log is the batch of events that was committed together. Nearly all of them are claims
that continue a channel in the plainest way, so `EventCodec` writes those as three columns (channel
number, increment, signature) and everything else as whole events beside them. Channels are numbered
by first appearance in the segment, so each segment can be read alone.
"""

import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engine.core.events import AnyEvent, ClaimReceived
from engine.core.types import ChannelId, Checks, Drops, Position, TimeNs
from engine.core.types import Sequence as ClaimSequence
from engine.monitor.metrics import SYNC_BUCKETS_US
from wal import (
    CorruptLogError,
    Files,
    Log,
    LogInUseError,
    LogOptions,
    LogReader,
    OsFiles,
    VerifyReport,
    verify,
)

EVENT_SCHEMA_VERSION: Final = 1
SLOW_US: Final = 20_000
SLOW_KEPT_S: Final = 5.0
SLOW_KEPT: Final = 256
"""Of the commits that took longer than `SLOW_US`, those kept to find the slowest among."""

OS_FILES: Final = OsFiles()
_ALL: Final = Checks.ALL


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The events of one frame.

    `others` are whole events with their index in the frame; the columns fill the remaining places
    in order. A claim fits the columns when its channel appeared in this segment before, its version
    and sequence are one more than there, its time is `at`, and it says nothing optional.
    """

    first: int
    at: int
    channels: list[int]
    increments: list[int]
    signatures: list[bytes]
    others: list[tuple[int, AnyEvent]]


class EventCodec:
    """Turns the events of a frame into its payload and back; one instance per segment.

    For each channel of the segment it keeps what the last event left behind, in rows of plain
    integers: deltas start from there.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._ids: list[ChannelId] = []
        self._versions = array("Q")
        self._sequences = array("Q")
        self._amounts = array("Q")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Payload).decode

    def encode(self, first: int, records: Sequence[AnyEvent]) -> bytes:
        """Return the payload of a frame whose first event has position `first`."""
        at = records[0].at
        channels: list[int] = []
        increments: list[int] = []
        signatures: list[bytes] = []
        others: list[tuple[int, AnyEvent]] = []
        for index, event in enumerate(records):
            number = self._numbers.get(event.channel_id, -1)
            if number >= 0 and type(event) is ClaimReceived and self._follows(event, number, at):
                channels.append(number)
                increments.append(event.amount - self._amounts[number])
                signatures.append(event.signature)
                self._keep(number, event)
            else:
                others.append((index, event))
                self._note(event)
        return self._encode(Payload(first, at, channels, increments, signatures, others))

    def decode(self, first: int, count: int, payload: bytes) -> list[AnyEvent]:
        """Return the `count` events of a payload.

        Raises:
            ValueError: the bytes are not the payload of this place in the log.
        """
        frame = self._decode(payload)
        plain = len(frame.channels)
        if frame.first != first or plain + len(frame.others) != count:
            raise ValueError(f"payload of {plain + len(frame.others)} events at {frame.first}")
        if not plain == len(frame.increments) == len(frame.signatures):
            raise ValueError("columns of different lengths")
        events: list[AnyEvent] = []
        claims = zip(frame.channels, frame.increments, frame.signatures, strict=True)
        others = iter(frame.others)
        index, other = next(others, (count, None))
        for place in range(count):
            if place == index and other is not None:
                self._note(other)
                events.append(other)
                index, other = next(others, (count, None))
            else:
                events.append(self._claim(*next(claims), TimeNs(frame.at)))
        return events

    def _claim(self, number: int, increment: int, signature: bytes, at: TimeNs) -> ClaimReceived:
        if not 0 <= number < len(self._ids):
            raise ValueError(f"channel number {number} was never given in this segment")
        claim = ClaimReceived(
            channel_id=self._ids[number],
            version=self._versions[number] + 1,
            at=at,
            sequence=ClaimSequence(self._sequences[number] + 1),
            amount=Drops(self._amounts[number] + increment),
            signature=signature,
        )
        try:
            self._keep(number, claim)
        except OverflowError as error:
            raise ValueError(f"an amount of {claim.amount} drops") from error
        return claim

    def _follows(self, claim: ClaimReceived, number: int, at: TimeNs) -> bool:
        """Say whether a claim continues its channel in the plainest way."""
        return (
            claim.at == at
            and claim.version == self._versions[number] + 1
            and claim.sequence == self._sequences[number] + 1
            and claim.previous is None
            and claim.sent_at is None
            and claim.checks is _ALL
            and claim.sequence > 1
        )

    def _note(self, event: AnyEvent) -> None:
        """Keep what an event that was written whole leaves behind."""
        number = self._numbers.get(event.channel_id)
        if number is None:
            number = self._numbers[event.channel_id] = len(self._ids)
            self._ids.append(event.channel_id)
            for row in (self._versions, self._sequences, self._amounts):
                row.append(0)
        if type(event) is ClaimReceived:
            self._keep(number, event)
        else:
            self._versions[number] = event.version

    def _keep(self, number: int, claim: ClaimReceived) -> None:
        self._versions[number] = claim.version
        self._sequences[number] = claim.sequence
        self._amounts[number] = claim.amount


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
    """The log of one shard, open for writing. See `ports.Journal`."""

    def __init__(self, directory: Path, options: LogOptions, files: Files = OS_FILES) -> None:
        self._log: Log[AnyEvent] = Log.open(directory, options, EventCodec, files)
        self.times = SyncTimes()

    @property
    def epoch(self) -> int:
        """Which incarnation of the shard writes; in every frame."""
        return self._log.epoch

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
        """Prove the newest frame durable while nothing else comes."""
        return self._log.idle()

    def checkpoint(self, chunks: Iterable[bytes]) -> None:
        """Keep the state as of the last commit."""
        self._log.snapshot(self._log.last, chunks)

    def newest_checkpoint(self) -> tuple[Position, Iterator[bytes]] | None:
        """Return the newest checkpoint that verifies, with the position it stands for."""
        found = self._log.latest_snapshot()
        return None if found is None else (Position(found[0]), found[1])

    def read_batches(self, start: int) -> Iterator[tuple[Position, list[AnyEvent]]]:
        """Yield events from position `start` on, frame by frame, each with its first position."""
        for first, events in self._log.read_batches(start):  # type: ignore[arg-type]
            yield Position(first), events

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


def verify_directory(
    directory: Path, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Judge every byte of a shard's log; `progress` is told bytes judged and bytes in all."""
    return verify(directory, EventCodec, progress)


__all__ = [
    "CorruptLogError",
    "EventCodec",
    "Files",
    "LogInUseError",
    "LogOptions",
    "ShardJournal",
    "VerifyReport",
    "committed_checkpoint",
    "read_committed",
    "verify_directory",
]
