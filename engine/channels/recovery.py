"""State from the log: the newest checkpoint that verifies, then every event after it.

A checkpoint is an accelerator only. It is a row of msgpack messages: a head, then channels. The
same state comes out of the log from its first event, and `state_hash` says so.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engine.channels.actor import ChannelActor
from engine.channels.journal import (
    EVENT_SCHEMA_VERSION,
    ShardJournal,
    committed_checkpoint,
    read_committed,
)
from engine.core.channel import Channel
from engine.core.events import AnyEvent, ClaimReceived
from engine.core.invariants import InvariantBroken
from engine.core.transition import apply, refuse_claim
from engine.core.types import TimeNs
from engine.validation.dedup import RetryWindow
from engine.validation.options import RetryLimits

CHUNK_BYTES: Final = 512 << 10
"""About how large a piece of a checkpoint is; the log takes at most 1 MiB."""

CHANNEL_BYTES_MAX: Final = 512
"""A channel in a checkpoint, its answers not counted: ids, keys, two addresses, numbers."""


class CheckpointHead(msgspec.Struct, frozen=True, array_like=True):
    """What a checkpoint claims to hold; checked against what it does hold."""

    schema: int
    position: int
    channels: int
    claimed_sum: int
    last_at: int


class ChannelRecord(msgspec.Struct, frozen=True, array_like=True):
    """One channel in a checkpoint, with the answers it still repeats."""

    channel: Channel
    position: int
    claim_position: int
    window: bytes


class RecoveryBroken(Exception):  # noqa: N818
    """Log or checkpoint hold what the engine would never have written; refuse to serve."""


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


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(CheckpointHead).decode
_decode_records = msgspec.msgpack.Decoder(list[ChannelRecord]).decode


def checkpoint_chunks(
    actors: dict[bytes, ChannelActor], position: int, last_at: int
) -> Iterator[bytes]:
    """Yield a checkpoint of `actors` as of `position`, in chunks of bounded size."""
    claimed = sum(actor.channel.claimed for actor in actors.values())
    yield _encode(CheckpointHead(EVENT_SCHEMA_VERSION, position, len(actors), claimed, last_at))
    chunk: list[ChannelRecord] = []
    room = CHUNK_BYTES
    for actor in actors.values():
        record = _record(actor)
        room -= CHANNEL_BYTES_MAX + len(record.window)
        if room < 0 and chunk:
            yield _encode(chunk)
            chunk = []
            room = CHUNK_BYTES - CHANNEL_BYTES_MAX - len(record.window)
        chunk.append(record)
    if chunk:
        yield _encode(chunk)


def _record(actor: ChannelActor) -> ChannelRecord:
    window = bytes(actor.window) if actor.window is not None else b""
    return ChannelRecord(actor.channel, actor.position, actor.claim_position, window)


def state_hash(actors: dict[bytes, ChannelActor]) -> str:
    """Return the SHA-256 (hex) over every channel and its answers, in order of channel id."""
    digest = hashlib.sha256()
    for channel_id in sorted(actors):
        digest.update(_encode(_record(actors[channel_id])))
    return digest.hexdigest()


def recover(journal: ShardJournal, limits: RetryLimits, *, from_genesis: bool = False) -> Recovered:
    """Rebuild the channels of a shard from its log.

    Args:
        journal: The log, open.
        limits: Which answers a channel remembers.
        from_genesis: Ignore checkpoints.

    Raises:
        RecoveryBroken: an event does not fit the state before it, or a checkpoint its own head.
    """
    recovered = Recovered({}, TimeNs(0), 0, 0)
    for position, chunks in [] if from_genesis else journal.newest_checkpoint():
        recovered = _from_checkpoint(position, chunks)
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
        CorruptLogError: the log is damaged.
    """
    recovered = Recovered({}, TimeNs(0), 0, 0)
    if not from_genesis:
        for position, chunks in committed_checkpoint(directory, until):
            recovered = _from_checkpoint(position, chunks)
    for first, events in read_committed(directory, recovered.checkpoint_position + 1):
        wanted = events if until is None else events[: until + 1 - first]
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
                if type(event) is ClaimReceived:
                    _refuse_again(before, event)
        except (KeyError, InvariantBroken) as error:
            kind = type(event).__name__
            raise RecoveryBroken(f"event {position} ({kind}) does not fit: {error}") from error
        last_at = max(last_at, event.at)
    recovered.last_at = last_at
    recovered.events += len(events)


def _refuse_again(channel: Channel, claim: ClaimReceived) -> None:
    """Ask again what was asked when the claim came: time, order and amount are in the event."""
    refusal = refuse_claim(channel, claim, claim.at)
    if refusal is not None:
        raise InvariantBroken(channel, f"a claim that is refused: {refusal.code.value}")


def _from_checkpoint(position: int, chunks: Iterator[bytes]) -> Recovered:
    try:
        head = _decode_head(next(chunks))
        records = [record for chunk in chunks for record in _decode_records(chunk)]
    except (StopIteration, msgspec.DecodeError) as error:
        raise RecoveryBroken(f"checkpoint at {position} cannot be read: {error}") from error
    if head.schema != EVENT_SCHEMA_VERSION:
        raise RecoveryBroken(f"checkpoint of schema {head.schema}, not {EVENT_SCHEMA_VERSION}")
    actors: dict[bytes, ChannelActor] = {
        record.channel.terms.channel_id: ChannelActor(
            record.channel,
            record.position,
            record.claim_position,
            RetryWindow(record.window) if record.window else None,
        )
        for record in records
    }
    claimed = sum(record.channel.claimed for record in records)
    if (position, len(actors), claimed) != (head.position, head.channels, head.claimed_sum):
        raise RecoveryBroken(f"checkpoint at {position} does not hold what its head says")
    return Recovered(actors, TimeNs(head.last_at), 0, position)
