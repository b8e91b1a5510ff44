"""What is moved between stores and what verification reports."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from engine.payments.checking import (
    HASH_BYTES,
    MESSAGE_BYTES_MAX,
    check_attempt,
    check_blob,
    check_bytes,
    check_creation,
    check_identifier,
    check_number,
    check_reason,
    check_route,
    check_sequence_number,
    check_settle,
    refuse_type,
)
from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.state import payment_of
from engine.payments.values import (
    AMOUNT_MSAT_MAX,
    NUMBER_MAX,
    Attempt,
    CreationInfo,
    DuplicatePayment,
    FailureReason,
    Payment,
)

PROBLEMS_MAX: Final = 100
"""How many problems a report names; it counts them all."""


class PaymentRecord(msgspec.Struct, frozen=True):
    """A payment with all that belongs to it and nothing that is computed.

    Attributes:
        sequence_number: 1 to 2^63-1.
        attempts: Ascending by index.
        duplicates: Ascending by sequence number.
    """

    sequence_number: int
    info: CreationInfo
    attempts: tuple[Attempt, ...] = ()
    failure_reason: FailureReason | None = None
    duplicates: tuple[DuplicatePayment, ...] = ()


def record_of(payment: Payment, duplicates: Iterable[DuplicatePayment] = ()) -> PaymentRecord:
    """Return what is stored of `payment`."""
    return PaymentRecord(
        payment.sequence_number,
        payment.info,
        payment.attempts,
        payment.failure_reason,
        tuple(duplicates),
    )


class Counters(msgspec.Struct, frozen=True):
    """The counters of a store.

    Attributes:
        sequence_number: The highest that was ever given or moved in; 0 before the first.
        attempt_index: No index above this was ever given, registered or moved in.
        payments: How many there are.
        duplicates: How many there are.
    """

    sequence_number: int = 0
    attempt_index: int = 0
    payments: int = 0
    duplicates: int = 0


class Problem(msgspec.Struct, frozen=True):
    """Something that is kept and not what it is computed to be."""

    identifier: bytes
    what: str
    kept: str
    computed: str


class VerifyReport(msgspec.Struct, frozen=True):
    """What a verification found.

    Attributes:
        problems: The first 100 of `problem_count`.
    """

    payments: int
    attempts: int
    duplicates: int
    problem_count: int
    problems: Sequence[Problem]

    @property
    def is_sound(self) -> bool:
        """Whether all that is kept is what it should be."""
        return self.problem_count == 0


def check_record(record: object) -> None:
    """Allow a payment that is to be moved in whole.

    Raises:
        PaymentDBError: the codes of `engine.payments.checking`; no_sequence_number, attempt_exists,
            sequence_number_exists, duplicate_not_over, sent_exceeds_total.
    """
    if not isinstance(record, PaymentRecord):
        raise refuse_type("a record", "PaymentRecord", record)
    check_given_number(record.sequence_number)
    check_creation(getattr(record.info, "identifier", None), record.info)
    if record.failure_reason is not None:
        check_reason(record.failure_reason)
    _check_attempts(record.attempts)
    payment_of(record.sequence_number, record.info, record.attempts, record.failure_reason)
    _check_duplicates(record)


def _check_attempts(attempts: Sequence[Attempt]) -> None:
    indexes: dict[bytes, int] = {}
    for attempt in attempts:
        check_attempt(attempt)
        if attempt.session_key in indexes:
            raise PaymentDBError(
                PaymentDBCode.SESSION_KEY_EXISTS,
                expected=indexes[attempt.session_key],
                actual=attempt.attempt_index,
            )
        indexes[attempt.session_key] = attempt.attempt_index
    for one, other in pairwise(attempts):
        if one.attempt_index >= other.attempt_index:
            raise PaymentDBError(PaymentDBCode.ATTEMPT_EXISTS, actual=other.attempt_index)


def _check_duplicates(record: PaymentRecord) -> None:
    highest = 0
    for duplicate in record.duplicates:
        check_duplicate(record.info.identifier, duplicate)
        number = duplicate.sequence_number
        if number == record.sequence_number or number <= highest:
            raise PaymentDBError(PaymentDBCode.SEQUENCE_NUMBER_EXISTS, actual=number)
        highest = number


def check_duplicate(identifier: bytes, duplicate: object) -> None:
    """Allow a duplicate of the payment `identifier`.

    Raises:
        PaymentDBError: as `check_record`.
    """
    if not isinstance(duplicate, DuplicatePayment):
        raise refuse_type("a duplicate", "DuplicatePayment", duplicate)
    check_given_number(duplicate.sequence_number)
    check_identifier(duplicate.identifier)
    if duplicate.identifier != identifier:
        raise PaymentDBError(PaymentDBCode.IDENTIFIER_MISMATCH)
    check_number("value_msat", duplicate.value_msat, AMOUNT_MSAT_MAX)
    check_number("created_at_ns", duplicate.created_at_ns, NUMBER_MAX)
    check_blob("payment_request", duplicate.payment_request, MESSAGE_BYTES_MAX)
    if (duplicate.failure_reason is None) == (duplicate.settle is None):
        raise PaymentDBError(PaymentDBCode.DUPLICATE_NOT_OVER)
    if duplicate.failure_reason is not None:
        check_reason(duplicate.failure_reason)
    if duplicate.settle is not None:
        check_settle(duplicate.settle)
    if duplicate.attempt is not None:
        _check_old_attempt(duplicate.attempt)


def _check_old_attempt(attempt: object) -> None:
    """Allow the attempt of a duplicate: its index may be anything, 0 too."""
    if not isinstance(attempt, Attempt):
        raise refuse_type("attempt", "Attempt", attempt)
    check_number("attempt_index", attempt.attempt_index, NUMBER_MAX)
    check_bytes("session_key", attempt.session_key, HASH_BYTES)
    check_number("attempted_at_ns", attempt.attempted_at_ns, NUMBER_MAX)
    check_route(attempt.route)


def check_given_number(sequence_number: object) -> None:
    """Allow 1 to 2^63-1."""
    check_sequence_number(sequence_number)
    if sequence_number == 0:
        raise PaymentDBError(PaymentDBCode.NO_SEQUENCE_NUMBER)
