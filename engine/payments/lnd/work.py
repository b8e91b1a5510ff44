"""Count what reading a file takes, and say when a sound file would not take as much.

Counted are bytes that were taken apart: each costs about the same, whatever it says. What is
allowed grows with the pages that were reached, so a file pays for the work on it.
"""

from typing import Final

FREE_BYTES: Final = 64 << 20
TIMES_MIN: Final = 16
PAYMENT_BYTES: Final = 64
"""How much may be read in all: the free part, and so often over what was reached. A look-up that
misses reads one page for one payment, and no payment takes less than four times these bytes of the
file, so a sound file stays below a quarter of that; only a made-up tree costs more."""


class Work:
    """The bytes that reading one file took so far.

    Attributes:
        reached: of pages that belong to a tree, each counted once.
        read: of pages that were read and taken apart, as often as they were.
        inline: of inline buckets that were taken apart, as often as they were. A sound file has
            one entry of the index for each, so each walk over all payments takes it apart once
            or twice, and it needs no allowance that grows with the size of a page.
    """

    def __init__(self, page_size: int) -> None:
        self.reached = self.read = self.inline = 0
        self._read_times = TIMES_MIN + page_size // PAYMENT_BYTES

    @property
    def is_too_much(self) -> bool:
        """Whether only a made-up file takes so much."""
        return (
            self.read > FREE_BYTES + self._read_times * self.reached
            or self.inline > FREE_BYTES + TIMES_MIN * self.reached
        )
