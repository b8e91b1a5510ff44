"""How long from a kill to the first accepted claim, and how many events a second does replay?

The sum before the run: a frame of 512 claims decodes and folds at some 4 µs an event, so 250,000
events a second on a core; Ray needs about a second to start the process again.
"""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from bench.harness import Served, machine_line, scratch, served
from bench.signing import STEP_DROPS, Payer, make_payer, opening_command, sign
from engine.channels.checkpoint import checkpoint_chunks
from engine.channels.host import shard_directory
from engine.channels.journal import LogOptions, ShardJournal
from engine.channels.recovery import Recovered, recover, replay_into
from engine.core.events import AnyEvent, ClaimReceived
from engine.core.rejections import Rejected
from engine.core.transition import decide_open
from engine.core.types import ChannelId, Checks, Drops, Sequence, TimeNs
from engine.validation.options import ValidationOptions

BATCH: Final = 512
LIMITS: Final = ValidationOptions().retries
AT: Final = TimeNs(1_700_000_000_000_000_000)
ASK_AGAIN_S: Final = 0.02


class RecoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: a history of so many events over so many channels, all in one shard."""

    events: int = 50_000
    channels: int = 1_000
    snapshot: bool = False


async def run(config: RecoveryConfig, datadir: Path | None = None) -> dict[str, Any]:
    """Run the benchmark; return its result line."""
    started = time.perf_counter()
    with scratch(datadir) as folder:
        data = folder / "data"
        last = _write_history(data, config)
        replay = _replay(data, config)
        settings = ["PAYCHAN_PLACEMENT__SHARDS=1"]
        ready_from = time.perf_counter()
        async with served(data, settings) as engine:
            ready = time.perf_counter() - ready_from
            to_claim = await _kill_and_claim(engine, last)
            await engine.stop()
    line = machine_line("recovery", msgspec.to_builtins(config), time.perf_counter() - started)
    return line | replay | {
        "channels": config.channels,
        "seconds_to_ready": round(ready, 2),
        "seconds_from_kill_to_claim": round(to_claim, 2),
        "snapshot_used": config.snapshot,
    }  # fmt: skip


def _payers(config: RecoveryConfig) -> list[Payer]:
    return [make_payer(number, "secp256k1") for number in range(config.channels)]


def _write_history(data: Path, config: RecoveryConfig) -> tuple[Payer, int]:
    """Write the log of a shard; signatures repeat, for replay does not check them again."""
    directory = shard_directory(data, 0)
    directory.mkdir(parents=True)
    journal = ShardJournal(directory, LogOptions(shard_id=0))
    payers = _payers(config)
    state = Recovered({}, TimeNs(0), 0, 0)
    events: list[AnyEvent] = [event for payer in payers for event in _opened(payer)]
    signatures = [sign(payer, STEP_DROPS) for payer in payers]
    for number in range(config.events - len(events)):
        index, sequence = number % len(payers), number // len(payers) + 1
        events.append(
            ClaimReceived(
                channel_id=ChannelId(payers[index].channel_id),
                version=sequence + 2,
                at=AT,
                sequence=Sequence(sequence),
                amount=Drops(sequence * STEP_DROPS),
                signature=signatures[index],
                checks=Checks.ALL,
            )
        )
    for start in range(0, len(events), BATCH):
        first = journal.append(events[start : start + BATCH])
        journal.commit()
        replay_into(state, first, events[start : start + BATCH], LIMITS)
    if config.snapshot:
        journal.checkpoint(lambda _: checkpoint_chunks(state.actors, state.position, state.last_at))
    journal.close()
    return payers[0], state.actors[payers[0].channel_id].channel.sequence + 1


def _opened(payer: Payer) -> tuple[AnyEvent, ...]:
    decision = decide_open(opening_command(payer), AT)
    if isinstance(decision, Rejected):
        raise TypeError(decision)
    return decision


def _replay(data: Path, config: RecoveryConfig) -> dict[str, Any]:
    journal = ShardJournal(shard_directory(data, 0), LogOptions(shard_id=0))
    started = time.perf_counter()
    recovered = recover(journal, LIMITS, from_genesis=not config.snapshot)
    took = time.perf_counter() - started
    journal.close()
    return {
        "events": recovered.position,
        "events_replayed": recovered.events,
        "events_per_s": round(recovered.position / took),
    }


async def _kill_and_claim(engine: Served, last: tuple[Payer, int]) -> float:
    """Kill the shard's process; return the seconds until it has accepted the next claim."""
    payer, sequence = last
    amount = sequence * STEP_DROPS
    body = {
        "channel_id": payer.channel_id.hex(),
        "sequence": sequence,
        "amount": str(amount),
        "signature": sign(payer, amount).hex(),
    }
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{engine.url}/v1/server") as response:
            shards = (await response.json())["shards"]
        os.kill(shards[0]["pid"], signal.SIGKILL)
        killed = time.perf_counter()
        while True:
            path = f"{engine.url}/v1/channels/{body['channel_id']}/claims"
            async with session.post(path, json=body) as response:
                if response.status == 200:
                    return time.perf_counter() - killed
            await asyncio.sleep(ASK_AGAIN_S)
