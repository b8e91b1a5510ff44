"""How long from a kill to the first accepted claim, and how many events a second does replay?

The sum before the run: frames of 4,096 claims decode and fold at some 2.5 µs an event, so 400,000
events a second on a core; a channel out of a checkpoint costs 4 µs, so half a million of them two
seconds a shard; Ray needs some four seconds to start, and one to start a process again.

The history is written by processes that end as if killed, so the engine that is then served finds
a log that nobody closed.
"""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from bench import tradeoff
from bench.harness import Served, machine_line, scratch, served
from bench.history import HistoryPlan, Written, write_histories
from bench.signing import STEP_DROPS, make_payer, sign
from bench.tradeoff import TradeoffConfig
from engine.channels.host import shard_directory
from engine.channels.recovery import Recovered, recover_committed, state_hash
from engine.validation.options import ValidationOptions

LIMITS: Final = ValidationOptions().retries
ASK_AGAIN_S: Final = 0.02
MB: Final = 1_000_000

Told = Callable[[int, int], None]


class RecoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        events: Of the history, over all shards.
        channels: They are of.
        shards: That hold them.
        snapshot: Whether there is a checkpoint.
        tail: Events of each shard after it.
        tradeoff: What to run for the table of checkpoint distances; None for no table.
    """

    events: int = 50_000
    channels: int = 1_000
    shards: int = 1
    snapshot: bool = False
    tail: int = 0
    tradeoff: TradeoffConfig | None = None


async def run(
    config: RecoveryConfig, datadir: Path | None = None, told: Told = lambda done, of: None
) -> dict[str, Any]:
    """Run the benchmark; return its result line. `told` hears of events written and in all."""
    started = time.perf_counter()
    with scratch(datadir) as folder:
        data = folder / "data"
        written = write_histories(_plans(config, data), told)
        ready_from = time.perf_counter()
        async with served(data, [f"PAYCHAN_PLACEMENT__SHARDS={config.shards}"]) as engine:
            ready = time.perf_counter() - ready_from
            shards = await _shards(engine)
            to_claim = await _kill_and_claim(engine, shards[0]["pid"], written[0])
            await engine.stop()
        replay = _replay(data)
        rows = [] if config.tradeoff is None else tradeoff.run(config.tradeoff, folder, told)
    line = machine_line("recovery", msgspec.to_builtins(config), time.perf_counter() - started)
    line |= {
        "events": config.events,
        "channels": config.channels,
        "history_mb": round(sum(one.log_bytes for one in written) / MB, 1),
        "checkpoint_mb": round(sum(one.checkpoint_bytes for one in written) / MB, 1),
        "seconds_to_write": round(max(one.seconds for one in written), 2),
        "snapshot_used": all(one.checkpoints for one in written),
        "seconds_to_ready": round(ready, 2),
        "seconds_of_shards": [round(shard["recovery_ms"] / 1_000, 2) for shard in shards],
        "events_replayed": sum(shard["recovered_events"] for shard in shards),
        "seconds_from_kill_to_claim": round(to_claim, 2),
    }
    return line | replay | ({"tradeoff_rows": rows} if rows else {})


def _plans(config: RecoveryConfig, data: Path) -> list[HistoryPlan]:
    return [
        HistoryPlan(
            datadir=str(data),
            shard=shard,
            shards=config.shards,
            channels=_part(config.channels, shard, config.shards),
            events=_part(config.events, shard, config.shards),
            tail=config.tail if config.snapshot else None,
        )
        for shard in range(config.shards)
    ]


def _part(whole: int, part: int, parts: int) -> int:
    return whole * (part + 1) // parts - whole * part // parts


def _replay(data: Path) -> dict[str, Any]:
    """Fold the log of the first shard from its first event; compare with its checkpoint and tail.

    On one core, without the cycle collector, as a shard recovers.
    """
    directory = shard_directory(data, 0)
    gc.collect()
    gc.disable()
    try:
        cpu, started = time.process_time(), time.perf_counter()
        whole = recover_committed(directory, LIMITS, from_genesis=True)
        took = time.perf_counter() - started
        cpu = time.process_time() - cpu
        same = _hash(whole) == _hash(recover_committed(directory, LIMITS))
    finally:
        gc.enable()
    return {
        "events_per_s": round(whole.position / took),
        "events_per_cpu_s": round(whole.position / cpu),
        "same_state": same,
    }


def _hash(recovered: Recovered) -> tuple[int, str]:
    return recovered.position, state_hash(recovered.actors)


async def _shards(engine: Served) -> list[dict[str, Any]]:
    url = f"{engine.url}/v1/server"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        shards: list[dict[str, Any]] = (await response.json())["shards"]
    return shards


async def _kill_and_claim(engine: Served, pid: int, written: Written) -> float:
    """Kill a shard's process; return the seconds until it has accepted the next claim."""
    payer, sequence = make_payer(written.payer, "secp256k1"), written.claims + 1
    amount = sequence * STEP_DROPS
    body = {
        "channel_id": payer.channel_id.hex(),
        "sequence": sequence,
        "amount": str(amount),
        "signature": sign(payer, amount).hex(),
    }
    path = f"{engine.url}/v1/channels/{body['channel_id']}/claims"
    async with aiohttp.ClientSession() as session:
        os.kill(pid, signal.SIGKILL)
        killed = time.perf_counter()
        while True:
            async with session.post(path, json=body) as response:
                if response.status == 200:
                    return time.perf_counter() - killed
            await asyncio.sleep(ASK_AGAIN_S)
