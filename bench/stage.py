"""An engine in processes of its own, and what is sent to it, phase by phase.

Every phase has channels of its own, so that one does not depend on how far another came. Few
channels are opened by calls; many are in the log before the engine starts, and it recovers them.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bench.frames import Plan, Spread, plans, remove_all, write_all
from bench.harness import (
    Served,
    descendants,
    metric,
    open_channels,
    resident_mb,
    sampled,
    served,
)
from bench.history import OPENING_EVENTS, HistoryPlan, write_histories
from bench.load import Job
from bench.signing import Curve, channel_id_of, make_payer, opening
from bench.stream import UNCUT, Cut, Tally
from bench.wire import Transport
from engine.channels.feed import Feed
from engine.channels.options import PlacementOptions
from engine.channels.placement import load_or_create_placement, slot_of
from engine.core.events import ClaimReceived

CLAIMS_PER_FRAME: Final = {
    "ws": 256, "ws-single": 1, "http": 256, "http-single": 1, "inprocess": 256
}  # fmt: skip
CONNECTIONS: Final = {"ws": 4, "ws-single": 4, "http": 16, "http-single": 64, "inprocess": 4}
WINDOW_CLAIMS: Final = {
    "ws": 12_288, "ws-single": 2_048, "http": 4_096, "http-single": 64, "inprocess": 12_288
}  # fmt: skip
"""Claims under way over all connections in a closed loop."""

AT_A_RATE: Final = 16
OPENED_BY_CALLS_MAX: Final = 20_000
SYNCS: Final = "paychan_wal_sync_duration_seconds_count"
LOG_BYTES: Final = "paychan_log_bytes_total"
METRICS_KEPT_S: Final = 1.1
"""A little more than the page of metrics is kept."""

METRICS_TRIES_MAX: Final = 6

LATE_MAX_S: Final = 60.0
"""How long the load may take beyond its time, beginning included."""

MEMORY_EVERY_S: Final = 0.5

Told = Callable[[int, int], None]
"""Hears of steps done and in all."""


class ClaimsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: see `paychan bench claims --help`.

    Attributes:
        transport: How claims come in.
        curve: Of the payers' keys.
        channels: That claims come on.
        open_channels: Others that are open and quiet.
        spread: Of claims over channels.
        sequencing: Of the channels; by `amount`, a claim may be left out.
        rate: Claims a second that are due; 0 = as many as are answered.
        seconds: How long claims are sent.
        connections: 0 = as suits the transport.
        window: Claims under way where no rate is given; 0 = as suits.
        claims_per_frame: 0 = as suits.
        claims: Made ready; 0 = as many as there could be use for.
        signatures: `prechecked` leaves out the check; no served configuration can.
        runtime: Of the engine.
        placement: Of the engine.
        shards: Of the engine.
        verifiers: Of the engine.
        settings: Further ones of the engine, `PAYCHAN_PART__NAME=value`.
        ceiling_s: How long the bare libraries are measured, before and after.
    """

    transport: Transport = "ws"
    curve: Curve = "secp256k1"
    channels: int = 1_000
    open_channels: int = 0
    spread: Spread = "uniform"
    sequencing: Literal["strict", "amount"] = "strict"
    rate: float = 0.0
    seconds: float = 5.0
    connections: int = 0
    window: int = 0
    claims_per_frame: int = 0
    claims: int = 0
    signatures: Literal["checked", "prechecked"] = "checked"
    runtime: Literal["ray", "inline"] = "ray"
    placement: Literal["sharded", "dedicated"] = "sharded"
    shards: int = 2
    verifiers: int = 2
    settings: tuple[str, ...] = ()
    ceiling_s: float = 2.0

    @property
    def per_frame(self) -> int:
        """Claims in one frame or call; smaller where a rate is given, as senders would."""
        usual = CLAIMS_PER_FRAME[self.transport]
        return self.claims_per_frame or (min(usual, AT_A_RATE) if self.rate else usual)

    @property
    def connection_count(self) -> int:
        """How many connections there are: a channel is on one of them."""
        return min(self.connections or CONNECTIONS[self.transport], self.channels)

    @property
    def window_frames(self) -> int:
        """Messages of one connection that may be without an answer in a closed loop."""
        if self.transport.startswith("http"):
            return 1
        claims = self.window or WINDOW_CLAIMS[self.transport]
        return max(1, claims // self.connection_count // self.per_frame)

    @property
    def placed(self) -> PlacementOptions:
        """Where the engine's parts run."""
        return PlacementOptions(runtime=self.runtime, placement=self.placement, shards=self.shards)

    def environment(self) -> list[str]:
        """Return the settings of the engine."""
        return [
            f"PAYCHAN_PLACEMENT__RUNTIME={self.runtime}",
            f"PAYCHAN_PLACEMENT__PLACEMENT={self.placement}",
            f"PAYCHAN_PLACEMENT__SHARDS={self.shards}",
            f"PAYCHAN_VERIFY__VERIFIERS={self.verifiers}",
            *self.settings,
        ]


class Ready(msgspec.Struct, frozen=True):
    """A phase that may begin: its channels are open, its claims are signed."""

    config: ClaimsConfig
    parts: list[Plan]


class Phase(msgspec.Struct, frozen=True):
    """What came of a phase.

    Attributes:
        tally: What came back.
        used: CPU seconds and memory by role, syncs, bytes of the log.
        memory: MB of all processes of the engine, by time.
    """

    tally: Tally
    used: dict[str, Any]
    memory: list[tuple[float, float]]


class Stage:
    """A served engine, and the channels opened on it so far."""

    def __init__(self, engine: Served, folder: Path, opened: int) -> None:
        self.engine = engine
        self.exit_code: int | None = None
        self._folder = folder
        self._opened = opened
        self._next = 0
        self.accepted = 0

    async def ready(self, config: ClaimsConfig, claims: int) -> Ready:
        """Open the phase's channels and make `claims` claims ready."""
        first, self._next = self._next, self._next + config.channels
        to_open = range(max(first, self._opened), self._next)
        bodies = (
            opening(make_payer(number, config.curve), sequencing=config.sequencing)
            for number in to_open
        )
        await open_channels(self.engine.url, list(bodies))
        self._opened = max(self._opened, self._next)
        parts = planned(config, self._folder, (first, self._next), claims)
        await asyncio.to_thread(write_all, parts, os.cpu_count() or 1)
        return Ready(config, parts)

    async def measured(self, ready: Ready, cut: Cut = UNCUT) -> Phase:
        """Send what is ready; what the logs took meanwhile is in `used`."""
        before = await self._written()
        phase = await self.send(ready, cut)
        after = await self._written()
        phase.used["fsyncs"] = round(after[0] - before[0])
        phase.used["log_bytes"] = round(after[1] - before[1])
        return phase

    async def send(self, ready: Ready, cut: Cut = UNCUT) -> Phase:
        """Send what is ready, from a process of its own."""
        url = self.engine.url
        job = job_of(ready.config, ready.parts, url, cut)
        async with watched_memory(self.engine.process.pid) as memory:
            with sampled(self.engine.process.pid) as used:
                tally = await send_all(job)
        self.accepted += tally.accepted
        remove_all(ready.parts)
        return Phase(tally, used, memory)

    async def _written(self) -> tuple[float, float]:
        """Return the syncs and bytes of the logs so far, once the page of metrics is of now."""
        seen = (-1.0, -1.0)
        for _ in range(METRICS_TRIES_MAX):
            before = seen
            url = self.engine.url
            seen = await metric(url, SYNCS), await metric(url, LOG_BYTES)
            if seen == before:
                break
            await asyncio.sleep(METRICS_KEPT_S)
        return seen

    async def stop(self) -> None:
        """Stop the engine as an operator would."""
        self.exit_code = await self.engine.stop()

    def logged(self) -> int:
        """Return the claims in the logs, read from their first event; damage raises."""
        return count_logged(self.engine.datadir)


@contextlib.asynccontextmanager
async def staged(config: ClaimsConfig, folder: Path) -> AsyncIterator[Stage]:
    """Serve an engine for phases like `config`, with its channels where they are many."""
    data = folder / "data"
    many = config.channels + config.open_channels
    if many > OPENED_BY_CALLS_MAX:
        await asyncio.to_thread(_write_openings, config, many, data)
    program = "engine.cli.main" if config.signatures == "checked" else "bench.prechecked"
    async with served(data, config.environment(), program) as engine:
        yield Stage(engine, folder, many if many > OPENED_BY_CALLS_MAX else 0)


def _write_openings(config: ClaimsConfig, channels: int, data: Path) -> None:
    """Write logs in which channels 0 to before `channels` are opened, with a checkpoint."""
    data.mkdir(parents=True, exist_ok=True)
    slots = load_or_create_placement(data, config.placed).slots
    counts = Counter(slots[slot_of(channel_id_of(number))] for number in range(channels))
    histories = [
        HistoryPlan(
            datadir=str(data),
            shard=shard,
            shards=config.shards,
            channels=count,
            events=count * OPENING_EVENTS,
            tail=0,
            real=config.channels,
            curve=config.curve,
        )
        for shard, count in sorted(counts.items())
    ]
    write_histories(histories, lambda done, total: None)


def planned(
    config: ClaimsConfig, folder: Path, channels: tuple[int, int], claims: int
) -> list[Plan]:
    """Return what each connection sends."""
    like = Plan(
        path="",
        first=0,
        last=0,
        step=1,
        curve=config.curve,
        claims=0,
        claims_per_frame=config.per_frame,
        transport=config.transport,
        signed=config.signatures == "checked",
        sequenced=config.sequencing == "strict",
        spread=config.spread,
    )
    return plans(folder, channels, config.connection_count, claims, like)


def job_of(config: ClaimsConfig, parts: list[Plan], url: str, cut: Cut = UNCUT) -> Job:
    """Return what the load is told."""
    return Job(
        url=url,
        transport=config.transport,
        files=[part.path for part in parts],
        window=config.window_frames,
        seconds=config.seconds,
        rate=config.rate,
        claims_per_frame=config.per_frame,
        cut=cut,
    )


async def send_all(job: Job) -> Tally:
    """Run the load in a process of its own.

    Raises:
        RuntimeError: it ended without a result; why is on standard error.
        TimeoutError: answers did not come.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=pipe, stdout=pipe
    )
    try:
        async with asyncio.timeout(job.seconds + LATE_MAX_S):
            output, _ = await process.communicate(msgspec.json.encode(job))
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"the load ended with code {process.returncode}")
    return msgspec.json.decode(output, type=Tally)


@contextlib.asynccontextmanager
async def watched_memory(pid: int) -> AsyncIterator[list[tuple[float, float]]]:
    """Fill in (time, MB in RAM of the process and all that came from it) while the block runs."""
    seen: list[tuple[float, float]] = []
    pids = descendants(pid)

    async def look() -> None:
        while True:
            total = 0.0
            for one in pids:
                with contextlib.suppress(OSError):
                    total += resident_mb(one)
            seen.append((time.perf_counter(), round(total, 1)))
            await asyncio.sleep(MEMORY_EVERY_S)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


def count_logged(datadir: Path) -> int:
    """Read every shard's log from its first event; damage raises."""
    feed = Feed(datadir)
    shards = sorted(int(path.name.removeprefix("shard-")) for path in datadir.glob("shard-*"))
    return sum(type(event) is ClaimReceived for shard in shards for _, event in feed.events(shard))
