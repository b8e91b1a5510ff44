"""The retry window: the first answer to each of a channel's newest claims.

A claim's content is its sequence and its amount, never the bytes of its signature: a payer may sign
the same claim twice. Accepted claims are numbered without holes in both sequencings, so the window
is a row of equal entries that ends at the channel's last sequence.
"""

import struct
from bisect import bisect_right
from typing import Final

import msgspec

from engine.validation.options import RetryLimits

# amount, position and time (ns) of an accepted claim, 8 bytes each
ENTRY: Final = struct.Struct("<QQQ")
AT: Final = struct.Struct("<Q")
AT_OFFSET: Final = 16
ENTRY_BYTES: Final = ENTRY.size
POSITION_OFFSET: Final = 8

LOOK_BYTES: Final = 8 * ENTRY_BYTES
"""How often the oldest answers are looked at, in bytes of the window: they lie far from the newest,
and to fetch them for each claim would take a quarter to a half of what the window takes."""

_pack = ENTRY.pack
_at = _position = AT.unpack_from


class FirstAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a claim was answered when it was accepted."""

    sequence: int
    amount: int
    position: int
    at: int


class RetryWindow:
    """The newest accepted claims of one channel, oldest first, 24 bytes each."""

    __slots__ = ("_entries",)

    def __init__(self, entries: bytes = b"") -> None:
        self._entries = bytearray(entries)

    def __len__(self) -> int:
        return len(self._entries) // ENTRY.size

    def __bytes__(self) -> bytes:
        """The window as a checkpoint keeps it."""
        return bytes(self._entries)

    def newer_than(self, position: int) -> bytes:
        """Return the entries whose claims lie above a position of the log, as `bytes` would."""
        entries = self._entries
        start = bisect_right(
            range(len(self)),
            position,
            key=lambda index: _position(entries, index * ENTRY_BYTES + POSITION_OFFSET)[0],
        )
        return bytes(entries[start * ENTRY_BYTES :])

    def join(self, newer: bytes, kept: int) -> None:
        """Add entries as `newer_than` gave them; keep the newest `kept` of all."""
        entries = self._entries
        entries += newer
        del entries[: max(0, len(entries) - kept * ENTRY_BYTES)]

    def remember(self, amount: int, position: int, at: int, limits: RetryLimits) -> None:
        """Add the claim just accepted; forget what is beyond the limits."""
        entries = self._entries
        entries += _pack(amount, position, at)
        too_many = len(entries) - limits.claims_max * ENTRY_BYTES
        if too_many > 0:
            del entries[:too_many]
        elif len(entries) % LOOK_BYTES:
            return
        # Two old ones out for one in: all are gone soon, and no claim pays for many.
        oldest_kept, stale = at - limits.window_ns, 0
        while stale < 2 * LOOK_BYTES and _at(entries, stale + AT_OFFSET)[0] < oldest_kept:
            stale += ENTRY_BYTES
        del entries[:stale]

    def by_sequence(self, last: int, sequence: int) -> FirstAnswer | None:
        """Return the answer to `sequence`, where `last` is the channel's newest; None if gone."""
        index = len(self) - 1 - (last - sequence)
        if sequence > last or index < 0:
            return None
        return FirstAnswer(sequence, *ENTRY.unpack_from(self._entries, index * ENTRY.size))

    def by_amount(self, last: int, amount: int) -> FirstAnswer | None:
        """Return the answer to the claim of exactly `amount`; amounts rise, so halves will do."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if ENTRY.unpack_from(self._entries, middle * ENTRY.size)[0] < amount:
                low = middle + 1
            else:
                high = middle
        found = self.by_sequence(last, last - (len(self) - 1 - low))
        return found if found is not None and found.amount == amount else None
