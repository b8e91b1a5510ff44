"""The demo, act by act: serve, open, load, kill, recover, read back, compare."""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from bench.harness import (
    Served,
    descendants,
    metric,
    open_channels,
    resident_mb,
    scratch,
    served,
)
from bench.signing import DESTINATION, SOURCE, make_payer, opening
from engine.channels.journal import verify_directory
from engine.client import Client
from engine.core.claim import Claim
from engine.demo.acknowledged import Acknowledged, AckWriter
from engine.demo.load import DemoJob, Progress
from engine.demo.verdict import Verdict, reach_verdict
from engine.demo.view import View

CHANNELS: Final = 1_000
TROUBLED: Final = 40
"""Of the channels, those that get bad claims only; nothing on them is ever accepted."""

CAPACITY: Final = 10**12
ENGINE_LOOK_EVERY_S: Final = 1.0
SYNCS: Final = "paychan_wal_sync_duration_seconds_count"

# Published at xrpl.org with channel_verify: a claim of the main network, redeemed there.
MAINNET_CHANNEL: Final = "5DB01B7FFED6B67E6B0414DED11E051D2EE2B7619CE0EAA6286D67A3A4D5BDB3"
MAINNET_KEY: Final = "023693F15967AE357D0327974AD46FE3C127113B1110D6044FD41E723689F81CC6"
MAINNET_DROPS: Final = 1_000_000
MAINNET_SIGNATURE: Final = (
    "304402204EF0AFB78AC23ED1C472E74F4299C0C21F1B21D07EFC0A3838A420F76D783A40"
    "0220154FB11B6F54320666E4C36CA7F686C16A3A0456800BBC43746F34AF50290064"
)


class DemoFigures(msgspec.Struct):
    """What the demo has to show for itself, as `--json` prints it."""

    holds: bool
    claims_per_s: int
    acknowledged: int
    answers: dict[str, int]
    p50_ms: float
    p99_ms: float
    seconds: float
    seconds_without_shard: float
    published_claim: str
    log_damage: str
    exit_code: int
    verdict: Verdict


async def tell(view: View, seconds: float, datadir: Path | None) -> DemoFigures:
    """Run the demo; `seconds` is how long claims are pushed."""
    with scratch(datadir) as folder:
        data, ledger = folder / "data", folder / "acknowledged"
        view.say("Starting Ray and `paychan serve` on loopback …")
        async with served(data) as engine:
            series = secrets.token_hex(8)
            job = DemoJob(
                url=engine.url,
                series=series,
                good=CHANNELS - TROUBLED,
                channels=CHANNELS,
                capacity=CAPACITY,
                seconds=seconds,
                ledger=str(ledger),
            )
            published = await _open(view, engine, job)
            last, without = await _load_and_kill(view, engine, job)
            view.say("Reading every balance back from its shard …")
            balances = await _read_back(engine, series)
            shards = [shard["shard"] for shard in (await _server(engine.url))["shards"]]
            view.say("Stopping the engine, and reading its log from the first byte …")
            exit_code = await engine.stop()
        damage = _damage(data)
        verdict = await asyncio.to_thread(reach_verdict, ledger, data, shards, balances)
    return DemoFigures(
        holds=verdict.holds
        and not (damage or last.unexpected or exit_code)
        and published == "accepted",
        claims_per_s=round(last.acknowledged / last.seconds),
        acknowledged=last.acknowledged,
        answers=last.answers,
        p50_ms=last.p50_ms,
        p99_ms=last.p99_ms,
        seconds=last.seconds,
        seconds_without_shard=round(without, 2),
        published_claim=published,
        log_damage=damage,
        exit_code=exit_code,
        verdict=verdict,
    )


async def _open(view: View, engine: Served, job: DemoJob) -> str:
    """Open the channels; return what the published claim was answered."""
    started = time.monotonic()
    payers = [make_payer(number, "mixed", job.series) for number in range(CHANNELS)]
    await open_channels(engine.url, [opening(payer, CAPACITY) for payer in payers])
    view.say(
        f"Opened {CHANNELS} channels, keys of both curves ({time.monotonic() - started:.1f} s)."
    )
    mainnet = {
        "channel_id": MAINNET_CHANNEL,
        "source": SOURCE,
        "destination": DESTINATION,
        "public_key": MAINNET_KEY,
        "capacity": str(MAINNET_DROPS * 100),
        "settle_delay": 86_400,
        "funded": True,
    }
    await open_channels(engine.url, [mainnet])
    claim = Claim(
        bytes.fromhex(MAINNET_CHANNEL), MAINNET_DROPS, bytes.fromhex(MAINNET_SIGNATURE), 1
    )
    async with Client(engine.url) as client:
        (result,) = await client.submit([claim])
    if result.position is not None:
        # It comes in by the front door like any other, so it counts like any other.
        acks = AckWriter(Path(job.ledger))
        acks.write([Acknowledged(claim.channel_id, 1, claim.amount, result.position)])
        acks.close()
    view.say(f"The published mainnet claim of 1 XRP: {result.status}, position {result.position}.")
    return str(result.status)


async def _load_and_kill(view: View, engine: Served, job: DemoJob) -> tuple[Progress, float]:
    """Run the payers, kill a shard at half time; return their totals and the outage in seconds."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine.demo.load", stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(job))
    process.stdin.close()
    last = Progress(0, 0, {}, 0.0, 0.0, 0, 0.0)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(_look(view, engine))
        killing = tasks.create_task(_kill_at(view, engine, job.seconds / 2))
        async for last in _progress(process):
            view.show(last)
        without = await killing
        looking.cancel()
    if await process.wait() or not last.done:
        raise RuntimeError("the payers' process failed; see above")
    return last, without


async def _progress(process: asyncio.subprocess.Process) -> AsyncIterator[Progress]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield msgspec.json.decode(line, type=Progress)


async def _kill_at(view: View, engine: Served, after_s: float) -> float:
    """Kill the first shard's process after a while; return how long it did not answer."""
    await asyncio.sleep(after_s)
    victim = (await _server(engine.url))["shards"][0]
    os.kill(victim["pid"], signal.SIGKILL)
    killed = time.monotonic()
    view.say(f"SIGKILL to shard {victim['shard']}, process {victim['pid']}.")
    while True:
        shard = (await _server(engine.url))["shards"][0]
        if shard["up"] and shard["pid"] != victim["pid"]:
            break
        await asyncio.sleep(0.02)
    without = time.monotonic() - killed
    view.say(
        f"Shard {shard['shard']} is back after {without:.2f} s as process {shard['pid']}, "
        f"epoch {shard['epoch']}."
    )
    return without


async def _look(view: View, engine: Served) -> None:
    while True:
        shards = (await _server(engine.url))["shards"]
        view.engine.shards = ", ".join(
            f"{shard['shard']}: {'up' if shard['up'] else 'down'}, epoch {shard['epoch']}"
            for shard in shards
        )
        view.engine.syncs = round(await metric(engine.url, SYNCS))
        pids = await asyncio.to_thread(descendants, engine.process.pid)
        view.engine.memory_mb = round(sum(_resident(pid) for pid in pids))
        await asyncio.sleep(ENGINE_LOOK_EVERY_S)


def _resident(pid: int) -> float:
    try:
        return resident_mb(pid)
    except OSError:
        return 0.0


async def _server(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/server") as response:
        answer: dict[str, Any] = await response.json()
        return answer


async def _read_back(engine: Served, series: str) -> dict[bytes, tuple[int, int]]:
    async with Client(engine.url) as client:

        async def one(channel_id: bytes) -> tuple[bytes, tuple[int, int]]:
            balance = await client.balance(channel_id, consistency="strong")
            return channel_id, (balance.claimed, balance.sequence)

        ids = [make_payer(number, "mixed", series).channel_id for number in range(CHANNELS)]
        ids.append(bytes.fromhex(MAINNET_CHANNEL))
        return dict(await asyncio.gather(*(one(channel_id) for channel_id in ids)))


def _damage(data: Path) -> str:
    """Judge every byte of every shard's log; return the first damage, "" for none."""
    for directory in sorted(data.glob("shard-*")):
        for damage in verify_directory(directory).damages:
            return f"{directory.name}: {damage}"
    return ""
