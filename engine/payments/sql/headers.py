"""What is known of a payment before its attempts are looked at; what a writer remembers of it."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from engine.payments.rules import TERMINAL
from engine.payments.state import Tally
from engine.payments.values import (
    NO_RECORDS,
    Attempt,
    CreationInfo,
    FailureReason,
    PaymentStatus,
)

PAYMENTS_MAX: Final = 256
ATTEMPTS_MAX: Final = 16
"""What is remembered: so many payments under way, none with more attempts; some 3 kB each."""


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


class Memory:
    """The payments that one writer left under way, so that its next call need not read them again.

    Only for a store with one writer at a time that says whether another one wrote since. A
    transaction that fails, or that does not say what it left, empties it.
    """

    def __init__(self) -> None:
        self._version: object = None
        self._holds = False
        self._known: dict[bytes, Header] = {}
        self._left: Header | None = None

    def begin(self, version: object) -> None:
        """Begin a transaction; another `version` than the last one's means that others wrote."""
        if not self._holds or version != self._version:
            self._known.clear()
        self._version, self._holds, self._left = version, False, None

    def recall(self, identifier: bytes) -> Header | None:
        """Return a payment with its attempts, as the last transaction about it left it."""
        return self._known.get(identifier)

    def leave(self, header: Header) -> None:
        """Note what the transaction under way leaves of the only payment that it changes."""
        self._left = header

    def commit(self) -> None:
        """Take over what was noted: it is durable."""
        left, known = self._left, self._known
        if left is None:
            return
        known.pop(left.identifier, None)
        if may_be_kept(left):
            if len(known) == PAYMENTS_MAX:
                del known[next(iter(known))]
            known[left.identifier] = left
        self._holds = True


def may_be_kept(header: Header) -> bool:
    """Say whether a payment is under way and small, and nobody else can change a part of it.

    Records lie in a mapping, which belongs to whoever brought it or was given it.
    """
    attempts = header.attempts
    return (
        header.status not in TERMINAL
        and attempts is not None
        and len(attempts) <= ATTEMPTS_MAX
        and not header.has_records
        and not any(has_records(attempt) for attempt in attempts)
    )


def has_records(attempt: Attempt) -> bool:
    """Say whether an attempt has custom records anywhere."""
    route = attempt.route
    return bool(route.first_hop_wire_records or [hop for hop in route.hops if hop.custom_records])


def without_foreign(attempt: Attempt) -> Attempt:
    """Return an attempt in which mappings that are empty are our own, and stay so."""
    route = attempt.route
    hops = tuple(
        [
            hop if hop.custom_records else replace(hop, custom_records=NO_RECORDS)
            for hop in route.hops
        ]
    )
    wire = route.first_hop_wire_records or NO_RECORDS
    return replace(attempt, route=replace(route, hops=hops, first_hop_wire_records=wire))
