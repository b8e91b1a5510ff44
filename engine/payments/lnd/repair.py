"""Give attempts of unknown index one, as lnd's own migration does. Pure.

Very old payments have attempts with index 0. What is in flight under it can never be resolved,
since nobody knows that index, so it has failed; the payment too, if nothing else keeps it alive.
"""

import msgspec

from engine.payments.records import PaymentRecord
from engine.payments.values import Attempt, AttemptFailureReason, Failure, FailureReason


def repair_index(record: PaymentRecord, attempt_index: int) -> tuple[PaymentRecord, bool]:
    """Return `record` with `attempt_index` in place of index 0, and whether it was in flight.

    Args:
        record: its first attempt has index 0.
        attempt_index: above every one of the file.
    """
    old, *others = record.attempts
    was_in_flight = old.is_in_flight
    reason = record.failure_reason
    failure = old.failure
    if was_in_flight:
        # Nobody knows when it failed: 0 is a time that is unset.
        failure = Failure(0, AttemptFailureReason.UNKNOWN)
        if reason is None and all(map(_is_failed, others)):
            reason = FailureReason.ERROR
    repaired = msgspec.structs.replace(old, attempt_index=attempt_index, failure=failure)
    attempts = (*others, repaired)
    return msgspec.structs.replace(record, attempts=attempts, failure_reason=reason), was_in_flight


def _is_failed(attempt: Attempt) -> bool:
    return attempt.failure is not None
