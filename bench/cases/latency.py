"""What does an answer take, from far below the limit up to it?

Open loop, frames of 16 claims, one engine for all rates; first its maximum in a closed loop. The
sum before the run: a frame waits up to 0.5 ms for company, one way to a verifier and back costs
1 ms, 16 signatures 0.5 ms, one way to the shard and back 1 ms with 0.3 ms for the sync: 3 ms where
nothing waits. At a share u of the limit a batch finds others before it, so some 3 / (1 - u) ms:
6 ms at half of it, 30 ms at 0.9, and no bound above.
"""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.claims import ceiling_of, claims_for
from bench.options import AT_A_RATE, ClaimsConfig, Told
from bench.stage import Phase, Stage, staged

RATES = (100.0, 1_000.0)
SHARES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.95)


async def run(
    config: ClaimsConfig, folder: Path, told: Told, *, shares: tuple[float, ...] = SHARES
) -> dict[str, Any]:
    """Return the rows of all rates."""
    config = replace(config, claims_per_frame=AT_A_RATE)
    total = 1 + len(RATES) + len(shares)
    async with staged(config, folder) as stage:
        told(0, total)
        claims = claims_for(config, ceiling_of(config))
        most = await stage.send(await stage.ready(config, claims))
        rates = [*RATES, *(share * most.tally.accepted_per_s for share in shares)]
        rows = [_row("closed loop", 0.0, most)]
        for done, rate in enumerate(rates, 1):
            told(done, total)
            rows.append(await _at(stage, replace(config, rate=rate)))
        await stage.stop()
    return {
        "rows": rows,
        "accepted_per_s": round(most.tally.accepted_per_s),
        "log_holds_all": stage.logged() >= stage.accepted,
        "exit_code": stage.exit_code,
    }


async def _at(stage: Stage, config: ClaimsConfig) -> dict[str, Any]:
    phase = await stage.send(await stage.ready(config, claims_for(config, 0.0)))
    return _row("open loop", config.rate, phase)


def _row(loop: str, rate: float, phase: Phase) -> dict[str, Any]:
    latency = phase.tally.latency
    return {
        "loop": loop,
        "rate": round(rate),
        "accepted_per_s": round(phase.tally.accepted_per_s),
        "p50_ms": latency.p50_ms,
        "p99_ms": latency.p99_ms,
        "p999_ms": latency.p999_ms,
        "max_ms": latency.max_ms,
        "not_accepted": sum(phase.tally.answered.values()) - phase.tally.accepted,
    }
