"""Risk rules: the last word before a claim is decided. Off unless configured, always counted."""

from collections import Counter, OrderedDict
from typing import Final, Protocol

from engine.core.channel import Channel
from engine.core.commands import SubmitClaim
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import AMOUNT_MAX, NS_PER_S
from engine.validation.options import RiskOptions


class RiskRule(Protocol):
    """A rule of an operator's own. Called by one shard, one claim at a time; must not wait."""

    @property
    def name(self) -> str:
        """The word that names the rule in answers and metrics."""

    def check(self, channel: Channel, claim: SubmitClaim, at: int) -> Rejected | None:
        """Refuse a claim whose signature is good, or let it pass."""

    def saw_bad_signature(self, channel_id: bytes, at: int) -> None:
        """Learn that somebody sent a claim for this channel that its payer did not sign."""


class _Windows:
    """Counts per channel in fixed windows of time; forgets the longest quiet channel when full."""

    def __init__(self, window_s: int, channels_max: int) -> None:
        self._window_ns: Final = window_s * NS_PER_S
        self._channels_max: Final = channels_max
        # Not a dict: to find its first key is to pass all that were removed before it.
        self._windows: OrderedDict[bytes, list[int]] = OrderedDict()

    def of(self, channel_id: bytes, at: int) -> list[int]:
        """Return the [start, count, drops] of the channel's present window."""
        window = self._windows.pop(channel_id, None)
        if window is None or at - window[0] >= self._window_ns:
            window = [at, 0, 0]
        if len(self._windows) >= self._channels_max:
            self._windows.popitem(last=False)
        self._windows[channel_id] = window
        return window


class VelocityRule:
    """At most so many claims, and so many drops, per channel and window."""

    name = "velocity"

    def __init__(self, options: RiskOptions) -> None:
        self._claims_max = options.velocity_claims_max
        self._drops_max = options.velocity_drops_max
        self._windows = _Windows(options.window_s, options.channels_watched_max)

    def check(self, channel: Channel, claim: SubmitClaim, at: int) -> Rejected | None:
        """Count the claim into its window; refuse what goes over a limit."""
        window = self._windows.of(claim.channel_id, at)
        drops = window[2] + max(0, claim.amount - channel.claimed)
        if self._claims_max and window[1] + 1 > self._claims_max:
            return Rejected(RejectCode.RISK_REFUSED, self._claims_max, window[1] + 1, self.name)
        if self._drops_max and drops > self._drops_max:
            seen = min(drops, AMOUNT_MAX)  # an answer carries 64 bits
            return Rejected(RejectCode.RISK_REFUSED, self._drops_max, seen, self.name)
        window[1] += 1
        window[2] = drops
        return None

    def saw_bad_signature(self, channel_id: bytes, at: int) -> None:
        """Nothing: bad signatures are another rule's business."""


class BadSignatureRule:
    """Refuses a channel for the rest of the window after too many bad signatures.

    Anybody can send bad signatures for a channel that is not theirs, so this rule lets a stranger
    stop a payer: use it where the way to the gateway is authenticated.
    """

    name = "bad_signatures"

    def __init__(self, options: RiskOptions) -> None:
        self._bad_max = options.bad_signatures_max
        self._windows = _Windows(options.window_s, options.channels_watched_max)

    def check(self, channel: Channel, claim: SubmitClaim, at: int) -> Rejected | None:
        """Refuse while the window has seen more bad signatures than allowed."""
        bad = self._windows.of(claim.channel_id, at)[1]
        if bad > self._bad_max:
            return Rejected(RejectCode.RISK_REFUSED, self._bad_max, bad, self.name)
        return None

    def saw_bad_signature(self, channel_id: bytes, at: int) -> None:
        """Count it."""
        self._windows.of(channel_id, at)[1] += 1


class RiskStage:
    """All rules in order; the first refusal wins."""

    def __init__(self, rules: tuple[RiskRule, ...] = ()) -> None:
        self.rules = rules
        self.refused: Counter[str] = Counter()

    def check(self, channel: Channel, claim: SubmitClaim, at: int) -> Rejected | None:
        """Ask every rule; count the refusal under the rule's name."""
        for rule in self.rules:
            refusal = rule.check(channel, claim, at)
            if refusal is not None:
                self.refused[rule.name] += 1
                return refusal
        return None

    def saw_bad_signature(self, channel_id: bytes, at: int) -> None:
        """Tell every rule."""
        for rule in self.rules:
            rule.saw_bad_signature(channel_id, at)


def shipped_rules(options: RiskOptions) -> tuple[RiskRule, ...]:
    """Return the rules that `options` turns on."""
    rules: list[RiskRule] = []
    if options.velocity_claims_max or options.velocity_drops_max:
        rules.append(VelocityRule(options))
    if options.bad_signatures_max:
        rules.append(BadSignatureRule(options))
    return tuple(rules)
