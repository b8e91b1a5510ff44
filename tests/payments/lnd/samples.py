"""Payments of every kind an lnd node can have, made from a number."""

from collections.abc import Callable, Iterator
from random import Random

from engine.payments import (
    AMP,
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Hop,
    Route,
    Settle,
)
from engine.payments.records import PaymentRecord

START_NS = 1_600_000_000_123_456_789
MINUTE_NS = 60_000_000_000


def key(random: Random) -> bytes:
    return bytes([2 + random.randrange(2)]) + random.randbytes(32)


def hop(random: Random, amount: int, **fields: object) -> Hop:
    channel = random.getrandbits(64)
    return Hop(key(random), channel, random.getrandbits(32), amount, **fields)


def plain(random: Random, amount: int) -> list[Hop]:
    return [hop(random, amount + 7), hop(random, amount)]


def split(random: Random, amount: int) -> list[Hop]:
    return [*plain(random, amount)[:1], hop(random, amount, mpp=MPP(random.randbytes(32), amount))]


def amp(random: Random, amount: int) -> list[Hop]:
    record = AMP(random.randbytes(32), random.randbytes(32), random.getrandbits(32))
    return [*plain(random, amount)[:1], hop(random, amount, amp=record)]


def blinded(random: Random, amount: int) -> list[Hop]:
    return [
        hop(random, amount, encrypted_data=random.randbytes(40), blinding_point=key(random)),
        hop(random, amount, encrypted_data=random.randbytes(300)),
        hop(random, amount, encrypted_data=b"\1", blinded_total_msat=random.getrandbits(64)),
    ]


def customized(random: Random, amount: int) -> list[Hop]:
    records = {65_536: b"", 5_482_373_484: random.randbytes(32), 2**64 - 1: b"end"}
    return [hop(random, amount, metadata=random.randbytes(60), custom_records=records)]


def legacy(random: Random, amount: int) -> list[Hop]:
    return [hop(random, amount, legacy_payload=True) for _ in range(3)]


def long(random: Random, amount: int) -> list[Hop]:
    return [hop(random, amount, metadata=random.randbytes(1200)) for _ in range(27)]


WAYS: dict[str, Callable[[Random, int], list[Hop]]] = {
    each.__name__: each for each in (plain, split, amp, blinded, customized, legacy, long)
}

FAILURES = [
    (AttemptFailureReason.UNKNOWN, None),
    (AttemptFailureReason.UNREADABLE, None),
    (AttemptFailureReason.INTERNAL, None),
    (AttemptFailureReason.MESSAGE, bytes.fromhex("1007") + b"\0\x88" + b"u" * 136),
    # D19: what follows is no TLV stream.
    (AttemptFailureReason.MESSAGE, bytes.fromhex("400f") + b"\xff" * 21),
    (AttemptFailureReason.MESSAGE, b"m" * 65_535),
]


class Samples:
    """Makes payments; the same number gives the same ones."""

    def __init__(self, number: int) -> None:
        self.random = Random(number)
        self.next_attempt = 1
        self.next_number = 1

    def records(self, count: int, ways: str = "plain split amp blinded customized legacy") -> list:
        """Return `count` payments over these ways; each tenth has duplicates."""
        names = ways.split()
        return [self.record(names[index % len(names)], index) for index in range(count)]

    def record(self, way: str, index: int) -> PaymentRecord:
        random = self.random
        value = random.randrange(1000, 10**9)
        created = START_NS + index * MINUTE_NS
        info = CreationInfo(
            identifier=random.randbytes(32),
            value_msat=value,
            created_at_ns=created,
            payment_request=random.randbytes(random.choice((0, 377, 377, 377))),
            first_hop_custom_records={65_540: b"asset"} if index % 5 == 0 else {},
        )
        number = self.number()
        return PaymentRecord(
            number,
            info,
            tuple(self.attempts(WAYS[way], value, created, index)),
            random.choice(list(FailureReason)) if index % 4 == 1 else None,
            tuple(self.duplicates(info.identifier, created)) if index % 10 == 3 else (),
        )

    def attempts(self, way: Callable, value: int, created: int, index: int) -> Iterator[Attempt]:
        """Yield what makes it: failed ones first; then parts that settled, or are in flight."""
        parts = 1 + index % 3
        for attempt in range(parts + index % 2):
            failed = attempt < index % 2 or index % 4 == 1
            when = created + attempt * 1_000_000_001
            yield self.attempt(way, value // parts, when, failed, is_settled=index % 8 != 4)

    def attempt(
        self, way: Callable, amount: int, when: int, failed: bool, is_settled: bool
    ) -> Attempt:
        random = self.random
        hops = tuple(way(random, amount))
        route = Route(
            total_time_lock=random.getrandbits(32),
            total_amount_msat=amount + 11,
            source_pub_key=key(random),
            hops=hops,
            first_hop_amount_msat=random.choice((0, 0, 252, 253, 2**64 - 1)),
            first_hop_wire_records={65_536: b"w" * 300} if amount % 3 == 0 else {},
        )
        self.next_attempt += 1
        reason, message = random.choice(FAILURES[:5])
        failure = Failure(when + 9, reason, random.randrange(5), message) if failed else None
        settle = Settle(random.randbytes(32), when + 5) if is_settled and not failed else None
        return Attempt(
            attempt_index=self.next_attempt - 1,
            session_key=random.randbytes(32),
            route=route,
            attempted_at_ns=when,
            payment_hash=random.randbytes(32),
            settle=settle,
            failure=failure,
        )

    def duplicates(self, identifier: bytes, created: int) -> Iterator[DuplicatePayment]:
        """Yield one of each form: settled with and without a time, and failed."""
        random = self.random
        old = Route(1, 2, key(random), tuple(plain(random, 5)))
        for settle, attempt in (
            (Settle(random.randbytes(32), 0), None),
            (Settle(random.randbytes(32), created), Attempt(0, random.randbytes(32), old, 0)),
            (None, Attempt(1, random.randbytes(32), old, 0)),
        ):
            yield DuplicatePayment(
                sequence_number=self.number(),
                identifier=identifier,
                value_msat=random.getrandbits(64),
                created_at_ns=created // 1_000_000_000 * 1_000_000_000,
                payment_request=b"lnbc" * random.randrange(3),
                failure_reason=None if settle else FailureReason.TIMEOUT,
                settle=settle,
                attempt=attempt,
            )

    def number(self) -> int:
        self.next_number += 1 + (self.next_number % 7 == 0) * 993
        return self.next_number - 1
