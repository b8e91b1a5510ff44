"""Pages and payments in flight: what they cost in a small store and in a large one, warm.

Small and large take turns call by call, so that whatever else the machine does hits both.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

import msgspec

from bench.payment_histories import GAP_S, second_of
from engine.payments import Payment, PaymentDB, Query

PAGE: Final = 100
WINDOW: Final = 120
"""The window of dates has so many payments; the page takes the first of them."""

Call = Callable[[], object]


def queries(payments: int) -> dict[str, Query]:
    """Return the queries for a store of so many payments; all but the last are of its middle."""
    middle = payments // 2
    since = second_of(middle)
    until = since + (WINDOW - 1) * GAP_S
    return {
        "plain": Query(middle, PAGE),
        "omit hops": Query(middle, PAGE, omit_hops=True),
        "date window": Query(max_payments=PAGE, creation_date_start=since, creation_date_end=until),
        "reversed": Query(middle, PAGE, reversed=True),
        "succeeded only": Query(middle, PAGE, include_incomplete=False),
        "1,000 at once": Query(max_payments=10 * PAGE),
    }


def query_rows(
    kind: str, small: PaymentDB, large: PaymentDB, rounds: int, calls: int
) -> list[dict[str, Any]]:
    """Return a row for each query.

    Raises:
        RuntimeError: two pages that are compared hold different numbers of attempts.
    """
    sizes = small.counters().payments, large.counters().payments
    of_small, of_large = (queries(size) for size in sizes)
    rows = []
    for name, query in of_small.items():
        pair = _asking(small, query), _asking(large, of_large[name])
        _check_alike(name, *pair)
        taken = [_by_turns(pair, calls) for _ in range(rounds)]
        rows.append(
            {
                "store": kind,
                "query": name,
                "small": sizes[0],
                "large": sizes[1],
                "small_ms": round(median(each[0] for each in taken) * 1e3, 3),
                "large_ms": round(median(each[1] for each in taken) * 1e3, 3),
                "ratio": round(median(each[1] / each[0] for each in taken), 3),
            }
        )
    return rows


def _asking(store: PaymentDB, query: Query) -> Callable[[], Sequence[Payment]]:
    return lambda: store.query_payments(query).payments


def _check_alike(
    name: str, one: Callable[[], Sequence[Payment]], other: Callable[[], Sequence[Payment]]
) -> None:
    pages = one(), other()
    found = [(len(page), sum(len(payment.attempts) for payment in page)) for page in pages]
    if found[0] != found[1] or not found[0][0]:
        raise RuntimeError(f"pages of the query {name!r} are not alike: {found}")


def _by_turns(calls: Sequence[Call], count: int) -> list[float]:
    """Return the median seconds of each call, made `count` times by turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for call, seconds in zip(calls, taken, strict=True):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return [median(each) for each in taken]


def in_flight_row(kind: str, store: PaymentDB, rounds: int, calls: int) -> dict[str, Any]:
    """Return what it costs to find what is in flight.

    Beside it what the same payments cost where nothing has to be found: each by its hash; and built
    alone, by the fastest decoder there is, from one piece of memory.
    """
    waiting = store.fetch_in_flight_payments()
    identifiers = [payment.info.identifier for payment in waiting]
    piece = msgspec.msgpack.encode(waiting)
    decode = msgspec.msgpack.Decoder(list[Payment]).decode
    if decode(piece) != waiting:
        raise RuntimeError("the payments in flight are not what was decoded")
    turns: tuple[Call, ...] = (
        store.fetch_in_flight_payments,
        lambda: [store.fetch_payment(each) for each in identifiers],
        lambda: decode(piece),
    )
    taken = [_by_turns(turns, calls) for _ in range(rounds)]
    fetched, by_hash, built = (median(each[place] for each in taken) * 1e3 for place in range(3))
    return {
        "store": kind,
        "payments": store.counters().payments,
        "in_flight": len(waiting),
        "fetch_ms": round(fetched, 3),
        "one_by_one_ms": round(by_hash, 3),
        "built_ms": round(built, 3),
        "above_building_ms": round(fetched - built, 3),
    }
