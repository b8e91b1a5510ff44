"""The store that a migration fills, and reads back."""

from collections.abc import Sequence

from engine.payments.errors import PaymentDBError, StoreNotEmptyError
from engine.payments.interface import PaymentDB
from engine.payments.migration.acceptance import check_records
from engine.payments.migration.comparison import compare
from engine.payments.migration.errors import OtherMigrationError, UnacceptableRecordError
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
            note = Note(FORMAT, fingerprint, source.name, Place(), 0, Totals())
            # From here on the store opens for nothing else, even before it has a payment.
            self._store.write_records((), encode_note(note))
        return note

    def look(self, source: Source) -> Note | None:
        """Return what an earlier run left, None in a store that is new; change nothing.

        Raises:
            StoreNotEmptyError: the store was used before.
            OtherMigrationError: it holds another migration.
        """
        data = self._store.note()
        if data is None:
            self.refuse_used()
            return None
        note = decode_note(data)
        if note.fingerprint != source.fingerprint().hex():
            raise OtherMigrationError(
                f"{self.name} holds an unfinished migration from {note.source}; {source.name} is "
                "another source, or was written to since: remove the store and begin again"
            )
        return note

    def refuse_used(self) -> None:
        """Allow only a store that never gave out a number.

        Raises:
            StoreNotEmptyError: it did, even when nothing is left of it.
        """
        counters = self._store.counters()
        if counters != Counters():
            raise StoreNotEmptyError(
                f"{self.name} was used before: it has {counters.payments} payments, its last "
                f"number is {counters.sequence_number} and its last attempt index "
                f"{counters.attempt_index}. Numbers are kept in a migration, so it goes into a new "
                "store only"
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
        try:
            self._store.write_records(records, encode_note(note))
        except PaymentDBError as error:
            check_records(records)
            self.refuse_others(before)
            # Each is fine by itself; two of them exclude another.
            numbers = f"{records[0].sequence_number} to {records[-1].sequence_number}"
            raise UnacceptableRecordError(
                f"a payment with a number from {numbers} cannot be in one store with another of "
                f"{note.source}: {error}"
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

    def refuse_others(self, totals: Totals) -> None:
        """Allow only what this migration wrote to the store.

        Raises:
            OtherMigrationError: there is something else.
        """
        found = self._store.counters().payments
        if found != totals.payments:
            raise OtherMigrationError(
                f"{self.name} has {found} payments, and {totals.payments} were moved: somebody "
                "else writes to it, perhaps the same migration in another process; let only one run"
            )

    # Ending --------------------------------------------------------------------------------------

    def count_on(self, note: Note, sequence_number: int, attempt_index: int) -> Counters:
        """Let it count above these; return its counters once it has all that was moved.

        Raises:
            OtherMigrationError: something else wrote to it.
        """
        self._store.raise_counters(sequence_number, attempt_index)
        self.refuse_others(note.totals)
        return self._store.counters()

    def release(self) -> None:
        """Let it be used: the migration is over."""
        self._store.write_records((), None)
