"""Gives attempt indexes, a block at a time."""

import threading
from typing import Final

from engine.payments.errors import StoreFullError
from engine.payments.sql.database import Database, Work
from engine.payments.values import NUMBER_MAX

BLOCK_MAX: Final = 1_000
"""How many indexes a handle takes at a time; the first time one, then twice as many."""


class Indexes:
    """The attempt indexes of one handle.

    The counter of the store is the end of the last block that was given out, and at least every
    index that was registered or moved in: a handle that dies leaves a gap, never an index twice.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = database.statements
        self._turn = threading.Lock()
        self._next = 1
        self._end = 0
        self._block = 1
        self._stored_at_least = 0

    def next(self) -> int:
        """Return the next one.

        Raises:
            StoreFullError: 2^63-1 is reached.
        """
        with self._turn:
            if self._next > self._end:
                first, self._end = self._database.write(self._take_block, self._block)
                self._next = max(self._next, first)
                self._block = min(2 * self._block, BLOCK_MAX)
            self._next += 1
            return self._next - 1

    def _take_block(self, work: Work, count: int) -> tuple[int, int]:
        """Return the first and the last of a block; near the end of all it is a smaller one."""
        while count:
            taken = work.rows(self._statements.take_indexes, count, NUMBER_MAX - count)
            if taken:
                end = int(taken[0][0])
                return end - count + 1, end
            count //= 2
        raise StoreFullError(f"{self._database.name}: no attempt index is left")

    def raise_to(self, work: Work, index: int) -> None:
        """Let the stored counter be at least this.

        The counter never goes down, so an index below what it once was needs no statement.
        """
        if index > max(self._end, self._stored_at_least):
            work.run(self._statements.raise_index, index, index)

    def skip(self, index: int) -> None:
        """Never return `index` or one below: it was registered or moved in, and that is durable."""
        if index >= self._next:
            with self._turn:
                self._next = max(self._next, index + 1)
        self._stored_at_least = max(self._stored_at_least, index)
