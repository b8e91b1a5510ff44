"""How an answer to a claim is made, for each way a claim can end."""

from typing import Final

from msgspec.structs import replace

from engine.channels.messages import Answer, Status
from engine.core.channel import Channel
from engine.core.rejections import RejectCode, Rejected
from engine.validation.dedup import FirstAnswer
from engine.validation.pipeline import Buffered

_ACCEPTED: Final = Status.ACCEPTED
"""Python 3.11 takes ten times as long to find a member of an enumeration as a name."""


def accepted(channel: Channel, position: int) -> Answer:
    """The claim is now the channel's mark, at `position` of the log."""
    return Answer(_ACCEPTED, None, channel.sequence, position, channel.claimed, channel.available)


def covered(channel: Channel, position: int, covered_by: int) -> Answer:
    """The claim was accepted as above, on the strength of the one with sequence `covered_by`."""
    return Answer(
        _ACCEPTED,
        None,
        channel.sequence,
        position,
        channel.claimed,
        channel.available,
        covered_by=covered_by,
    )


def repeated(channel: Channel, first: FirstAnswer) -> Answer:
    """The claim was accepted before; say where."""
    return Answer(
        Status.DUPLICATE,
        None,
        first.sequence,
        first.position,
        channel.claimed,
        channel.available,
    )


def buffered(channel: Channel, sequence: int, held: Buffered) -> Answer:
    """The claim waits for the ones before it; name them."""
    return Answer(
        Status.BUFFERED,
        None,
        sequence,
        0,
        channel.claimed,
        channel.available,
        channel.sequence + 1,
        sequence,
        "",
        held.missing,
    )


def refused(channel: Channel, rejected: Rejected, sequence: int) -> Answer:
    """The claim was refused; say why, with the channel's marks."""
    return replace(
        refused_unseen(rejected, sequence), claimed=channel.claimed, available=channel.available
    )


def refused_unseen(rejected: Rejected, sequence: int = 0) -> Answer:
    """The claim was refused by somebody who does not know the channel's marks."""
    return Answer(
        Status.REJECTED,
        rejected.code,
        sequence,
        expected=rejected.expected,
        actual=rejected.actual,
        detail=rejected.detail,
    )


UNAVAILABLE: Final = refused_unseen(Rejected(RejectCode.UNAVAILABLE))
MALFORMED: Final = refused_unseen(Rejected(RejectCode.MALFORMED, detail="a field out of bounds"))
OVERLOADED: Final = refused_unseen(Rejected(RejectCode.OVERLOADED))
UNKNOWN_CHANNEL: Final = refused_unseen(Rejected(RejectCode.UNKNOWN_CHANNEL))
