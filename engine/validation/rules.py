"""Rules that need a look at one channel and one claim, and nothing else."""

from engine.core.channel import Channel
from engine.core.commands import SubmitClaim
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import NS_PER_S, State


def refuse_for_ever(state: State) -> Rejected | None:
    """Refuse what stays refused whatever happens next.

    A gateway may, from its cached view, what is above the mark there: that repeats nothing.
    """
    if state is State.SETTLED:
        return Rejected(RejectCode.NOT_ACTIVE, detail=state.value)
    return None


def refuse_key(channel: Channel, public_key: bytes) -> Rejected | None:
    """Refuse a verdict that was reached with a key other than the channel's own."""
    if public_key != channel.terms.public_key:
        return Rejected(RejectCode.WRONG_KEY)
    return None


def refuse_skew(claim: SubmitClaim, at: int, skew_max_s: int) -> Rejected | None:
    """Refuse a claim whose sender's clock is too far from the engine's."""
    if claim.sent_at is not None and abs(claim.sent_at - at) > skew_max_s * NS_PER_S:
        return Rejected(RejectCode.CLOCK_SKEW, at, claim.sent_at)
    return None
