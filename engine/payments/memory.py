"""How much memory payments take, and what a store's writer remembers of those under way.

What is remembered need not be read again. `Memory` is only for a store with one writer at a time
whose file has a version: a transaction that begins at another version than the last one left
forgets all. So does one after a transaction that failed, and a call that does not say which one
payment it changed. Readers do not use it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from engine.payments.records import PaymentRecord
from engine.payments.rules import TERMINAL
from engine.payments.values import NO_RECORDS, Attempt, DuplicatePayment, Payment

T = TypeVar("T")

PAYMENTS_MAX: Final = 256
ATTEMPTS_MAX: Final = 16
ATTEMPTS_BYTES_MAX: Final = 2**17
"""What is remembered: so many payments under way, none with more attempts, some 3 kB each; and none
whose attempts weigh more, as those with large failure messages do."""


class Sizes(NamedTuple):
    """What Python takes for each, about, beside the byte strings whose length is not fixed."""

    payment: int
    attempt: int
    hop: int
    record: int


ALONE: Final = Sizes(payment=1_000, attempt=700, hop=500, record=100)
"""Of a payment of which nothing is shared."""


class Memory(Generic[T]):
    """Payments by their identifiers, each in whatever form a store has them.

    Attributes:
        count_left: How many calls have said what they left, ever.
    """

    def __init__(self) -> None:
        self.count_left = 0
        self._count_before = 0
        self._version: object = None
        self._holds = False
        self._known: dict[bytes, T] = {}

    def begin(self, version: object, next_version: object) -> None:
        """Begin a transaction, at `version` of the file; once it wrote, the file is at the next."""
        if not self._holds or version != self._version:
            self._known.clear()
        self._version, self._holds, self._count_before = next_version, False, self.count_left

    def recall(self, identifier: bytes) -> T | None:
        """Return a payment as the last call about it left it, of this transaction or before."""
        return self._known.get(identifier)

    def leave(self, identifier: bytes, payment: T | None) -> None:
        """Note what a call leaves of the only payment that it changes; None is to be read again."""
        self.count_left += 1
        note_newest(self._known, identifier, payment)

    def forget(self) -> None:
        """Forget all: a call changed nobody knows what."""
        self._known.clear()

    def commit(self) -> None:
        """Believe what was noted: it is durable. Without this the next transaction forgets all."""
        # Who noted nothing may have written nothing: then the version is not the next one.
        self._holds = self.count_left > self._count_before


def note_newest(known: dict[bytes, T], identifier: bytes, payment: T | None) -> None:
    """Let a payment be the newest of those known, and the oldest go if they are too many.

    Without a payment what was known of it goes.
    """
    known.pop(identifier, None)
    if payment is not None:
        if len(known) == PAYMENTS_MAX:
            del known[next(iter(known))]
        known[identifier] = payment


def may_be_kept(status: int, attempts: Sequence[Attempt], *, has_records: bool) -> bool:
    """Say whether a payment is under way and small, and nobody else can change a part of it.

    Custom records lie in a mapping, which belongs to whoever brought it or was given it;
    `has_records` says whether the payment has some of its own, beside those of its attempts.
    """
    return (
        status not in TERMINAL
        and not has_records
        and len(attempts) <= ATTEMPTS_MAX
        and not any(map(_has_records, attempts))
        and sum(map(weight_of_attempt, attempts)) <= ATTEMPTS_BYTES_MAX
    )


def _has_records(attempt: Attempt) -> bool:
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


# Weight -------------------------------------------------------------------------------------------


def weight_of(found: Payment | PaymentRecord | DuplicatePayment, sizes: Sizes = ALONE) -> int:
    """Return about how many bytes a payment takes in memory; of a record, without duplicates."""
    attempts: Sequence[Attempt]
    if isinstance(found, DuplicatePayment):
        own, attempts = len(found.payment_request), [found.attempt] if found.attempt else []
    else:
        info, attempts = found.info, found.attempts
        own = len(info.payment_request)
        own += _weight_of_records(info.first_hop_custom_records, sizes)
    return sizes.payment + own + sum([weight_of_attempt(each, sizes) for each in attempts])


def weight_of_attempt(attempt: Attempt, sizes: Sizes = ALONE) -> int:
    """Return about how many bytes an attempt takes."""
    route, failure = attempt.route, attempt.failure
    weight = sizes.attempt + sizes.hop * len(route.hops)
    if route.first_hop_wire_records:
        weight += _weight_of_records(route.first_hop_wire_records, sizes)
    for hop in route.hops:
        if hop.custom_records or hop.encrypted_data or hop.metadata:
            weight += len(hop.encrypted_data or b"") + len(hop.metadata or b"")
            weight += _weight_of_records(hop.custom_records, sizes)
    if failure is not None and failure.message:
        weight += len(failure.message)
    return weight


def _weight_of_records(records: Mapping[int, bytes], sizes: Sizes) -> int:
    return sizes.record * len(records) + sum(map(len, records.values()))
