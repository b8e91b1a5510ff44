"""The life of one payment: judge a call by the rules, then write. Each within one transaction."""

from msgspec.structs import replace

from engine.payments.compatibility import check_compatible, terms_of
from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.kv import rows
from engine.payments.kv.reading import Found, Reading, status_of_header
from engine.payments.kv.writing import Writing, own_info
from engine.payments.memory import without_foreign
from engine.payments.rules import (
    check_init_again,
    check_registrable,
    check_remove,
    check_resolvable,
    check_update,
)
from engine.payments.state import Tally, status_of, tally_of
from engine.payments.values import (
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Payment,
    PaymentStatus,
    Settle,
)


def existing(reading: Reading, identifier: bytes) -> Found:
    """Return a payment.

    Raises:
        PaymentDBError: payment_not_initiated.
    """
    found = reading.find(identifier)
    if found is None:
        raise PaymentDBError(PaymentDBCode.PAYMENT_NOT_INITIATED)
    return found


def existing_header(reading: Reading, identifier: bytes) -> rows.HeaderRow:
    """Return the header of a payment.

    Raises:
        PaymentDBError: payment_not_initiated.
    """
    header = reading.header(identifier)
    if header is None:
        raise PaymentDBError(PaymentDBCode.PAYMENT_NOT_INITIATED)
    return header


def init(writing: Writing, info: CreationInfo) -> None:
    """Begin a payment, or begin again one that failed."""
    header = writing.header(info.identifier)
    if header is not None:
        check_init_again(status_of_header(header))
        writing.remove_run(info.identifier, header)
        writing.count_removed(payments=1, duplicates=0)
    info = own_info(info)
    after = writing.add_payment(writing.take_number(), info)
    writing.leave(Found(after, info, (), Tally(), PaymentStatus.INITIATED))


def register(writing: Writing, identifier: bytes, attempt: Attempt) -> Payment:
    """Keep an attempt; return the payment with it."""
    found = existing(writing, identifier)
    tally, reason = found.tally, found.header.reason
    check_registrable(
        found.status,
        has_settled=tally.settled > 0,
        has_failure_reason=reason is not None,
    )
    check_is_new(writing, attempt)
    in_flight = [terms_of(each.route) for each in found.attempts if each.is_in_flight]
    check_compatible(found.info.value_msat, tally.sent_msat, in_flight, attempt.route)
    attempts = sorted((*found.attempts, without_foreign(attempt)), key=_by_index)
    payment = _change(writing, found, tuple(attempts), reason)
    writing.add_attempt(identifier, attempt)
    writing.count_attempt(attempt.attempt_index)
    return payment


def check_is_new(reading: Reading, attempt: Attempt) -> None:
    """Allow an attempt of which no other has the index or the session key.

    Raises:
        PaymentDBError: attempt_exists, session_key_exists.
    """
    if reading.owner(attempt.attempt_index) is not None:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_EXISTS, actual=attempt.attempt_index)
    other = reading.index_of_key(attempt.session_key)
    if other is not None:
        raise PaymentDBError(
            PaymentDBCode.SESSION_KEY_EXISTS, expected=other, actual=attempt.attempt_index
        )


def _change(
    writing: Writing,
    found: Found,
    attempts: tuple[Attempt, ...],
    reason: FailureReason | None,
) -> Payment:
    """Let a payment have these attempts and this reason; return it."""
    info, tally = found.info, tally_of(attempts)
    status = status_of(tally, reason)
    after = rows.header_row(found.header.sequence_number, info, tally, reason)
    left = Found(after, info, attempts, tally, status)
    payment = left.payment  # refuses before anything is written
    writing.move_header(info.identifier, found.header, after, status)
    writing.leave(left)
    return payment


def _by_index(attempt: Attempt) -> int:
    return attempt.attempt_index


def resolve(
    writing: Writing, identifier: bytes, attempt_index: int, result: Settle | Failure
) -> Payment:
    """Keep how an attempt ended; return the payment."""
    found, position = _in_flight(writing, identifier, attempt_index)
    attempts = list(found.attempts)
    if isinstance(result, Settle):
        attempts[position] = replace(attempts[position], settle=result)
    else:
        result = replace(result, reason=AttemptFailureReason(result.reason))
        attempts[position] = replace(attempts[position], failure=result)
    payment = _change(writing, found, tuple(attempts), found.header.reason)
    writing.add_result(identifier, attempt_index, result)
    return payment


def _in_flight(reading: Reading, identifier: bytes, attempt_index: int) -> tuple[Found, int]:
    """Return a payment, and where in it the attempt is that is to be resolved.

    Raises:
        PaymentDBError: as `PaymentControl.settle_attempt`.
    """
    found = existing(reading, identifier)
    check_update(found.status)
    for position, attempt in enumerate(found.attempts):
        if attempt.attempt_index == attempt_index:
            settled, failed = attempt.settle is not None, attempt.failure is not None
            check_resolvable(attempt_index, settled=settled, failed=failed)
            return found, position
    raise PaymentDBError(PaymentDBCode.ATTEMPT_NOT_FOUND, actual=attempt_index)


def fail(writing: Writing, identifier: bytes, reason: FailureReason) -> Payment:
    """Give a payment up; return it."""
    found = existing(writing, identifier)
    return _change(writing, found, found.attempts, reason)


def delete_failed_attempts(writing: Writing, identifier: bytes) -> int:
    """Remove the failed attempts of a payment that is over; return how many."""
    header = existing_header(writing, identifier)
    check_remove(status_of_header(header))
    if not header.failed:
        return 0
    failed = [each for each in writing.attempt_rows(identifier) if each[2]]
    count = writing.remove_attempts(identifier, failed)
    # Failed attempts are in no sum: only their count changes, and no status.
    writing.move_header(identifier, header, replace(header, failed=0), status_of_header(header))
    return count


def delete(writing: Writing, identifier: bytes) -> int:
    """Remove a payment that is not in flight; return how many records went."""
    header = existing_header(writing, identifier)
    check_remove(status_of_header(header))
    attempts = writing.remove_run(identifier, header)
    duplicates = writing.remove_duplicates(identifier)
    writing.count_removed(payments=1, duplicates=duplicates)
    return 1 + attempts + duplicates
