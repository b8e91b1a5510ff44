"""State from the log: the newest checkpoint that verifies, then every event after it.

A checkpoint is an accelerator only: the same state comes out of the log from its first event, and
`state_hash` says so.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from engine.channels.actor import ChannelActor
from engine.channels.actors import Actors
from engine.channels.checkpoint import RecoveryBroken, load
from engine.channels.journal import ShardJournal, committed_checkpoint, read_committed
from engine.channels.options import AWAKE_MAX
from engine.channels.record import record_of
from engine.core.events import AnyEvent, ClaimReceived
from engine.core.invariants import InvariantBroken
from engine.core.transition import apply, refuse_claim
from engine.core.types import TimeNs
from engine.validation.options import RetryLimits

__all__ = [
    "Recovered",
    "RecoveryBroken",
    "begun",
    "recover",
    "recover_committed",
    "replay_into",
    "state_hash",
]

_encode = msgspec.msgpack.Encoder().encode


class Recovered(msgspec.Struct):
    """The channels of a shard, what they owe in all (drops), and how they were found."""

    actors: Actors
    last_at: TimeNs
    events: int
    checkpoint_position: int
    claimed_sum: int

    @property
    def position(self) -> int:
        """Position of the newest event taken in."""
        return self.checkpoint_position + self.events

    def changed(self) -> set[bytes]:
        """Return the ids of the channels that the checkpoint does not say the newest of."""
        return self.actors.changed_since(self.checkpoint_position) if self.events else set()


def state_hash(actors: Actors) -> str:
    """Return the SHA-256 (hex) over every channel and its answers, in order of channel id."""
    digest = hashlib.sha256()
    for channel_id in sorted(actors):
        actor = actors.look(channel_id)
        assert actor is not None
        digest.update(_encode(record_of(actor)))
    return digest.hexdigest()


def begun(
    line: Iterable[tuple[int, Iterator[bytes]]] = (), awake_max: int = AWAKE_MAX
) -> Recovered:
    """Return what a base and its increments stand for; nothing at all where there are none."""
    state = load(line, Actors(awake_max))
    return Recovered(state.actors, state.last_at, 0, state.position, state.claimed_sum)


def recover(
    journal: ShardJournal,
    limits: RetryLimits,
    *,
    from_genesis: bool = False,
    awake_max: int = AWAKE_MAX,
) -> Recovered:
    """Rebuild the channels of a shard from its log.

    Args:
        journal: The log, open.
        limits: Which answers a channel remembers.
        from_genesis: Ignore checkpoints.
        awake_max: Channels that are kept awake though nobody uses them.

    Raises:
        RecoveryBroken: an event does not fit the state before it, or a checkpoint its own head.
        CutLogError: the log no longer goes back that far.
    """
    recovered = begun([] if from_genesis else journal.newest_checkpoint(), awake_max)
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
    recovered = begun([] if from_genesis else committed_checkpoint(directory, until))
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
                actors.add(ChannelActor(apply(None, event), position))
            else:
                before = actor.channel
                actor.take(event, position, limits)
                recovered.claimed_sum += actor.channel.claimed - before.claimed
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
