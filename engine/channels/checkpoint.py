"""What a checkpoint holds: a head that says what to expect, then channels in order of their ids.

A base holds every channel, an increment those that changed since the checkpoint it builds on, and
of the answers a channel repeats only the new ones. Each head names the totals of the whole state,
so a base and its increments are checked against sums that the live shard kept.
"""

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Final

import msgspec

from engine.channels.actor import ChannelActor
from engine.channels.actors import Actors
from engine.channels.codec import EVENT_SCHEMA_VERSION
from engine.channels.record import ALL_KEPT, ChannelRecord, decode_record, encode_record
from engine.core.types import TimeNs
from engine.validation.dedup import ENTRY, RetryWindow

CHUNK_BYTES: Final = 512 << 10
"""About how large a piece of a checkpoint is; the log takes at most 1 MiB."""

Chunks = Iterator[bytes]
_Stream = Iterator[tuple[bytes, int, ChannelRecord]]


class CheckpointHead(msgspec.Struct, frozen=True, array_like=True):
    """What a checkpoint claims to hold; checked against what it does hold.

    `channels` and `claimed_sum` (drops, see `as_claimed_sum`) are those of the whole state at
    `position`. `since` is the position an increment builds on, 0 for a base; `records` how many
    channels lie here.
    """

    schema: int
    position: int
    channels: int
    claimed_sum: int
    last_at: int
    since: int = 0
    records: int = 0


def as_claimed_sum(claimed: int) -> int:
    """Return what a head says of a sum of drops: its lowest 64 bits.

    The drops of one channel fit them; those of 185 channels of the largest capacity do not.
    """
    return claimed & 0xFFFF_FFFF_FFFF_FFFF


class RecoveryBroken(Exception):  # noqa: N818
    """Log or checkpoint hold what the engine would never have written; refuse to serve."""


class UnorderedCheckpointError(Exception):
    """The channels of a checkpoint are not in the order of their ids, so it cannot be merged."""


class State(msgspec.Struct):
    """The channels of a shard as of `position`."""

    actors: Actors
    position: int
    claimed_sum: int
    last_at: TimeNs


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(CheckpointHead).decode
_decode_octets = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_records = msgspec.msgpack.Decoder(list[ChannelRecord]).decode


# Writing ------------------------------------------------------------------------------------------


def checkpoint_chunks(actors: Actors, position: int, last_at: int) -> Iterator[bytes]:
    """Yield a base of `actors` as of `position`, in chunks of bounded size."""
    claimed = as_claimed_sum(sum(actor.channel.claimed for actor in actors.values()))
    head = CheckpointHead(EVENT_SCHEMA_VERSION, position, len(actors), claimed, last_at)
    return encode_checkpoint(head, actors.records())


def encode_checkpoint(
    head: CheckpointHead, records: dict[bytes, ChannelRecord | bytes]
) -> Iterator[bytes]:
    """Yield the chunks of a checkpoint; `records`, some encoded already, are put in order.

    All that is done as late as this is iterated.
    """
    yield _encode(msgspec.structs.replace(head, records=len(records)))
    yield from _chunked(_encoded(records[channel_id]) for channel_id in sorted(records))


def _encoded(record: ChannelRecord | bytes) -> bytes:
    return record if isinstance(record, bytes) else encode_record(record)


def _chunked(records: Iterable[bytes]) -> Iterator[bytes]:
    chunk: list[msgspec.Raw] = []
    room = CHUNK_BYTES
    for octets in records:
        room -= len(octets)
        if room < 0 and chunk:
            yield _encode(chunk)
            chunk = []
            room = CHUNK_BYTES - len(octets)
        chunk.append(msgspec.Raw(octets))
    if chunk:
        yield _encode(chunk)


def _channel_id(record: ChannelRecord) -> bytes:
    return record.channel.terms.channel_id


# Reading ------------------------------------------------------------------------------------------


def load(line: Iterable[tuple[int, Chunks]], actors: Actors | None = None) -> State:
    """Return the state that a base and its increments, each with its position, stand for.

    Args:
        line: The checkpoints.
        actors: Where the channels go; new by default.

    Raises:
        RecoveryBroken: one of them does not hold what its head says, or not what it builds on.
    """
    state = State(Actors() if actors is None else actors, 0, 0, TimeNs(0))
    for position, chunks in line:
        _take(state, position, chunks)
    return state


def _take(state: State, position: int, chunks: Chunks) -> None:
    head = _head(position, chunks)
    if head.since != (state.position if state.actors else 0):
        raise RecoveryBroken(f"checkpoint at {position} builds on {head.since}, not what is there")
    try:
        for chunk in chunks:
            for octets in _decode_octets(chunk):
                _place(state, octets)
    except msgspec.DecodeError as error:
        raise _unreadable(position, error) from error
    found = (position, len(state.actors), as_claimed_sum(state.claimed_sum))
    if found != (head.position, head.channels, head.claimed_sum):
        raise RecoveryBroken(f"checkpoint at {position} does not hold what its head says")
    state.position, state.last_at = position, TimeNs(head.last_at)


def _place(state: State, octets: msgspec.Raw) -> None:
    record = decode_record(octets)
    state.claimed_sum += record.channel.claimed
    actors = state.actors
    actor = actors.look(record.channel.terms.channel_id)
    if actor is None:
        actors.restore(record, octets)
    else:
        state.claimed_sum -= actor.channel.claimed
        _renew(actor, record)
        actors.keep(actor)


def _renew(actor: ChannelActor, record: ChannelRecord) -> None:
    actor.channel = record.channel
    actor.position = record.position
    actor.claim_position = record.claim_position
    if actor.window is None or record.kept == ALL_KEPT:
        actor.window = RetryWindow(record.window) if record.window else None
    else:
        actor.window.join(record.window, record.kept)
    kept = len(actor.window) if actor.window is not None else 0
    if record.kept not in (ALL_KEPT, kept):
        raise RecoveryBroken(f"{record.kept} answers of a channel, of which {kept} are there")


def joined(older: bytes, record: ChannelRecord) -> bytes:
    """Return all answers a channel repeats, of which `older` were there before `record`."""
    if record.kept == ALL_KEPT:
        return record.window
    size = record.kept * ENTRY.size
    answers = (older + record.window)[-size:] if size else b""
    if len(answers) != size:
        raise RecoveryBroken(f"{record.kept} answers of a channel, and too few to join")
    return answers


def _head(position: int, chunks: Chunks) -> CheckpointHead:
    try:
        head = _decode_head(next(chunks))
    except (StopIteration, msgspec.DecodeError) as error:
        raise _unreadable(position, error) from error
    if head.schema != EVENT_SCHEMA_VERSION:
        raise RecoveryBroken(f"checkpoint of schema {head.schema}, not {EVENT_SCHEMA_VERSION}")
    return head


def _unreadable(position: int, error: Exception) -> RecoveryBroken:
    return RecoveryBroken(f"checkpoint at {position} cannot be read: {error!r}")


# Merging ------------------------------------------------------------------------------------------


def merged(line: list[tuple[int, Chunks]]) -> Iterator[bytes]:
    """Yield the chunks of the base that a base and its increments amount to, a little at a time.

    Raises:
        RecoveryBroken: what comes out is not what the head of the last one says; only the reader
            of the very last chunk learns it, so nothing may be used before that.
        UnorderedCheckpointError: one of them was written in another order.
    """
    heads = [_head(position, chunks) for position, chunks in line]
    last = heads[-1]
    yield _encode(msgspec.structs.replace(last, since=0, records=last.channels))
    streams = [_stream(index, *one) for index, one in enumerate(line)]
    totals = _Totals()
    yield from _chunked(map(encode_record, totals.counted(_newest(streams))))
    if (totals.channels, as_claimed_sum(totals.claimed)) != (last.channels, last.claimed_sum):
        raise RecoveryBroken(f"the base merged at {last.position} does not add up")


class _Totals:
    """Counts what goes by."""

    def __init__(self) -> None:
        self.channels = self.claimed = 0

    def counted(self, records: Iterable[ChannelRecord]) -> Iterator[ChannelRecord]:
        for record in records:
            self.channels += 1
            self.claimed += record.channel.claimed
            yield record


def _stream(index: int, position: int, chunks: Chunks) -> _Stream:
    """Yield the records of one checkpoint with id and rank, so that later ones come later."""
    before = b""
    try:
        for chunk in chunks:
            for record in _decode_records(chunk):
                channel_id = _channel_id(record)
                if channel_id <= before:
                    raise UnorderedCheckpointError(f"checkpoint at {position}")
                before = channel_id
                yield channel_id, index, record
    except msgspec.DecodeError as error:
        raise _unreadable(position, error) from error


def _newest(streams: list[_Stream]) -> Iterator[ChannelRecord]:
    """Yield the newest record of each channel, with all the answers it repeats."""
    for _, versions in groupby(merge(*streams), key=itemgetter(0)):
        (_, _, record), *newer_ones = versions
        for _, _, newer in newer_ones:
            window = joined(record.window, newer)
            record = msgspec.structs.replace(newer, window=window, kept=ALL_KEPT)
        yield record
