"""What does a checkpoint every 1,000, 10,000 or 100,000 events cost, and what does it save?

The same history is written once for each distance and its process killed at the worst moment, one
event before the next checkpoint. The sum before the run: an increment holds a channel for each
event at most, some 300 bytes, so it costs about as much as the log again and three times that when
bases are counted; an event that is replayed costs 3 µs, so 100,000 of them a third of a second.
"""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.history import HistoryPlan, Written, write_histories
from engine.channels.host import shard_directory
from engine.channels.journal import LogOptions, ShardJournal
from engine.channels.recovery import Recovered, recover
from engine.validation.options import ValidationOptions

DISTANCES: Final = (1_000, 10_000, 100_000)
BATCH: Final = 512
LIMITS: Final = ValidationOptions().retries


class TradeoffConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: one shard, so many events over so many channels, for each distance."""

    events: int = 200_000
    channels: int = 2_000
    distances: tuple[int, ...] = DISTANCES


def run(
    config: TradeoffConfig, folder: Path, told: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Return a row for each distance."""
    return [_row(config, every, folder / f"every-{every}", told) for every in config.distances]


def _row(
    config: TradeoffConfig, every: int, data: Path, told: Callable[[int, int], None]
) -> dict[str, Any]:
    plan = HistoryPlan(
        datadir=str(data),
        channels=config.channels,
        events=config.events // every * every + every - 1,
        batch=BATCH,
        tail=every - 1,
        every=every,
    )
    (written,) = write_histories([plan], told)
    recovered, seconds, cpu_s = _recover(data)
    return {
        "checkpoint_events": every,
        "seconds_to_recover": round(seconds, 3),
        "cpu_s_to_recover": round(cpu_s, 3),
        "events_replayed": recovered.events,
        "events": recovered.position,
    } | _costs(written, plan.events)


def _costs(written: Written, events: int) -> dict[str, Any]:
    return {
        "checkpoints": written.checkpoints,
        "bases": written.bases,
        "log_bytes_per_event": round(written.log_bytes / events, 1),
        "checkpoint_bytes_per_event": round(written.checkpoint_bytes / events, 1),
        "checkpoint_us_per_event": round(written.checkpoint_s / events * 1e6, 2),
    }


def _recover(data: Path) -> tuple[Recovered, float, float]:
    """Start as a shard does after a crash; return its state, the seconds, and those of CPU."""
    gc.collect()
    gc.disable()  # as the host of a shard does
    try:
        cpu, started = time.process_time(), time.perf_counter()
        journal = ShardJournal(shard_directory(data, 0), LogOptions())
        recovered = recover(journal, LIMITS)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    finally:
        gc.enable()
    journal.close()
    return recovered, seconds, cpu_s
