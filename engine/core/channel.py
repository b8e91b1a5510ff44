"""A channel: fixed terms, a state, and four accounts that always add up to the capacity."""

import hashlib
from typing import Final

import msgspec

from engine.core.accounts import account_id
from engine.core.claim import NO_CLAIM_DIGEST, claim_digest
from engine.core.types import ChannelId, Drops, Sequence, Sequencing, State, TimeNs

CHANNEL_SPACE: Final = b"\x00\x78"
"""Ledger space of a PayChannel entry, 'x'."""


class Terms(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What never changes over the life of a channel.

    `source` and `destination` are classic addresses, `public_key` the 33 bytes that claims are
    checked with, `settle_delay_s` the notice of a close, `cancel_after` the end nobody can move.
    The capacity may grow and the expiration move later; here stand those it was opened with.
    """

    channel_id: ChannelId
    source: str
    destination: str
    public_key: bytes
    settle_delay_s: int
    cancel_after: TimeNs | None
    sequencing: Sequencing
    opening_capacity: Drops
    opening_expiration: TimeNs | None


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What a channel owes and has left, in drops, as of its last event."""

    claimed: Drops
    available: Drops
    redeemed: Drops
    capacity: Drops
    sequence: Sequence


class Proven(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a channel's signature proves while newer claims wait for the one that covers them.

    `amount` (drops) and `sequence` are those of the newest claim whose signature was checked, 0
    where there is none; `covered_by` is the sequence of the claim that must come.
    """

    amount: Drops
    sequence: Sequence
    covered_by: Sequence


class Channel(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The whole state of a channel; a new value after each event.

    `available`, `unredeemed`, `redeemed` and `returned` are its accounts: every event moves drops
    between them and their sum is the capacity. `claimed` is the highest running total accepted and
    `signature` its proof. `link` is what that claim gave as `previous`, where it was a digest.
    `proven` is None but between a covered claim and the one that covers it, which share a frame of
    the log: there `signature` is still that of the newest claim that was checked.
    """

    terms: Terms
    state: State
    version: int
    capacity: Drops
    expiration: TimeNs | None
    available: Drops
    unredeemed: Drops = Drops(0)
    redeemed: Drops = Drops(0)
    returned: Drops = Drops(0)
    claimed: Drops = Drops(0)
    sequence: Sequence = Sequence(0)
    signature: bytes = b""
    link: bytes | None = None
    updated_at: TimeNs = TimeNs(0)
    proven: Proven | None = None

    @property
    def best(self) -> tuple[Drops, Sequence]:
        """Amount and sequence of the newest claim that was checked: what `signature` is over."""
        proven = self.proven
        return (proven.amount, proven.sequence) if proven else (self.claimed, self.sequence)

    @property
    def balance(self) -> Balance:
        """The figures a payer or payee asks for."""
        return Balance(self.claimed, self.available, self.redeemed, self.capacity, self.sequence)

    @property
    def mark_digest(self) -> bytes:
        """32 bytes that name the newest claim; `previous` of the next one may say them."""
        if not self.sequence:
            return NO_CLAIM_DIGEST
        return claim_digest(self.terms.channel_id, self.sequence, self.claimed, self.link)

    @property
    def ends_at(self) -> TimeNs | None:
        """The moment from which the ledger may delete the channel: whichever end comes first."""
        expiration, cancel_after = self.expiration, self.terms.cancel_after
        if expiration is None:
            return cancel_after
        return expiration if cancel_after is None else min(expiration, cancel_after)


def derive_channel_id(source: str, destination: str, sequence: int) -> bytes:
    """Return the ledger's id of a channel. XRPL: hash of a PayChannel entry.

    Args:
        source: Classic address of the account that funds it.
        destination: Classic address of the account it pays.
        sequence: Sequence or TicketSequence of the transaction that created it, 32 bits.

    Raises:
        xrpl.core.addresscodec.XRPLAddressCodecException: an address does not check out.
        OverflowError: `sequence` does not fit 32 bits.
    """
    accounts = account_id(source) + account_id(destination)
    return hashlib.sha512(CHANNEL_SPACE + accounts + sequence.to_bytes(4, "big")).digest()[:32]
