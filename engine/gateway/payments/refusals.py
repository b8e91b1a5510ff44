"""What a refusal of the payments database, or a fault of it, means over HTTP."""

from typing import Any, Final

from engine.gateway.problems import Problem
from engine.payments import PaymentDBCode, PaymentDBError, StoreError
from engine.payments.errors import StoreFullError, StoreReadOnlyError

STATUS_OF: Final = (
    dict.fromkeys(
        (
            PaymentDBCode.WRONG_TYPE,
            PaymentDBCode.WRONG_LENGTH,
            PaymentDBCode.OUT_OF_RANGE,
            PaymentDBCode.IDENTIFIER_MISMATCH,
            PaymentDBCode.DATES_REVERSED,
            PaymentDBCode.DELETE_FLAGS,
        ),
        400,
    )
    | dict.fromkeys(
        (
            PaymentDBCode.PAYMENT_NOT_INITIATED,
            PaymentDBCode.ATTEMPT_NOT_FOUND,
            PaymentDBCode.NO_DUPLICATE_BUCKET,
            PaymentDBCode.DUPLICATE_NOT_FOUND,
        ),
        404,
    )
    | dict.fromkeys(
        (
            PaymentDBCode.PAYMENT_EXISTS,
            PaymentDBCode.PAYMENT_IN_FLIGHT,
            PaymentDBCode.ALREADY_PAID,
            PaymentDBCode.PAYMENT_ALREADY_SUCCEEDED,
            PaymentDBCode.PAYMENT_ALREADY_FAILED,
            PaymentDBCode.PAYMENT_PENDING_SETTLED,
            PaymentDBCode.PAYMENT_PENDING_FAILED,
            PaymentDBCode.ATTEMPT_EXISTS,
            PaymentDBCode.SESSION_KEY_EXISTS,
            PaymentDBCode.ATTEMPT_ALREADY_SETTLED,
            PaymentDBCode.ATTEMPT_ALREADY_FAILED,
            PaymentDBCode.SEQUENCE_NUMBER_EXISTS,
        ),
        409,
    )
    | dict.fromkeys((PaymentDBCode.TOO_MANY_SUBSCRIPTIONS, PaymentDBCode.SUBSCRIPTION_LAGGED), 503)
)
"""HTTP status of a code; 422, refused by a rule, for every other one."""

IN_TEXT: Final = frozenset(
    {
        PaymentDBCode.OUT_OF_RANGE,
        PaymentDBCode.VALUE_MISMATCH,
        PaymentDBCode.VALUE_EXCEEDS_AMT,
        PaymentDBCode.SENT_EXCEEDS_TOTAL,
        PaymentDBCode.MPP_TOTAL_AMOUNT_MISMATCH,
        PaymentDBCode.BLINDED_TOTAL_AMOUNT_MISMATCH,
        PaymentDBCode.PAYMENT_INTERNAL,
    }
)
"""Codes whose numbers are millisatoshis, or any: decimal strings. Those of the others are small."""


def status_of(code: PaymentDBCode) -> int:
    """Return the HTTP status of a code."""
    return STATUS_OF.get(code, 422)


def payments_off() -> Problem:
    """Return the problem of an engine that was given no payments database."""
    detail = "this engine serves no payments; give it `payments.url`, such as sqlite:///payments.db"
    return Problem(404, "payments_off", detail)


def refusal(error: PaymentDBError) -> Problem:
    """Return the problem that says a refusal."""
    extra: dict[str, Any] = {}
    if error.expected or error.actual:
        extra = {"expected": error.expected, "actual": error.actual}
    if error.code in IN_TEXT:
        extra = {name: str(number) for name, number in extra.items()}
    return Problem(status_of(error.code), error.code.value, sentence_of(error), **extra)


def sentence_of(error: PaymentDBError) -> str:
    """Return what a refusal says, without its code."""
    return str(error).removeprefix(f"{error.code}: ")


def fault(error: StoreError) -> Problem:
    """Return the problem of a store that cannot do what it should.

    Where the store is and what is wrong with it is for the operator, in the log.
    """
    match error:
        case StoreFullError():
            return Problem(503, "storage_full", "the payments database has no room; nothing done")
        case StoreReadOnlyError():
            return Problem(503, "unavailable", "the payments database cannot be written; try later")
        case _:
            detail = "the payments database does not answer; read the payment, then try again"
            return Problem(503, "unavailable", detail)
