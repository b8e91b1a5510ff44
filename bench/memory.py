"""How many bytes does a channel cost, and how many does a Ray actor of its own cost?

The sum before the run: a channel struct, its terms, an actor object and two dictionary entries are
some 900 bytes in the shard and 400 in the gateway's view; a Ray actor is a process of 40 MiB.
"""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.harness import Served, descendants, machine_line, open_channels, scratch, served
from bench.options import Told
from bench.signing import make_payer, opening

Body = dict[str, Any]

WARM_UP: Final = 200
TOLD_EVERY: Final = 1_000


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: channels in one engine, and how many of their own for each actor count."""

    channels: int = 5_000
    dedicated: tuple[int, ...] = (1,)


FULL: Final = MemoryConfig(channels=1_000_000, dedicated=(1, 10))


async def run(
    config: MemoryConfig, told: Told, datadir: Path | None = None, runtime: str = "ray"
) -> dict[str, Any]:
    """Run the benchmark, and tell how many channels are open; return its result line."""
    started = time.perf_counter()
    figures: dict[str, Any] = {}
    with scratch(datadir) as folder:
        settings = [f"PAYCHAN_PLACEMENT__RUNTIME={runtime}"]
        async with served(folder / "sharded", settings) as engine:
            figures |= await _many(engine, config.channels, told)
            await engine.stop()
        figures["mib_per_dedicated_channel"] = {
            str(count): await _dedicated(folder / f"dedicated-{count}", count)
            for count in config.dedicated
        }
    took = time.perf_counter() - started
    return machine_line("memory", msgspec.to_builtins(config), took) | figures


async def _many(engine: Served, channels: int, told: Told) -> dict[str, Any]:
    bodies = (opening(make_payer(number, "secp256k1")) for number in range(WARM_UP + channels))
    await open_channels(engine.url, islice(bodies, WARM_UP))
    before = _private_bytes(engine)
    started = time.perf_counter()
    await open_channels(engine.url, _counted(bodies, channels, told))
    took = time.perf_counter() - started
    return {
        "bytes_per_channel": round((_private_bytes(engine) - before) / channels),
        "opened_per_s": round(channels / took),
    }


def _counted(bodies: Iterator[Body], of: int, told: Told) -> Iterator[Body]:
    for done, body in enumerate(bodies):
        if done % TOLD_EVERY == 0:
            told(done, of)
        yield body


async def _dedicated(datadir: Path, count: int) -> float:
    settings = ["PAYCHAN_PLACEMENT__PLACEMENT=dedicated"]
    settings.append(f"PAYCHAN_PLACEMENT__DEDICATED_CHANNELS_MAX={count}")
    async with served(datadir, settings) as engine:
        before = _private_bytes(engine)
        bodies = [opening(make_payer(number, "secp256k1")) for number in range(count)]
        await open_channels(engine.url, bodies)
        each = (_private_bytes(engine) - before) / count
        await engine.stop()
    return round(each / 2**20, 1)


def _private_bytes(engine: Served) -> int:
    """Return the memory that would come back if the engine's processes ended: no shared pages."""
    total = 0
    for pid in descendants(engine.process.pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Private_"):
                total += int(line.split()[1]) * 1_024
    return total
