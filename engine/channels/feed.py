"""Committed events in log order, by cursor: the seam every follower reads through.

A follower keeps its own position and asks for what comes after it. None is on the path of an
answer; deleting one breaks nothing to the left of it.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from engine.channels.host import shard_directory
from engine.channels.journal import CorruptLogError, CutLogError, read_committed, segment_starts
from engine.core.events import AnyEvent, ClaimReceived

SCANS_MAX = 2
"""Histories read at once; each is a pass over a shard's log."""

SCANS_WAITING_MAX = 16

SAID_AGAIN_S: Final = 60.0
"""A log that cannot be read is said so once in so long, however often it is asked for."""

log = structlog.get_logger()


class ScansFull(Exception):  # noqa: N818  (a state, as queue.Full)
    """Too many histories are being read; try again a little later."""


class HistoryUnreadable(Exception):  # noqa: N818  (it reads as the sentence it is)
    """The log of a shard is damaged where it was read, or cannot be read from here at all."""

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(f"the log of shard {shard} cannot be read: {reason}")
        self.shard = shard
        self.reason = reason


class HistoryEntry(msgspec.Struct, frozen=True, gc=False):
    """One accepted claim as the log has it; `at` is the engine's clock, ns."""

    position: int
    at: int
    claim: ClaimReceived


class Feed:
    """Reads the shards' logs beside their writers."""

    def __init__(self, datadir: Path) -> None:
        self._datadir = datadir
        self._scans = asyncio.Semaphore(SCANS_MAX)
        self._waiting = 0
        self._said_at: dict[int, float] = {}

    def events(self, shard: int, start: int = 1) -> Iterator[tuple[int, AnyEvent]]:
        """Yield the durable events of a shard with their positions, from `start` on."""
        for first, events in read_committed(shard_directory(self._datadir, shard), start):
            yield from enumerate(events, first)

    async def claims(
        self, shard: int, channel_id: bytes, after: int, limit: int
    ) -> list[HistoryEntry]:
        """Return up to `limit` accepted claims of a channel with sequences above `after`, in order.

        Where the log was cut, those of its oldest part are not among them: see `begins_at`.

        Cost: one pass over the shard's log up to the last one found, in a thread.

        Raises:
            ScansFull: too many passes wait already.
            HistoryUnreadable: the log is damaged, or not to be had.
        """
        if self._waiting >= SCANS_WAITING_MAX:
            raise ScansFull
        self._waiting += 1
        try:
            async with self._scans:
                with self._readable(shard):
                    return await asyncio.to_thread(self._scan, shard, channel_id, after, limit)
        finally:
            self._waiting -= 1

    async def begins_at(self, shard: int) -> int:
        """Return the position of the oldest event of a shard that is kept; 1 if all are.

        Raises:
            HistoryUnreadable: the log is damaged, or not to be had.
        """
        with self._readable(shard):
            starts = await asyncio.to_thread(segment_starts, self._directory(shard))
        return starts[0] if starts else 1

    def _scan(self, shard: int, channel_id: bytes, after: int, limit: int) -> list[HistoryEntry]:
        start = 1
        while True:
            try:
                return self._pass(shard, channel_id, after, limit, start)
            except CutLogError as cut:  # before, or under our hands
                start = cut.first

    def _pass(
        self, shard: int, channel_id: bytes, after: int, limit: int, start: int
    ) -> list[HistoryEntry]:
        found: list[HistoryEntry] = []
        for position, event in self.events(shard, start):
            if len(found) == limit:
                break
            if (
                event.channel_id == channel_id
                and isinstance(event, ClaimReceived)
                and event.sequence > after
            ):
                found.append(HistoryEntry(position, event.at, event))
        return found

    def _directory(self, shard: int) -> Path:
        return shard_directory(self._datadir, shard)

    @contextmanager
    def _readable(self, shard: int) -> Iterator[None]:
        """Turn what keeps a log from being read into `HistoryUnreadable`, and log it."""
        directory = self._directory(shard)
        try:
            if not directory.is_dir():
                raise FileNotFoundError(f"there is no {directory} on this machine")
            yield
        except (CorruptLogError, OSError) as error:
            now = time.monotonic()
            if now - self._said_at.get(shard, -SAID_AGAIN_S) >= SAID_AGAIN_S:
                self._said_at[shard] = now
                log.error("history_unreadable", shard=shard, error=str(error))
            raise HistoryUnreadable(shard, str(error)) from error
