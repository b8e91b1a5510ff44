"""What a gateway knows of channels: keys for the way in, balances for readers and subscribers.

Everything here came from a shard and was durable when it came. It may be old; what authorises money
asks the shard. The table is bounded: the channel longest known is forgotten and asked for again.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from engine.channels.intake.lane import Lane
from engine.channels.intake.submission import Waiting
from engine.channels.messages import Answer, ChannelView, Status
from engine.core.types import State


class BalanceSeen(msgspec.Struct, frozen=True, gc=False):
    """A channel's figures as of `position` of its shard's log, `age_s` seconds old; drops."""

    channel_id: bytes
    shard: int
    claimed: int
    available: int
    redeemed: int
    capacity: int
    sequence: int
    position: int
    age_s: float = 0.0


class Known:
    """What a gateway remembers of one channel."""

    __slots__ = (
        "available", "capacity", "claimed", "lane", "position", "public_key", "redeemed",
        "seen_at", "sequence", "state",
    )  # fmt: skip

    def __init__(self, lane: Lane, view: ChannelView) -> None:
        self.lane = lane
        self.public_key = view.channel.terms.public_key
        self.position = -1
        self.refresh(view)

    def refresh(self, view: ChannelView) -> bool:
        """Take in a view that is not older; False where it says nothing new."""
        if view.position < self.position:
            return False
        is_new = view.position > self.position
        channel = view.channel
        self.state: State = channel.state
        self.claimed: int = channel.claimed
        self.available: int = channel.available
        self.redeemed: int = channel.redeemed
        self.capacity: int = channel.capacity
        self.sequence: int = channel.sequence
        self.position = view.position
        self.seen_at = time.monotonic()
        return is_new

    def take(self, answer: Answer) -> bool:
        """Take in an accepted claim; False where something newer is known."""
        if answer.position <= self.position:
            return False
        self.claimed = answer.claimed
        self.available = answer.available
        self.sequence = answer.sequence
        self.position = answer.position
        self.seen_at = time.monotonic()
        return True

    def balance(self, channel_id: bytes) -> BalanceSeen:
        """Return the figures for a reader."""
        return BalanceSeen(
            channel_id,
            self.lane.shard.number,
            self.claimed,
            self.available,
            self.redeemed,
            self.capacity,
            self.sequence,
            self.position,
            time.monotonic() - self.seen_at,
        )


Listener = Callable[[BalanceSeen], None]
"""Told of every durable change of a channel; must return at once."""


class Views:
    """The channels a gateway has seen, and who wants to hear of their changes."""

    def __init__(self, channels_max: int) -> None:
        self._channels_max = channels_max
        self._known: dict[bytes, Known] = {}
        self._listeners: dict[bytes, set[Listener]] = {}
        self.get = self._known.get

    def __len__(self) -> int:
        return len(self._known)

    def put(self, lane: Lane, view: ChannelView) -> Known:
        """Remember a channel as a shard has just shown it."""
        channel_id = view.channel.terms.channel_id
        known = self._known.get(channel_id)
        if known is None:
            if len(self._known) >= self._channels_max:
                del self._known[next(iter(self._known))]
            known = self._known[channel_id] = Known(lane, view)
            self._tell(channel_id, known)
        elif known.refresh(view):
            self._tell(channel_id, known)
        return known

    def is_wanted(self, channel_id: bytes) -> bool:
        """Say whether a channel is known here, or somebody listens to it."""
        return channel_id in self._known or channel_id in self._listeners

    def take_answers(self, waiting: Sequence[Waiting], answers: Sequence[Answer]) -> None:
        """Take in what a shard answered to claims."""
        known_of, listeners = self._known.get, self._listeners
        for one, answer in zip(waiting, answers, strict=True):
            # A claim that was taken before its answer got lost is the mark all the same.
            if answer.status is Status.ACCEPTED or (
                answer.status is Status.DUPLICATE and answer.claimed == one.item.amount
            ):
                channel_id = one.item.channel_id
                known = known_of(channel_id)
                if known is not None and known.take(answer) and listeners:
                    self._tell(channel_id, known)

    def listen(self, channel_id: bytes, listener: Listener) -> None:
        """Tell `listener` of every change of a channel from now on."""
        self._listeners.setdefault(channel_id, set()).add(listener)

    def unlisten(self, channel_id: bytes, listener: Listener) -> None:
        """Stop telling `listener`."""
        listeners = self._listeners.get(channel_id)
        if listeners is not None:
            listeners.discard(listener)
            if not listeners:
                del self._listeners[channel_id]

    def _tell(self, channel_id: bytes, known: Known) -> None:
        for listener in self._listeners.get(channel_id, ()):
            listener(known.balance(channel_id))
