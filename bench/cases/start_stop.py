"""How long until an empty directory takes claims, and from SIGTERM under load to the end?

The sum before the run: importing Ray and starting its processes takes some 3 s of one core, four
processes of shards and verifiers 1 s each of which two run at once, imports of their own included:
5 to 6 s. A stop answers what was taken, at most 65,536 claims, in 1 s; a checkpoint and the ends of
the processes take half a second more.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from bench.options import ClaimsConfig, Told
from bench.stage import staged

LOAD_S: Final = 3.0
FOR_LONG_S: Final = 30.0
PRECHECKED_PER_S: Final = 60_000


async def run(config: ClaimsConfig, rounds: int, folder: Path, told: Told) -> dict[str, Any]:
    """Return a row for each round, and medians."""
    rows = []
    for number in range(rounds):
        told(number, rounds)
        place = folder / f"round-{number}"
        place.mkdir(parents=True)
        rows.append(await _round(config, place))
    return {
        "rows": rows,
        "start_s": round(statistics.median(row["start_s"] for row in rows), 2),
        "stop_s": round(statistics.median(row["stop_s"] for row in rows), 2),
        "log_holds_all": all(row["log_holds_all"] for row in rows),
    }


async def _round(config: ClaimsConfig, folder: Path) -> dict[str, Any]:
    config = replace(config, seconds=FOR_LONG_S)
    began = time.perf_counter()
    async with staged(config, folder) as stage:
        start = time.perf_counter() - began
        count = PRECHECKED_PER_S * round(LOAD_S * 2)
        ready = await stage.ready(config, count // config.channels * config.channels)
        sending = asyncio.create_task(stage.send(ready))
        await asyncio.sleep(LOAD_S)
        told = time.perf_counter()
        await stage.stop()
        stop = time.perf_counter() - told
        phase = await sending
    return {
        "start_s": round(start, 2),
        "stop_s": round(stop, 2),
        "accepted": phase.tally.accepted,
        "under_load": phase.tally.lost or phase.tally.accepted < sum(phase.tally.answered.values()),
        "exit_code": stage.exit_code,
        "log_holds_all": stage.logged() >= phase.tally.accepted,
    }
