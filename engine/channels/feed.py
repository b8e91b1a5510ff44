"""Committed events in log order, by cursor: the seam every follower reads through.

A follower keeps its own position and asks for what comes after it. None is on the path of an
answer; deleting one breaks nothing to the left of it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from engine.channels.host import shard_directory
from engine.channels.journal import CutLogError, WalError, read_committed, segment_starts
from engine.core.events import AnyEvent, ClaimReceived

SCANS_MAX = 2
"""Histories read at once; each is a pass over a shard's log."""

SCANS_WAITING_MAX = 16

STARTS_KEPT: Final = 1_024
"""Places where histories go on that are remembered, so that a page does not begin from the first.
"""

WORK_S: Final = 0.001
REST_S: Final = 0.000_2
"""A pass holds the interpreter, which claims need as well; after so much work it rests so long.
A rest must be one: whoever gives the interpreter up for no time at all has it back before others.
"""

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


class _Wanted(msgspec.Struct, frozen=True, gc=False):
    """Which claims of a shard's log; see `Feed.claims`."""

    channel_id: bytes
    after: int
    limit: int
    until: int | None


class Feed:
    """Reads the shards' logs beside their writers."""

    def __init__(self, datadir: Path) -> None:
        self._datadir = datadir
        self._scans = asyncio.Semaphore(SCANS_MAX)
        self._waiting = 0
        self._starts: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._said_at: dict[int, float] = {}

    def events(self, shard: int, start: int = 1) -> Iterator[tuple[int, AnyEvent]]:
        """Yield the durable events of a shard with their positions, from `start` on."""
        for first, events in read_committed(shard_directory(self._datadir, shard), start):
            yield from enumerate(events, first)

    async def claims(
        self, shard: int, channel_id: bytes, after: int, limit: int, until: int | None = None
    ) -> list[HistoryEntry]:
        """Return up to `limit` accepted claims of a channel with sequences above `after`, in order.

        Where the log was cut, those of its oldest part are not among them: see `begins_at`.

        Args:
            shard: Whose log.
            channel_id: Which channel.
            after: Where to begin; what a page ended with costs least.
            limit: How many at most.
            until: The position of the channel's newest claim, if that is known: none comes later.

        Cost: one pass over the shard's log up to the last one found, in a thread; from where an
        earlier one ended, where that was with claim `after`.

        Raises:
            ScansFull: too many passes wait already.
            HistoryUnreadable: the log is damaged, or not to be had.
        """
        if self._waiting >= SCANS_WAITING_MAX:
            raise ScansFull
        self._waiting += 1
        wanted = _Wanted(channel_id, after, limit, until)
        try:
            async with self._scans:
                with self._readable(shard):
                    start = self._starts.get((channel_id, after), 1)
                    found, end = await asyncio.to_thread(self._scan, shard, wanted, start)
        finally:
            self._waiting -= 1
        self._remember(wanted, found, end)
        return found

    async def begins_at(self, shard: int) -> int:
        """Return the position of the oldest event of a shard that is kept; 1 if all are.

        Raises:
            HistoryUnreadable: the log is damaged, or not to be had.
        """
        with self._readable(shard):
            starts = await asyncio.to_thread(segment_starts, self._directory(shard))
        return starts[0] if starts else 1

    def _scan(self, shard: int, wanted: _Wanted, start: int) -> tuple[list[HistoryEntry], int]:
        """Return what there is from position `start` on, and where nothing was looked at yet."""
        while True:
            try:
                return self._pass(shard, wanted, start)
            except CutLogError as cut:  # before, or under our hands
                start = cut.first

    def _pass(self, shard: int, wanted: _Wanted, start: int) -> tuple[list[HistoryEntry], int]:
        channel_id, after, limit, until = msgspec.structs.astuple(wanted)
        found: list[HistoryEntry] = []
        rested_at = time.monotonic()
        for first, events in read_committed(self._directory(shard), start):
            for position, event in enumerate(events, first):
                if (
                    event.channel_id == channel_id
                    and isinstance(event, ClaimReceived)
                    and event.sequence > after
                ):
                    found.append(HistoryEntry(position, event.at, event))
                    if len(found) == limit:
                        return found, position + 1
            start = first + len(events)
            if until is not None and start > until:
                break
            if time.monotonic() - rested_at > WORK_S:
                time.sleep(REST_S)
                rested_at = time.monotonic()
        return found, start

    def _remember(self, wanted: _Wanted, found: list[HistoryEntry], end: int) -> None:
        """Note where a later pass may begin: none of the claims it wants lies before."""
        self._note((wanted.channel_id, wanted.after), found[0].position if found else end)
        for entry in found[-2:]:  # a caller may ask for one more than it shows
            self._note((wanted.channel_id, entry.claim.sequence), entry.position + 1)

    def _note(self, place: tuple[bytes, int], start: int) -> None:
        self._starts[place] = start
        self._starts.move_to_end(place)
        if len(self._starts) > STARTS_KEPT:
            self._starts.popitem(last=False)

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
        except (WalError, OSError) as error:
            now = time.monotonic()
            if now - self._said_at.get(shard, -SAID_AGAIN_S) >= SAID_AGAIN_S:
                self._said_at[shard] = now
                log.error("history_unreadable", shard=shard, error=str(error))
            raise HistoryUnreadable(shard, str(error)) from error
