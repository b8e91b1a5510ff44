"""What a gateway knows of channels: keys for the way in, balances for readers and subscribers.

Everything here came from a shard and was durable when it came. It may be old; what authorises money
asks the shard. The table is bounded: the channel longest known is forgotten and asked for again.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from engine.channels.answers import accepted, refused_unseen
from engine.channels.intake.lane import Lane
from engine.channels.messages import Answer, ChannelView, Status
from engine.core.rejections import Rejected
from engine.validation.rules import refuse_for_ever
from engine.verify.batch import Item


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
    """What a gateway remembers of one channel.

    Attributes:
        lane: The way to its shard.
        public_key: What its claims are checked with.
        refusal: What claims above the mark are refused with for ever; None while they may go on.
        mark: Its figures, as the answer to an accepted claim says them.
        closed: Drops that are neither claimed nor available: 0 until the channel is settled.
    """

    __slots__ = ("closed", "lane", "mark", "public_key", "redeemed", "refusal", "seen_at")

    def __init__(self, lane: Lane, view: ChannelView) -> None:
        self.lane = lane
        self.public_key = view.channel.terms.public_key
        self._see(view)

    @property
    def position(self) -> int:
        """Where in the log of its shard the figures stand."""
        return self.mark.position

    def refresh(self, view: ChannelView) -> bool:
        """Take in a view that is not older; False where it says nothing new."""
        known = self.mark.position
        if view.position >= known:
            self._see(view)
        return view.position > known

    def _see(self, view: ChannelView) -> None:
        self.refusal = refuse_for_ever(view.channel.state)
        channel = view.channel
        self.redeemed: int = channel.redeemed
        self.closed: int = channel.capacity - channel.claimed - channel.available
        self.mark = accepted(channel, view.position)
        self.seen_at = time.monotonic()

    def refused(self, refusal: Rejected, sequence: int | None) -> Answer:
        """Return the answer to a claim that is refused here, with the marks of the channel."""
        unseen = refused_unseen(refusal, sequence or 0)
        return replace(unseen, claimed=self.mark.claimed, available=self.mark.available)

    def balance(self, channel_id: bytes) -> BalanceSeen:
        """Return the figures for a reader."""
        mark = self.mark
        return BalanceSeen(
            channel_id,
            self.lane.shard.number,
            mark.claimed,
            mark.available,
            self.redeemed,
            mark.claimed + mark.available + self.closed,
            mark.sequence,
            mark.position,
            time.monotonic() - self.seen_at,
        )


Listener = Callable[[BalanceSeen], None]
"""Told of every durable change of a channel; must return at once."""


class Views:
    """The channels a gateway has seen, and who wants to hear of their changes."""

    def __init__(self, channels_max: int) -> None:
        self._channels_max = channels_max
        self._known: dict[bytes, Known] = {}
        # A dict finds its oldest entry by way of all the places of those it has lost.
        self._oldest: deque[bytes] = deque()
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
                del self._known[self._oldest.popleft()]
            known = self._known[channel_id] = Known(lane, view)
            self._oldest.append(channel_id)
            self._tell(channel_id, known)
        elif known.refresh(view):
            self._tell(channel_id, known)
        return known

    def is_wanted(self, channel_id: bytes) -> bool:
        """Say whether a channel is known here, or somebody listens to it."""
        return channel_id in self._known or channel_id in self._listeners

    def take_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        """Take in what a shard answered to claims."""
        known_of, now = self._known.get, time.monotonic()
        taken, again = Status.ACCEPTED, Status.DUPLICATE
        for item, answer in zip(items, answers, strict=True):
            # A claim that was taken before its answer got lost is the mark all the same.
            status = answer.status
            if status is taken or (status is again and answer.claimed == item.amount):
                known = known_of(item.channel_id)
                if known is not None and answer.position > known.mark.position:
                    known.mark = answer
                    known.seen_at = now
                    if self._listeners:
                        self._tell(item.channel_id, known)

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
