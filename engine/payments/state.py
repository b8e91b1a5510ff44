"""What attempts add up to: the tally, the status and the state. Pure.

A store may keep the tally of a payment beside it, changed in the same transaction as the attempts,
and never has to load routes to know a status; `verify` recomputes it from the attempts.
"""

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.values import (
    Attempt,
    CreationInfo,
    FailureReason,
    Payment,
    PaymentState,
    PaymentStatus,
)

SETTLED: Final = 1
FAILED: Final = 2
"""Resolution codes of an attempt, as stored; None = in flight."""


class Tally(msgspec.Struct, frozen=True, gc=False):
    """The attempts of a payment, counted.

    Attributes:
        sent_msat: What the receiver gets from attempts that are not failed.
        fees_msat: What the same attempts cost beyond that.
    """

    in_flight: int = 0
    settled: int = 0
    failed: int = 0
    sent_msat: int = 0
    fees_msat: int = 0


class Counts(Protocol):
    """How many attempts are where: a tally, or where a store keeps one."""

    @property
    def in_flight(self) -> int:
        """Nothing came back yet."""

    @property
    def settled(self) -> int:
        """They arrived."""

    @property
    def failed(self) -> int:
        """They did not."""


def tally_of(attempts: Iterable[Attempt]) -> Tally:
    """Count `attempts`."""
    in_flight = settled = failed = sent_msat = fees_msat = 0
    for attempt in attempts:
        if attempt.failure is not None:
            failed += 1
            continue
        settled += attempt.settle is not None
        in_flight += attempt.settle is None
        receiver_msat = attempt.route.receiver_msat
        sent_msat += receiver_msat
        fees_msat += attempt.route.total_amount_msat - receiver_msat
    return Tally(in_flight, settled, failed, sent_msat, fees_msat)


def tally_of_codes(codes: Iterable[int | None]) -> Tally:
    """Count resolution codes, where no route is loaded: the amounts stay 0.

    Raises:
        PaymentDBError: unknown_resolution.
    """
    count = {None: 0, SETTLED: 0, FAILED: 0}
    for code in codes:
        if code not in count:
            raise PaymentDBError(PaymentDBCode.UNKNOWN_RESOLUTION, actual=code or 0)
        count[code] += 1
    return Tally(count[None], count[SETTLED], count[FAILED])


def status_of(tally: Counts, failure_reason: FailureReason | None) -> PaymentStatus:
    """Say where a payment with these attempts is; a settled attempt beats a failure reason."""
    if tally.in_flight:
        return PaymentStatus.IN_FLIGHT
    if tally.settled:
        return PaymentStatus.SUCCEEDED
    if failure_reason is not None:
        return PaymentStatus.FAILED
    if tally.failed:
        return PaymentStatus.IN_FLIGHT  # may be tried again
    return PaymentStatus.INITIATED


def state_of(value_msat: int, tally: Tally, failure_reason: FailureReason | None) -> PaymentState:
    """Return what remains to be sent, and what the attempts say.

    Raises:
        PaymentDBError: sent_exceeds_total.
    """
    if tally.sent_msat > value_msat:
        raise PaymentDBError(
            PaymentDBCode.SENT_EXCEEDS_TOTAL, expected=value_msat, actual=tally.sent_msat
        )
    return PaymentState(
        attempts_in_flight=tally.in_flight,
        remaining_msat=value_msat - tally.sent_msat,
        fees_msat=tally.fees_msat,
        has_settled=tally.settled > 0,
        has_failure_reason=failure_reason is not None,
    )


def payment_of(
    sequence_number: int,
    info: CreationInfo,
    attempts: tuple[Attempt, ...],
    failure_reason: FailureReason | None,
) -> Payment:
    """Build a payment from what is stored of it; `attempts` ascend by index.

    Raises:
        PaymentDBError: sent_exceeds_total.
    """
    tally = tally_of(attempts)
    return Payment(
        sequence_number,
        info,
        attempts,
        failure_reason,
        status_of(tally, failure_reason),
        state_of(info.value_msat, tally, failure_reason),
    )
