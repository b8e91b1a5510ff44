"""The store that a migration fills: new, written to by nobody else, and read back."""

from collections.abc import Sequence

from engine.payments.errors import PaymentDBError, StoreNotEmptyError
from engine.payments.interface import PaymentDB
from engine.payments.migration.acceptance import check_records
from engine.payments.migration.comparison import compare
from engine.payments.migration.errors import (
    OtherMigrationError,
    SourceChangedError,
    UnacceptableRecordError,
)
from engine.payments.migration.in_flight import NOTHING, listed
from engine.payments.migration.note import FORMAT, Note, decode_note, encode_note
from engine.payments.migration.portions import pieces
from engine.payments.migration.report import Totals
from engine.payments.migration.source import Place, Source
from engine.payments.records import Counters, PaymentRecord


class Destination:
    """A store, and the note in it.

    Args:
        store: opened with `unfinished=True`.
        name: its URL without a password.
    """

    def __init__(self, store: PaymentDB, name: str) -> None:
        self.name = name
        self._store = store

    # Beginning -----------------------------------------------------------------------------------

    def begin(self, source: Source) -> Note:
        """Return how far a migration of `source` is; leave a note that it began."""
        note = self.look(source)
        if note is None:
            fingerprint = source.fingerprint().hex()
            note = Note(FORMAT, fingerprint, source.name, Place(), 0, Totals(), NOTHING.hex())
            # From here on the store opens for nothing else, even before it has a payment.
            self._store.write_records((), encode_note(note))
        return note

    def look(self, source: Source) -> Note | None:
        """Return what an earlier run left, None in a store that is new; change nothing.

        Raises:
            StoreNotEmptyError: the store was used before.
            OtherMigrationError: it holds another migration, or something else wrote to it.
            SourceChangedError: `source` is not what it was when the migration began.
        """
        data = self._store.note()
        if data is None:
            self._refuse_used()
            return None
        note = decode_note(data)
        if note.fingerprint != source.fingerprint().hex():
            raise self._other_source(note, source)
        self.check_untouched(note.totals, source.counters()[0])
        return note

    def _refuse_used(self) -> None:
        counters = self._store.counters()
        if counters != Counters():
            raise StoreNotEmptyError(
                f"{self.name} was used before: it has {counters.payments} payments, its last "
                f"number is {counters.sequence_number} and its last attempt index "
                f"{counters.attempt_index}. Numbers are kept in a migration, so it goes into a new "
                "store only"
            )

    def _other_source(self, note: Note, source: Source) -> OtherMigrationError | SourceChangedError:
        if note.source == source.name:
            return SourceChangedError(
                f"{source.name} was written to since its migration into {self.name} began: stop "
                f"what writes to it, remove {self.name} and migrate again into a new store"
            )
        return OtherMigrationError(
            f"{self.name} holds an unfinished migration from {note.source}, and {source.name} is "
            "another source, or was written to since: finish that one, or remove the store and "
            "begin again"
        )

    # Filling -------------------------------------------------------------------------------------

    def write(self, records: Sequence[PaymentRecord], before: Totals, note: Note) -> None:
        """Add payments, and replace the note, in one transaction.

        Args:
            records: what to add.
            before: of all that was written until now.
            note: of that and `records`.

        Raises:
            OtherMigrationError: something else writes to the store.
            UnacceptableRecordError: no store takes them.
        """
        self.check_untouched(before)
        try:
            self._store.write_records(records, encode_note(note))
        except PaymentDBError as error:
            check_records(records)
            self.check_untouched(before)
            # Each is fine by itself; two of them exclude another.
            numbers = f"{records[0].sequence_number} to {records[-1].sequence_number}"
            raise UnacceptableRecordError(
                f"a payment with a number from {numbers} cannot be in one store with another of "
                f"{note.source}: {error}: `--dry-run` names both"
            ) from error

    def compare(self, after: int, written: Sequence[PaymentRecord], weights: Sequence[int]) -> None:
        """Return when what follows a number reads back as it was written.

        Args:
            after: the number.
            written: what was written.
            weights: of each of these.

        Raises:
            ComparisonError: it does not.
        """
        for piece in pieces(written, weights):
            compare(piece, next(self._store.read_records(after, len(piece)), ()))
            after = piece[-1].sequence_number

    def check_untouched(self, totals: Totals, raised_to: int = 0) -> None:
        """Allow only what this migration wrote to the store.

        Args:
            totals: of all that was written.
            raised_to: to this the counter of numbers may have been raised at the end.

        Raises:
            OtherMigrationError: there is something else.
        """
        found = self._store.counters()
        highest = totals.highest_sequence_number
        if (found.payments, found.duplicates) != (totals.payments, totals.duplicates):
            raise self._touched(
                f"has {found.payments} payments and {found.duplicates} duplicates, and "
                f"{totals.payments} and {totals.duplicates} were moved"
            )
        if found.sequence_number not in (highest, max(highest, raised_to)):
            raise self._touched(
                f"gave out the number {found.sequence_number}, and {highest} is the last that was "
                "moved"
            )

    def _touched(self, how: str) -> OtherMigrationError:
        return OtherMigrationError(
            f"{self.name} {how}: somebody else writes to it, perhaps the same migration in another "
            "process. Let only one run; if that is refused too, remove the store and begin again"
        )

    # Ending --------------------------------------------------------------------------------------

    def count_on(self, note: Note, sequence_number: int, attempt_index: int) -> Counters:
        """Let it count above these; return its counters once it has all that was moved.

        Raises:
            OtherMigrationError: something else wrote to it.
        """
        self.check_untouched(note.totals, sequence_number)  # what is raised hides what was given
        self._store.raise_counters(sequence_number, attempt_index)
        self.check_untouched(note.totals, sequence_number)
        if listed(self._store, self.name).hex() != note.in_flight:
            raise self._touched("has other payments in flight than were moved")
        return self._store.counters()

    def release(self) -> None:
        """Let it be used: the migration is over."""
        self._store.write_records((), None)
