"""One signature for all claims of a channel in a batch: that of the newest.

A claim is a running total, so who holds a signature over the largest amount can redeem all that
the smaller ones promise. Of the claims on one channel with one key the largest is checked first;
if it is good the smaller ones are `COVERED`, which says that nobody looked at them, and if it is
bad the next largest is tried. Probes are always checked.

The one rule: `COVERED` is no proof. What may be done with such a claim is for the shard to say
(`channels.covering`).
"""

from collections.abc import Callable, Sequence
from typing import Final

from engine.core.types import SIGNATURE_BYTES_MAX
from engine.verify.batch import EVERY_VERDICTS, PROBE_COUNT, Item

COVERED: Final = 2
"""The verdict byte of a claim that was not looked at, for one over more drops is good."""

NEWEST_VERDICTS: Final = EVERY_VERDICTS + bytes((COVERED,))


def judge_newest(items: Sequence[Item], is_good: Callable[[Item], bool]) -> bytes:
    """Return one verdict byte an item, in order.

    Args:
        items: A batch, its two probes last.
        is_good: Checks one signature.
    """
    claims = len(items) - PROBE_COUNT
    verdicts = bytearray((COVERED,)) * claims
    for indexes in _alike(items[:claims]).values():
        indexes.sort(key=lambda index: items[index].amount)
        # From the largest down; of equal ones the later first, as in order it is the newest.
        while indexes:
            index = indexes.pop()
            verdicts[index] = is_good(items[index])
            if verdicts[index]:
                break
        # Nobody looks at these, but they will lie in the log: no larger than a signature can be.
        for index in indexes:
            if len(items[index].signature) > SIGNATURE_BYTES_MAX:
                verdicts[index] = 0
    return bytes(verdicts) + bytes(map(is_good, items[claims:]))


def _alike(items: Sequence[Item]) -> dict[tuple[bytes, bytes], list[int]]:
    """Return the indexes of the claims on each channel with each key, in order."""
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for index, item in enumerate(items):
        alike.setdefault((item.channel_id, item.public_key), []).append(index)
    return alike
