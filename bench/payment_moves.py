"""Migration of a whole store into an empty one of another kind; deletion of all that arrived."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from bench.payment_places import Places
from bench.payment_seams import watched
from engine.payments.migration import migrate_store
from engine.payments.migration.report import Progress

Tell = Callable[[int], None]


class Move(msgspec.Struct, frozen=True):
    """One migration.

    Attributes:
        memory_mb: What the process holds for itself before, after a tenth, at most, at the end;
            pages of a mapped file are not its own.
    """

    payments: int
    seconds: float
    memory_mb: tuple[float, float, float, float]


class Deletion(msgspec.Struct, frozen=True):
    """One deletion of all that may go: how long in all, and each transaction."""

    deleted: int
    seconds: float
    transactions_s: list[float]


class _Memory:
    """Follows the memory of this process through a migration."""

    def __init__(self, tell: Tell) -> None:
        gc.collect()
        self._tell = tell
        self._done = 0
        self._seen = [own_mb()]
        self._at_tenth = self._seen[0]

    def follow(self, progress: Progress) -> None:
        """Look, and pass on what was done."""
        self._seen.append(own_mb())
        if 10 * self._done < progress.total <= 10 * progress.done:
            self._at_tenth = self._seen[-1]
        self._tell(progress.done - self._done)
        self._done = progress.done

    def figures(self) -> tuple[float, float, float, float]:
        """Return before, after a tenth, most, end."""
        return self._seen[0], self._at_tenth, max(self._seen), self._seen[-1]


def own_mb() -> float:
    """Return the memory of this process that no file stands behind, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1_024 / 1e6
    return 0.0


def move_rows(
    places: Places, sources: Mapping[str, str], rounds: int, tell: Tell
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of migrations, from each kind into the next, and of deletions.

    Args:
        places: Where the destinations are made.
        sources: A URL for each kind.
        rounds: How often each is done.
        tell: Told of payments moved and payments deleted.
    """
    kinds = [*sources]
    pairs = list(zip(kinds, [*kinds[1:], kinds[0]], strict=True))
    moves: dict[tuple[str, str], list[Move]] = {pair: [] for pair in pairs}
    deletions: dict[str, list[Deletion]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for pair in pairs:
            destination = places.new(pair[1])
            moves[pair].append(_move(sources[pair[0]], destination, tell))
            deletions[pair[1]].append(_delete(destination, tell))
            places.remove(destination)
    return (
        [_move_row(*pair, each) for pair, each in moves.items()],
        [_deletion_row(kind, each) for kind, each in deletions.items()],
    )


def _move(source: str, destination: str, tell: Tell) -> Move:
    memory = _Memory(tell)
    report = migrate_store(source, destination, progress=memory.follow)
    return Move(report.totals.payments, report.seconds, memory.figures())


def _delete(url: str, tell: Tell) -> Deletion:
    with watched(url, keeps=False) as (store, seen):
        started = time.perf_counter()
        deleted = store.delete_payments()
        took = time.perf_counter() - started
        left = store.counters().payments
    tell(deleted + left)
    return Deletion(deleted, took, seen.seconds)


MEMORY: Final = ("start", "at_a_tenth", "peak", "end")


def _move_row(source: str, destination: str, moves: Sequence[Move]) -> dict[str, Any]:
    memory = zip(MEMORY, zip(*(each.memory_mb for each in moves), strict=True), strict=True)
    return {
        "from": source,
        "to": destination,
        "payments": moves[0].payments,
        "seconds": round(median(each.seconds for each in moves), 2),
        "payments_per_s": round(median(each.payments / each.seconds for each in moves), 1),
    } | {f"memory_mb_{name}": round(median(mb), 1) for name, mb in memory}


def _deletion_row(kind: str, deletions: Sequence[Deletion]) -> dict[str, Any]:
    return {
        "store": kind,
        "deleted": deletions[0].deleted,
        "seconds": round(median(each.seconds for each in deletions), 2),
        "transactions": round(median(len(each.transactions_s) for each in deletions)),
        "median_ms": round(median(median(each.transactions_s) for each in deletions) * 1e3, 2),
        "longest_ms": round(median(max(each.transactions_s) for each in deletions) * 1e3, 2),
        "longest_of_all_ms": round(max(max(each.transactions_s) for each in deletions) * 1e3, 2),
    }
