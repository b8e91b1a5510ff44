"""Everything that can change a channel. No other file does.

Three functions over two tables. `decide` looks a (state, command) pair up in `COMMANDS` and says,
without doing it, which events the command would cause or why it is refused. `apply` looks a
(state, event) pair up in `TRANSITIONS` and returns the channel as it is afterwards; it is the only
way a channel changes, live or in replay. `replay` folds. The diagram in docs/reference/states.md
is drawn from `TRANSITIONS`, so table, code and picture cannot disagree.

Two rules: time comes in as an argument, and every event moves drops between the accounts of the
channel so that their sum stays the capacity (`invariants` checks it after each one).
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, Final

from msgspec.structs import replace

from engine.core.channel import Channel, Proven
from engine.core.commands import (
    AnyCommand,
    Command,
    ConfirmFunding,
    CoverClaim,
    FundChannel,
    OpenDispute,
    RequestClose,
    ResolveDispute,
    SettleChannel,
    SubmitClaim,
)
from engine.core.events import (
    AnyEvent,
    ChannelFunded,
    ChannelOpened,
    ChannelReinstated,
    ChannelSettled,
    ClaimCovered,
    ClaimReceived,
    ClaimRejected,
    CloseRequested,
    DisputeOpened,
    Event,
    FundingConfirmed,
    SettlingResumed,
)
from engine.core.invariants import InvariantBroken, check
from engine.core.opening import opened
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import (
    DROPS_MAX,
    NS_PER_S,
    REASON_MAX,
    Checks,
    Drops,
    State,
    TimeNs,
)

PENDING, ACTIVE, SETTLING = State.PENDING, State.ACTIVE, State.SETTLING
SETTLED, DISPUTED = State.SETTLED, State.DISPUTED

_ALL: Final = Checks.ALL
_COVERED: Final = Checks.COVERED
Decision = tuple[AnyEvent, ...] | Rejected


# What an event does to the accounts ---------------------------------------------------------------


def _changed(channel: Channel, event: Event, state: State, **changes: Any) -> Channel:
    return replace(channel, state=state, version=event.version, updated_at=event.at, **changes)


def _keep(channel: Channel, event: Event, state: State) -> Channel:
    return _changed(channel, event, state)


def take_claim(channel: Channel, event: ClaimReceived, state: State) -> Channel:
    """Return an active channel as it is after a claim of its own; what `apply` does with one.

    Raises:
        InvariantBroken: as of `apply`.
    """
    claimed, amount, capacity = channel.claimed, event.amount, channel.capacity
    available, owed = channel.available + claimed - amount, channel.unredeemed
    # All that is claimed is owed, so one number serves both fields: 32 bytes a channel.
    unredeemed = amount if owed == claimed else Drops(owed + amount - claimed)
    redeemed, returned = channel.redeemed, channel.returned
    version, sequence, previous = event.version, event.sequence, event.previous
    # By place, not by name, and no NewType called: nearly every event of a log comes through here.
    after = Channel(
        channel.terms,
        state,
        version,
        capacity,
        channel.expiration,
        available,  # type: ignore[arg-type]
        unredeemed,
        redeemed,
        returned,
        amount,
        sequence,
        event.signature,
        previous if type(previous) is bytes else None,
        event.at,
    )
    # Every invariant of a claim's step in one look; which one is broken is for `check` to say.
    if not (
        0 <= claimed < amount <= capacity
        and available + amount == capacity
        and owed == claimed
        and not (redeemed or returned)
        and version == channel.version + 1
        and sequence == channel.sequence + 1
    ):
        check(before=channel, channel=after)
        raise InvariantBroken(channel, "sequence rises by one")
    proven = channel.proven
    if proven is not None and sequence != proven.covered_by and type(event) is ClaimReceived:
        raise InvariantBroken(channel, "covered claims end with the one that covers them")
    return after


def _take_covered(channel: Channel, event: ClaimCovered, state: State) -> Channel:
    """Take a claim, and go on knowing what the newest signature that was checked is over."""
    proven = channel.proven or Proven(channel.claimed, channel.sequence, event.covered_by)
    if not event.sequence < event.covered_by == proven.covered_by:
        raise InvariantBroken(channel, "covered claims name the one that covers them")
    after = take_claim(channel, event, state)
    return replace(after, signature=channel.signature, proven=proven)


def _add_funds(channel: Channel, event: ChannelFunded, state: State) -> Channel:
    return _changed(
        channel,
        event,
        state,
        capacity=channel.capacity + event.amount,
        available=channel.available + event.amount,
    )


def _set_expiration(
    channel: Channel, event: CloseRequested | SettlingResumed, state: State
) -> Channel:
    return _changed(channel, event, state, expiration=event.expiration)


def _pay_out(channel: Channel, event: ChannelSettled, state: State) -> Channel:
    return _changed(
        channel,
        event,
        state,
        available=Drops(0),
        unredeemed=Drops(0),
        redeemed=event.redeemed,
        returned=channel.capacity - event.redeemed,
    )


TRANSITIONS: Final[dict[tuple[State, type[Event]], tuple[State, Callable[..., Channel]]]] = {
    # state     event               next state  what it does
    (PENDING,   FundingConfirmed):  (ACTIVE,    _keep),
    (PENDING,   ClaimRejected):     (PENDING,   _keep),
    (ACTIVE,    ClaimReceived):     (ACTIVE,    take_claim),
    (ACTIVE,    ClaimCovered):      (ACTIVE,    _take_covered),
    (ACTIVE,    ClaimRejected):     (ACTIVE,    _keep),
    (ACTIVE,    ChannelFunded):     (ACTIVE,    _add_funds),
    (ACTIVE,    CloseRequested):    (SETTLING,  _set_expiration),
    (ACTIVE,    DisputeOpened):     (DISPUTED,  _keep),
    (SETTLING,  ClaimRejected):     (SETTLING,  _keep),
    (SETTLING,  ChannelFunded):     (SETTLING,  _add_funds),
    (SETTLING,  DisputeOpened):     (DISPUTED,  _keep),
    (SETTLING,  ChannelSettled):    (SETTLED,   _pay_out),
    (DISPUTED,  ClaimRejected):     (DISPUTED,  _keep),
    (DISPUTED,  ChannelReinstated): (ACTIVE,    _keep),
    (DISPUTED,  SettlingResumed):   (SETTLING,  _set_expiration),
    (DISPUTED,  ChannelSettled):    (SETTLED,   _pay_out),
    (SETTLED,   ClaimRejected):     (SETTLED,   _keep),
}  # fmt: skip


# What a command would cause -----------------------------------------------------------------------


def _claim(channel: Channel, command: SubmitClaim, at: TimeNs) -> Decision:
    return _taken(ClaimReceived, channel, command, at, checks=command.checks)


def _cover(channel: Channel, command: CoverClaim, at: TimeNs) -> Decision:
    return _taken(ClaimCovered, channel, command, at, covered_by=command.covered_by)


def _taken(
    kind: Callable[..., ClaimReceived],
    channel: Channel,
    command: SubmitClaim,
    at: TimeNs,
    **proof: Any,
) -> Decision:
    """Refuse a claim, or return the one event of `kind` that it causes."""
    refusal = refuse_claim(channel, command, at)
    if refusal is not None:
        return refusal
    return (
        kind(
            channel_id=command.channel_id,
            version=channel.version + 1,
            at=at,
            sequence=command.sequence,
            amount=command.amount,
            signature=command.signature,
            previous=command.previous,
            sent_at=command.sent_at,
            **proof,
        ),
    )


def refuse_claim(
    channel: Channel, command: SubmitClaim | ClaimReceived, at: TimeNs
) -> Rejected | None:
    """Say why an Active `channel` refuses a claim, or could not have taken it; None if it may."""
    if command.checks is not _ALL and _is_unproven(command):
        return Rejected(RejectCode.BAD_SIGNATURE)
    ends_at = channel.ends_at
    if ends_at is not None and at >= ends_at:
        return Rejected(RejectCode.CHANNEL_EXPIRED, ends_at, at)
    if command.sequence != channel.sequence + 1:
        code = RejectCode.SEQUENCE_USED
        if command.sequence > channel.sequence:
            code = RejectCode.SEQUENCE_GAP
        return Rejected(code, channel.sequence + 1, command.sequence)
    if command.previous is not None and not _is_mark(channel, command.previous):
        return Rejected(RejectCode.CONFLICT, channel.claimed, 0, "`previous` is not the mark")
    if command.amount <= channel.claimed:
        return Rejected(RejectCode.AMOUNT_NOT_INCREASING, channel.claimed, command.amount)
    if command.amount > channel.capacity:
        return Rejected(RejectCode.AMOUNT_OVER_CAPACITY, channel.capacity, command.amount)
    return None


def _is_unproven(command: SubmitClaim | ClaimReceived) -> bool:
    if isinstance(command, CoverClaim | ClaimCovered):
        return command.checks is not _COVERED
    return not command.checks & Checks.SIGNATURE


def _is_mark(channel: Channel, previous: bytes | int) -> bool:
    if isinstance(previous, bytes):
        return previous == channel.mark_digest
    return previous == channel.claimed


def _next(
    kind: Callable[..., AnyEvent], channel: Channel, at: TimeNs, **body: Any
) -> tuple[AnyEvent, ...]:
    """Return the one event that makes the next version of `channel`."""
    head = {"channel_id": channel.terms.channel_id, "version": channel.version + 1, "at": at}
    return (kind(**head, **body),)


def _confirm(channel: Channel, command: ConfirmFunding, at: TimeNs) -> Decision:
    return _next(FundingConfirmed, channel, at)


def _fund(channel: Channel, command: FundChannel, at: TimeNs) -> Decision:
    if command.previous is not None and command.previous != channel.capacity:
        detail = "`previous` is not the capacity"
        return Rejected(RejectCode.CONFLICT, channel.capacity, command.previous, detail)
    if not 0 < command.amount <= DROPS_MAX - channel.capacity:
        detail = f"amount must be 1 to {DROPS_MAX - channel.capacity} drops"
        return Rejected(RejectCode.MALFORMED, DROPS_MAX - channel.capacity, command.amount, detail)
    return _next(ChannelFunded, channel, at, amount=command.amount)


def _request_close(channel: Channel, command: RequestClose, at: TimeNs) -> Decision:
    return _next(CloseRequested, channel, at, expiration=_after_notice(channel, at))


def _after_notice(channel: Channel, at: TimeNs) -> TimeNs:
    # XRPL: a close brings a far Expiration forward, and never postpones a near one.
    notice = TimeNs(at + channel.terms.settle_delay_s * NS_PER_S)
    return notice if channel.expiration is None else min(notice, channel.expiration)


def _settle(channel: Channel, command: SettleChannel | ResolveDispute, at: TimeNs) -> Decision:
    redeemed = channel.claimed if command.redeemed is None else command.redeemed
    if not 0 <= redeemed <= channel.capacity:
        detail = f"redeemed must be 0 to {channel.capacity} drops"
        return Rejected(RejectCode.MALFORMED, channel.capacity, redeemed, detail)
    return _next(ChannelSettled, channel, at, redeemed=redeemed)


def _dispute(channel: Channel, command: OpenDispute, at: TimeNs) -> Decision:
    if len(command.reason) > REASON_MAX:
        detail = f"a reason has at most {REASON_MAX} characters"
        return Rejected(RejectCode.MALFORMED, REASON_MAX, len(command.reason), detail)
    return _next(DisputeOpened, channel, at, reason=command.reason)


def _resolve(channel: Channel, command: ResolveDispute, at: TimeNs) -> Decision:
    match command.outcome:
        case State.ACTIVE:
            return _next(ChannelReinstated, channel, at)
        case State.SETTLING:
            return _next(SettlingResumed, channel, at, expiration=_after_notice(channel, at))
        case State.SETTLED:
            return _settle(channel, command, at)
        case _:
            detail = "outcome must be Active, Settling or Settled"
            return Rejected(RejectCode.MALFORMED, detail=detail)


COMMANDS: Final[dict[tuple[State, type[Command]], Callable[..., Decision]]] = {
    # state     command          what it would cause
    (PENDING,   ConfirmFunding): _confirm,
    (ACTIVE,    SubmitClaim):    _claim,
    (ACTIVE,    CoverClaim):     _cover,
    (ACTIVE,    FundChannel):    _fund,
    (ACTIVE,    RequestClose):   _request_close,
    (ACTIVE,    OpenDispute):    _dispute,
    (SETTLING,  FundChannel):    _fund,
    (SETTLING,  OpenDispute):    _dispute,
    (SETTLING,  SettleChannel):  _settle,
    (DISPUTED,  ResolveDispute): _resolve,
}  # fmt: skip


def decide(channel: Channel, command: AnyCommand, at: TimeNs) -> Decision:
    """Say what `command` would do to `channel` at time `at`, without doing it."""
    rule = COMMANDS.get((channel.state, type(command)))
    if rule is None:
        code = RejectCode.WRONG_STATE
        if isinstance(command, SubmitClaim):
            code = RejectCode.NOT_ACTIVE
        return Rejected(code, detail=channel.state.value)
    return rule(channel, command, at)


def decide_refusal(
    channel: Channel, command: SubmitClaim, code: RejectCode, at: TimeNs
) -> ClaimRejected:
    """Return the event that keeps a refusal whose claim was signed by the payer."""
    return ClaimRejected(
        channel_id=command.channel_id,
        version=channel.version + 1,
        at=at,
        sequence=command.sequence,
        amount=command.amount,
        signature=command.signature,
        code=code,
    )


# Doing it -----------------------------------------------------------------------------------------


def apply(channel: Channel | None, event: AnyEvent) -> Channel:
    """Return the channel as it is after `event`. The only way a channel changes, live or in replay.

    Raises:
        KeyError: the log holds a pair (state, event) that `decide` never emits, or an event of
            another channel.
        InvariantBroken: money would be lost or invented.
    """
    if channel is None:
        if not isinstance(event, ChannelOpened):
            raise KeyError(type(event))
        after = opened(event)
    elif event.channel_id != channel.terms.channel_id:
        raise KeyError(event.channel_id.hex())
    else:
        next_state, update = TRANSITIONS[channel.state, type(event)]
        after = update(channel, event, next_state)
        if update is take_claim or update is _take_covered:  # which have looked already
            return after
    check(channel, after)
    return after


def replay(channel: Channel | None, events: Iterable[AnyEvent]) -> Channel | None:
    """Fold `events`, oldest first, over `channel`."""
    return reduce(apply, events, channel)
