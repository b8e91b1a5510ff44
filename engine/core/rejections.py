"""Refusals: values with a code and the two numbers that disagreed, never exceptions."""

from enum import StrEnum
from typing import Final

import msgspec


class RejectCode(StrEnum):
    """Why a claim or a command was refused. One page: docs/reference/result-codes.md."""

    MALFORMED = "malformed"
    UNKNOWN_CHANNEL = "unknown_channel"
    NOT_ACTIVE = "not_active"
    CHANNEL_EXPIRED = "channel_expired"
    AMOUNT_NOT_INCREASING = "amount_not_increasing"
    AMOUNT_OVER_CAPACITY = "amount_over_capacity"
    SEQUENCE_GAP = "sequence_gap"
    SEQUENCE_USED = "sequence_used"
    SEQUENCE_CONFLICT = "sequence_conflict"
    CONFLICT = "conflict"
    CLOCK_SKEW = "clock_skew"
    BAD_SIGNATURE = "bad_signature"
    WRONG_KEY = "wrong_key"
    RISK_REFUSED = "risk_refused"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    WRONG_STATE = "wrong_state"
    STORAGE_FULL = "storage_full"


class Rejected(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A refusal.

    Attributes:
        code: The reason; stable, on the wire and in metrics.
        expected: What would have passed, in the unit of the code (drops, sequence, …).
        actual: What came.
        detail: The word that numbers cannot say, such as the state or the rule.
    """

    code: RejectCode
    expected: int = 0
    actual: int = 0
    detail: str = ""


RETRYABLE: Final = frozenset(
    {
        RejectCode.OVERLOADED,
        RejectCode.UNAVAILABLE,
        RejectCode.SEQUENCE_GAP,
        RejectCode.WRONG_KEY,
        RejectCode.STORAGE_FULL,
    }
)
"""Codes after which the same claim, sent again unchanged, may be accepted."""

NOT_NOW: Final = frozenset({RejectCode.OVERLOADED, RejectCode.UNAVAILABLE, RejectCode.STORAGE_FULL})
"""Codes that say nothing of the claim, only that this is not the moment."""

IN_DROPS: Final = frozenset(
    {
        RejectCode.AMOUNT_NOT_INCREASING,
        RejectCode.AMOUNT_OVER_CAPACITY,
        RejectCode.SEQUENCE_CONFLICT,
        RejectCode.CONFLICT,
    }
)
"""Codes whose `expected` and `actual` are drops; those of the others are plain numbers."""

_MESSAGES: Final = {
    RejectCode.MALFORMED: "not a well-formed request: {detail}",
    RejectCode.UNKNOWN_CHANNEL: "no channel with this id is open here",
    RejectCode.NOT_ACTIVE: "only an Active channel takes claims; this one is {detail}",
    RejectCode.CHANNEL_EXPIRED: "the channel expired at {expected} ns; it is {actual} ns now",
    RejectCode.AMOUNT_NOT_INCREASING: "amount must be above {expected} drops; got {actual}",
    RejectCode.AMOUNT_OVER_CAPACITY: "amount may be at most {expected} drops; got {actual}",
    RejectCode.SEQUENCE_GAP: "claim {expected} never came, so {actual} cannot be decided",
    RejectCode.SEQUENCE_USED: "the next sequence is {expected}; {actual} was decided long ago",
    RejectCode.SEQUENCE_CONFLICT: (
        "this sequence was taken by a claim of {expected} drops; this one says {actual}"
    ),
    RejectCode.CONFLICT: "{detail}",
    RejectCode.CLOCK_SKEW: "the engine's clock says {expected} ns, the sender's {actual} ns",
    RejectCode.BAD_SIGNATURE: "the signature does not match channel, amount and key",
    RejectCode.WRONG_KEY: "checked against a key that is not the channel's; send it again",
    RejectCode.RISK_REFUSED: "refused by the risk rule {detail}: limit {expected}, seen {actual}",
    RejectCode.OVERLOADED: "more is waiting than may wait; send it again a little later",
    RejectCode.UNAVAILABLE: "outcome unknown: send the same claim again",
    RejectCode.WRONG_STATE: "not possible for a channel that is {detail}",
    RejectCode.STORAGE_FULL: (
        "nothing new is taken with less than {expected} bytes of disk free; there are {actual}"
    ),
}


def message_for(rejected: Rejected) -> str:
    """Return the sentence for people; programs read the code and the numbers."""
    return _MESSAGES[rejected.code].format(
        expected=rejected.expected, actual=rejected.actual, detail=rejected.detail
    )
