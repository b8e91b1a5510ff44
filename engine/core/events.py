"""Events: what has happened to a channel. Append-only; a tag is never used again."""

from typing import Final

import msgspec

from engine.core.rejections import RejectCode
from engine.core.types import ChannelId, Checks, Drops, Sequence, Sequencing, TimeNs


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The head of every event: which channel, which version it makes, when by the shell's clock."""

    channel_id: ChannelId
    version: int
    at: TimeNs


class ChannelOpened(Event, frozen=True, kw_only=True, tag=1):
    """A channel exists; `capacity` drops are available, once funded."""

    source: str
    destination: str
    public_key: bytes
    capacity: Drops
    settle_delay_s: int
    expiration: TimeNs | None
    cancel_after: TimeNs | None
    sequencing: Sequencing


class FundingConfirmed(Event, frozen=True, kw_only=True, tag=2):
    """The ledger holds the channel: it takes claims from now on."""


class ClaimReceived(Event, frozen=True, kw_only=True, tag=3):
    """A claim passed every stage. `amount` is the running total owed, not the increment."""

    sequence: Sequence
    amount: Drops
    signature: bytes
    previous: bytes | int | None = None
    sent_at: TimeNs | None = None
    checks: Checks = Checks.ALL


class ClaimRejected(Event, frozen=True, kw_only=True, tag=4):
    """A claim whose signature is good was refused; kept because the payer can be held to it."""

    sequence: Sequence
    amount: Drops
    signature: bytes
    code: RejectCode


class ChannelFunded(Event, frozen=True, kw_only=True, tag=5):
    """`amount` drops were added to the capacity."""

    amount: Drops


class CloseRequested(Event, frozen=True, kw_only=True, tag=6):
    """The close was asked for; the ledger may end the channel at `expiration`."""

    expiration: TimeNs


class ChannelSettled(Event, frozen=True, kw_only=True, tag=7):
    """The channel is over: `redeemed` drops were paid in all, the rest went back."""

    redeemed: Drops


class DisputeOpened(Event, frozen=True, kw_only=True, tag=8):
    """The parties disagree; nothing moves until it is resolved."""

    reason: str


class ChannelReinstated(Event, frozen=True, kw_only=True, tag=9):
    """A dispute ended and the channel takes claims again."""


class SettlingResumed(Event, frozen=True, kw_only=True, tag=10):
    """A dispute ended and the close goes on."""

    expiration: TimeNs


class ClaimCovered(ClaimReceived, frozen=True, kw_only=True, tag=11):
    """A claim accepted on the strength of a newer one; its own signature was not checked.

    The claim with the sequence `covered_by` is a `ClaimReceived` of the same channel and the same
    frame, over more drops. Between the two lies nothing of the channel but covered claims.
    """

    covered_by: Sequence
    checks: Checks = Checks.COVERED


AnyEvent = (
    ChannelOpened
    | FundingConfirmed
    | ClaimReceived
    | ClaimRejected
    | ChannelFunded
    | CloseRequested
    | ChannelSettled
    | DisputeOpened
    | ChannelReinstated
    | SettlingResumed
    | ClaimCovered
)
EVENT_TYPES: tuple[type[Event], ...] = (
    ChannelOpened,
    FundingConfirmed,
    ClaimReceived,
    ClaimRejected,
    ChannelFunded,
    CloseRequested,
    ChannelSettled,
    DisputeOpened,
    ChannelReinstated,
    SettlingResumed,
    ClaimCovered,
)
encode_event: Final = msgspec.msgpack.Encoder().encode
decode_event: Final = msgspec.msgpack.Decoder(AnyEvent).decode
