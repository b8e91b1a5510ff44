"""State from the log: the newest checkpoint that verifies, then every event after it.

A checkpoint is an accelerator only: the same state comes out of the log from its first event, and
`state_hash` says so.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from engine.channels.actor import ChannelActor
from engine.channels.checkpoint import RecoveryBroken, load, record_of
from engine.channels.journal import ShardJournal, committed_checkpoint, read_committed
from engine.core.events import AnyEvent, ClaimReceived
from engine.core.invariants import InvariantBroken
from engine.core.transition import apply, refuse_claim
from engine.core.types import Position, TimeNs
from engine.validation.options import RetryLimits

__all__ = [
    "Recovered",
    "RecoveryBroken",
    "recover",
    "recover_committed",
    "replay_into",
    "state_hash",
]

_encode = msgspec.msgpack.Encoder().encode


class Recovered(msgspec.Struct):
    """The channels of a shard, and how they were found."""

    actors: dict[bytes, ChannelActor]
    last_at: TimeNs
    events: int
    checkpoint_position: int

    @property
    def position(self) -> int:
        """Position of the newest event taken in."""
        return self.checkpoint_position + self.events

    def changed(self) -> set[bytes]:
        """Return the ids of the channels that the checkpoint does not say the newest of."""
        if not self.events:
            return set()
        since = self.checkpoint_position
        return {channel_id for channel_id, actor in self.actors.items() if actor.position > since}


def state_hash(actors: dict[bytes, ChannelActor]) -> str:
    """Return the SHA-256 (hex) over every channel and its answers, in order of channel id."""
    digest = hashlib.sha256()
    for channel_id in sorted(actors):
        digest.update(_encode(record_of(actors[channel_id])))
    return digest.hexdigest()


def _begun(line: list[tuple[Position, Iterator[bytes]]]) -> Recovered:
    """Return what a base and its increments stand for; nothing at all where there are none."""
    state = load(line)
    return Recovered(state.actors, state.last_at, 0, state.position)


def recover(journal: ShardJournal, limits: RetryLimits, *, from_genesis: bool = False) -> Recovered:
    """Rebuild the channels of a shard from its log.

    Args:
        journal: The log, open.
        limits: Which answers a channel remembers.
        from_genesis: Ignore checkpoints.

    Raises:
        RecoveryBroken: an event does not fit the state before it, or a checkpoint its own head.
        CutLogError: the log no longer goes back that far.
    """
    recovered = _begun([] if from_genesis else journal.newest_checkpoint())
    for first, events in journal.read_batches(recovered.checkpoint_position + 1):
        replay_into(recovered, first, events, limits)
    return recovered


def recover_committed(
    directory: Path,
    limits: RetryLimits,
    until: int | None = None,
    *,
    from_genesis: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Recovered:
    """Rebuild the channels of a shard as they were, without a lock, beside its live writer.

    Args:
        directory: The log.
        limits: Which answers a channel remembers.
        until: The last position that counts; None for the newest durable one.
        from_genesis: Ignore checkpoints.
        progress: Told the position that was reached, frame by frame.

    Raises:
        RecoveryBroken: an event does not fit the state before it, or a checkpoint its own head.
        CutLogError: the log no longer goes back that far.
        CorruptLogError: the log is damaged.
    """
    recovered = _begun([] if from_genesis else committed_checkpoint(directory, until))
    for first, events in read_committed(directory, recovered.checkpoint_position + 1):
        wanted = events if until is None else events[: max(0, until + 1 - first)]
        if not wanted:
            break
        replay_into(recovered, first, wanted, limits)
        if progress is not None:
            progress(recovered.position)
    return recovered


def replay_into(
    recovered: Recovered, first: int, events: Sequence[AnyEvent], limits: RetryLimits
) -> None:
    """Take `events`, the first at position `first`, into `recovered`.

    Raises:
        RecoveryBroken: an event does not fit the state before it, or is a claim that would have
            been refused.
    """
    actors, last_at = recovered.actors, recovered.last_at
    for position, event in enumerate(events, first):
        actor = actors.get(event.channel_id)
        try:
            if actor is None:
                actors[event.channel_id] = ChannelActor(apply(None, event), position)
            else:
                before = actor.channel
                actor.take(event, position, limits)
                if isinstance(event, ClaimReceived):
                    refusal = refuse_claim(before, event, event.at)
                    if refusal is not None:
                        raise InvariantBroken(before, f"a claim refused as {refusal.code.value}")
        except (KeyError, InvariantBroken) as error:
            kind = type(event).__name__
            raise RecoveryBroken(f"event {position} ({kind}) does not fit: {error}") from error
        if event.at > last_at:
            last_at = event.at
    recovered.last_at = last_at
    recovered.events += len(events)
