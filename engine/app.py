"""Builds every part from the configuration and wires them; the only file that knows all others."""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog
import uvloop

from engine.channels.feed import Feed
from engine.channels.host import EXIT_STEP_FAILED, ShardSettings, shard_directory
from engine.channels.inline import InlineRuntime
from engine.channels.intake.lane import Lane
from engine.channels.intake.lanes import DedicatedLanes, ShardedLanes
from engine.channels.intake.router import Lanes, Router
from engine.channels.messages import Answer
from engine.channels.offline.history import EVENTS_TOLD, NEWEST, ChannelThen, Until, channel_at
from engine.channels.placement import PlacementRecord, load_or_create_placement
from engine.channels.runtime import Runtime
from engine.config import Config
from engine.gateway.payments.desk import payments_desk
from engine.gateway.server import Gateway, bind, hear_stop, listening
from engine.gateway.state import GatewayState
from engine.monitor.logs import logs_to_stderr
from engine.ports import Shard, ShardDown
from engine.validation.risk import RiskRule
from engine.verify.batch import Item
from engine.verify.pool import VerifierPool

DRAIN_MAX_S: Final = 30.0
"""How long a stop waits for what is under way; a shard that is down would hold it for ever."""

CLOSE_MAX_S: Final = 60.0
"""How long a shard may take over its last checkpoint; one that hangs recovers at the next start."""

COLLECT_AFTER_OBJECTS: Final = 50_000
"""New objects of a gateway between two looks of Python's cycle collector."""

log = structlog.get_logger()


class StartFailed(Exception):  # noqa: N818  (it reads as the sentence it is)
    """The engine cannot start; the message says which part and why."""


class Engine:
    """A running engine without its doors: what gateways, benches and tests talk to.

    Use `async with running(config) as engine`.
    """

    def __init__(self, config: Config, runtime: Runtime, pool: VerifierPool) -> None:
        self.config = config
        self.pool = pool
        self._datadir = datadir_of(config)
        self.feed = Feed(self._datadir)
        self.router: Router
        self._runtime = runtime
        self._gateway = f"gateway-{uuid4().hex[:12]}"
        self._tasks: asyncio.TaskGroup
        self._lane_tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def serving(
        self, placement: PlacementRecord, shards: Sequence[Shard]
    ) -> AsyncIterator[None]:
        """Find every shard recovered, route while the block runs, then drain and seal."""
        async with asyncio.TaskGroup() as self._tasks:
            started = await asyncio.gather(*(self._start_lane(shard) for shard in shards))
            lanes: Lanes
            if placement.placement == "sharded":
                lanes = ShardedLanes(started, placement.slots)
            else:
                dedicated_max = self.config.placement.dedicated_channels_max
                lanes = DedicatedLanes(self._start_shard, dedicated_max)
                await lanes.adopt(started)
            self.router = Router(lanes, self.config.lane, self.config.gateway.channels_known_max)
            async with self.router.running():
                try:
                    yield
                finally:
                    await self._stop()

    async def state_at(
        self, channel_id: bytes, until: Until = NEWEST, events_max: int = EVENTS_TOLD
    ) -> ChannelThen | None:
        """Return a channel as it was, with the events that led there; None before it was opened.

        For a debugger: reads the shard's log beside its writer, in a thread. What was answered a
        moment ago may not be proven durable yet, and is then not seen.

        Raises:
            LookupError: no shard serves this channel.
            BeforeTheLog, RecoveryBroken, CorruptLogError: see
                `channels.offline.history.channel_at`.
        """
        directory = shard_directory(self._datadir, self.router.shard_of(channel_id))
        limits = self.config.validation.retries
        return await asyncio.to_thread(channel_at, directory, channel_id, until, limits, events_max)

    async def _start_shard(self, number: int) -> Lane:
        """Start a shard while others serve; one that does not start ends nobody else."""
        try:
            return await self._start_lane(await start_shard(self.config, self._runtime, number))
        except StartFailed as error:
            log.error("shard_not_started", shard=number, error=str(error))
            raise ShardDown(str(error)) from error

    async def _start_lane(self, shard: Shard) -> Lane:
        """Return the lane to a shard that was started, once it has recovered."""
        try:
            await shard.ask("statistics")
        except ShardDown as error:
            raise StartFailed(f"shard {shard.number} does not start: {error}") from error
        lane = Lane(self._gateway, shard, self.pool, self.config.lane, self._watch)
        self._lane_tasks.append(self._tasks.create_task(lane.run()))
        hello = await lane.wait_up()
        log.info("shard_ready", **{name: getattr(hello, name) for name in hello.__struct_fields__})
        return lane

    def _watch(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        self.router.watch(items, answers)

    async def _stop(self) -> None:
        """Let what is under way finish, then seal every log."""
        lanes = self.router.lanes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_MAX_S):
                await asyncio.gather(*(lane.idle() for lane in lanes))
        for task in self._lane_tasks:
            task.cancel()
        closing = (asyncio.wait_for(lane.shard.ask("close"), CLOSE_MAX_S) for lane in lanes)
        outcomes = await asyncio.gather(*closing, return_exceptions=True)
        for lane, outcome in zip(lanes, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.error("shard_not_sealed", shard=lane.shard.number, error=repr(outcome))


@contextlib.asynccontextmanager
async def running(
    config: Config, *, runtime: Runtime | None = None, rules: tuple[RiskRule, ...] = ()
) -> AsyncIterator[Engine]:
    """Start an engine, yield it once every shard has recovered, drain and stop it at the end.

    Args:
        config: All settings.
        runtime: Where shards and verifiers run; None for what `config` says.
        rules: Risk rules of the operator's own, after those that `config` turns on. With any, no
            claim is covered by a newer one: each shard checks the signatures that verifiers skip.

    Raises:
        StartFailed: a shard cannot start; its log says why.
        PlacementMismatch: the data directory is laid out otherwise than `config` asks.
        SelfTestFailedError: the signature libraries of this machine judge wrongly.
    """
    datadir = datadir_of(config)
    runtime = runtime or runtime_of(config, rules)
    runtime.start()
    try:
        # Ray takes a second to start a process: shards recover while verifiers are made.
        placement = load_or_create_placement(datadir, config.placement)
        numbers = range(placement.shards) if placement.shards else _shards_on_disk(datadir)
        shards = [await start_shard(config, runtime, number) for number in numbers]
        starting = (
            runtime.verifier(datadir, config.verify) for _ in range(config.verify.verifiers)
        )
        workers = await asyncio.gather(*starting)
        async with VerifierPool(workers, config.verify) as pool:
            engine = Engine(config, runtime, pool)
            async with engine.serving(placement, shards):
                yield engine
    finally:
        runtime.stop()


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT: then stop intake, drain, sync, checkpoint.

    Says "paychan is ready on URL" on standard output once it takes claims.

    Raises:
        OSError: the address cannot be had.
        ExceptionGroup: of `StartFailed`, as `running`.
        PlacementMismatch: the data directory is laid out otherwise than `config` asks.
        StoreError: the payments database of `config` cannot be used.
    """
    uvloop.run(serve_until_stopped(config))


async def serve_until_stopped(config: Config, runtime: Runtime | None = None) -> None:
    """Serve as `serve` does, in a loop that runs already."""
    logs_to_stderr()
    told_to_stop = asyncio.Event()
    hear_stop(told_to_stop)
    door = bind(config.gateway)  # before the engine starts: it takes seconds
    runtime = runtime or runtime_of(config)
    async with (
        payments_desk(config.payments) as payments,
        running(config, runtime=runtime) as engine,
    ):
        hear_stop(told_to_stop)  # Ray, when it started, took SIGTERM for itself
        state = GatewayState(engine.router, engine.pool, engine.feed, config.gateway, payments)
        async with listening(Gateway(state), door) as address:
            _collect_seldom()
            sys.stdout.write(f"paychan is ready on {address}\n")
            sys.stdout.flush()
            await _until_told_or_lost(told_to_stop, runtime)
            log.info("stopping", reason="signal")
    log.info("stopped")


def _collect_seldom() -> None:
    """Let the cycle collector look less often, and never again at what the start has made.

    A claim under way is a handful of objects, none of them in a cycle; by default the collector
    took a third of a busy gateway's time to find that out.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 10)


async def _until_told_or_lost(told_to_stop: asyncio.Event, runtime: Runtime) -> None:
    """Return once told to stop; end the process where there is nothing left to stop."""
    told = asyncio.create_task(told_to_stop.wait())
    lost = asyncio.create_task(runtime.lost())
    await asyncio.wait((told, lost), return_when=asyncio.FIRST_COMPLETED)
    for task in (told, lost):
        task.cancel()
    if lost.done():
        log.error("runtime_lost", lost=lost.result(), exit=EXIT_STEP_FAILED)
        os._exit(EXIT_STEP_FAILED)  # shards keep no answer back, and drains would wait for nobody


async def start_shard(config: Config, runtime: Runtime, number: int) -> Shard:
    """Start shard `number`; under Ray it recovers while other things start."""
    settings = ShardSettings(
        number=number,
        datadir=str(datadir_of(config)),
        shard=config.shard,
        validation=config.validation,
        risk=config.risk,
        known_verdicts=config.verify.known_verdicts,
    )
    return await runtime.shard(settings)


def datadir_of(config: Config) -> Path:
    """Return the data directory as an absolute path, made where there was none."""
    datadir = Path(config.datadir).resolve()
    datadir.mkdir(parents=True, exist_ok=True)
    return datadir


def runtime_of(config: Config, rules: tuple[RiskRule, ...] = ()) -> Runtime:
    """Return where `config` says that shards and verifiers run."""
    if config.placement.runtime == "inline":
        return InlineRuntime(rules)
    # Ray costs a second and 100 MB to import: an engine in one process should not pay for it.
    from engine.channels.cluster import RayRuntime

    return RayRuntime(config.placement.ray_address, rules)


def _shards_on_disk(datadir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("shard-")) for path in datadir.glob("shard-[0-9]*"))
