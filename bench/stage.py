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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.frames import Plan, plans, remove_all, write_all
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
from bench.options import ClaimsConfig
from bench.signing import channel_id_of, make_payer, opening
from bench.stream import UNCUT, Cut, Tally
from engine.channels.feed import Feed
from engine.channels.placement import load_or_create_placement, slot_of
from engine.core.events import ClaimReceived

OPENED_BY_CALLS_MAX: Final = 20_000
SYNCS: Final = "paychan_wal_sync_duration_seconds_count"
LOG_BYTES: Final = "paychan_log_bytes_total"
METRICS_KEPT_S: Final = 1.1
"""A little more than the page of metrics is kept."""

METRICS_TRIES_MAX: Final = 6

LATE_MAX_S: Final = 60.0
"""How long the load may take beyond its time, beginning included."""

MEMORY_EVERY_S: Final = 0.5


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
        await open_channels(self.engine.url, bodies)
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
    return sum(
        isinstance(event, ClaimReceived) for shard in shards for _, event in feed.events(shard)
    )
