"""One channel as bytes: how a checkpoint keeps it, and a shard that has more than are in use."""

from typing import Final

import msgspec

from engine.channels.actor import ChannelActor
from engine.core.channel import Channel
from engine.validation.dedup import RetryWindow

ALL_KEPT: Final = -1


class ChannelRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One channel in a checkpoint, with the answers it still repeats.

    `window` holds the answers that are new since the checkpoint before, `kept` how many there are
    with the older ones; `ALL_KEPT` says that `window` holds them all.
    """

    channel: Channel
    position: int
    claim_position: int
    window: bytes
    kept: int = ALL_KEPT


encode_record: Final = msgspec.msgpack.Encoder().encode
decode_record: Final = msgspec.msgpack.Decoder(ChannelRecord).decode


def record_of(actor: ChannelActor, since: int = 0) -> ChannelRecord:
    """Return a channel as a checkpoint keeps it, with the answers newer than position `since`."""
    window = actor.window
    if window is None:
        return ChannelRecord(actor.channel, actor.position, actor.claim_position, b"", ALL_KEPT)
    answers = window.newer_than(since) if since else bytes(window)
    kept = len(window) if since else ALL_KEPT
    return ChannelRecord(actor.channel, actor.position, actor.claim_position, answers, kept)


def actor_of(record: ChannelRecord) -> ChannelActor:
    """Return the channel of a record that holds all its answers."""
    window = RetryWindow(record.window) if record.window else None
    return ChannelActor(record.channel, record.position, record.claim_position, window)


def to_octets(actor: ChannelActor) -> bytes:
    """Return the whole of a channel, as a base holds it."""
    # Copied, for what an encoder returns keeps the room it grew into: some 40 bytes a channel.
    return bytes(memoryview(encode_record(record_of(actor))))


def from_octets(octets: bytes) -> ChannelActor:
    """Return the channel that `to_octets` was given."""
    return actor_of(decode_record(octets))
