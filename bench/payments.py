"""What does a payments store cost above what it stands on, and does its size matter?

The sum before the run, for one core of some 3 GHz and a disk that syncs in 0.1 to 0.3 ms:

- A payment is three synced transactions. Bare, each is a sync and 10 to 20 writes of a microsecond
  (LMDB), 5 to 10 µs (SQLite) or a round trip of 0.3 ms (PostgreSQL). A store adds what Python takes
  to check, judge and build: 50 to 100 µs a call. So 0.8 of the bare store where a sync takes 0.3 ms
  or more, 0.6 where it takes 0.1 ms.
- Many writers save syncs, not Python: one interpreter does one thing at a time. With 0.25 ms of
  Python a payment no number of writers gets above 4,000 payments a second; three times one writer
  needs syncs that take two thirds of its time.
- A page is found with two or three steps down an index, a step more in a store a hundred times as
  large: microseconds. The 100 payments take 15 to 25 µs each to build, 1.5 to 2.5 ms. So the ratio
  of large to small is 1.0 to 1.1.
- Ten payments in flight: two ranges of an index, then ten payments; some 0.3 ms, whatever the size.
- A payment to be moved is built, checked, written in some 20 puts or 8 rows, read back, built again
  and compared: 150 to 250 µs, 4,000 to 6,000 a second.
- A payment is deleted in some 20 keys of 3 µs or 8 rows of 10 µs: 100,000 in 6 to 10 s, and what is
  done in 30 ms is some 300 payments.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.harness import machine_line, scratch
from bench.payment_histories import OUTCOMES, Histories
from bench.payment_lives import SEED, life_rows
from bench.payment_moves import move_rows
from bench.payment_places import KINDS, Places, places
from bench.payment_reads import in_flight_row, query_rows
from engine.payments import PaymentDB, open_payment_db

PARTS: Final = ("life", "queries", "in-flight", "moves")
WAITING: Final = 10
"""How many payments of a large store are in flight; spread evenly over its first third."""


class PaymentsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        small: Payments of the small store of the queries.
        payments: Payments of the large stores.
        huge: What they grow to for a second look at what is in flight; 0 = they do not.
        lives: Payments made from beginning to end, a round.
        calls: How often each query is asked, a round.
        rounds: Medians are over so many.
        parts: What is measured.
        without: Kinds of stores left out.
    """

    small: int = 1_000
    payments: int = 100_000
    huge: int = 1_000_000
    lives: int = 1_000
    calls: int = 40
    rounds: int = 5
    parts: tuple[str, ...] = PARTS
    without: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are measured."""
        return tuple(kind for kind in KINDS if kind not in self.without)


SMOKE: Final = PaymentsConfig(payments=2_000, huge=0, lives=40, calls=5, rounds=3)
FULL: Final = PaymentsConfig()

Tell = Callable[[int], None]


class _Steps:
    """Counts payments made, filled in, moved and deleted, for whoever watches."""

    def __init__(self, config: PaymentsConfig, progress: Callable[[int, int], None]) -> None:
        kinds, parts, rounds = len(config.kinds), config.parts, config.rounds
        fills = config.payments if set(parts) - {"life"} else 0
        fills += config.small if "queries" in parts else 0
        fills += config.huge - config.payments if config.huge and "in-flight" in parts else 0
        lives = config.lives * rounds if "life" in parts else 0
        moves = 2 * config.payments * rounds if "moves" in parts else 0
        self._total = kinds * (fills + lives + moves)
        self._done = 0
        self._progress = progress

    def tell(self, count: int) -> None:
        """Count some more."""
        self._done += count
        self._progress(self._done, self._total)


def run(
    config: PaymentsConfig,
    datadir: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Run the benchmark; return its result line. `progress` is told steps done and in all.

    Raises:
        ModuleNotFoundError: a kind of store is not installed; names the option that leaves it out.
    """
    started = time.perf_counter()
    tell = _Steps(config, progress).tell
    rows: dict[str, list[dict[str, Any]]] = {}
    with scratch(datadir) as folder, places(folder, config.kinds) as here:
        if "life" in config.parts:
            rows["life_rows"] = life_rows(here, config.kinds, config.lives, config.rounds, tell)
        if set(config.parts) - {"life"}:
            rows |= _Large(config, here, tell).rows()
    took = time.perf_counter() - started
    return machine_line("payments", msgspec.to_builtins(config), took) | rows


class _Large:
    """The parts that need a store with many payments: one of each kind, filled once."""

    def __init__(self, config: PaymentsConfig, here: Places, tell: Tell) -> None:
        self._config = config
        self._places = here
        self._tell = tell
        self._histories = {kind: Histories(SEED) for kind in config.kinds}
        self._urls = {kind: here.new(kind) for kind in config.kinds}

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of all these parts."""
        config, rows = self._config, dict[str, list[dict[str, Any]]]()
        for kind, url in self._urls.items():
            with open_payment_db(url) as store:
                self._fill(kind, store, config.payments)
        if "queries" in config.parts:
            rows["query_rows"] = [row for kind in config.kinds for row in self._query_rows(kind)]
        if "in-flight" in config.parts:
            rows["in_flight_rows"] = [self._in_flight_row(kind) for kind in config.kinds]
        if "moves" in config.parts:
            rows["migration_rows"], rows["deletion_rows"] = move_rows(
                self._places, self._urls, config.rounds, self._tell
            )
        if config.huge and "in-flight" in config.parts:
            rows["in_flight_rows"] += [self._huge_row(kind) for kind in config.kinds]
        return rows

    def _fill(self, kind: str, store: PaymentDB, payments: int) -> None:
        """Let a store have so many payments."""
        first = store.counters().payments + 1
        waiting = waiting_of(payments) if first == 1 else frozenset[int]()
        for records in self._histories[kind].records(first, payments, waiting):
            store.write_records(records)
            self._tell(len(records))

    def _query_rows(self, kind: str) -> list[dict[str, Any]]:
        config = self._config
        with ExitStack() as opened:
            large = opened.enter_context(open_payment_db(self._urls[kind]))
            small = opened.enter_context(open_payment_db(self._places.new(kind)))
            for records in Histories(SEED).records(1, config.small):
                small.write_records(records)
                self._tell(len(records))
            return query_rows(kind, small, large, config.rounds, config.calls)

    def _in_flight_row(self, kind: str) -> dict[str, Any]:
        with open_payment_db(self._urls[kind]) as store:
            return in_flight_row(kind, store, self._config.rounds, self._config.calls)

    def _huge_row(self, kind: str) -> dict[str, Any]:
        with open_payment_db(self._urls[kind]) as store:
            self._fill(kind, store, self._config.huge)
        return self._in_flight_row(kind)


def waiting_of(payments: int) -> frozenset[int]:
    """Return the numbers of those in flight: none in the pages of the middle.

    They take the place of payments with one attempt, so no page has fewer for them.
    """
    step = payments // (3 * WAITING)
    numbers = range(step, (WAITING + 1) * step, step)
    return frozenset(
        number if len(OUTCOMES[number % len(OUTCOMES)]) == 1 else number - 1 for number in numbers
    )
