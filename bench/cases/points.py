"""How does the rate depend on where claims go, and on what they meet?

Each point is a run of `bench claims` of its own, on an engine of its own. The sums before:

- skew: one channel goes through one shard, and its signatures still over all verifiers. A shard
  takes 8 µs a claim where both cores take 27, so one shard is enough: 0.9 of uniform. By Zipf's law
  over 100,000 channels a shard looks up other channels every time, and keys are parsed anew where
  they are not in a verifier's cache (4 µs of 32): 0.9. A million quiet channels cost memory only.
- channels: as Zipf, up to the size of the caches; a million channels miss them nearly every time.
- frames: what a frame costs is some 40 µs in the gateway and its socket; at 16 claims that is 3 µs
  a claim, at 256 nothing.
- batches: a batch costs three calls of 0.6 ms; at 64 claims 28 µs a claim, at 510 four.
- connections: nothing until there are so many that frames come alone.
- shards, verifiers: two of each use two cores; more only queue, and cost a switch now and then.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench import claims
from bench.options import ClaimsConfig, Told

Point = tuple[str, dict[str, Any]]
"""A name, and what is different from the case's configuration."""


async def run(
    config: ClaimsConfig, points: Sequence[Point], folder: Path, told: Told
) -> dict[str, Any]:
    """Return a row for each point, in their order."""
    rows = []
    for done, (name, changes) in enumerate(points):
        told(done, len(points))
        place = folder / f"point-{done}"
        place.mkdir(parents=True)
        line = await claims.run(replace(config, **changes), place, with_log=False)
        rows.append({"point": name} | {field: line[field] for field in FIELDS})
        rows[-1] |= {f"{role}_us": us for role, us in line["us_per_claim"].items()}
    return {
        "rows": rows,
        "accepted_per_s": max(row["accepted_per_s"] for row in rows),
        "log_holds_all": all(row["log_holds_all"] for row in rows),
    }


FIELDS = ("accepted_per_s", "ratio_to_ceiling", "p50_ms", "p99_ms", "log_holds_all")


def beside_uniform(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line whose rows say how they stand to the uniform ones before and after."""
    rates = [row["accepted_per_s"] for row in line["rows"] if row["point"].startswith("uniform")]
    mean = sum(rates) / len(rates)
    rows = [row | {"to_uniform": round(row["accepted_per_s"] / mean, 3)} for row in line["rows"]]
    return line | {"rows": rows, "uniform_per_s": round(mean)}
