"""What must hold after every event, live and in replay."""

from typing import Final

from engine.core.channel import Channel
from engine.core.types import State

_SETTLED: Final = State.SETTLED


class InvariantBroken(Exception):  # noqa: N818  (it reads as the sentence it is)
    """Money would be lost or invented; the process must end rather than go on."""

    def __init__(self, channel: Channel, rule: str) -> None:
        super().__init__(channel, rule)  # both, or it cannot be pickled out of a shard's process
        self.channel = channel
        self.rule = rule

    def __str__(self) -> str:
        return f"channel {self.channel.terms.channel_id.hex().upper()}: {self.rule}"


def check(before: Channel | None, channel: Channel) -> None:
    """Hold `channel` against every rule, and against what it was before its last event.

    Raises:
        InvariantBroken: naming the first rule that does not hold.
    """
    # Each field is read once: this runs on every event, and reading is most of its cost.
    capacity, claimed = channel.capacity, channel.claimed
    available, unredeemed = channel.available, channel.unredeemed
    redeemed, returned = channel.redeemed, channel.returned
    if available + unredeemed + redeemed + returned != capacity:
        raise InvariantBroken(channel, "accounts must add up to the capacity")
    if available < 0 or unredeemed < 0 or redeemed < 0 or returned < 0:
        raise InvariantBroken(channel, "no account is ever negative")
    if claimed > capacity:
        raise InvariantBroken(channel, "claimed never exceeds the capacity")
    if channel.state is _SETTLED:
        _check_settled(channel)
    elif unredeemed != claimed:
        raise InvariantBroken(channel, "all that is claimed is owed until the channel settles")
    elif redeemed or returned:
        raise InvariantBroken(channel, "nothing is paid out before the channel settles")
    if before is None:
        _check_first(channel)
    else:
        _check_step(before, channel)


def _check_settled(channel: Channel) -> None:
    if channel.available or channel.unredeemed:
        raise InvariantBroken(channel, "a settled channel holds nothing")


def _check_first(channel: Channel) -> None:
    if channel.version != 1:
        raise InvariantBroken(channel, "the first event makes version 1")


def _check_step(before: Channel, channel: Channel) -> None:
    if channel.proven is not None:
        raise InvariantBroken(channel, "covered claims are followed by the one that covers them")
    if before.state is _SETTLED and _outcome(before) != _outcome(channel):
        raise InvariantBroken(channel, "Settled is final")
    claims, increment = channel.sequence - before.sequence, channel.claimed - before.claimed
    if increment < 0:
        raise InvariantBroken(channel, "claimed never falls")
    if channel.capacity < before.capacity:
        raise InvariantBroken(channel, "capacity never falls")
    if channel.version != before.version + 1:
        raise InvariantBroken(channel, "each event makes the next version")
    if claims not in (0, 1):
        raise InvariantBroken(channel, "sequence rises by one")
    if (claims == 0) is not (increment == 0):
        raise InvariantBroken(channel, "each new sequence raises the amount, and nothing else does")


def _outcome(channel: Channel) -> tuple[State, int, int, int]:
    return channel.state, channel.claimed, channel.redeemed, channel.returned
