"""Covered claims within a frame: how they come out of columns, and what must stand beside them.

The one rule: a frame that is read holds, for each covered claim, the checked claim that covers it.
So whatever frames of a log survive, every amount in them is proved by a signature in them.
"""

from collections.abc import Sequence

from engine.core.events import AnyEvent, ClaimCovered, ClaimReceived
from engine.core.types import Sequence as ClaimSequence

Others = Sequence[tuple[int, AnyEvent]]
"""Events of a frame that do not come from columns, with their indexes."""


def cover(events: list[AnyEvent], others: Others, distances: Sequence[int]) -> None:
    """Turn those claims of a frame that a newer one covers into what they are.

    Args:
        events: All of the frame; changed in place.
        others: Those that are what they are already.
        distances: For each claim of the columns, in order, how far below the covering sequence it
            is; 0 for those that were checked. Empty where the columns hold no covered claim.

    Raises:
        ValueError: nothing in the frame covers one of them; no writer leaves such a frame.
    """
    if distances:
        whole = {index for index, _ in others}
        places = (place for place in range(len(events)) if place not in whole)
        for place, away in zip(places, distances, strict=True):
            if away:
                # Columns hold nothing but claims.
                events[place] = _covered(events[place], away)  # type: ignore[arg-type]
    if distances or any(type(event) is ClaimCovered for _, event in others):
        _refuse_uncovered(events)


def _covered(claim: ClaimReceived, away: int) -> ClaimCovered:
    return ClaimCovered(
        channel_id=claim.channel_id,
        version=claim.version,
        at=claim.at,
        sequence=claim.sequence,
        amount=claim.amount,
        signature=claim.signature,
        covered_by=ClaimSequence(claim.sequence + away),
    )


def _refuse_uncovered(events: list[AnyEvent]) -> None:
    amounts = {
        (event.channel_id, event.sequence): event.amount
        for event in events
        if type(event) is ClaimReceived
    }
    for event in events:
        if type(event) is ClaimCovered:
            proved = amounts.get((event.channel_id, event.covered_by), 0)
            if proved <= event.amount:
                raise ValueError(f"claim {event.sequence} is covered by none of its frame")
