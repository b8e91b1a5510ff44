"""Read a source in portions that suit the size of its payments, joined to batches."""

from collections.abc import Iterator

from engine.payments.migration.portions import BATCH_BYTES_MAX, Portion, weight_of
from engine.payments.migration.source import Place, Source, SourceBatch


class Reader:
    """Reads a source from a place on. Memory holds a batch: `BATCH_BYTES_MAX` and one portion.

    Attributes:
        place: what was read so far.
        is_over: nothing follows.
    """

    def __init__(self, source: Source, place: Place) -> None:
        self.place = place
        self.is_over = False
        self._source = source
        self._portion = Portion()
        self._read: Iterator[SourceBatch] = iter(())
        self._read_size = 0

    def take(self, batch_size: int) -> tuple[SourceBatch, list[int]]:
        """Return so many payments that follow, fewer where they are large or there are no more.

        Returns:
            The batch, and the weight of each of its payments.
        """
        batch, weights = SourceBatch(()), list[int]()
        while not self.is_over and len(weights) < batch_size and sum(weights) < BATCH_BYTES_MAX:
            portion = self._next(batch_size - len(weights))
            found = [*map(weight_of, portion.records)]
            self._portion.follow(found)
            weights += found
            batch = _joined(batch, portion)
        return batch, weights

    def _next(self, size_max: int) -> SourceBatch:
        size = min(self._portion.size, size_max)
        if size != self._read_size:
            self._read, self._read_size = self._source.batches(self.place, size), size
        portion = next(self._read, SourceBatch(()))
        self.is_over = len(portion.records) < size and not portion.is_cut
        self.place = place_after(self.place, portion)
        return portion


def place_after(place: Place, batch: SourceBatch) -> Place:
    """Return how far a source was read once `batch` follows `place`."""
    if not batch.records:
        return place
    return Place(batch.records[-1].sequence_number, place.repaired + batch.repaired)


def _joined(one: SourceBatch, other: SourceBatch) -> SourceBatch:
    return SourceBatch(
        one.records + other.records,
        one.warnings + other.warnings,
        one.unquoted + other.unquoted,
        one.repaired + other.repaired,
    )
