"""Whether a claim of a batch is signed as the ledger wants it."""

import struct
from collections.abc import Callable

from engine.core.claim import signing_message
from engine.core.types import CHANNEL_ID_BYTES
from engine.verify.batch import Item
from engine.verify.schemes import verify


def is_signed(item: Item, check: Callable[[bytes, bytes, bytes], bool] = verify) -> bool:
    """Say whether the ledger would take a claim. Raises nothing, whatever is in the item.

    Args:
        item: The claim, with the key it is checked with.
        check: (public key, message, signature) -> good; `schemes.verify` or one with a cache of
            its own.
    """
    if len(item.channel_id) != CHANNEL_ID_BYTES:
        return False
    try:
        message = signing_message(item.channel_id, item.amount)
    except struct.error:
        return False
    return check(item.public_key, message, item.signature)
