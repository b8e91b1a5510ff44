"""The channels of a shard as they were: at a position, or at a moment.

A moment stands for the newest event that had happened by then, by the engine's clock, which never
falls within a shard. Reads beside the live writer, from the checkpoint below the place; what it
sees is what is proven durable.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from engine.channels.actor import ChannelActor
from engine.channels.journal import read_committed, segment_starts
from engine.channels.recovery import Recovered, recover_committed
from engine.core.channel import Channel
from engine.core.events import AnyEvent
from engine.validation.options import RetryLimits

FOR_EVER: Final = 2**64
"""Later than any event."""

EVENTS_TOLD: Final = 20
"""Events that led to a state, unless told otherwise."""


class BeforeTheLog(Exception):  # noqa: N818
    """The place lies before the oldest event that is kept."""


class Until(msgspec.Struct, frozen=True, kw_only=True):
    """The last thing that counts: an event by its position, or a moment; neither for the newest.

    Attributes:
        position: of an event in the shard's log.
        at: ns since 1970; events at that very moment count.
    """

    position: int | None = None
    at: int | None = None


NEWEST: Final = Until()


class PastEvent(msgspec.Struct, frozen=True, gc=False):
    """An event, and its position in the shard's log."""

    position: int
    event: AnyEvent


class ChannelThen(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as it was.

    Attributes:
        channel: its whole state.
        position: of its last event by then.
        claim_position: of its best claim by then; 0 for none.
        until: the last position that was taken into account.
        events: the events that led there, oldest first.
    """

    channel: Channel
    position: int
    claim_position: int
    until: int
    events: tuple[PastEvent, ...]


def shard_at(
    directory: Path,
    until: Until,
    limits: RetryLimits,
    *,
    from_genesis: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Recovered:
    """Return the channels of a shard as of `until`.

    Args:
        directory: The shard's log.
        until: The last thing that counts.
        limits: Which answers a channel remembers.
        from_genesis: Fold the log from its first event, and look at no checkpoint.
        progress: Told the position that was reached.

    Raises:
        BeforeTheLog: the log was cut since.
        RecoveryBroken: log or checkpoint hold what the engine would never have written.
        CorruptLogError: the log is damaged.
    """
    position = position_of(directory, until)
    try:
        return recover_committed(
            directory, limits, position, from_genesis=from_genesis, progress=progress
        )
    except ValueError as error:
        raise BeforeTheLog(f"{directory.name}: {error}") from error


def channel_at(
    directory: Path,
    channel_id: bytes,
    until: Until,
    limits: RetryLimits,
    events_max: int = EVENTS_TOLD,
) -> ChannelThen | None:
    """Return one channel as of `until`, with its last events; None when there was none yet.

    Cost: a start of the shard up to there, and the segments that hold the events.

    Raises:
        BeforeTheLog, RecoveryBroken, CorruptLogError: see `shard_at`.
    """
    recovered = shard_at(directory, until, limits)
    actor = recovered.actors.get(channel_id)
    if actor is None:
        return None
    return ChannelThen(
        channel=actor.channel,
        position=actor.position,
        claim_position=actor.claim_position,
        until=recovered.position,
        events=events_before(directory, actor, events_max),
    )


def events_before(directory: Path, actor: ChannelActor, wanted: int) -> tuple[PastEvent, ...]:
    """Return the last `wanted` events of a channel up to the state it is in, oldest first.

    Goes back segment by segment from the newest of them, and no further than it must; fewer come
    where the log was cut.
    """
    channel_id = actor.channel.terms.channel_id
    missing = min(wanted, actor.channel.version)
    found: deque[PastEvent] = deque()
    starts = segment_starts(directory)
    for start, end in reversed(list(pairwise([*starts, actor.position + 1]))):
        if len(found) >= missing:
            break
        last = min(end - 1, actor.position)
        if start > last:
            continue
        here = _events_of(directory, channel_id, (start, last), missing - len(found))
        found.extendleft(reversed(here))
    return tuple(found)


def position_of(directory: Path, until: Until) -> int | None:
    """Return the last position that counts; None where the newest does.

    Found by bisection over the segments, by the time of their first event; then one is read.

    Raises:
        CorruptLogError: the log is damaged there.
    """
    if until.at is None:
        return until.position
    starts = segment_starts(directory)
    index = bisect_right(starts, until.at, key=lambda start: _begins_at(directory, start)) - 1
    if index < 0:
        return starts[0] - 1 if starts else 0
    position = starts[index] - 1
    for first, events in read_committed(directory, starts[index]):
        for number, event in enumerate(events, first):
            if event.at > until.at:
                return position
            position = number
    return position


def _begins_at(directory: Path, start: int) -> int:
    """Return when the first event from position `start` on happened; for ever if there is none."""
    for _, events in read_committed(directory, start):
        return events[0].at
    return FOR_EVER


def _events_of(
    directory: Path, channel_id: bytes, span: tuple[int, int], count_max: int
) -> list[PastEvent]:
    """Return the last events of a channel between two positions, both counted."""
    start, last = span
    found: deque[PastEvent] = deque(maxlen=count_max)
    for first, events in read_committed(directory, start):
        if first > last:
            break
        for position, event in enumerate(events[: last + 1 - first], first):
            if event.channel_id == channel_id:
                found.append(PastEvent(position, event))
    return list(found)
