"""Commands: what somebody wants of a channel. Each may be refused."""

import msgspec

from engine.core.types import ChannelId, Checks, Drops, Sequence, Sequencing, State, TimeNs


class Command(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """The head of every command: the channel it is for."""

    channel_id: ChannelId


class OpenChannel(Command, frozen=True, kw_only=True, tag=1):
    """Open a channel; Pending unless `funded` says that the ledger has it already."""

    source: str
    destination: str
    public_key: bytes
    capacity: Drops
    settle_delay_s: int
    expiration: TimeNs | None = None
    cancel_after: TimeNs | None = None
    sequencing: Sequencing = Sequencing.STRICT
    funded: bool = False


class ConfirmFunding(Command, frozen=True, kw_only=True, tag=2):
    """Say that the ledger holds the channel with its capacity."""


class SubmitClaim(Command, frozen=True, kw_only=True, tag=3):
    """Take a claim. `checks` names the layers it has passed; without the signature no event."""

    sequence: Sequence
    amount: Drops
    signature: bytes
    previous: bytes | int | None = None
    sent_at: TimeNs | None = None
    checks: Checks = Checks.NONE


class CoverClaim(SubmitClaim, frozen=True, kw_only=True, tag=9):
    """Take a claim on the strength of that with the sequence `covered_by`, which must follow."""

    covered_by: Sequence
    checks: Checks = Checks.COVERED


class FundChannel(Command, frozen=True, kw_only=True, tag=4):
    """Add `amount` drops to the capacity.

    `previous` is the capacity the sender believes in, checked where given: with it the command can
    be sent again after an unknown outcome and is done at most once.
    """

    amount: Drops
    previous: Drops | None = None


class RequestClose(Command, frozen=True, kw_only=True, tag=5):
    """Ask for the close: the channel ends after its settle delay, and takes no more claims."""


class SettleChannel(Command, frozen=True, kw_only=True, tag=6):
    """End the channel. `redeemed` is what the ledger paid in all; None means all that is claimed.

    It may be above what was claimed: a source can pay on the ledger without any claim.
    """

    redeemed: Drops | None = None


class OpenDispute(Command, frozen=True, kw_only=True, tag=7):
    """Stop the channel because the parties disagree."""

    reason: str = ""


class ResolveDispute(Command, frozen=True, kw_only=True, tag=8):
    """End the dispute: back to Active or Settling, or Settled with `redeemed`."""

    outcome: State
    redeemed: Drops | None = None


AnyCommand = (
    OpenChannel
    | ConfirmFunding
    | SubmitClaim
    | CoverClaim
    | FundChannel
    | RequestClose
    | SettleChannel
    | OpenDispute
    | ResolveDispute
)
COMMAND_TYPES: tuple[type[Command], ...] = (
    OpenChannel,
    ConfirmFunding,
    SubmitClaim,
    CoverClaim,
    FundChannel,
    RequestClose,
    SettleChannel,
    OpenDispute,
    ResolveDispute,
)
