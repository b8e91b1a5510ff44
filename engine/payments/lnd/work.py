"""Count what reading a file takes, and say when a sound file would not take as much.

What is allowed grows with the pages that were reached, so a file pays for the work on it. All is
counted in bytes; where a page has many small elements, each as `ELEMENT_BYTES`, for time goes by
elements.
"""

from typing import Final

from engine.payments.lnd.pages import ELEMENT_SIZE

FREE_BYTES: Final = 64 << 20
TIMES_MIN: Final = 16
PAYMENT_BYTES: Final = 64
"""How much may be read in all: the free part, and so often over what was reached. A look-up that
misses reads one page for one payment, and no payment takes less than four times these bytes of the
file, so a sound file stays below a quarter of that; only a made-up tree costs more."""

ELEMENT_BYTES: Final = 128
"""A payment in the leaf of its hash has about as many; an element that is made up has 17."""

LOOK_BYTES: Final = 64
"""How a look at a page counts that need not be read. A sound file takes a handful for a payment."""


class Work:
    """The work that reading one file took so far.

    Pages that are read have an allowance that grows with the size of a page. What is done with
    pages in memory has not: a walk over all payments of a sound file looks at some pages for each,
    and takes its inline bucket apart once or twice, which is two to three times what it reaches.

    Attributes:
        reached: bytes of pages that belong to a tree, each counted once.
        read: pages that were read, as often as they were.
        inline: inline buckets that were taken apart, as often as they were.
        looks: how many pages were asked for, those that were still in memory too.
    """

    def __init__(self, page_size: int) -> None:
        self.reached = self.read = self.inline = self.looks = 0
        self._read_times = TIMES_MIN + page_size // PAYMENT_BYTES

    def add_page(self, size: int, count: int) -> None:
        """Count a page of `size` bytes that is read, and says it has `count` elements."""
        self.read += _cost(size, count)

    def add_inline(self, size: int, count: int) -> None:
        """Count an inline bucket that is taken apart, likewise."""
        self.inline += _cost(size, count)

    @property
    def is_too_much(self) -> bool:
        """Whether only a made-up file takes so much."""
        in_memory = self.inline + LOOK_BYTES * self.looks
        return (
            in_memory > FREE_BYTES + TIMES_MIN * self.reached
            or self.read > FREE_BYTES + self._read_times * self.reached
        )


def _cost(size: int, count: int) -> int:
    # A page that counts more elements than it has room for is refused before they are looked at.
    return max(size, min(count, size // ELEMENT_SIZE) * ELEMENT_BYTES)
