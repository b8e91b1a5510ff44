"""Committed events in log order, by cursor: the seam every follower reads through.

A follower keeps its own position and asks for what comes after it. None is on the path of an
answer; deleting one breaks nothing to the left of it.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.channels.host import shard_directory
from engine.channels.journal import read_committed
from engine.core.events import AnyEvent, ClaimReceived

SCANS_MAX = 2
"""Histories read at once; each is a pass over a shard's log."""

SCANS_WAITING_MAX = 16


class ScansFull(Exception):  # noqa: N818  (a state, as queue.Full)
    """Too many histories are being read; try again a little later."""


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

    def events(self, shard: int, start: int = 1) -> Iterator[tuple[int, AnyEvent]]:
        """Yield the durable events of a shard with their positions, from `start` on."""
        for first, events in read_committed(shard_directory(self._datadir, shard), start):
            yield from enumerate(events, first)

    async def claims(
        self, shard: int, channel_id: bytes, after: int, limit: int
    ) -> list[HistoryEntry]:
        """Return up to `limit` accepted claims of a channel with sequences above `after`, in order.

        Cost: one pass over the shard's log up to the last one found, in a thread.

        Raises:
            ScansFull: too many passes wait already.
        """
        if self._waiting >= SCANS_WAITING_MAX:
            raise ScansFull
        self._waiting += 1
        try:
            async with self._scans:
                return await asyncio.to_thread(self._scan, shard, channel_id, after, limit)
        finally:
            self._waiting -= 1

    def _scan(self, shard: int, channel_id: bytes, after: int, limit: int) -> list[HistoryEntry]:
        found: list[HistoryEntry] = []
        for position, event in self.events(shard):
            if len(found) == limit:
                break
            if (
                event.channel_id == channel_id
                and isinstance(event, ClaimReceived)
                and event.sequence > after
            ):
                found.append(HistoryEntry(position, event.at, event))
        return found
