"""What became of claims whose answer was lost and that the engine no longer remembers.

An engine repeats its first answer for the newest claims of a channel only; sent again, an older one
is refused as used. Whether it was ours that used the number stands in the channel's history.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from engine.client.errors import ClientError
from engine.client.values import PastClaim, Result, Status
from engine.core.claim import Claim
from engine.core.rejections import RejectCode

DOUBTFUL: Final = frozenset(
    {RejectCode.SEQUENCE_USED.value, RejectCode.AMOUNT_NOT_INCREASING.value}
)
PASSES_MAX: Final = 20
PAUSE_S: Final = 0.1
"""Between two looks: the newest claims are shown once a later moment has proved them durable."""

History = Callable[[bytes, int], AsyncIterator[PastClaim]]
"""(channel id, sequence after which to begin) → accepted claims, oldest first"""


async def look_up(
    claims: Sequence[Claim], results: list[Result], doubtful: Iterable[int], history: History
) -> None:
    """Replace the results of `doubtful` claims by what the history says of them.

    What it has is a duplicate, with its position. What it passed without is refused indeed. Of what
    cannot be found out the outcome is unknown, which is `unavailable`: so it is with what stood in
    a part of the history that was cut off.
    """
    by_channel: dict[bytes, list[int]] = defaultdict(list)
    for index in doubtful:
        by_channel[claims[index].channel_id].append(index)
    for channel_id, indices in by_channel.items():
        after = _begin(claims, results, channel_id, indices)
        read = partial(history, channel_id, after)
        left = await _find(claims, results, indices, read, after)
        for index in left:
            results[index] = replace(
                results[index],
                code=RejectCode.UNAVAILABLE.value,
                message="outcome unknown: the history does not tell",
                retryable=True,
            )


def _begin(
    claims: Sequence[Claim], results: Sequence[Result], channel_id: bytes, indices: Sequence[int]
) -> int:
    """Return the number after which all of `indices` must stand, if anywhere."""
    first = indices[0]
    numbers = [claims[index].sequence for index in indices]
    if None not in numbers:
        return min(number for number in numbers if number is not None) - 1
    for index in range(first - 1, -1, -1):
        if claims[index].channel_id == channel_id and results[index].is_durable:
            return results[index].sequence or 0
    return 0


async def _find(
    claims: Sequence[Claim],
    results: list[Result],
    indices: Sequence[int],
    history: Callable[[], AsyncIterator[PastClaim]],
    after: int,
) -> list[int]:
    """Settle what the history has or has passed; return what it did not reach, or has no more."""
    left, gone = list(indices), list[int]()
    for _ in range(PASSES_MAX):
        try:
            left, cut_off = await _one_pass(claims, results, left, history(), after)
        except ClientError:
            break
        gone += cut_off
        if not left:
            break
        await asyncio.sleep(PAUSE_S)
    return left + gone


async def _one_pass(
    claims: Sequence[Claim],
    results: list[Result],
    indices: Sequence[int],
    history: AsyncIterator[PastClaim],
    after: int,
) -> tuple[list[int], list[int]]:
    """Settle what one reading can; return what it did not reach, and what was cut off."""
    by_amount: dict[int, list[int]] = defaultdict(list)
    for index in indices:
        by_amount[claims[index].amount].append(index)
    cut_off: list[int] = []
    sequence, amount = after, 0
    async for past in history:
        if past.sequence > sequence + 1:  # a history has no holes but where it was cut
            here = sequence, amount
            cut_off += [index for index in indices if _is_between(claims[index], here, past)]
        sequence, amount = past.sequence, past.amount
        for index in by_amount.get(amount, ()):
            if claims[index].sequence in (None, sequence):
                results[index] = _taken(results[index], past)
    left = [
        index
        for index in indices
        if not results[index].is_durable and not _is_passed(claims[index], sequence, amount)
    ]
    return left, cut_off


def _is_between(claim: Claim, last: tuple[int, int], past: PastClaim) -> bool:
    """Say whether the claim would stand between `last`, a sequence and an amount, and `past`."""
    sequence, amount = last
    if claim.sequence is None:
        return amount < claim.amount < past.amount
    return sequence < claim.sequence < past.sequence


def _is_passed(claim: Claim, sequence: int, amount: int) -> bool:
    """Say whether the history went beyond where the claim would stand."""
    return claim.amount <= amount if claim.sequence is None else claim.sequence <= sequence


def _taken(result: Result, past: PastClaim) -> Result:
    return replace(
        result,
        status=Status.DUPLICATE,
        code=None,
        message=None,
        retryable=False,
        sequence=past.sequence,
        position=past.position,
    )
