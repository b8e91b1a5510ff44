"""Which claims of a submission go next. Keeps each channel's claims in their order.

* When a claim has to be sent again, nothing of its channel is sent until all of it that is under
  way has been answered; then the rest goes, from the first that has no final answer.
* Claims without a number have no order but that of arrival, so only one frame of such a channel is
  under way at a time. Numbered ones need no such care: the engine holds what comes early.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from engine.client.options import Backoff
from engine.core.claim import Claim
from engine.core.types import AMOUNT_MAX, SEQUENCE_MAX


class Channel:
    """One channel's claims, by their index in the submission.

    Attributes:
        is_numbered: Every claim has a sequence.
        indices: All of them.
        first: Where in `indices` the first one without a final answer stands, or before it.
        again: Those to be sent again once nothing is under way.
        waiting: Those that may not go yet, in order.
        flying: How many are under way.
        frame: The last frame with a claim of it.
        attempts: How often some were sent again since one got its final answer.
        is_queued: It is ready to send, or will be after a pause.
        moved_at: The landing that last brought word of a claim taken.
    """

    __slots__ = (
        "again",
        "attempts",
        "first",
        "flying",
        "frame",
        "indices",
        "is_numbered",
        "is_queued",
        "moved_at",
        "waiting",
    )

    def __init__(self) -> None:
        self.is_numbered = True
        self.indices: list[int] = []
        self.again: list[int] = []
        self.waiting: deque[int] = deque()
        self.is_queued = False
        self.first = self.flying = self.frame = self.attempts = self.moved_at = 0

    def may_send(self, frame: int) -> bool:
        """Say whether its next claim may go with frame number `frame`."""
        if self.again or self.waiting or self.is_queued:
            return False
        return self.is_numbered or not self.flying or self.frame == frame


class Order:
    """The claims of a submission that have no final answer, and whose turn it is.

    `of` is the channel of each claim. Whoever sees an answer to claim `index` counts down
    `of[index].flying`, then calls `close` or `send_again`, then `go_on`.
    """

    def __init__(
        self, claims: Sequence[Claim], per_frame: int, backoff: Backoff, wake: Callable[[], None]
    ) -> None:
        """Raise ValueError for a number that no frame can carry; `wake` is called after pauses."""
        self.of = _channels(claims)
        self.open = len(claims)
        self._per_frame = per_frame
        self._backoff = backoff
        self._wake = wake
        self._is_final = bytearray(len(claims))
        self._was_repeated = bytearray(len(claims))
        self._fresh = 0
        self._frames = 0
        self._ready: deque[Channel] = deque()

    def is_final(self, index: int) -> bool:
        """Say whether a claim has its final answer."""
        return bool(self._is_final[index])

    def was_repeated(self, index: int) -> bool:
        """Say whether a claim was sent, or should have been, more than once."""
        return bool(self._was_repeated[index])

    def is_first_open(self, index: int) -> bool:
        """Say whether every claim of the channel before this open one has its final answer."""
        channel = self.of[index]
        while self._is_final[channel.indices[channel.first]]:
            channel.first += 1
        return channel.indices[channel.first] == index

    def close(self, index: int) -> None:
        """Take note of a final answer."""
        self._is_final[index] = 1
        self.open -= 1
        self.of[index].attempts = 0

    def send_again(self, index: int) -> None:
        """Let a claim be sent again, in its place."""
        self._was_repeated[index] = 1
        self.of[index].again.append(index)

    def next_frame(self) -> list[int]:
        """Return the indices of the claims to be sent next; they count as under way."""
        frame: list[int] = []
        number, room = self._frames + 1, self._per_frame
        while self._ready and len(frame) < room:
            self._take_waiting(self._ready[0], frame)
        while self._fresh < len(self.of) and len(frame) < room:
            channel = self.of[self._fresh]
            if channel.may_send(number):
                frame.append(self._fresh)
                channel.flying += 1
                channel.frame = number
            else:
                channel.waiting.append(self._fresh)
            self._fresh += 1
        if frame:
            self._frames = number
        return frame

    def _take_waiting(self, channel: Channel, frame: list[int]) -> None:
        """Move claims of a channel whose turn it is into a frame."""
        if not channel.again:
            count = min(self._per_frame - len(frame), len(channel.waiting))
            frame.extend(channel.waiting.popleft() for _ in range(count))
            channel.flying += count
            channel.frame = self._frames + 1
            if channel.waiting and channel.is_numbered:
                return
        self._ready.popleft()
        channel.is_queued = False
        self.go_on(channel)

    def go_on(self, channel: Channel) -> None:
        """Queue a channel that has claims to send and none under way."""
        if channel.flying or channel.is_queued or not (channel.again or channel.waiting):
            return
        channel.is_queued = True
        if not channel.again:
            self._release(channel)
            return
        channel.waiting = deque(sorted([*channel.again, *channel.waiting]))
        channel.again.clear()
        channel.attempts += 1
        pause_s = self._backoff.pause_s(channel.attempts)
        asyncio.get_running_loop().call_later(pause_s, self._release, channel)

    def _release(self, channel: Channel) -> None:
        self._ready.append(channel)
        self._wake()


def _channels(claims: Sequence[Claim]) -> list[Channel]:
    """Return the channel of each claim."""
    by_id: dict[bytes, Channel] = {}
    channels: list[Channel] = []
    for index, claim in enumerate(claims):
        if claim.amount > AMOUNT_MAX or (claim.sequence or 0) > SEQUENCE_MAX:
            raise ValueError(f"claim {index}: amount and sequence are of 64 bits, got {claim}")
        channel = by_id.get(claim.channel_id)
        if channel is None:
            channel = by_id[claim.channel_id] = Channel()
        channel.is_numbered &= claim.sequence is not None
        channel.indices.append(index)
        channels.append(channel)
    return channels
