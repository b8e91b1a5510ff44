"""Whether a claim of a batch is signed as the ledger wants it."""

import struct
from collections.abc import Callable

from engine.core.claim import signing_message
from engine.core.types import CHANNEL_ID_BYTES
from engine.verify.batch import Item
from engine.verify.schemes import Check, known_check


def is_signed(item: Item, check_of: Callable[[bytes], Check | None] = known_check) -> bool:
    """Say whether the ledger would take a claim. Raises nothing, whatever is in the item.

    Args:
        item: The claim, with the key it is checked with.
        check_of: `SignatureChecker.check_of`, for those who have a cache of their own.
    """
    if len(item.channel_id) != CHANNEL_ID_BYTES:
        return False
    try:
        message = signing_message(item.channel_id, item.amount)
    except struct.error:
        return False
    check = check_of(item.public_key)
    return check is not None and check(message, item.signature)
