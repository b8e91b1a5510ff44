"""A channel's beginning: what opening one would cause, and the channel it makes."""

from sys import intern

from engine.core.channel import Channel, Terms
from engine.core.commands import OpenChannel
from engine.core.events import ChannelOpened, FundingConfirmed
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import DROPS_MAX, SETTLE_DELAY_MAX_S, State, TimeNs


def decide_open(
    command: OpenChannel, at: TimeNs
) -> tuple[ChannelOpened | FundingConfirmed, ...] | Rejected:
    """Say what opening would cause where no channel of this id exists."""
    if not 0 < command.capacity <= DROPS_MAX:
        detail = f"capacity must be 1 to {DROPS_MAX} drops"
        return Rejected(RejectCode.MALFORMED, DROPS_MAX, command.capacity, detail)
    if not 0 <= command.settle_delay_s <= SETTLE_DELAY_MAX_S:
        detail = f"settle delay must be 0 to {SETTLE_DELAY_MAX_S} s"
        return Rejected(RejectCode.MALFORMED, SETTLE_DELAY_MAX_S, 0, detail)
    opened = ChannelOpened(
        channel_id=command.channel_id,
        version=1,
        at=at,
        source=command.source,
        destination=command.destination,
        public_key=command.public_key,
        capacity=command.capacity,
        settle_delay_s=command.settle_delay_s,
        expiration=command.expiration,
        cancel_after=command.cancel_after,
        sequencing=command.sequencing,
    )
    if not command.funded:
        return (opened,)
    return (opened, FundingConfirmed(channel_id=command.channel_id, version=2, at=at))


def terms_of(opening: ChannelOpened | OpenChannel) -> Terms:
    """Return the terms that an opening, asked for or done, gives a channel."""
    return Terms(
        channel_id=opening.channel_id,
        source=opening.source,
        destination=intern(opening.destination),  # few are paid by many
        public_key=opening.public_key,
        settle_delay_s=opening.settle_delay_s,
        cancel_after=opening.cancel_after,
        sequencing=opening.sequencing,
        opening_capacity=opening.capacity,
        opening_expiration=opening.expiration,
    )


def opened(event: ChannelOpened) -> Channel:
    """Return the channel that an opening makes."""
    return Channel(
        terms=terms_of(event),
        state=State.PENDING,
        version=event.version,
        capacity=event.capacity,
        expiration=event.expiration,
        available=event.capacity,
        updated_at=event.at,
    )
