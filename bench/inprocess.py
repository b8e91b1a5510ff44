"""The engine without its socket: frames go straight from this process to the router."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import sampled
from bench.load import Job, Tally, Watch, summed_up
from bench.prechecked import PrecheckedRuntime
from bench.signing import Payer, opening_command, read_frames
from engine.app import Engine, running, runtime_of
from engine.channels.intake.submission import Submission
from engine.channels.messages import decode_statistics
from engine.channels.options import PlacementOptions
from engine.config import Config
from engine.gateway.answers import STATUS_WORDS
from engine.gateway.schemas import decode_frame


async def run(
    job: Job, payers: Sequence[Payer], datadir: Path, placement: PlacementOptions, *, checked: bool
) -> tuple[Tally, dict[str, Any]]:
    """Open the payers' channels, send every frame of the job; return what came and what it took."""
    config = Config(datadir=str(datadir), placement=placement)
    runtime = runtime_of(config)
    if not checked:
        runtime = PrecheckedRuntime(runtime)
    async with running(config, runtime=runtime) as engine:
        await asyncio.gather(*(engine.router.execute(opening_command(payer)) for payer in payers))
        syncs, written = await _logged(engine)
        pause = job.claims_per_frame * len(job.files) / job.rate if job.rate else 0.0
        watches = [Watch(job.window, n * pause / len(job.files)) for n in range(len(job.files))]
        loads = [read_frames(path) for path in job.files]
        with sampled(os.getpid()) as used:
            started = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                for frames, watch in zip(loads, watches, strict=True):
                    tasks.create_task(_send(engine, job, frames, watch, pause))
        tally = summed_up(watches, started, 0.0)
        after = await _logged(engine)
        used |= {"fsyncs": after[0] - syncs, "log_bytes": after[1] - written}
        return tally, used


async def _logged(engine: Engine) -> tuple[int, int]:
    """Return the syncs and bytes of all shards so far."""
    lanes = engine.router.lanes
    answers = await asyncio.gather(*(lane.shard.ask("statistics") for lane in lanes))
    seen = [decode_statistics(answer) for answer in answers]
    return sum(shard.commits for shard in seen), sum(shard.log_bytes for shard in seen)


async def _send(engine: Engine, job: Job, frames: list[bytes], watch: Watch, pause: float) -> None:
    async for number, _ in watch.due_times(len(frames), job.seconds, pause):
        frame_number, claims = decode_frame(frames[number])

        def done(submission: Submission, frame_number: int = frame_number) -> None:
            words = [answer.code or STATUS_WORDS[answer.status] for answer in submission.answers]
            watch.answer(frame_number, words)

        engine.router.submit(claims, Submission(len(claims), done))  # type: ignore[arg-type]
    await watch.all_answered()
