"""What happens when twice as much is offered as can be taken?

The maximum is measured first, in a closed loop on the same engine, over 16 connections in frames of
16. Then twice of it is due in the same way, for as long as asked; meanwhile a probe of its own
sends 50 single claims a second, from before the flood until after it. Channels go by amount: a
claim that was refused is made up for by the next one, as with any payer who goes on paying.

The sum before the run: a refusal costs the gateway what reading and answering costs, some 4 µs, and
no signature. So twice the rate takes 4 µs of each 40: goodput 0.9 of the maximum or a little more.
A claim that is taken waits behind a full queue, 16,384 a shard: half a second at 60,000 a second.
Memory is the queues, some 100 MB. Afterwards the queues drain in a second.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from bench.claims import ceiling_of, claims_for
from bench.options import ClaimsConfig, Told
from bench.stage import Phase, Ready, Stage, staged
from bench.stream import Cut, Slice, Tally

TIMES: Final = 2.0
CONNECTIONS: Final = 16
PER_FRAME: Final = 16
PROBE_RATE: Final = 50.0
PROBE_CHANNELS: Final = 4
BEFORE_S: Final = 5.0
AFTER_S: Final = 10.0
MOMENT: Final = Cut(seconds=0.25)
SECOND: Final = Cut(seconds=1.0)
STEPS: Final = 5


async def run(config: ClaimsConfig, folder: Path, told: Told) -> dict[str, Any]:
    """Return the figures, and a row for each second of the flood."""
    config = replace(
        config, sequencing="amount", connections=CONNECTIONS, claims_per_frame=PER_FRAME
    )
    ceiling = ceiling_of(config)
    async with staged(config, folder) as stage:
        told(1, STEPS)
        most = await stage.send(await stage.ready(config, claims_for(config, ceiling)))
        flood, probe = await _made_ready(stage, config, most.tally.accepted_per_s)
        told(3, STEPS)
        probing = asyncio.create_task(stage.send(probe, MOMENT))
        await asyncio.sleep(BEFORE_S)
        flooded = await stage.send(flood, SECOND)
        probed = await probing
        told(4, STEPS)
        await stage.stop()
    return _figures(most.tally, flooded, probed, flood.config) | {
        "ceiling_verify_per_s": round(ceiling),
        "log_holds_all": stage.logged() >= stage.accepted,
        "exit_code": stage.exit_code,
    }


async def _made_ready(stage: Stage, config: ClaimsConfig, most: float) -> tuple[Ready, Ready]:
    flood = replace(config, rate=most * TIMES, connections=CONNECTIONS, claims_per_frame=PER_FRAME)
    probe = replace(
        config,
        rate=PROBE_RATE,
        channels=PROBE_CHANNELS,
        connections=1,
        claims_per_frame=1,
        seconds=BEFORE_S + config.seconds + AFTER_S,
    )
    return (
        await stage.ready(flood, claims_for(flood, 0.0)),
        await stage.ready(probe, claims_for(probe, 0.0)),
    )


def _figures(most: Tally, flooded: Phase, probed: Phase, flood: ClaimsConfig) -> dict[str, Any]:
    tally = flooded.tally
    refused = {word: count for word, count in tally.answered.items() if word != "accepted"}
    return {
        "maximum_per_s": round(most.accepted_per_s),
        "offered_per_s": round(flood.rate),
        "accepted_per_s": round(tally.accepted_per_s),
        "goodput_to_maximum": round(tally.accepted_per_s / max(1.0, most.accepted_per_s), 3),
        "refused": refused,
        "accepted_p50_ms": tally.good.p50_ms,
        "accepted_p99_ms": tally.good.p99_ms,
        "accepted_max_ms": tally.good.max_ms,
        "refusal_p50_ms": tally.refusal.p50_ms,
        "refusal_p99_ms": tally.refusal.p99_ms,
        "refusal_max_ms": tally.refusal.max_ms,
        "cpu_s": flooded.used["cpu_s"] | {"load": round(tally.cpu_s, 2)},
        "machine_s": flooded.used["machine_s"],
        **_memory(flooded, flood.seconds),
        **_back_to_normal(probed.tally, tally.begun, tally.begun + flood.seconds),
        "rows": [_row(one, tally.begun, flooded.memory) for one in tally.slices],
    }


def _memory(flooded: Phase, seconds: float) -> dict[str, float]:
    """Return MB before the flood, once the queues are full, at most, and at its end."""
    begun = flooded.tally.begun
    full = begun + min(5.0, seconds / 4)
    return {
        "memory_mb_before": memory_at(flooded.memory, begun),
        "memory_mb_full": memory_at(flooded.memory, full),
        "memory_mb_peak": max(mb for _, mb in flooded.memory),
        "memory_mb_end": memory_at(flooded.memory, begun + seconds),
    }


def memory_at(memory: list[tuple[float, float]], moment: float) -> float:
    """Return the MB that were seen last before a moment; the first where none was."""
    return next((mb for at, mb in reversed(memory) if at <= moment), memory[0][1])


def _back_to_normal(probe: Tally, begun: float, ended: float) -> dict[str, Any]:
    """Return what the probe saw, and when it was first as well off as before.

    Normal is a quarter of a second in which no answer took longer than the longest before.
    """
    calm = [one for one in probe.slices if one.until <= begun]
    normal_ms = max((one.latency.max_ms for one in calm), default=0.0)
    during = [one for one in probe.slices if begun < one.until <= ended]
    after = [one for one in probe.slices if one.until - MOMENT.seconds >= ended]
    normal = next((one for one in after if _is_normal(one, normal_ms)), None)
    return {
        "probe_max_ms_before": normal_ms,
        "probe_max_ms_during": max((one.latency.max_ms for one in during), default=0.0),
        "probe_refused": sum(one.refused for one in probe.slices),
        "normal_after_s": round(normal.until - ended, 2) if normal else None,
    }


def _is_normal(one: Slice, normal_ms: float) -> bool:
    return bool(one.accepted) and not one.refused and one.latency.max_ms <= normal_ms


def _row(one: Slice, begun: float, memory: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "second": round(one.until - begun),
        "accepted_per_s": one.accepted,
        "refused_per_s": one.refused,
        "p50_ms": one.latency.p50_ms,
        "p99_ms": one.latency.p99_ms,
        "memory_mb": memory_at(memory, one.until),
    }
