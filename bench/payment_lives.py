"""Payments from beginning to end: a store, the bare store beside it, and many writers at once."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

import msgspec

from bench.payment_floors import FLOORS, Floor
from bench.payment_histories import Histories, Life
from bench.payment_places import Places
from bench.payment_seams import Change, Seen, watched
from engine.payments import PaymentDB, open_payment_db

WRITERS: Final = 8
CALLS: Final = ("init", "register", "settle")
SEED: Final = 1
NAMES: Final = ("bare", "blind")
Calls = tuple[list[float], list[float], list[float]]


class Round(msgspec.Struct, frozen=True):
    """Seconds that a slice of payments took: one writer, each bare store, many writers.

    Attributes:
        bare_s: By what the bare store is called.
        cpu_s: Of this process, for the one writer.
        calls_s: The median of each call of the one writer.
    """

    one_s: float
    cpu_s: float
    bare_s: dict[str, float]
    many_s: float
    calls_s: tuple[float, ...]


class LifeCycles:
    """One kind of store, with a copy of it that notes what is written for the bare one."""

    def __init__(self, kind: str, places: Places, payments: int) -> None:
        self._payments = payments
        self._histories = Histories(SEED)
        self._open = ExitStack()
        self._store = self._open.enter_context(open_payment_db(places.new(kind)))
        noting = watched(places.new(kind), keeps=True)
        self._copy, self._seen = self._open.enter_context(noting)
        self._floors: dict[str, Floor] = {}
        for (of_kind, name), floor in FLOORS.items():
            if of_kind == kind:
                self._floors[name] = floor(places.new(kind))
                self._open.callback(self._floors[name].close)

    def close(self) -> None:
        """Close all of them."""
        self._open.close()

    def round(self, number: int) -> Round:
        """Make a slice of payments on each; who begins changes from round to round."""
        lives = self._histories.lives(self._payments)
        transactions = _written(self._copy, self._seen, lives)
        calls: Calls = ([], [], [])
        took: dict[str, float] = {}
        cpu_s = 0.0
        names = ["one", *self._floors]
        first = number % len(names)
        for name in names[first:] + names[:first]:
            cpu, started = time.process_time(), time.perf_counter()
            if name == "one":
                _make(self._store, lives, calls)
            else:
                _replay(self._floors[name], transactions)
            took[name] = time.perf_counter() - started
            cpu_s = time.process_time() - cpu if name == "one" else cpu_s
        many_s = _make_at_once(self._store, self._histories.lives(self._payments))
        return Round(took.pop("one"), cpu_s, took, many_s, tuple(map(median, calls)))


def _written(store: PaymentDB, seen: Seen, lives: Sequence[Life]) -> list[list[Change]]:
    """Return what the payments write, a list for each transaction."""
    seen.transactions.clear()
    _make(store, lives, ([], [], []))
    return [*seen.transactions]


def _make(store: PaymentDB, lives: Sequence[Life], calls: Calls) -> None:
    """Make payments one after the other; `calls` gets what each call took."""
    clock = time.perf_counter
    inits, registers, settles = calls
    for life in lives:
        identifier = life.info.identifier
        began = clock()
        store.init_payment(identifier, life.info)
        begun = clock()
        store.register_attempt(identifier, life.attempt)
        registered = clock()
        store.settle_attempt(identifier, life.attempt.attempt_index, life.settle)
        settles.append(clock() - registered)
        registers.append(registered - begun)
        inits.append(begun - began)


def _replay(floor: Floor, transactions: Sequence[list[Change]]) -> None:
    for changes in transactions:
        floor.run(changes)


def _make_at_once(store: PaymentDB, lives: Sequence[Life]) -> float:
    """Make payments with many threads, each its share; return the seconds."""
    started = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as threads:
        shares = [lives[number::WRITERS] for number in range(WRITERS)]
        for done in [threads.submit(_make, store, share, ([], [], [])) for share in shares]:
            done.result()
    return time.perf_counter() - started


def life_rows(
    places: Places,
    kinds: Sequence[str],
    payments: int,
    rounds: int,
    tell: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return a row for each kind of store; ratios are medians over the rounds."""
    found: dict[str, list[Round]] = {kind: [] for kind in kinds}
    stores = {kind: LifeCycles(kind, places, payments) for kind in kinds}
    for number in range(rounds):
        for kind, store in stores.items():
            found[kind].append(store.round(number))
            tell(payments)
    for store in stores.values():
        store.close()
    return [_row(kind, payments, found[kind]) for kind in kinds]


def _row(kind: str, payments: int, rounds: Sequence[Round]) -> dict[str, Any]:
    calls = zip(CALLS, zip(*(each.calls_s for each in rounds), strict=True), strict=True)
    row: dict[str, Any] = {
        "store": kind,
        "payments_per_s": round(median(payments / each.one_s for each in rounds), 1),
    }
    for name in NAMES:
        alike = [each for each in rounds if name in each.bare_s]
        rate = [payments / each.bare_s[name] for each in alike]
        ratio = [each.bare_s[name] / each.one_s for each in alike]
        row[f"{name}_per_s"] = round(median(rate), 1) if alike else None
        row[f"ratio_to_{name}"] = round(median(ratio), 3) if alike else None
    return (
        row
        | {
            "cpu_ms_per_payment": round(median(each.cpu_s for each in rounds) / payments * 1e3, 3),
            f"payments_per_s_{WRITERS}": round(median(payments / each.many_s for each in rounds)),
            f"ratio_{WRITERS}_to_1": round(median(each.one_s / each.many_s for each in rounds), 3),
        }
        | {f"{name}_ms": round(median(seconds) * 1e3, 3) for name, seconds in calls}
    )
