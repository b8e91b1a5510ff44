"""The engine without its socket: frames go straight from this process to the router."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.frames import read_frames
from bench.harness import sampled
from bench.load import Job
from bench.options import ClaimsConfig
from bench.prechecked import PrecheckedRuntime
from bench.signing import Payer, opening_command
from bench.stage import count_logged
from bench.stream import Pace, Stream, Tally, summed_up
from engine.app import Engine, running, runtime_of
from engine.channels.intake.submission import Submission
from engine.channels.messages import decode_statistics
from engine.config import load_config
from engine.gateway.answers import STATUS_WORDS
from engine.gateway.schemas import decode_frame


async def run(
    case: ClaimsConfig, job: Job, payers: Sequence[Payer], datadir: Path
) -> tuple[Tally, dict[str, Any]]:
    """Open the payers' channels, send every frame of the job; return what came and what it took."""
    config, _ = load_config(None, dict(one.split("=", 1) for one in case.environment()), {})
    config = replace(config, datadir=str(datadir))
    runtime = runtime_of(config)
    if case.signatures == "prechecked":
        runtime = PrecheckedRuntime(runtime)
    async with running(config, runtime=runtime) as engine:
        await asyncio.gather(*(engine.router.execute(opening_command(payer)) for payer in payers))
        syncs, written = await _logged(engine)
        streams = [
            _stream(engine, file, pace) for file, pace in zip(job.files, job.paces(), strict=True)
        ]
        with sampled(os.getpid()) as used:
            started = time.perf_counter()
            await asyncio.gather(*(stream.run() for stream in streams))
        tally = summed_up(streams, started, 0.0, job.cut)
        after = await _logged(engine)
        used |= {"fsyncs": after[0] - syncs, "log_bytes": after[1] - written}
    return tally, used | {"logged": count_logged(datadir)}


async def _logged(engine: Engine) -> tuple[int, int]:
    """Return the syncs and bytes of all shards so far."""
    lanes = engine.router.lanes
    answers = await asyncio.gather(*(lane.shard.ask("statistics") for lane in lanes))
    seen = [decode_statistics(answer) for answer in answers]
    return sum(shard.commits for shard in seen), sum(shard.log_bytes for shard in seen)


def _stream(engine: Engine, file: str, pace: Pace) -> Stream:
    def send(message: memoryview) -> None:
        number, claims = decode_frame(bytes(message))

        def done(submission: Submission) -> None:
            said = [answer.code or STATUS_WORDS[answer.status] for answer in submission.answers]
            others = [word for word in said if word != "accepted"]
            stream.answer(number, len(said) - len(others), others)

        engine.router.submit(claims, Submission(len(claims), done))  # type: ignore[arg-type]

    stream = Stream(read_frames(file), send, pace)
    return stream
