"""Read and check all of a source as a migration would, and write nothing."""

import time

from engine.payments.migration.acceptance import Taken, check_records
from engine.payments.migration.move import BATCH_SIZE, ProgressCallback
from engine.payments.migration.reading import Reader
from engine.payments.migration.report import Pace, Report, Totals
from engine.payments.migration.source import Place, Source


def rehearse(
    source: Source,
    name: str,
    batch_size: int = BATCH_SIZE,
    progress: ProgressCallback | None = None,
) -> Report:
    """Read and check all of a source, write nothing, and report what a migration would move.

    Args:
        source: what would be moved.
        name: of the destination, for the report.
        batch_size: the most payments that are read between two calls of `progress`.
        progress: called after each batch.

    Raises:
        UnacceptableRecordError: the source has a payment that no store takes, or two that exclude
            another.
        StoreError: the source is damaged or changes, or there is no room for what the check keeps.
    """
    began = time.monotonic()
    totals = Totals()
    pace = Pace(source.count(), time.monotonic)
    reader = Reader(source, Place())
    with Taken() as taken:
        while not reader.is_over:
            batch, _ = reader.take(batch_size)
            check_records(batch.records)
            taken.take(batch.records)
            totals.add(batch)
            told = pace.at(totals.payments)
            if progress is not None and batch.records:
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
