"""Where payments can be moved from: what a source must be able to do, and a store as a source."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Protocol

import msgspec

from engine.payments.interface import PaymentDB
from engine.payments.migration.errors import SourceChangedError
from engine.payments.migration.in_flight import listed
from engine.payments.records import PaymentRecord


class Place(msgspec.Struct, frozen=True):
    """How far a source was read.

    Attributes:
        after: the sequence number, in the destination, of the last payment that was read.
        repaired: how many attempt indexes were made up for those payments.
    """

    after: int = 0
    repaired: int = 0


class SourceBatch(msgspec.Struct, frozen=True):
    """Some payments in the order of their numbers, and what was noticed since the batch before.

    Attributes:
        records: of the last batch there may be none.
        unquoted: so many warnings more, where there were too many to keep.
        is_cut: there are fewer because they are large, and more may follow.
    """

    records: tuple[PaymentRecord, ...]
    warnings: tuple[str, ...] = ()
    unquoted: int = 0
    repaired: int = 0
    is_cut: bool = False


class Source(Protocol):
    """Payments that can be read more than once, each time the same from any place on."""

    @property
    def name(self) -> str:
        """Say in one line what it is, for reports."""

    def fingerprint(self) -> bytes:
        """Return 32 bytes that tell this content from any other, also after a restart."""

    def count(self) -> int:
        """Return how many payments it has, its duplicates not counted."""

    def batches(self, place: Place, batch_size: int) -> Iterator[SourceBatch]:
        """Yield what follows `place`. Batches of the same size from the same place are the same.

        One with fewer than `batch_size` payments is the last, if it is not cut.

        Raises:
            StoreError: the source is damaged, or holds what no store takes.
        """

    def counters(self) -> tuple[int, int]:
        """Return what the destination must count above: sequence number and attempt index.

        Asked for at the end; what the payments themselves have need not be in it.
        """

    def finish(self, moved: int) -> tuple[str, ...]:
        """Look whether `moved` payments are all of them, and return warnings if not.

        Raises:
            StoreError: the source changed while it was read.
        """


class StoreSource:
    """A store as a source. It must not be written to meanwhile, and what changes money is noticed.

    That is what changes a counter, or the hash over what is in flight: a payment that is begun or
    deleted, an attempt that is registered or resolved, a payment that is given up. What is over
    keeps its status: its failed attempts may be deleted, and its failure reason overwritten,
    without that being noticed.

    Args:
        store: open, best read-only.
        name: its URL without a password.

    Raises:
        UnacceptableRecordError: a payment in flight cannot be read.
    """

    def __init__(self, store: PaymentDB, name: str) -> None:
        self.name = name
        self._store = store
        # In this order: what is begun between the two is noticed by its number.
        self._counters = store.counters()
        self._in_flight = listed(store, name)

    def fingerprint(self) -> bytes:
        """Return a hash of the counters, the first payment, and all that is in flight."""
        first = next(self._store.read_records(batch_size=1), ())
        words = [
            repr(self._counters),
            *(each.info.identifier.hex() for each in first),
            self._in_flight.hex(),
        ]
        return sha256("\n".join(words).encode()).digest()

    def count(self) -> int:
        """Return how many payments it has."""
        return self._counters.payments

    def batches(self, place: Place, batch_size: int) -> Iterator[SourceBatch]:
        """Yield its payments as they are.

        Raises:
            SourceChangedError: there are newer ones than when it was opened; where they come as
                fast as they are moved, it would never end.
        """
        for records in self._store.read_records(place.after, batch_size):
            if records[-1].sequence_number > self._counters.sequence_number:
                raise self._changed("has payments that were not there at first")
            yield SourceBatch(records)

    def counters(self) -> tuple[int, int]:
        """Return its counters: the destination goes on where it was."""
        return self._counters.sequence_number, self._counters.attempt_index

    def finish(self, moved: int) -> tuple[str, ...]:
        """Look whether it has still the counters it had, and all its payments were moved.

        Raises:
            SourceChangedError: it was written to, or it counts other payments than it has.
        """
        if listed(self._store, self.name) != self._in_flight:
            raise self._changed("has other payments in flight than at first, or in another state")
        if self._store.counters() != self._counters:
            raise self._changed("counts other than at first")
        if moved != self._counters.payments:
            raise SourceChangedError(
                f"{self.name} counts {self._counters.payments} payments, and has {moved}: run "
                "`paychan payments verify` on it; the destination is to be removed"
            )
        return ()

    def _changed(self, how: str) -> SourceChangedError:
        return SourceChangedError(
            f"{self.name} {how}: stop what writes to it, remove the destination and migrate again "
            "into a new store"
        )
