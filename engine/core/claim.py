"""A claim: the signed promise "this channel owes you this running total"."""

import hashlib
import struct
from typing import Final

import msgspec

CLAIM_PREFIX: Final = b"CLM\0"
DIGEST_PREFIX: Final = b"CLD\0"
NO_CLAIM_DIGEST: Final = bytes(32)
"""What `previous` says, as a digest, before the first claim of a channel."""

_AMOUNT = struct.Struct(">Q")
_DIGESTED = struct.Struct(">QQ")


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One claim as a payer makes it.

    Attributes:
        channel_id: 32 bytes.
        amount: Drops owed in all, not the increment; what is signed.
        signature: Strict DER (secp256k1, at most 72 bytes) or 64 bytes (Ed25519).
        sequence: From 1 without holes; needed where the channel's sequencing is strict.
        previous: The mark the sender believes in: `claim_digest` of the claim before, or the
            amount claimed so far. Checked where given.
        sent_at: The sender's clock, nanoseconds; checked where given.
    """

    channel_id: bytes
    amount: int
    signature: bytes
    sequence: int | None = None
    previous: bytes | int | None = None
    sent_at: int | None = None


def signing_message(channel_id: bytes, amount: int) -> bytes:
    """Return the 44 bytes a payer signs. XRPL: signing bytes of a payment channel claim.

    Raises:
        struct.error: `amount` is not an unsigned 64-bit integer.
    """
    return CLAIM_PREFIX + channel_id + _AMOUNT.pack(amount)


def claim_digest(channel_id: bytes, sequence: int, amount: int, link: bytes | None) -> bytes:
    """Return the 32 bytes that name a claim in a hash chain.

    Args:
        channel_id: 32 bytes.
        sequence: Number of the claim in its channel.
        amount: Running total in drops.
        link: The digest this claim itself gave as `previous`; None where it gave none.
    """
    content = DIGEST_PREFIX + channel_id + _DIGESTED.pack(sequence, amount) + (link or b"")
    return hashlib.sha256(content).digest()
