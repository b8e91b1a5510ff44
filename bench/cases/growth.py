"""Is the twenty-millionth claim as cheap as the first?

Signatures are prechecked, so that what could grow is most of what is measured: the log, its
checkpoints, the channels' states, the windows of answers, the heaps of all processes. The sum
before the run: nothing is kept of a claim but its bytes in the log and, per channel, a bounded
window; so nothing grows after the first minute, and rate, latency and memory of the last quarter
are within 5 % of the first. Quarters, by their medians: one million takes three seconds, and what
else the disk does in three seconds is seen.
"""

from pathlib import Path
from statistics import median
from typing import Any, Final

from msgspec.structs import replace

from bench.cases.overload import memory_at
from bench.options import ClaimsConfig, Told
from bench.stage import staged
from bench.stream import Cut, Tally

PARTS: Final = 20
LONG_S: Final = 3_600.0


async def run(config: ClaimsConfig, folder: Path, told: Told) -> dict[str, Any]:
    """Send `config.claims` claims; return a row for each twentieth of them."""
    config = replace(config, signatures="prechecked", seconds=LONG_S)
    async with staged(config, folder) as stage:
        ready = await stage.ready(config, config.claims)
        told(1, 3)
        phase = await stage.measured(ready, Cut(claims=config.claims // PARTS))
        told(2, 3)
        await stage.stop()
    rows = growth_rows(phase.tally, phase.memory)
    return {
        "claims": phase.tally.accepted,
        "accepted_per_s": round(phase.tally.accepted_per_s),
        "last_to_first": last_to_first(rows),
        "bytes_per_claim": round(phase.used["log_bytes"] / max(1, phase.tally.accepted), 1),
        "log_holds_all": stage.logged() >= stage.accepted,
        "exit_code": stage.exit_code,
        "rows": rows,
    }


def last_to_first(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return how the medians of the last quarter stand to those of the first."""
    quarter = max(1, len(rows) // 4)
    return {
        name: round(
            median(row[name] for row in rows[-quarter:])
            / median(row[name] for row in rows[:quarter]),
            3,
        )
        for name in ("accepted_per_s", "p50_ms", "p99_ms", "memory_mb")
    }


def growth_rows(tally: Tally, memory: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """Return rate, latency and memory of each slice."""
    rows, accepted, begun = [], 0, tally.begun
    for one in tally.slices:
        accepted += one.accepted
        rows.append(
            {
                "claims": accepted,
                "accepted_per_s": round(one.accepted / (one.until - begun)),
                "p50_ms": one.latency.p50_ms,
                "p99_ms": one.latency.p99_ms,
                "memory_mb": memory_at(memory, one.until),
            }
        )
        begun = one.until
    return rows
