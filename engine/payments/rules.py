"""What each status permits, and what a payer may do next. Pure.

`check_…` returns when the thing is allowed and raises a refusal with its code when not.
"""

from typing import Final

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.values import PaymentState, PaymentStatus

_INIT_AGAIN: Final = {
    PaymentStatus.INITIATED: PaymentDBCode.PAYMENT_EXISTS,
    PaymentStatus.IN_FLIGHT: PaymentDBCode.PAYMENT_IN_FLIGHT,
    PaymentStatus.SUCCEEDED: PaymentDBCode.ALREADY_PAID,
    PaymentStatus.FAILED: None,
}
_UPDATE: Final = {
    PaymentStatus.INITIATED: None,
    PaymentStatus.IN_FLIGHT: None,
    PaymentStatus.SUCCEEDED: PaymentDBCode.PAYMENT_ALREADY_SUCCEEDED,
    PaymentStatus.FAILED: PaymentDBCode.PAYMENT_ALREADY_FAILED,
}
_REMOVE: Final = {
    PaymentStatus.INITIATED: None,
    PaymentStatus.IN_FLIGHT: PaymentDBCode.PAYMENT_IN_FLIGHT,
    PaymentStatus.SUCCEEDED: None,
    PaymentStatus.FAILED: None,
}

TERMINAL: Final = frozenset({PaymentStatus.SUCCEEDED, PaymentStatus.FAILED})
"""A payment that is over. Every other one is in the in-flight fetch."""


def _check(permits: dict[PaymentStatus, PaymentDBCode | None], status: int) -> None:
    if status not in permits:
        raise PaymentDBError(PaymentDBCode.UNKNOWN_PAYMENT_STATUS, actual=status)
    code = permits[PaymentStatus(status)]
    if code is not None:
        raise PaymentDBError(code)


def check_init_again(status: int) -> None:
    """Allow a payment to be begun again: only one that failed.

    Raises:
        PaymentDBError: payment_exists, payment_in_flight, already_paid, unknown_payment_status.
    """
    _check(_INIT_AGAIN, status)


def check_update(status: int) -> None:
    """Allow attempts to be added, settled or failed.

    Raises:
        PaymentDBError: payment_already_succeeded, payment_already_failed, unknown_payment_status.
    """
    _check(_UPDATE, status)


def check_remove(status: int) -> None:
    """Allow the payment, or its failed attempts, to be deleted.

    Raises:
        PaymentDBError: payment_in_flight, unknown_payment_status.
    """
    _check(_REMOVE, status)


def is_removable(status: PaymentStatus, *, failed_only: bool = False) -> bool:
    """Say whether a bulk delete takes a payment of this status."""
    if failed_only:
        return status is PaymentStatus.FAILED
    return _REMOVE[status] is None


def check_registrable(status: int, *, has_settled: bool, has_failure_reason: bool) -> None:
    """Allow a new attempt.

    Raises:
        PaymentDBError: payment_already_succeeded, payment_already_failed, unknown_payment_status;
            payment_pending_settled, payment_pending_failed for what is in flight and will be over.
    """
    check_update(status)
    if status != PaymentStatus.IN_FLIGHT:
        return
    if has_settled:
        raise PaymentDBError(PaymentDBCode.PAYMENT_PENDING_SETTLED)
    if has_failure_reason:
        raise PaymentDBError(PaymentDBCode.PAYMENT_PENDING_FAILED)


def check_resolvable(attempt_index: int, *, settled: bool, failed: bool) -> None:
    """Allow an attempt to be settled or failed: only one in flight.

    Raises:
        PaymentDBError: attempt_already_failed, attempt_already_settled.
    """
    if failed:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_ALREADY_FAILED, actual=attempt_index)
    if settled:
        raise PaymentDBError(PaymentDBCode.ATTEMPT_ALREADY_SETTLED, actual=attempt_index)


def check_delete_choice(
    *, all_payments: bool, failed_only: bool, failed_attempts_only: bool
) -> None:
    """Allow a bulk delete that a person asked for: somebody must have said what is to go.

    Raises:
        PaymentDBError: delete_flags when nothing was said, or `all_payments` and something else.
    """
    if all_payments == (failed_only or failed_attempts_only):
        raise PaymentDBError(PaymentDBCode.DELETE_FLAGS)


def must_wait(status: int, state: PaymentState) -> bool:
    """Say whether a payer must wait for attempts in flight before it does anything else.

    Raises:
        PaymentDBError: payment_internal where status and remaining amount contradict;
            unknown_payment_status.
    """
    is_all_sent = state.remaining_msat == 0
    match status:
        case PaymentStatus.IN_FLIGHT:
            return is_all_sent or state.has_settled or state.has_failure_reason
        case PaymentStatus.SUCCEEDED if is_all_sent:
            return False
        case PaymentStatus.INITIATED | PaymentStatus.FAILED if not is_all_sent:
            return False
        case PaymentStatus():
            raise PaymentDBError(PaymentDBCode.PAYMENT_INTERNAL, actual=state.remaining_msat)
    raise PaymentDBError(PaymentDBCode.UNKNOWN_PAYMENT_STATUS, actual=status)


def may_try_more(status: int, state: PaymentState) -> bool:
    """Say whether a payer may make another attempt; an unknown status may not.

    Raises:
        PaymentDBError: payment_internal where status and remaining amount contradict.
    """
    is_all_sent = state.remaining_msat == 0
    if (status == PaymentStatus.INITIATED and is_all_sent) or (
        status == PaymentStatus.SUCCEEDED and not is_all_sent
    ):
        raise PaymentDBError(PaymentDBCode.PAYMENT_INTERNAL, actual=state.remaining_msat)
    if status == PaymentStatus.INITIATED:
        return True
    is_over = is_all_sent or state.has_settled or state.has_failure_reason
    return status == PaymentStatus.IN_FLIGHT and not is_over
