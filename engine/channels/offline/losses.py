"""What a repair would cost, in claims and in drops: the best claims before it and after it.

The money of a channel is its best claim. So what counts of all that is lost is, for each channel,
by how much the best claim that was ever accepted lies above the best one that is kept; and whether
it can still be read, for then it can still be redeemed. A claim counts when its signature is good:
that needs no log around it.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from engine.channels.offline.best_claims import Redeemable, redeemable
from engine.channels.recovery import Recovered
from engine.core.channel import Channel
from engine.core.claim import signing_message
from engine.core.events import AnyEvent, ChannelOpened, ClaimReceived
from engine.core.transition import apply
from engine.verify.schemes import verify


class LostFrame(Protocol):
    """A frame of the log that will not be kept; see `wal.repairs.salvage.Salvaged`."""

    @property
    def first(self) -> int:
        """Position of its first event."""

    @property
    def count(self) -> int:
        """How many events it has."""

    @property
    def records(self) -> list[AnyEvent] | None:
        """The events; None where they cannot be read."""

    @property
    def sound(self) -> bool:
        """Whether they are what was written; otherwise each must be judged by itself."""


class ChannelLoss(msgspec.Struct, frozen=True, kw_only=True):
    """One channel whose best claim will not be in the log.

    Attributes:
        channel_id: 32 bytes, hex.
        kept_amount: the best claim that stays, drops.
        lost_amount: the best one that could still be read, drops; it is in the file beside.
        drops: at stake: what lies between.
        claims: how many claims of the channel are lost that could be read.
    """

    channel_id: str
    kept_amount: int
    lost_amount: int
    drops: int
    claims: int


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """What is lost with some frames.

    Attributes:
        first: position of the first event that can still be read, 0 where there is none.
        last: position of the last one.
        claims: claims in them that could be read, whatever their signature.
        other_events: events of other kinds, such as a close.
        unreadable: events in frames that can no longer be read.
        unproven: claims behind a gap whose signature fits no longer: what they said is gone.
        channels: whose best claim is among them, the largest loss first.
        redeemable: those best claims, to be kept and redeemed.
        drops: at stake on all channels.
    """

    first: int
    last: int
    claims: int
    other_events: int
    unreadable: int
    unproven: int
    channels: tuple[ChannelLoss, ...]
    redeemable: tuple[Redeemable, ...]
    drops: int


class _Weighing:
    """Goes through the lost frames and keeps the best claim of each channel."""

    def __init__(self, kept: Recovered) -> None:
        self._channels = {name: actor.channel for name, actor in kept.actors.items()}
        self._kept = {name: actor.channel.claimed for name, actor in kept.actors.items()}
        self._opened: dict[bytes, ChannelOpened] = {}
        self.best: dict[bytes, tuple[ClaimReceived, int]] = {}
        self.counts: dict[bytes, int] = {}
        self.unproven = self.other_events = 0

    def take(self, event: AnyEvent, position: int, *, sound: bool) -> None:
        """Weigh one event."""
        if isinstance(event, ChannelOpened):
            self._opened.setdefault(event.channel_id, event)
        if not isinstance(event, ClaimReceived):
            self.other_events += 1
            return
        # However sound its frame is, nobody has looked at the signature of a covered claim.
        if not (sound and type(event) is ClaimReceived) and not self._is_signed(event):
            self.unproven += 1
            return
        self.counts[event.channel_id] = self.counts.get(event.channel_id, 0) + 1
        before = self.best.get(event.channel_id)
        at_least = before[0].amount if before else self._kept.get(event.channel_id, 0)
        if event.amount > at_least:
            self.best[event.channel_id] = event, position

    def channel_of(self, channel_id: bytes) -> Channel | None:
        """Return a channel as it is kept, or as it was opened in what is lost."""
        if channel_id in self._channels:
            return self._channels[channel_id]
        opened = self._opened.get(channel_id)
        if opened is None:
            return None
        return apply(None, opened)

    def kept_amount(self, channel_id: bytes) -> int:
        """Return the best claim that stays, in drops."""
        return self._kept.get(channel_id, 0)

    def _is_signed(self, claim: ClaimReceived) -> bool:
        channel = self.channel_of(claim.channel_id)
        if channel is None:
            return False
        message = signing_message(claim.channel_id, claim.amount)
        return verify(channel.terms.public_key, message, claim.signature)


def weigh(kept: Recovered, shard: int, frames: Iterable[LostFrame]) -> Losses:
    """Return what is lost with `frames` when the log ends in the state `kept`.

    Args:
        kept: The channels of the shard as the repaired log has them.
        shard: Its number, for positions.
        frames: What can still be read beyond its end, in the order of the log.
    """
    weighing = _Weighing(kept)
    first = last = unreadable = 0
    for frame in frames:
        if frame.records is None:
            unreadable += frame.count
            continue
        first = first or frame.first
        last = frame.first + frame.count - 1
        for position, event in enumerate(frame.records, frame.first):
            weighing.take(event, position, sound=frame.sound)
    channels, saved = [], []
    for channel_id, (claim, position) in weighing.best.items():
        line = _saved(weighing.channel_of(channel_id), claim, f"{shard}-{position}")
        if line is None or not line.is_signed():
            weighing.unproven += 1
            continue
        saved.append(line)
        channels.append(
            ChannelLoss(
                channel_id=line.channel_id,
                kept_amount=weighing.kept_amount(channel_id),
                lost_amount=claim.amount,
                drops=claim.amount - weighing.kept_amount(channel_id),
                claims=weighing.counts[channel_id],
            )
        )
    return Losses(
        first=first,
        last=last,
        claims=sum(weighing.counts.values()),
        other_events=weighing.other_events,
        unreadable=unreadable,
        unproven=weighing.unproven,
        channels=tuple(sorted(channels, key=lambda loss: -loss.drops)),
        redeemable=tuple(saved),
        drops=sum(loss.drops for loss in channels),
    )


def _saved(channel: Channel | None, claim: ClaimReceived, position: str) -> Redeemable | None:
    if channel is None:
        return None
    told = msgspec.structs.replace(
        channel,
        claimed=claim.amount,
        sequence=claim.sequence,
        signature=claim.signature,
        proven=None,
    )
    return redeemable(told, position)
