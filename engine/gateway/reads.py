"""Reads of one channel, at the consistency the caller asks for."""

from engine.channels.intake.views import BalanceSeen
from engine.channels.messages import ChannelView
from engine.core.rejections import RejectCode, Rejected
from engine.gateway.forms import Malformed, integer_of
from engine.gateway.problems import malformed, refused
from engine.gateway.state import GatewayState

UNKNOWN = Rejected(RejectCode.UNKNOWN_CHANNEL)


async def channel_of(state: GatewayState, channel_id: bytes) -> tuple[int, ChannelView]:
    """Return (shard, channel) as its shard has it on disk.

    Raises:
        Problem: there is none.
    """
    found = await state.router.read(channel_id)
    if found is None:
        raise refused(UNKNOWN)
    return found


async def balance_of(
    state: GatewayState, channel_id: bytes, consistency: str, at_least: str | None
) -> BalanceSeen:
    """Return a balance: `strong` from the shard, `session` at or after a position, or `eventual`.

    Raises:
        Problem: no such channel or level.
        Malformed: no position, or one of another shard.
    """
    if consistency == "strong":
        await channel_of(state, channel_id)
    elif consistency not in ("session", "eventual"):
        raise malformed("consistency", "strong, session or eventual")
    shard, number = None, None
    if consistency == "session" and at_least is not None:
        shard, number = _position_of(at_least)
    seen = await state.router.balance(channel_id, at_least=number)
    if seen is None:
        raise refused(UNKNOWN)
    if shard is not None and shard != seen.shard:
        raise Malformed("at_least", "a position of another shard than the channel's")
    return seen


def _position_of(text: str) -> tuple[int, int]:
    shard, _, number = text.partition("-")
    return integer_of("at_least", shard), integer_of("at_least", number)
