"""Settings of the validation layers; every one is a limit."""

from typing import Annotated

import msgspec
from msgspec import Meta

from engine.core.types import NS_PER_S

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class RetryLimits(msgspec.Struct, frozen=True, gc=False):
    """For how many of a channel's newest claims, and for how long (ns), answers are kept."""

    claims_max: int
    window_ns: int


class ValidationOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long answers are remembered and early claims are held.

    Attributes:
        retry_window_s: How long the first answer to a claim is given again.
        retry_claims_max: For how many of the newest claims of a channel; not less than a gateway
            may have on its way to a shard, or a claim sent again after a crash is not known.
        hold_ms: How long a claim that came early waits for the ones before it.
        hold_claims_per_channel_max: Early claims one channel may have waiting.
        hold_claims_max: Early claims one shard may have waiting.
        missing_named_max: Missing numbers named in one answer.
        clock_skew_max_s: How far a sender's clock may be off where `sent_at` is given.
    """

    retry_window_s: Count = 300
    retry_claims_max: Annotated[int, Meta(ge=1, le=16_384)] = 1_024
    hold_ms: Count = 2_000
    hold_claims_per_channel_max: Count = 256
    hold_claims_max: Count = 16_384
    missing_named_max: Count = 64
    clock_skew_max_s: Count = 300

    @property
    def retries(self) -> RetryLimits:
        """How long answers are kept, as the retry window takes it."""
        return RetryLimits(self.retry_claims_max, self.retry_window_s * NS_PER_S)


class RiskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The risk rules that come along; a limit of 0 leaves the rule off.

    Attributes:
        velocity_claims_max: Claims a channel may send in one window.
        velocity_drops_max: Drops a channel may promise in one window.
        bad_signatures_max: Bad signatures after which a channel is refused for the window.
        window_s: Length of the windows of both rules.
        channels_watched_max: Channels whose counts are kept; the longest quiet one is forgotten.
    """

    velocity_claims_max: Annotated[int, Meta(ge=0)] = 0
    velocity_drops_max: Annotated[int, Meta(ge=0)] = 0
    bad_signatures_max: Annotated[int, Meta(ge=0)] = 0
    window_s: Count = 60
    channels_watched_max: Count = 100_000

    @property
    def is_on(self) -> bool:
        """Whether any rule is on."""
        return bool(self.velocity_claims_max or self.velocity_drops_max or self.bad_signatures_max)
