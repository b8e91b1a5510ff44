"""A file of lnd as a source of a migration: the rules that make its payments ours.

Payments keep the numbers and attempts the indexes of the file (ADR 0021). Two things lnd itself
never writes are put right: a payment with the number 0 moves all numbers up by one, and an
attempt with the index 0 gets one that is free.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from engine.payments.lnd.layout import LndPayments
from engine.payments.lnd.repair import repair_index
from engine.payments.migration.report import WARNINGS_MAX
from engine.payments.migration.source import Place, SourceBatch
from engine.payments.records import PaymentRecord

BATCH_BYTES_MAX: Final = 4 << 20
"""A batch ends early where its payments take so much of the file: all of them are in memory, as
records, as rows, and as the copy that is read back. 500 usual ones take a tenth of that."""


class LndSource:
    """The payments of one file of lnd.

    Args:
        payments: open; kept open, and its lock held, until the migration is over.
    """

    def __init__(self, payments: LndPayments) -> None:
        self.name = _encodable(payments.path)
        self._payments = payments
        self._shift = int(payments.begins_at_zero())
        self._warnings: list[str] = []
        self._unquoted = 0

    def fingerprint(self) -> bytes:
        """Return a hash of the meta page, the counters and the ends of the index."""
        return self._payments.fingerprint()

    def count(self) -> int:
        """Return how many payments the file has, in the index or not."""
        return self._payments.count()

    def batches(self, place: Place, batch_size: int) -> Iterator[SourceBatch]:
        """Yield what follows `place`, put right: `batch_size` payments at a time, fewer if long."""
        self._forget_warnings()
        records: list[PaymentRecord] = []
        repaired = done = place.repaired
        begun = self._payments.record_bytes
        after = place.after - self._shift if place != Place() else None
        for record in self._payments.records(self._warn, after):
            ours = self._ours(record, repaired)
            repaired += bool(record.attempts) and record.attempts[0].attempt_index == 0
            records.append(ours)
            size = self._payments.record_bytes - begun
            if len(records) == batch_size or size >= BATCH_BYTES_MAX:
                yield self._batch(records, repaired - done, is_cut=len(records) < batch_size)
                records, done, begun = [], repaired, self._payments.record_bytes
        if records or self._warnings:
            yield self._batch(records, repaired - done)

    def counters(self) -> tuple[int, int]:
        """Return what lnd had reserved: it may have given out numbers that no payment has."""
        counters = self._payments.counters
        return counters.sequence_number + self._shift, max(counters.next_attempt_index - 1, 0)

    def finish(self, moved: int) -> tuple[str, ...]:
        """Look whether the file is as it was, and whether payments are missing in its index."""
        self._payments.check_unchanged()
        missing = self._payments.count() - moved
        if missing <= 0:
            return ()
        return (f"{missing} payments are not in the index of the file and were left out",)

    # Putting right -------------------------------------------------------------------------------

    def _ours(self, record: PaymentRecord, repaired: int) -> PaymentRecord:
        if record.attempts and record.attempts[0].attempt_index == 0:
            record = self._repaired(record, self._first_free + repaired)
        return self._shifted(record) if self._shift else record

    def _repaired(self, record: PaymentRecord, attempt_index: int) -> PaymentRecord:
        record, was_in_flight = repair_index(record, attempt_index)
        text = f"an attempt without an index got {attempt_index}"
        if was_in_flight:
            text += "; nothing can resolve it any more, so it has failed"
        self._warn(f"payment {record.info.identifier.hex()}: {text}")
        return record

    def _shifted(self, record: PaymentRecord) -> PaymentRecord:
        duplicates = tuple(
            msgspec.structs.replace(each, sequence_number=each.sequence_number + self._shift)
            for each in record.duplicates
        )
        return msgspec.structs.replace(
            record, sequence_number=record.sequence_number + self._shift, duplicates=duplicates
        )

    @cached_property
    def _first_free(self) -> int:
        """The first index to make up: above all that lnd gave, and all that the file has."""
        highest = self._payments.highest_attempt_index()
        return max(self._payments.counters.next_attempt_index, highest + 1)

    def _warn(self, text: str) -> None:
        # A damaged index could have millions between two payments.
        if len(self._warnings) < WARNINGS_MAX:
            self._warnings.append(text)
        else:
            self._unquoted += 1

    def _batch(
        self, records: list[PaymentRecord], repaired: int, *, is_cut: bool = False
    ) -> SourceBatch:
        warnings = tuple(self._warnings)
        batch = SourceBatch(tuple(records), warnings, self._unquoted, repaired, is_cut)
        self._forget_warnings()
        return batch

    def _forget_warnings(self) -> None:
        self._warnings, self._unquoted = [], 0


def _encodable(path: Path) -> str:
    """Return the name for notes and reports; bytes that are no UTF-8 are written as numbers."""
    return os.fsencode(path).decode(errors="backslashreplace")
