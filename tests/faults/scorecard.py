"""Keep the score of the fault campaigns: one row for each kind of fault that was tried.

A campaign is a module of this package with a function `run(budget, progress)` that returns rows.
`python -m tests.faults` runs them by name and prints the card; exit code 1 says that a row of ours
shows something lost, undetected, falsely alarmed or applied twice.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bench.harness import machine_line

OURS: Final = "paychan"

CAMPAIGNS: Final = {
    "syscalls": "tests.faults.syscalls",
    "beside": "tests.faults.beside",
    "nested": "tests.faults.nested",
    "limits": "tests.faults.limits",
    "shortage": "tests.faults.shortage",
    "slow": "tests.faults.slow",
    "bytes": "tests.faults.bytes",
    "mutations": "tests.faults.mutations",
    "rounds": "tests.faults.rounds",
    "simulation": "tests.faults.histories",
    "rivals": "tests.faults.rivals",
}
"""Campaigns by name, in the order they run, with the module that holds `run`."""

ALONE: Final = ("slow", "rounds")
"""Campaigns that measure time, or want the whole machine."""

Progress = Callable[[int, int, str], None]
"""Told cases done, cases in all, and what is being tried."""

T = TypeVar("T")


class CannotRun(Exception):  # noqa: N818
    """A campaign lacks something on this machine; the text says what, and how to get it."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one kind of fault.

    Attributes:
        name: the fault, in words.
        tried: how often it was brought about.
        acknowledged_checked: acknowledged records that were looked for afterwards, over all cases.
        lost: of those, how many were gone or changed and nobody said so.
        undetected: cases of damage that nothing noticed.
        false_alarms: cases where sound data was refused.
        duplicates: records that were applied twice.
        seconds: how long it took.
        command: what reproduces the row.
        system: whose storage was tried; only rows of ours decide the exit code.
        is_promised: whether we promise to stand it; a row that is not is there to be honest.
        recovery_ms: how long recovery took, the median and the 99th of 100; None if not measured.
        notes: anything a reader must know to read the numbers right.
    """

    name: str
    tried: int
    acknowledged_checked: int = 0
    lost: int = 0
    undetected: int = 0
    false_alarms: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    command: str = ""
    system: str = OURS
    is_promised: bool = True
    recovery_ms: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing went wrong, and something was tried at all."""
        wrong = self.lost + self.undetected + self.false_alarms + self.duplicates
        return self.tried > 0 and wrong == 0

    @property
    def breaks_promise(self) -> bool:
        """Whether something went wrong that must not."""
        return self.system == OURS and self.is_promised and not self.good


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be tried: everything, or a spread that fits into a test run.

    Attributes:
        full: everything.
        share: of the cases, where not everything is tried; 0 to 1.
        number: decides what is chosen at random, and nothing else does.
    """

    full: bool = False
    share: float = 0.02
    number: int = 1

    def choose(self, cases: Sequence[T]) -> list[T]:
        """Return all cases, or a spread over them with the first and the last of them."""
        if self.full or len(cases) <= 2:
            return list(cases)
        count = max(2, round(len(cases) * self.share))
        step = (len(cases) - 1) / (count - 1)
        return [cases[round(index * step)] for index in range(count)]

    def amount(self, quick: int, full: int) -> int:
        """Return how often to do what has no end of its own."""
        return full if self.full else quick

    def chance(self, name: str) -> random.Random:
        """Return the source of chance of the part called `name`."""
        return random.Random(f"{self.number} {name}")


class Tally:
    """Adds up a row while its cases are tried."""

    def __init__(self, name: str, command: str, system: str = OURS) -> None:
        self.name = name
        self.command = command
        self.system = system
        self.tried = self.checked = 0
        self.lost = self.undetected = self.false_alarms = self.duplicates = 0
        self.is_promised = True
        self.notes: list[str] = []
        self._started = time.perf_counter()

    def note(self, text: str) -> None:
        """Keep something a reader must know; said once however often it happens."""
        if text not in self.notes:
            self.notes.append(text)

    def row(self) -> Row:
        """Return the row as it stands."""
        return Row(
            name=self.name,
            tried=self.tried,
            acknowledged_checked=self.checked,
            lost=self.lost,
            undetected=self.undetected,
            false_alarms=self.false_alarms,
            duplicates=self.duplicates,
            seconds=round(time.perf_counter() - self._started, 1),
            command=self.command,
            system=self.system,
            is_promised=self.is_promised,
            notes=tuple(self.notes),
        )


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A whole scorecard, with all that is needed to believe it."""

    date: str
    commit: str
    machine: str
    cores: int
    command: str
    full: bool
    number: int
    rows: tuple[Row, ...]


def run_campaign(name: str, budget: Budget, progress: Progress) -> list[Row]:
    """Run one campaign by name.

    Raises:
        CannotRun: something it needs is missing; the text says what.
    """
    try:
        module = import_module(CAMPAIGNS[name])
    except ModuleNotFoundError as error:
        raise CannotRun(f"{error.name} is missing") from error
    rows: list[Row] = module.run(budget, progress)
    return rows


def make_card(rows: Iterable[Row], budget: Budget, command: str) -> Card:
    """Return the card of `rows`, as of now and here."""
    line = machine_line("faults", {}, 0.0)
    return Card(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        commit=line["commit"],
        machine=line["machine"],
        cores=line["cores"],
        command=command,
        full=budget.full,
        number=budget.number,
        rows=tuple(rows),
    )


def merged(cards: Sequence[Card], fresh: Card) -> Card:
    """Return one card with the rows of `cards`, then the fresh ones.

    Raises:
        CannotRun: they are of different commits or machines, so that they are no one card.
    """
    parts = [*cards, fresh] if fresh.rows or not cards else [*cards]
    made = {(card.commit, card.machine) for card in parts}
    if len(made) > 1:
        raise CannotRun(f"these are not of one making: {sorted(made)}")
    rows = [row for card in parts for row in card.rows]
    full = all(card.full for card in parts)
    return msgspec.structs.replace(parts[0], rows=tuple(rows), full=full)


def read(path: Path) -> Card:
    """Read a card that was written as JSON."""
    return msgspec.json.decode(path.read_bytes(), type=Card)
