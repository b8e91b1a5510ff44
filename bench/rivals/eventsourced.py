"""The library `eventsourcing` on SQLite: a channel is an aggregate, a claim an event and a commit.

coincurve checks the signature. As kind to the library as it allows: aggregates stay in its cache,
are not read again and not copied, for a channel belongs to one worker.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from bench.rivals import Account
from bench.rivals.checking import Checker

CACHED_MAX = "100000"
WAIT_S = "30"


class Channel(Aggregate):
    """A channel as the library has it."""

    @event("Opened")
    def __init__(self, channel: UUID, key: str) -> None:
        self._id = channel
        self.key = bytes.fromhex(key)
        self.sequence = 0
        self.claimed = 0
        self.signature = ""

    @staticmethod
    def create_id(channel: UUID) -> UUID:
        """Return the name the aggregate is found by."""
        return channel

    @event("ClaimTaken")
    def take(self, sequence: int, amount: int, signature: str) -> None:
        """Take a claim that was checked."""
        self.sequence = sequence
        self.claimed = amount
        self.signature = signature


class Eventsourced:
    """See `Kind`."""

    def prepare(self, place: str, accounts: Sequence[Account]) -> None:
        """Open every channel."""
        ledger = _application(place)
        for one in accounts:
            ledger.save(Channel(channel=_name(one.channel_id), key=one.public_key.hex()))
        ledger.close()

    def worker(self, place: str) -> "EventsourcedWorker":
        """Open the application."""
        return EventsourcedWorker(place)


class EventsourcedWorker:
    """See `Rival`."""

    def __init__(self, place: str) -> None:
        self._ledger = _application(place)
        self._checker = Checker()

    def take(self, channel_id: bytes, sequence: int, amount: int, signature: bytes) -> bool:
        """Get, check, trigger, save."""
        channel = cast("Channel", self._ledger.repository.get(_name(channel_id)))
        if sequence != channel.sequence + 1 or amount <= channel.claimed:
            return False
        if not self._checker.is_good(channel.key, channel_id, amount, signature):
            return False
        channel.take(sequence=sequence, amount=amount, signature=signature.hex())
        self._ledger.save(channel)
        return True

    def close(self) -> None:
        """Close the application."""
        self._ledger.close()


def _name(channel_id: bytes) -> UUID:
    return UUID(bytes=channel_id[:16])


def _application(place: str) -> Application[UUID]:
    return Application(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(Path(place) / "events.db"),
            "SQLITE_LOCK_TIMEOUT": WAIT_S,
            "AGGREGATE_CACHE_MAXSIZE": CACHED_MAX,
            "AGGREGATE_CACHE_FASTFORWARD": "n",
            "DEEPCOPY_FROM_AGGREGATE_CACHE": "n",
        }
    )
