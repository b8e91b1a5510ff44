"""The channels of a shard: those in use as objects, the others asleep as bytes.

A channel takes a kilobyte as objects, and less than half of that asleep: its record, as a base
holds it. Whoever may change a channel wakes it, and only the shard's tick puts channels to sleep,
some at a time; so within a step a channel that is awake stays so, and there is one of it.

The one rule: a channel that sleeps has not changed since the newest checkpoint was begun. So the
next increment is made of channels that are awake, and a base of the very bytes of those that sleep.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from engine.channels.actor import ChannelActor
from engine.channels.options import AWAKE_MAX
from engine.channels.record import (
    ALL_KEPT,
    ChannelRecord,
    actor_of,
    from_octets,
    record_of,
    to_octets,
)

LOOKS_MAX: Final = 512
"""Channels that one tick looks at: half a millisecond if all of them are put to sleep."""

Kept = ChannelActor | bytes


class Actors:
    """The channels of a shard by id.

    To have one by its id (`[]`, `get`, `wake`) wakes it: it may be changed. To `look` at one, or to
    go through them all, wakes none, and what comes of that must not be changed.

    Attributes:
        find: Returns a channel as it is kept, asleep as bytes; for those who ask for every claim.
    """

    def __init__(self, awake_max: int = AWAKE_MAX) -> None:
        self._kept: dict[bytes, Kept] = {}
        self._awake: deque[ChannelActor] = deque()
        self._awake_max = awake_max
        self._turn_left = self._turn_began = self._unused_since = self._left_awake = 0
        self._ordered: list[bytes] = []
        self.find = self._kept.get

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._kept)

    def __contains__(self, channel_id: bytes) -> bool:
        return channel_id in self._kept

    def __getitem__(self, channel_id: bytes) -> ChannelActor:
        kept = self._kept[channel_id]
        return self.wake(channel_id, kept) if isinstance(kept, bytes) else kept

    @property
    def awake(self) -> int:
        """How many are awake."""
        return len(self._awake)

    # One of them --------------------------------------------------------------------------------

    def get(self, channel_id: bytes) -> ChannelActor | None:
        """Return a channel, awake; None for an unknown one."""
        return self[channel_id] if channel_id in self._kept else None

    def wake(self, channel_id: bytes, octets: bytes) -> ChannelActor:
        """Return the channel that `find` gave as `octets`; from now on it is awake."""
        actor = from_octets(octets)
        self._kept[channel_id] = actor
        self._awake.append(actor)
        return actor

    def add(self, actor: ChannelActor) -> None:
        """Take in a new channel, awake."""
        self._kept[actor.channel.terms.channel_id] = actor
        self._awake.append(actor)

    def look(self, channel_id: bytes) -> ChannelActor | None:
        """Return a channel, to be read only; None for an unknown one."""
        kept = self._kept.get(channel_id)
        return None if kept is None else _seen(kept)

    # All of them --------------------------------------------------------------------------------

    def items(self) -> Iterator[tuple[bytes, ChannelActor]]:
        """Yield every id and channel, to be read only."""
        for channel_id, kept in self._kept.items():
            yield channel_id, _seen(kept)

    def values(self) -> Iterator[ChannelActor]:
        """Yield every channel, to be read only."""
        for kept in self._kept.values():
            yield _seen(kept)

    def page(self, after: bytes, limit: int, state: str) -> list[ChannelActor]:
        """Return up to `limit` channels with ids above `after`, in order; `state` "" for all.

        They are to be read only. Of many that sleep in other states hardly one is decoded: the
        name of a channel's state is in its bytes.
        """
        new = len(self._kept) - len(self._ordered)
        if new:  # they came last, and none ever goes; two runs are merged, not sorted anew
            self._ordered += sorted(islice(reversed(self._kept), new))
            self._ordered.sort()
        name = state.encode()
        found: list[ChannelActor] = []
        for index in range(bisect_right(self._ordered, after), len(self._ordered)):
            if len(found) == limit:
                break
            kept = self._kept[self._ordered[index]]
            if isinstance(kept, bytes) and name not in kept:
                continue
            actor = _seen(kept)
            if state in ("", actor.channel.state):
                found.append(actor)
        return found

    def changed_since(self, position: int) -> set[bytes]:
        """Return the ids of those with an event above a position, where a checkpoint stands."""
        changed = (actor for actor in self._awake if actor.position > position)
        return {actor.channel.terms.channel_id for actor in changed}

    def records(self) -> dict[bytes, ChannelRecord | bytes]:
        """Return all channels as a base holds them, as of now, by id."""
        # A copy and the few that are awake: a shard with a million channels stands still for it.
        records: dict[bytes, ChannelRecord | bytes] = self._kept.copy()  # type: ignore[assignment]
        for actor in self._awake:
            records[actor.channel.terms.channel_id] = record_of(actor)
        return records

    def records_since(
        self, checkpoint: int, channel_ids: Iterable[bytes]
    ) -> dict[bytes, ChannelRecord | bytes]:
        """Return some channels as an increment on a checkpoint holds them, as of now, by id."""
        return {one: record_of(self[one], checkpoint) for one in channel_ids}

    # Sleep --------------------------------------------------------------------------------------

    def restore(self, record: ChannelRecord, octets: msgspec.Raw) -> None:
        """Take in a new channel from a checkpoint; asleep where enough are awake.

        Args:
            record: Of the channel, with all its answers.
            octets: The same, encoded.
        """
        if self.awake < self._awake_max:
            self.add(actor_of(record))
        elif record.kept == ALL_KEPT:
            self._kept[record.channel.terms.channel_id] = bytes(octets)
        else:
            self._kept[record.channel.terms.channel_id] = to_octets(actor_of(record))

    def keep(self, actor: ChannelActor) -> None:
        """Have a channel be as `actor`, which `look` gave and a checkpoint has changed."""
        channel_id = actor.channel.terms.channel_id
        if isinstance(self._kept[channel_id], bytes):
            self._kept[channel_id] = to_octets(actor)

    def rest(self, last: int, checkpoint: int) -> None:
        """Put some channels to sleep while more than enough are awake: those not used for long.

        They are looked at in turn, and one that took an event since the last turn but one began is
        left awake. Once a turn can find no more, the next waits for another checkpoint.

        Args:
            last: Position of the newest event.
            checkpoint: Position of the newest checkpoint; what changed since stays awake.
        """
        awake = self._awake
        for _ in range(min(LOOKS_MAX, len(awake))):
            if len(awake) <= self._awake_max:
                break
            if not self._turn_left:
                if self._has_looked_enough(checkpoint):
                    break
                self._unused_since, self._turn_began = self._turn_began, last
                self._turn_left = len(awake)
            self._turn_left -= 1
            actor = awake.popleft()
            if actor.position > min(self._unused_since, checkpoint):
                awake.append(actor)
            else:
                self._kept[actor.channel.terms.channel_id] = to_octets(actor)
            if not self._turn_left:
                self._left_awake = len(awake)

    def _has_looked_enough(self, checkpoint: int) -> bool:
        """Say whether a turn has put to sleep all that may be, and hardly any woke since."""
        few = len(self._awake) * 4 <= self._left_awake * 5
        return few and self._unused_since >= checkpoint


def _seen(kept: Kept) -> ChannelActor:
    return from_octets(kept) if isinstance(kept, bytes) else kept
