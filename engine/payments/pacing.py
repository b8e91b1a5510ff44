"""How much one transaction of a long job does, and how far the job is."""

from collections.abc import Callable
from typing import Final

GOAL_S: Final = 0.015
"""How long a transaction is to take. Nobody shall wait longer than 100 ms for it, and the disk, a
checkpoint or a busy processor may take a multiple."""


class Steps:
    """Counts payments for whoever watches.

    Args:
        total: How many there are.
        progress: Is told how many are done, and `total`.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def add(self, count: int) -> None:
        """Count some more."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, max(self._done, self._total))

    def end(self) -> None:
        """Say that all is done."""
        if self._progress is not None:
            self._progress(self._done, self._done)


class Pace:
    """A size of transactions that follows what they take.

    Args:
        least: Where it begins, and below which it never goes.
        most: Above which it never goes.

    Attributes:
        size: How much the next transaction is to do.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self.size = least

    def follow(self, took_s: float) -> None:
        """Take it that a transaction of this size took so many seconds."""
        wanted = int(self.size * GOAL_S / max(took_s, GOAL_S / self._most))
        self.size = max(self._least, min(wanted, 2 * self.size, self._most))
