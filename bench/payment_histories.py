"""Payments as a node has them: 7 of 10 settled, 2 failed, 1 settled after two attempts that failed.

Every attempt is a part of a payment over two hops, every payment has a request of 377 bytes, and
each is made a minute after the one before it. So the payments beside each other are of the same mix
wherever one looks: a page of a small store costs what a page of a large one should.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

import msgspec

from engine.payments.records import PaymentRecord
from engine.payments.values import (
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Hop,
    Route,
    Settle,
)

START_S: Final = 1_700_000_000
GAP_S: Final = 60
NS: Final = 1_000_000_000
REQUEST_BYTES: Final = 377
FEE_MSAT: Final = 1_011
BATCH: Final = 500

OUTCOMES: Final = ("s", "s", "s", "s", "s", "s", "s", "f", "f", "ffs")
"""The attempts of ten payments in a row: s settles, f fails; with no s the payment has failed."""


def second_of(number: int) -> int:
    """Return when the payment of a sequence number was made."""
    return START_S + number * GAP_S


class Life(msgspec.Struct, frozen=True):
    """What a caller brings along for one payment: to begin it, to try, to settle."""

    info: CreationInfo
    attempt: Attempt
    settle: Settle


class Histories:
    """Makes payments; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._attempt_index = 0

    def lives(self, count: int) -> list[Life]:
        """Return payments that are yet to be made."""
        return [self._life(number) for number in range(count)]

    def _life(self, number: int) -> Life:
        info = self._info(number)
        settle = Settle(self._random.randbytes(32), info.created_at_ns + NS)
        return Life(info, self._attempt(info), settle)

    def records(
        self, first: int, last: int, waiting: frozenset[int] = frozenset()
    ) -> Iterator[list[PaymentRecord]]:
        """Yield whole payments with the numbers from `first` to `last`, some at a time.

        Those of `waiting` are in flight.
        """
        for start in range(first, last + 1, BATCH):
            numbers = range(start, min(start + BATCH, last + 1))
            yield [self._record(number, number in waiting) for number in numbers]

    def _record(self, number: int, is_waiting: bool) -> PaymentRecord:
        info = self._info(number)
        if is_waiting:
            return PaymentRecord(number, info, (self._attempt(info),))
        outcomes = OUTCOMES[number % len(OUTCOMES)]
        attempts = tuple([self._attempt(info, outcome) for outcome in outcomes])
        reason = None if "s" in outcomes else FailureReason.NO_ROUTE
        return PaymentRecord(number, info, attempts, reason)

    def _info(self, number: int) -> CreationInfo:
        random = self._random
        return CreationInfo(
            identifier=random.randbytes(32),
            value_msat=random.randrange(1_000, 10**9),
            created_at_ns=second_of(number) * NS + random.randrange(NS),
            payment_request=random.randbytes(REQUEST_BYTES),
        )

    def _attempt(self, info: CreationInfo, outcome: str = "") -> Attempt:
        random, value = self._random, info.value_msat
        self._attempt_index += 1
        at = info.created_at_ns + 2 * NS
        settle = Settle(random.randbytes(32), at) if outcome == "s" else None
        failure = Failure(at, AttemptFailureReason.UNREADABLE, 1) if outcome == "f" else None
        last = self._hop(value, MPP(random.randbytes(32), value))
        return Attempt(
            attempt_index=self._attempt_index,
            session_key=random.randbytes(32),
            route=Route(800_080, value + FEE_MSAT, self._key(), (self._hop(value), last)),
            attempted_at_ns=info.created_at_ns + NS,
            payment_hash=info.identifier,
            settle=settle,
            failure=failure,
        )

    def _hop(self, amount: int, mpp: MPP | None = None) -> Hop:
        return Hop(self._key(), self._random.getrandbits(63), 800_040, amount, mpp=mpp)

    def _key(self) -> bytes:
        return b"\x02" + self._random.randbytes(32)
