"""Move payments from a source into an empty store, and compare every one of them.

Batch by batch: write, with a note of how far it is in the same transaction; read back; compare.
Killed at any point, a second run compares what may not have been, and goes on from there. Memory
holds one batch, whatever the size of the source.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from engine.payments.errors import PaymentDBError, StoreNotEmptyError
from engine.payments.interface import PaymentDB
from engine.payments.migration.comparison import compare
from engine.payments.migration.errors import (
    OtherMigrationError,
    SourceChangedError,
    UnacceptableRecordError,
)
from engine.payments.migration.note import FORMAT, Note, decode_note, encode_note
from engine.payments.migration.report import Pace, Progress, Report, Totals
from engine.payments.migration.source import Place, Source, SourceBatch
from engine.payments.records import Counters, PaymentRecord, check_record

BATCH_SIZE: Final = 500

ProgressCallback = Callable[[Progress], None]


class Migration:
    """One migration, from beginning to end.

    Args:
        source: what to move; it is only read.
        destination: an empty store, or one that an earlier run of this migration did not finish,
            opened with `unfinished=True`.
        name: of the destination, for the report.
        progress: called after each batch.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        source: Source,
        destination: PaymentDB,
        name: str,
        progress: ProgressCallback | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._destination = destination
        self._name = name
        self._progress = progress
        self._clock = clock

    def run(self, batch_size: int = BATCH_SIZE) -> Report:
        """Move all, compare all, and let the destination be used.

        Raises:
            StoreNotEmptyError: the destination was used before; nothing was changed.
            OtherMigrationError: it holds another unfinished migration; nothing was changed.
            SourceChangedError: the source is not what it was when the migration began.
            UnacceptableRecordError: the source has a payment that no store takes.
            ComparisonError: the destination does not hold what was written to it.
            StoreError: source or destination are at fault; what is written stays, and the same
                call goes on from there.
        """
        began = self._clock()
        note = self._begin()
        resumed_at = note.totals.payments
        pace = Pace(self._source.count(), self._clock)
        self._tell(pace, note.totals.payments - note.pending)
        note = self._catch_up(note)
        self._tell(pace, note.totals.payments)
        for batch in self._source.batches(note.compared, batch_size):
            note = self._move(note, batch)
            self._tell(pace, note.totals.payments)
        note.totals.warn(self._source.finish(note.totals.payments))
        counters = self._finish(note.totals)
        return self._report(note.totals, resumed_at, began, counters)

    # Beginning -----------------------------------------------------------------------------------

    def _begin(self) -> Note:
        fingerprint = self._source.fingerprint().hex()
        data = self._destination.note()
        if data is None:
            refuse_used(self._destination.counters(), self._name)
            note = Note(FORMAT, fingerprint, self._source.name, Place(), 0, Totals())
            # From here on the store opens for nothing else, even before it has a payment.
            self._destination.write_records((), encode_note(note))
            return note
        note = decode_note(data)
        if note.fingerprint != fingerprint:
            raise OtherMigrationError(
                f"{self._name} holds an unfinished migration from {note.source}; "
                f"{self._source.name} is another source, or was written to since: remove the "
                "store and begin again"
            )
        return note

    def _catch_up(self, note: Note) -> Note:
        """Compare the batch after which an earlier run may have been killed."""
        if not note.pending:
            return note
        batch = next(self._source.batches(note.compared, note.pending), SourceBatch(()))
        if len(batch.records) != note.pending:
            raise SourceChangedError(
                f"{self._source.name} has fewer payments than were moved from it"
            )
        self._compare(note, batch.records)
        return self._compared(note, batch)

    # Moving --------------------------------------------------------------------------------------

    def _move(self, note: Note, batch: SourceBatch) -> Note:
        totals = note.totals
        totals.add(batch.records)
        totals.warn(batch.warnings, batch.unquoted)
        totals.repaired += batch.repaired
        if not batch.records:
            return note
        note = msgspec.structs.replace(note, pending=len(batch.records))
        self._write(batch.records, note)
        self._compare(note, batch.records)
        return self._compared(note, batch)

    def _write(self, records: tuple[PaymentRecord, ...], note: Note) -> None:
        try:
            self._destination.write_records(records, encode_note(note))
        except PaymentDBError as error:
            check_records(records)
            self._refuse_others(note.totals.payments - len(records))
            # Each is fine by itself; two of them exclude another.
            numbers = f"{records[0].sequence_number} to {records[-1].sequence_number}"
            raise UnacceptableRecordError(
                f"the payments with the numbers {numbers} cannot be in one store: {error}"
            ) from error

    def _refuse_others(self, payments: int) -> None:
        """Allow only a destination that has what this migration wrote to it."""
        found = self._destination.counters().payments
        if found != payments:
            raise OtherMigrationError(
                f"{self._name} has {found} payments, and {payments} were moved: somebody else "
                "writes to it, perhaps the same migration in another process; let only one run"
            )

    def _compare(self, note: Note, written: tuple[PaymentRecord, ...]) -> None:
        read = self._destination.read_records(note.compared.after, len(written))
        compare(written, next(read, ()))

    def _compared(self, note: Note, batch: SourceBatch) -> Note:
        place = Place(batch.records[-1].sequence_number, note.compared.repaired + batch.repaired)
        return msgspec.structs.replace(note, compared=place, pending=0)

    def _tell(self, pace: Pace, done: int) -> None:
        progress = pace.at(done)
        if self._progress is not None:
            self._progress(progress)

    # Ending --------------------------------------------------------------------------------------

    def _finish(self, totals: Totals) -> Counters:
        sequence_number, attempt_index = self._source.counters()
        self._destination.raise_counters(sequence_number, attempt_index)
        counters = self._destination.counters()
        self._refuse_others(totals.payments)
        self._destination.write_records((), None)
        return counters

    def _report(self, totals: Totals, resumed_at: int, began: float, counters: Counters) -> Report:
        return Report(
            source=self._source.name,
            destination=self._name,
            totals=totals,
            resumed_at=resumed_at,
            seconds=self._clock() - began,
            next_sequence_number=counters.sequence_number + 1,
            next_attempt_index=counters.attempt_index + 1,
        )


def refuse_used(counters: Counters, name: str) -> None:
    """Allow only a store that never gave out a number.

    Raises:
        StoreNotEmptyError: it did, even when nothing is left of it.
    """
    if counters != Counters():
        raise StoreNotEmptyError(
            f"{name} was used before: it has {counters.payments} payments, its last number is "
            f"{counters.sequence_number} and its last attempt index {counters.attempt_index}. "
            "Numbers are kept in a migration, so it goes into a new store only"
        )


def check_records(records: tuple[PaymentRecord, ...]) -> None:
    """Allow payments that a store takes.

    Raises:
        UnacceptableRecordError: names the first that it does not, and why.
    """
    for record in records:
        try:
            check_record(record)
        except PaymentDBError as error:
            identifier = record.info.identifier.hex()
            raise UnacceptableRecordError(
                f"payment {identifier}, number {record.sequence_number}, cannot be moved: {error}"
            ) from error


def rehearse(
    source: Source,
    name: str,
    batch_size: int = BATCH_SIZE,
    progress: ProgressCallback | None = None,
) -> Report:
    """Read and check all of a source, write nothing, and report what a migration would move.

    Raises:
        UnacceptableRecordError: the source has a payment that no store takes.
        StoreError: the source is damaged.
    """
    began = time.monotonic()
    totals = Totals()
    pace = Pace(source.count(), time.monotonic)
    for batch in source.batches(Place(), batch_size):
        check_records(batch.records)
        totals.add(batch.records)
        totals.warn(batch.warnings, batch.unquoted)
        totals.repaired += batch.repaired
        told = pace.at(totals.payments)
        if progress is not None:
            progress(told)
    totals.warn(source.finish(totals.payments))
    return _rehearsed(source, name, totals, time.monotonic() - began)


def _rehearsed(source: Source, name: str, totals: Totals, seconds: float) -> Report:
    sequence_number, attempt_index = source.counters()
    return Report(
        source=source.name,
        destination=name,
        totals=totals,
        resumed_at=0,
        seconds=seconds,
        next_sequence_number=max(sequence_number, totals.highest_sequence_number) + 1,
        next_attempt_index=max(attempt_index, totals.highest_attempt_index) + 1,
        is_dry_run=True,
    )
