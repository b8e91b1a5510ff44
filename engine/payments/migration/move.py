"""Move payments from a source into an empty store, and compare every one of them.

Batch by batch: write, with a note of how far it is in the same transaction; read back; compare.
Killed at any point, a second run compares what may not have been, and goes on from there. Memory
holds one batch, whatever the size of the source and of its payments.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from engine.payments.interface import PaymentDB
from engine.payments.migration.destination import Destination
from engine.payments.migration.errors import SourceChangedError
from engine.payments.migration.in_flight import with_moved
from engine.payments.migration.note import Note
from engine.payments.migration.reading import Reader, place_after
from engine.payments.migration.report import Pace, Progress, Report, Totals
from engine.payments.migration.source import Source, SourceBatch
from engine.payments.records import Counters

BATCH_SIZE: Final = 500
"""Payments of a batch; fewer where they are large, see `engine.payments.migration.portions`."""

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
        self._destination = Destination(destination, name)
        self._progress = progress
        self._clock = clock

    def run(self, batch_size: int = BATCH_SIZE) -> Report:
        """Move all, compare all, and let the destination be used.

        Raises:
            StoreNotEmptyError: the destination was used before; nothing was changed.
            OtherMigrationError: it holds another unfinished migration, and nothing was changed; or
                somebody else writes to it.
            SourceChangedError: the source is not what it was when the migration began.
            UnacceptableRecordError: the source has a payment that no store takes.
            ComparisonError: the destination does not hold what was written to it.
            StoreError: source or destination are at fault; what is written stays, and the same
                call goes on from there.
        """
        began = self._clock()
        note = self._destination.begin(self._source)
        resumed_at = note.totals.payments
        pace = Pace(self._source.count(), self._clock)
        self._tell(pace, note.totals.payments - note.pending)
        reader = Reader(self._source, note.compared)
        note = self._catch_up(note, reader)
        self._tell(pace, note.totals.payments)
        while not (note.is_last or reader.is_over):
            batch, weights = reader.take(batch_size)
            note = self._move(note, batch, weights, is_last=reader.is_over)
            if batch.records:
                self._tell(pace, note.totals.payments)
        counters = self._finish(note)
        return self._report(note.totals, resumed_at, began, counters)

    def _tell(self, pace: Pace, done: int) -> None:
        progress = pace.at(done)
        if self._progress is not None:
            self._progress(progress)

    # Moving --------------------------------------------------------------------------------------

    def _catch_up(self, note: Note, reader: Reader) -> Note:
        """Compare the batch after which an earlier run may have been killed."""
        left = note.pending
        while left:
            after = reader.place.after
            batch, weights = reader.take(left)
            if not batch.records:
                raise SourceChangedError(
                    f"{self._source.name} has fewer payments than were moved from it: stop what "
                    "writes to it, remove the destination and migrate again into a new store"
                )
            self._destination.compare(after, batch.records, weights)
            left -= len(weights)
        return msgspec.structs.replace(note, compared=reader.place, pending=0)

    def _move(
        self, note: Note, batch: SourceBatch, weights: Sequence[int], *, is_last: bool
    ) -> Note:
        before, records = note.totals, batch.records
        note = msgspec.structs.replace(
            note,
            totals=before.with_batch(batch),
            in_flight=with_moved(bytes.fromhex(note.in_flight), records).hex(),
            pending=len(records),
            is_last=is_last,
        )
        if not records:
            return note
        self._destination.write(records, before, note)
        self._destination.compare(note.compared.after, records, weights)
        compared = place_after(note.compared, batch)
        return msgspec.structs.replace(note, compared=compared, pending=0)

    # Ending --------------------------------------------------------------------------------------

    def _finish(self, note: Note) -> Counters:
        counters = self._destination.count_on(note, *self._source.counters())
        # The source comes last: what changes in it after this comes too late to be noticed.
        note.totals.warn(self._source.finish(note.totals.payments))
        self._destination.release()
        return counters

    def _report(self, totals: Totals, resumed_at: int, began: float, counters: Counters) -> Report:
        return Report(
            source=self._source.name,
            destination=self._destination.name,
            totals=totals,
            resumed_at=resumed_at,
            seconds=self._clock() - began,
            next_sequence_number=counters.sequence_number + 1,
            next_attempt_index=counters.attempt_index + 1,
        )
