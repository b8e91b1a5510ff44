"""How many claims a second, every signature checked, every answer durable?

The sum before the run, per claim on 2 cores: checking 33 µs (measured in the same run as the
ceiling), Ray calls 2 x 1.2 ms per batch of 510 = 5 µs, gateway 5 µs, shard 8 µs, load 3 µs; so
about 33 / 54 = 0.6 of the ceiling where everything shares the cores.
"""

import asyncio
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from bench import inprocess
from bench.ceiling import measure_ceiling
from bench.harness import machine_line, metric, open_channels, sampled, scratch, served
from bench.load import Job, Tally, Transport
from bench.signing import Curve, Payer, Plan, make_payer, opening, plans, write_all
from engine.channels.feed import Feed
from engine.channels.options import PlacementOptions
from engine.core.events import ClaimReceived

CURVES = get_args(Curve)
TRANSPORTS = get_args(Transport)
CLAIMS_PER_FRAME = {"ws": 256, "ws-single": 1, "http": 256, "http-single": 1, "inprocess": 256}
WINDOW = {"ws": 12, "ws-single": 512, "http": 1, "http-single": 1, "inprocess": 12}
CONNECTIONS = {"ws": 4, "ws-single": 4, "http": 16, "http-single": 64, "inprocess": 4}
PRECHECKED_MAX = 150_000.0
"""Claims a second made ready where no signature holds a run back."""

AT_A_RATE = 16
SYNCS = "paychan_wal_sync_duration_seconds_count"
LOG_BYTES = "paychan_log_bytes_total"
METRICS_KEPT_S = 1.1
"""A little more than the page of metrics is kept."""

CEILING_S = 2.0
HEADROOM = 1.2
"""Share of the ceiling for which claims are signed ahead: it may be faster during the run."""


class ClaimsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: see `paychan bench claims --help`."""

    transport: Transport = "ws"
    curve: Curve = "secp256k1"
    channels: int = 1_000
    rate: float = 0.0
    seconds: float = 5.0
    placement: Literal["sharded", "dedicated"] = "sharded"
    shards: int = 2
    claims_per_frame: int = 0
    signatures: Literal["checked", "prechecked"] = "checked"

    @property
    def per_frame(self) -> int:
        """Claims in one frame or request; smaller where a rate is given, as senders would."""
        usual = CLAIMS_PER_FRAME[self.transport]
        return self.claims_per_frame or (min(usual, AT_A_RATE) if self.rate else usual)


async def run(config: ClaimsConfig, datadir: Path | None = None) -> dict[str, Any]:
    """Run the benchmark; return its result line."""
    cores = os.cpu_count() or 1
    started = time.perf_counter()
    with scratch(datadir) as folder:
        before = measure_ceiling(config.curve, cores, CEILING_S)
        parts = _plan(config, folder, before)
        write_all(parts, cores)
        through = _in_process if config.transport == "inprocess" else _over_the_wire
        tally, used = await through(config, parts, folder / "data")
        after = measure_ceiling(config.curve, cores, CEILING_S)
        logged = _count_logged(folder / "data")
    line = machine_line("claims", msgspec.to_builtins(config), time.perf_counter() - started)
    return line | _figures(tally, (before + after) / 2) | used | {
        "bytes_per_claim": round(used["log_bytes"] / max(1, logged), 1),
        "logged": logged,
        "log_holds_all": logged >= tally.answered.get("accepted", 0),
    }  # fmt: skip


async def _over_the_wire(
    config: ClaimsConfig, parts: list[Plan], data: Path
) -> tuple[Tally, dict[str, Any]]:
    settings = [
        f"PAYCHAN_PLACEMENT__PLACEMENT={config.placement}",
        f"PAYCHAN_PLACEMENT__SHARDS={config.shards}",
    ]
    program = "engine.cli.main" if config.signatures == "checked" else "bench.prechecked"
    async with served(data, settings, program) as engine:
        await open_channels(engine.url, [opening(payer) for payer in _payers(config)])
        syncs, written = await metric(engine.url, SYNCS), await metric(engine.url, LOG_BYTES)
        with sampled(engine.process.pid) as used:
            tally = await _load(_job(config, parts, engine.url))
        await asyncio.sleep(METRICS_KEPT_S)
        used["fsyncs"] = round(await metric(engine.url, SYNCS) - syncs)
        used["log_bytes"] = round(await metric(engine.url, LOG_BYTES) - written)
        used["exit_code"] = await engine.stop()
    return tally, used


async def _in_process(
    config: ClaimsConfig, parts: list[Plan], data: Path
) -> tuple[Tally, dict[str, Any]]:
    placement = PlacementOptions(placement=config.placement, shards=config.shards)
    checked = config.signatures == "checked"
    job = _job(config, parts, "")
    return await inprocess.run(job, _payers(config), data, placement, checked=checked)


def _payers(config: ClaimsConfig) -> list[Payer]:
    return [make_payer(number, config.curve) for number in range(config.channels)]


def _job(config: ClaimsConfig, parts: list[Plan], url: str) -> Job:
    return Job(
        url=url,
        transport=config.transport,
        files=[part.path for part in parts],
        window=WINDOW[config.transport],
        seconds=config.seconds,
        rate=config.rate,
        claims_per_frame=config.per_frame,
    )


def _plan(config: ClaimsConfig, folder: Path, ceiling: float) -> list[Plan]:
    signed = config.signatures == "checked"
    rate = config.rate or (ceiling * HEADROOM if signed else PRECHECKED_MAX)
    if config.transport.endswith("single") and not config.rate:
        rate = min(rate, 25_000.0)
    rounds = math.ceil(rate * config.seconds / config.channels) + 1
    connections = min(CONNECTIONS[config.transport], config.channels)
    sizes = (rounds * config.channels, config.per_frame)
    return plans(folder, config.curve, config.channels, connections, sizes, signed=signed)


async def _load(job: Job) -> Tally:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=pipe, stdout=pipe
    )
    output, _ = await process.communicate(msgspec.json.encode(job))
    return msgspec.json.decode(output, type=Tally)


def _figures(tally: Tally, ceiling: float) -> dict[str, Any]:
    accepted = tally.answered.get("accepted", 0) / tally.seconds
    return {
        "accepted_per_s": round(accepted),
        "answered": tally.answered,
        "p50_ms": tally.p50_ms,
        "p99_ms": tally.p99_ms,
        "p999_ms": tally.p999_ms,
        "max_ms": tally.max_ms,
        "ceiling_verify_per_s": round(ceiling),
        "ratio_to_ceiling": round(accepted / ceiling, 3),
        "load_cpu_s": round(tally.cpu_s, 2),
        "load_exhausted": tally.exhausted,
        "load_seconds": round(tally.seconds, 2),
    }


def _count_logged(datadir: Path) -> int:
    """Read every shard's log from its first event; damage raises."""
    feed = Feed(datadir)
    shards = sorted(int(path.name.removeprefix("shard-")) for path in datadir.glob("shard-*"))
    return sum(
        isinstance(event, ClaimReceived) for shard in shards for _, event in feed.events(shard)
    )
