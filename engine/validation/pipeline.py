"""The order of the layers in the shard; the first refusal wins.

key → signature → seen before? → state → clock → order → risk. What passes all of them is decided
by `core.transition`. Pure but for the two memories it owns: early claims and risk counts.
"""

import msgspec
from msgspec.structs import replace

from engine.core.channel import Channel
from engine.core.commands import SubmitClaim
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import NS_PER_S, Sequence, Sequencing, State
from engine.validation.dedup import FirstAnswer, RetryWindow
from engine.validation.options import ValidationOptions
from engine.validation.reorder import TICKETS_MAX, HoldBuffer, Ticket
from engine.validation.risk import RiskStage
from engine.validation.rules import refuse_skew


class Buffered(msgspec.Struct, frozen=True, gc=False):
    """The claim came early and is held; these numbers are missing before it."""

    missing: tuple[int, ...]


Admission = SubmitClaim | FirstAnswer | Buffered | Rejected
"""A claim to be decided now, the answer it got before, held for later, or refused."""


class Pipeline:
    """The layers of one shard, with its memories of early claims and of risk."""

    def __init__(self, options: ValidationOptions, risk: RiskStage) -> None:
        self.options = options
        self.risk = risk
        self.held = HoldBuffer(options)

    def admit(
        self,
        channel: Channel,
        window: RetryWindow,
        claim: SubmitClaim,
        ticket: Ticket,
        at: int,
    ) -> Admission:
        """Pass a claim, whose signature and key are good, through the layers behind those.

        Args:
            channel: The channel as it is.
            window: What its newest claims were answered.
            claim: As it came; `sequence` 0 where the sender gave none.
            ticket: Whom to tell when a held claim is decided.
            at: The shard's clock, ns.
        """
        if channel.terms.sequencing is Sequencing.AMOUNT:
            claim = replace(claim, sequence=Sequence(channel.sequence + 1))
        elif not claim.sequence:
            return Rejected(RejectCode.MALFORMED, detail="`sequence` is required here")
        seen = self._seen_before(channel, window, claim, at)
        if seen is not None:
            return seen
        if channel.state is not State.ACTIVE:
            return claim
        skewed = refuse_skew(claim, at, self.options.clock_skew_max_s)
        if skewed is not None:
            return skewed
        if claim.sequence > channel.sequence + 1:
            return self._hold(channel, claim, ticket, at)
        return self.weigh(channel, claim, at)

    def recall(
        self, channel: Channel, window: RetryWindow, claim: SubmitClaim, at: int
    ) -> FirstAnswer | None:
        """Return what exactly this claim was answered before; None where it is not known."""
        seen = self._seen_before(channel, window, claim, at)
        return seen if isinstance(seen, FirstAnswer) else None

    def weigh(self, channel: Channel, claim: SubmitClaim, at: int) -> SubmitClaim | Rejected:
        """Ask the risk rules about a claim whose turn it is."""
        return self.risk.check(channel, claim, at) or claim

    def _seen_before(
        self, channel: Channel, window: RetryWindow, claim: SubmitClaim, at: int
    ) -> FirstAnswer | Rejected | None:
        by_amount = channel.terms.sequencing is Sequencing.AMOUNT
        if by_amount:
            if claim.amount > channel.claimed:
                return None
            first = window.by_amount(channel.sequence, claim.amount)
        else:
            if claim.sequence > channel.sequence:
                return None
            first = window.by_sequence(channel.sequence, claim.sequence)
        if first is not None and at - first.at > self.options.retry_window_s * NS_PER_S:
            first = None
        if first is None:
            return _too_old(channel, claim, by_amount=by_amount)
        if first.amount != claim.amount:
            return Rejected(RejectCode.SEQUENCE_CONFLICT, first.amount, claim.amount)
        return first

    def _hold(
        self, channel: Channel, claim: SubmitClaim, ticket: Ticket, at: int
    ) -> Buffered | Rejected:
        expected = channel.sequence + 1
        held = self.held.find(claim.channel_id, claim.sequence)
        if held is not None:
            if held.claim.amount != claim.amount:
                return Rejected(RejectCode.SEQUENCE_CONFLICT, held.claim.amount, claim.amount)
            if len(held.tickets) == TICKETS_MAX:  # `buffered` would promise a decision later
                return Rejected(RejectCode.SEQUENCE_GAP, expected, claim.sequence)
            held.tickets.append(ticket)
        elif not self.held.hold(claim, ticket, at):
            return Rejected(RejectCode.SEQUENCE_GAP, expected, claim.sequence)
        return Buffered(self.held.missing(claim.channel_id, expected, claim.sequence))


def _too_old(channel: Channel, claim: SubmitClaim, *, by_amount: bool) -> Rejected:
    if by_amount:
        return Rejected(RejectCode.AMOUNT_NOT_INCREASING, channel.claimed, claim.amount)
    return Rejected(RejectCode.SEQUENCE_USED, channel.sequence + 1, claim.sequence)
