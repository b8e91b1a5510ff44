"""Refuse a binary frame without reading its claims.

While no shard has room, each claim of a frame is answered the same, whatever it is. All that must
be known is the number of the frame, which is copied, and how many claims it has.

    frame  = 92 | number | array of claims: 9n, or DC and 16 bits
    answer = 92 | number | array as long | [3, "overloaded", nil, nil] each
"""

from typing import Final

import msgspec

from engine.channels.answers import OVERLOADED
from engine.gateway.answers import binary
from engine.gateway.schemas import CLAIMS_MAX

PAIR: Final = 0x92
NUMBER_BYTES: Final = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
"""Sizes of the numbers that are not one byte, by their first."""

CLAIM_BYTES_MIN: Final = 40
"""Of a claim of four fields: one that says less is none, and its frame is read."""

_REFUSAL: Final = msgspec.msgpack.encode(binary([OVERLOADED], [0])[0])


def refused_unread(frame: bytes) -> tuple[bytes, int] | None:
    """Return the answer to a frame, and how many claims it refuses; None where it must be read."""
    have = len(frame)
    if have < 3 or frame[0] != PAIR:
        return None
    first = frame[1]
    array = 2 if first < 0x80 else 1 + NUMBER_BYTES.get(first, have)
    if array + 3 > have or (first == 0xCF and frame[2] >= 0x80):
        return None
    if frame[array] & 0xF0 == 0x90:
        count, claims = frame[array] & 0x0F, array + 1
    elif frame[array] == 0xDC:
        count, claims = int.from_bytes(frame[array + 1 : array + 3], "big"), array + 3
    else:
        return None
    if not 0 < count <= CLAIMS_MAX or have - claims < count * CLAIM_BYTES_MIN:
        return None
    return frame[:claims] + _REFUSAL * count, count
