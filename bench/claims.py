"""How many claims a second, every signature checked, every answer durable?

The sum before the run, per claim on 2 cores: checking 33 µs (measured in the same run as the
ceiling), Ray calls 2 x 1.2 ms per batch of 510 = 5 µs, gateway 5 µs, shard 8 µs, load 3 µs; so
about 33 / 54 = 0.6 of the ceiling where everything shares the cores.
"""

import asyncio
import math
import os
import time
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from bench import inprocess
from bench.ceiling import measure_ceiling
from bench.frames import write_all
from bench.harness import machine_line, scratch
from bench.options import ClaimsConfig, Told
from bench.signing import Curve, make_payer
from bench.stage import job_of, planned, staged
from bench.stream import Tally
from bench.wire import Transport

CURVES: Final = get_args(Curve)
TRANSPORTS: Final = get_args(Transport)
PRECHECKED_MAX: Final = 400_000.0
"""Claims a second made ready where no signature holds a run back."""

SINGLE_MAX: Final = 50_000.0
UNKNOWN_MAX: Final = 20_000.0
"""The same where nobody measured the ceiling."""

HEADROOM: Final = 1.2
"""Share of the ceiling for which claims are signed ahead: it may be faster during the run."""


async def run(
    config: ClaimsConfig, datadir: Path | None = None, *, with_log: bool = True
) -> dict[str, Any]:
    """Run the benchmark once; return its result line.

    Without `with_log` it does not wait for the figures of the log, which take two seconds to come.
    """
    started = time.perf_counter()
    with scratch(datadir) as folder:
        before = ceiling_of(config)
        claims = config.claims or claims_for(config, before)
        if config.transport == "inprocess":
            tally, used = await _in_process(config, folder, claims)
        else:
            tally, used = await _over_the_wire(config, folder, claims, with_log=with_log)
        ceiling = (before + ceiling_of(config)) / 2
    line = machine_line("claims", msgspec.to_builtins(config), time.perf_counter() - started)
    return line | figures(tally, used, ceiling) | used


async def median(
    config: ClaimsConfig,
    rounds: int,
    datadir: Path | None = None,
    told: Told = lambda done, of: None,
) -> dict[str, Any]:
    """Run the benchmark some times; return the line of the median, with the figures of all."""
    lines = []
    for number in range(rounds):
        told(number, rounds)
        place = datadir / f"round-{number}" if datadir and rounds > 1 else datadir
        if place:
            place.mkdir(parents=True, exist_ok=True)
        lines.append(await run(config, place))
    lines.sort(key=lambda line: int(line["accepted_per_s"]))
    of_all = ("accepted_per_s", "ratio_to_ceiling", "p50_ms", "p99_ms", "p999_ms")
    return lines[len(lines) // 2] | {
        "rounds": {name: [line[name] for line in lines] for name in of_all}
    }


async def _over_the_wire(
    config: ClaimsConfig, folder: Path, claims: int, *, with_log: bool
) -> tuple[Tally, dict[str, Any]]:
    async with staged(config, folder) as stage:
        ready = await stage.ready(config, claims)
        phase = await (stage.measured if with_log else stage.send)(ready)
        await stage.stop()
    return phase.tally, phase.used | {"exit_code": stage.exit_code, "logged": stage.logged()}


async def _in_process(
    config: ClaimsConfig, folder: Path, claims: int
) -> tuple[Tally, dict[str, Any]]:
    payers = [make_payer(number, config.curve) for number in range(config.channels)]
    parts = planned(config, folder, (0, config.channels), claims)
    await asyncio.to_thread(write_all, parts, os.cpu_count() or 1)
    return await inprocess.run(config, job_of(config, parts, ""), payers, folder / "data")


def ceiling_of(config: ClaimsConfig) -> float:
    """Return the signatures a second that the bare libraries check on all cores; 0 = not asked."""
    if not config.ceiling_s:
        return 0.0
    return measure_ceiling(config.curve, os.cpu_count() or 1, config.ceiling_s)


def claims_for(config: ClaimsConfig, ceiling: float) -> int:
    """Return for how many claims there could be use."""
    checked = config.signatures == "checked"
    most = ceiling * HEADROOM or UNKNOWN_MAX
    rate = config.rate or (most if checked else PRECHECKED_MAX)
    if config.transport.endswith("single") and not config.rate:
        rate = min(rate, SINGLE_MAX)
    return (math.ceil(rate * config.seconds / config.channels) + 1) * config.channels


def figures(tally: Tally, used: dict[str, Any], ceiling: float) -> dict[str, Any]:
    """Return what a line says of one phase; `used` has what was logged."""
    accepted = tally.accepted_per_s
    return {
        "accepted_per_s": round(accepted),
        "answered": tally.answered,
        **msgspec.to_builtins(tally.latency),
        "ceiling_verify_per_s": round(ceiling),
        "ratio_to_ceiling": round(accepted / ceiling, 3) if ceiling else None,
        "us_per_claim": us_per_claim(tally, used),
        "load_cpu_s": round(tally.cpu_s, 2),
        "load_exhausted": tally.exhausted,
        "load_seconds": round(tally.seconds, 2),
        "bytes_per_claim": round(used.get("log_bytes", 0) / max(1, tally.accepted), 1),
        "log_holds_all": used["logged"] >= tally.accepted,
    }


def us_per_claim(tally: Tally, used: dict[str, Any]) -> dict[str, float]:
    """Return the microseconds of a core for each accepted claim, by role."""
    count = max(1, tally.accepted)
    spent = used["cpu_s"] | {"load": tally.cpu_s} | used["machine_s"]
    return {role: round(seconds / count * 1e6, 2) for role, seconds in spent.items()}
