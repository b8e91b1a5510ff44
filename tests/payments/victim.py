"""A process that makes calls to a store and says so after each, until it is killed.

python -m tests.payments.victim URL SEED SKIP   made-up calls, the same for a seed every time
python -m tests.payments.victim URL delete      one long delete
"""

import random
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from engine.payments import (
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Hop,
    PaymentDB,
    PaymentDBError,
    Route,
    Settle,
    open_payment_db,
)
from engine.payments.records import PaymentRecord
from tests.payments.builders import P, addr, digest

Call = Callable[[PaymentDB], Any]
PAYMENTS = 12


def calls(seed: int) -> Iterator[Call]:
    """Yield calls that change a store, without end; some are refused."""
    choice = random.Random(seed)
    index = 0
    while True:
        identifier = digest("victim", choice.randrange(PAYMENTS))
        kind = choice.randrange(10)
        if kind < 4:
            index += 1
        yield made(kind, identifier, index, choice)


def made(kind: int, identifier: bytes, index: int, choice: random.Random) -> Call:
    """Return one call; attempts of late are settled or failed, old ones are not there."""
    recent = max(1, index - choice.randrange(8))
    match kind:
        case 0 | 1 | 2 | 3:
            attempt = part(index, choice.randrange(3))
            return lambda store: store.register_attempt(identifier, attempt)
        case 4 | 5:
            info = CreationInfo(identifier, 555, index, b"request" * 9, {65_536: b"record"})
            return lambda store: store.init_payment(identifier, info)
        case 6:
            return lambda store: store.settle_attempt(identifier, recent, Settle(bytes(32), index))
        case 7:
            why = Failure(index, AttemptFailureReason.MESSAGE, 1, b"message")
            return lambda store: store.fail_attempt(identifier, recent, why)
        case 8:
            return lambda store: store.fail_payment(identifier, FailureReason.NO_ROUTE)
        case _:
            return deletion(identifier, index, choice.randrange(3))


def deletion(identifier: bytes, index: int, kind: int) -> Call:
    """Return a call that deletes something, or moves a payment in."""
    if kind == 0:
        return lambda store: store.delete_payment(identifier)
    if kind == 1:
        return lambda store: store.delete_failed_attempts(identifier)
    moved = CreationInfo(digest("moved", index), 555, index)
    return lambda store: store.write_records(
        [PaymentRecord(store.counters().sequence_number + 1, moved)]
    )


def part(index: int, hops: int) -> Attempt:
    """Return an attempt of a third of a payment."""
    last = Hop(P, 1, 1, 185, mpp=MPP(addr("A"), 555), custom_records={65_536: b"x"})
    before = [Hop(P, hop, 1, 186) for hop in range(hops)]
    return Attempt(index, digest("key", index), Route(1, 200, P, (*before, last)), index)


def do(call: Call, store: PaymentDB) -> str:
    """Make a call; return "ok" or the code of its refusal."""
    try:
        call(store)
    except PaymentDBError as refusal:
        return refusal.code.value
    return "ok"


def main(url: str, what: str, skip: str = "0") -> None:
    """Make calls until killed; a line goes out when a call has returned."""
    with open_payment_db(url) as store:
        print("ready", flush=True)  # noqa: T201  (the parent reads it)
        if what == "delete":
            store.delete_payments()
            return
        for call in islice(calls(int(what)), int(skip), None):
            outcome = do(call, store)
            print(outcome, flush=True)  # noqa: T201  (the parent reads it)


if __name__ == "__main__":
    main(*sys.argv[1:])
