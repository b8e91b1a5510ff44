"""Numbers and names every part shares; each number says its unit."""

from enum import IntFlag, StrEnum
from typing import Final, NewType

Drops = NewType("Drops", int)
"""Money. 1 XRP is 1_000_000 drops; never a float, never negative."""

TimeNs = NewType("TimeNs", int)
"""Nanoseconds since 1970-01-01T00:00:00Z, always a whole number of microseconds."""

Sequence = NewType("Sequence", int)
"""Number of a claim in its channel, from 1, without holes; 0 before the first."""

ChannelId = NewType("ChannelId", bytes)
"""32 bytes: the ledger's id of the channel."""

Position = NewType("Position", int)
"""Place of an event in its shard's log, from 1."""

DROPS_MAX: Final = Drops(100_000_000_000 * 1_000_000)
"""All the XRP there ever was. XRPL: 100 billion XRP at genesis, none made since."""

AMOUNT_MAX: Final = 2**64 - 1
"""Largest amount that the 8 signed bytes of a claim can say."""

SETTLE_DELAY_MAX_S: Final = 2**32 - 1
"""XRPL: SettleDelay is an unsigned 32-bit number of seconds."""

REASON_MAX: Final = 256
SEQUENCE_MAX: Final = 2**63 - 1
CHANNEL_ID_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 33
SIGNATURE_BYTES_MAX: Final = 72
DIGEST_BYTES: Final = 32
NS_PER_S: Final = 1_000_000_000


class State(StrEnum):
    """Where a channel is in its life."""

    PENDING = "Pending"
    ACTIVE = "Active"
    SETTLING = "Settling"
    SETTLED = "Settled"
    DISPUTED = "Disputed"


class Sequencing(StrEnum):
    """What gives the claims of a channel their order."""

    STRICT = "strict"
    """The sequence number, without holes."""
    AMOUNT = "amount"
    """The amount alone, as the ledger defines it; the engine numbers the claims."""


class Checks(IntFlag):
    """The layers a claim has passed, as the log records them."""

    NONE = 0
    SYNTAX = 1
    SIGNATURE = 2
    KEY = 4
    ORDER = 8
    RISK = 16
    ALL = SYNTAX | SIGNATURE | KEY | ORDER | RISK
    COVERED = SYNTAX | KEY | ORDER | RISK
    """All but the signature, in whose place stands that of a newer claim."""
