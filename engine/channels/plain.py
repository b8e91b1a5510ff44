"""The plain claim: the next of its channel, in time, with nothing optional said.

Nearly every claim is one, and none of the rules has anything to say to it. So one look decides it;
whatever it is not sure of goes through `validation.pipeline` and `core.transition`, which decide
the same of a plain claim (tests/channels/test_plain.py).
"""

from typing import Final

from engine.core.channel import Channel
from engine.core.events import ClaimCovered, ClaimReceived
from engine.core.types import Sequence, Sequencing, State, TimeNs
from engine.verify.batch import Item

_ACTIVE: Final = State.ACTIVE
_AMOUNT: Final = Sequencing.AMOUNT


def plain_claim(channel: Channel, item: Item, at: TimeNs) -> ClaimReceived | None:
    """Return the event of a claim with a good signature if it is a plain one, else None.

    Risk rules, held claims and a disk without room are the caller's to think of.
    """
    terms, amount, sequence = channel.terms, item.amount, channel.sequence + 1
    if (
        channel.state is _ACTIVE
        and (item.sequence == sequence or terms.sequencing is _AMOUNT)
        and channel.claimed < amount <= channel.capacity
        and item.public_key == terms.public_key
        and channel.expiration is None
        and (terms.cancel_after is None or at < terms.cancel_after)
        and item.previous is None
        and item.sent_at is None
    ):
        return ClaimReceived(
            channel_id=terms.channel_id,
            version=channel.version + 1,
            at=at,
            sequence=sequence,  # type: ignore[arg-type]  # a NewType costs a call
            amount=amount,  # type: ignore[arg-type]
            signature=item.signature,
        )
    return None


def plain_covered(
    channel: Channel, item: Item, at: TimeNs, covered_by: Sequence
) -> ClaimCovered | None:
    """Return the same of a claim that the one with the sequence `covered_by` covers."""
    claim = plain_claim(channel, item, at)
    if claim is None:
        return None
    return ClaimCovered(
        channel_id=claim.channel_id,
        version=claim.version,
        at=at,
        sequence=claim.sequence,
        amount=claim.amount,
        signature=claim.signature,
        covered_by=covered_by,
    )
