"""What no store takes."""

from collections.abc import Iterable

from engine.payments.errors import PaymentDBError
from engine.payments.migration.errors import UnacceptableRecordError
from engine.payments.records import PaymentRecord, check_record


def check_records(records: Iterable[PaymentRecord]) -> None:
    """Allow payments that a store takes.

    Raises:
        UnacceptableRecordError: names the first that it does not, and why.
    """
    for record in records:
        try:
            check_record(record)
        except PaymentDBError as error:
            raise UnacceptableRecordError(f"{_named(record)}, cannot be moved: {error}") from error


def _named(record: PaymentRecord) -> str:
    return f"payment {record.info.identifier.hex()}, number {record.sequence_number}"
