"""Let every sync of a served engine take 100 ms, 1 s or 30 s while payers push claims at it.

`strace` delays the calls of the processes that hold the logs. Meanwhile this looks at the engine
as an operator's machines do, at `/readyz` and `/metrics`; the oracle of the rounds says afterwards
whether all that was acknowledged is there.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from bench.harness import resident_mb
from tests.faults.rounds import SETTINGS, Rounds
from tests.faults.scorecard import Budget, Progress, Row, Tally
from tests.faults.tracer import require_strace, slowed

COMMAND: Final = "python -m tests.faults slow --full"
DELAYS_S: Final = (0.1, 1.0, 30.0)
UNREADY_S: Final = 1.0
SILENT_S: Final = 4.0
QUEUE_MAX: Final = 64
SYNCS: Final = "paychan_wal_sync_duration_seconds"
QUICK_S: Final = 0.05
LOOK_EVERY_S: Final = 0.1
LOOKS_S: Final = 2.5
"""How long a delay is looked at, beyond its own length and the time it takes to be noticed."""

SYNCED_MAX_S: Final = 120.0
GROWTH_MAX_MB: Final = 24.0
"""What may be allocated meanwhile, by all processes; a queue without bound takes far more."""

TIGHT: Final = SETTINGS | {
    "PAYCHAN_LANE__QUEUE_CLAIMS_MAX": str(QUEUE_MAX),
    "PAYCHAN_LANE__BATCH_CLAIMS_MAX": "16",
    "PAYCHAN_LANE__BATCHES_MAX": "2",
    "PAYCHAN_LANE__SILENT_AFTER_MS": str(round(SILENT_S * 1_000)),
    "PAYCHAN_LANE__UNREADY_SYNC_MS": str(round(UNREADY_S * 1_000)),
}
"""A queue that the payers fill at once when answers are slow, so that its bound is met."""

INLINE: Final = TIGHT | {"PAYCHAN_PLACEMENT__RUNTIME": "inline"}
"""The same in one process, which starts sooner."""


class Look(NamedTuple):
    """What the engine said of itself at one moment."""

    ready: bool
    queued: float
    slowest_s: float
    silent_s: float
    refused: float
    slow_syncs: float
    memory_mb: float


class Served:
    """An engine under load, seen from outside."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._url = rounds.engine.url
        self.pids = sorted({shard["pid"] for shard in rounds.engine.shards()})

    def look(self) -> Look:
        """Return what it says now."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=30) as answer:
            found = samples(answer.read().decode())
        pids = {*self.pids, self._rounds.engine.gateway}
        return Look(
            ready=self.is_ready(),
            queued=max(found["paychan_lane_queue_claims"]),
            slowest_s=max(found.get("paychan_wal_sync_slowest_seconds", [0.0])),
            silent_s=max(found["paychan_shard_silent_seconds"]),
            refused=sum(found.get("refused", [0.0])),
            slow_syncs=sum(found.get("slow syncs", [0.0])),
            memory_mb=sum(map(resident_mb, pids)),
        )

    def is_ready(self) -> bool:
        """Say whether more should be sent here."""
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=30) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def wait_until_ready(self) -> None:
        """Return once it is ready.

        Raises:
            TimeoutError: it never is.
        """
        give_up_at = time.monotonic() + SYNCED_MAX_S
        while not self.is_ready():
            if time.monotonic() > give_up_at:
                raise TimeoutError("it was not ready again")
            time.sleep(LOOK_EVERY_S)

    def look_while_slow(self, delay_s: float) -> list[Look]:
        """Return what it says at many moments while its syncs take so long."""
        looks = []
        with slowed(self.pids, delay_s):
            ends_at = time.monotonic() + delay_s + UNREADY_S + LOOKS_S
            while time.monotonic() < ends_at:
                looks.append(self.look())
                time.sleep(LOOK_EVERY_S)
        return looks


def samples(page: str) -> dict[str, list[float]]:
    """Return the values of each metric.

    Also `refused`, the claims there was no time or room for, and `slow syncs` of more than 50 ms.
    """
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(page):
        for name, labels, value, *_ in family.samples:
            found.setdefault(name, []).append(value)
            if labels.get("code") in ("overloaded", "unavailable"):
                found.setdefault("refused", []).append(value)
            if name == f"{SYNCS}_count":
                found.setdefault("slow syncs", []).append(value)
            if name == f"{SYNCS}_bucket" and float(labels["le"]) == QUICK_S:
                found.setdefault("slow syncs", []).append(-value)
    return found


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Return a row for each length; the longest only in full, where Ray runs the shards."""
    delays = DELAYS_S if budget.full else DELAYS_S[:2]
    settings: Mapping[str, str] = TIGHT if budget.full else INLINE
    require_strace()
    rows = []
    with Rounds(budget.number, settings) as rounds:
        rounds.begin()
        served = Served(rounds)
        for done, delay_s in enumerate(delays):
            progress(done, len(delays), f"syncs of {delay_s} s")
            rows.append(try_delay(rounds, served, delay_s))
        damages = rounds.finish()
    if damages:
        raise RuntimeError(f"{damages} damages in the log at the end: see {rounds.engine.datadir}")
    return rows


def try_delay(rounds: Rounds, served: Served, delay_s: float) -> Row:
    """Slow the disk down, let it be quick again, and read everything back."""
    tally = Tally(f"syncs that take {delay_s:g} s, under load", COMMAND)
    seen = rounds.verdict
    served.wait_until_ready()
    before = served.look()
    looks = served.look_while_slow(delay_s)
    first_s = rounds.judge(time.monotonic())
    served.wait_until_ready()
    told = rounds.verdict
    tally.tried = round(served.look().slow_syncs - before.slow_syncs)
    tally.checked = told.checked - seen.checked
    tally.lost = told.lost - seen.lost
    tally.false_alarms = told.refused + told.invented - seen.refused - seen.invented
    tally.duplicates = told.duplicates - seen.duplicates
    for wrong in troubles(delay_s, before, looks):
        tally.undetected += 1
        tally.note(wrong)
    tally.note(told_of(delay_s, before, looks, first_s))
    return tally.row()


def told_of(delay_s: float, before: Look, looks: list[Look], first_s: float) -> str:
    """Return what was seen, in words."""
    unready = sum(not look.ready for look in looks)
    queued = max(look.queued for look in looks)
    refused = looks[-1].refused - before.refused
    grown_mb = max(look.memory_mb for look in looks) - before.memory_mb
    return (
        f"syncs of {delay_s:g} s: not ready in {unready} of {len(looks)} looks, at most"
        f" {queued:.0f} claims of {QUEUE_MAX} waited, {refused:,.0f} were answered overloaded or"
        f" unavailable,"
        f" {grown_mb:.0f} MB more, served again after {first_s:.1f} s"
    )


def troubles(delay_s: float, before: Look, looks: list[Look]) -> list[str]:
    """Return what an engine on so slow a disk should have said or done, and did not."""
    last = looks[-1]
    is_too_slow = delay_s >= UNREADY_S
    checks = {
        f"more than {QUEUE_MAX} claims waited": max(one.queued for one in looks) > QUEUE_MAX,
        "no claim was refused": last.refused == before.refused,
        "it did not say how slow it is": max(max(one.slowest_s, one.silent_s) for one in looks)
        < min(delay_s, SILENT_S),
        "it was ready": is_too_slow and all(one.ready for one in looks),
        "it was not ready": not is_too_slow and not all(one.ready for one in looks),
        f"it took {last.memory_mb - before.memory_mb:.0f} MB more": max(
            one.memory_mb for one in looks
        )
        > before.memory_mb + GROWTH_MAX_MB,
    }
    return [f"syncs of {delay_s:g} s: {what}" for what, is_so in checks.items() if is_so]
