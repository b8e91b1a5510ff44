"""What is known of a payment before its attempts are looked at."""

from collections.abc import Mapping

import msgspec

from engine.payments.memory import may_be_kept
from engine.payments.state import Tally
from engine.payments.values import Attempt, CreationInfo, FailureReason, PaymentStatus


class Header(msgspec.Struct, frozen=True, gc=False):
    """The row of a payment, with its request; the rest hangs on its number.

    Attributes:
        status: As it is kept, and so is the tally.
        has_records: Whether it has custom records.
        attempts: All, ascending by index, where they are known without a look; else None.
    """

    number: int
    identifier: bytes
    value_msat: int
    created_at_ns: int
    failure_reason: FailureReason | None
    status: int
    tally: Tally
    request: bytes
    has_records: int
    attempts: tuple[Attempt, ...] | None = None

    @property
    def may_be_kept(self) -> bool:
        """Whether a handle may remember it."""
        return self.attempts is not None and may_be_kept(
            self.status, self.attempts, has_records=bool(self.has_records)
        )

    def info(self, records: Mapping[int, bytes]) -> CreationInfo:
        """Return what the payment was begun with."""
        return CreationInfo(
            self.identifier, self.value_msat, self.created_at_ns, self.request, records
        )


def header_of_new(number: int, info: CreationInfo) -> Header:
    """Return the header of a payment that is begun."""
    return Header(
        *(number, info.identifier, info.value_msat, info.created_at_ns),
        *(None, PaymentStatus.INITIATED, Tally(), info.payment_request),
        has_records=bool(info.first_hop_custom_records),
        attempts=(),
    )
