"""Play the history of one number from beginning to end, and say whether every promise held.

A history: an engine starts on an empty disk, clients send, things go wrong; then all trouble ends,
every claim is decided, the engine stops one way or another, and starts once more to be looked at.
"""

import asyncio
import atexit
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal
from unittest import mock

import msgspec
import structlog

from engine.app import StartFailed, running
from engine.channels.host import shard_directory
from engine.channels.journal import EventCodec
from engine.channels.options import LaneOptions, PlacementOptions, ShardOptions
from engine.channels.placement import load_or_create_placement
from engine.config import Config
from engine.validation.options import ValidationOptions
from engine.verify.options import VerifyOptions
from tests.simulation.clients import Client
from tests.simulation.disk import SimFiles
from tests.simulation.faults import Faults
from tests.simulation.history import History
from tests.simulation.processes import SimRuntime
from tests.simulation.signed import CHANNELS, RememberingChecker
from tests.simulation.timeline import Stuck, VirtualLoop, clock_of, end_tasks
from tests.simulation.world import Broken, World
from wal import verify

Verification = Literal["every", "newest"]

PLAY_MAX_S = 120.0
FINISH_MAX_S = 120.0


class Played(msgspec.Struct, frozen=True):
    """What became of one history: `broken` is empty when every promise held."""

    number: int
    broken: str
    story: tuple[str, ...]
    counts: dict[str, int]
    seconds: float


class Operator:
    """Starts the engine whenever it is not there, as a service manager does."""

    def __init__(self, world: World, faults: Faults, config: Config) -> None:
        self._world = world
        self._faults = faults
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._lives: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Keep an engine up until cancelled."""
        while True:
            runtime = SimRuntime(self._world)
            stop: asyncio.Future[str] = self._loop.create_future()
            self._faults.runtime, self._faults.stop_asked = runtime, stop
            life = self._loop.create_task(self._live(runtime, stop))
            self._lives.append(life)  # a killed one lies still, and nobody else knows of it
            life.add_done_callback(_forget)
            await asyncio.wait((life, stop), return_when=asyncio.FIRST_COMPLETED)
            if not life.done() and stop.result() == "told to stop":
                await asyncio.wait((life,))
            self._world.up.clear()
            self._world.engine = None
            self._world.down.set()
            runtime.stop()
            how = self._outcome(life) if life.done() else f"ends, {stop.result()}"
            self._world.say("engine", how)
            await asyncio.sleep(self._faults.pause_before_start_s())

    async def _live(self, runtime: SimRuntime, stop: "asyncio.Future[str]") -> None:
        world = self._world
        async with running(self._config, runtime=runtime) as engine:
            world.say("engine", "is up")
            world.engine = engine
            world.up.set()
            if await stop != "told to stop":
                await asyncio.Event().wait()  # this process is no more
            world.up.clear()

    def _outcome(self, life: "asyncio.Task[None]") -> str:
        error = life.exception()
        if error is None:
            return "stops in good order"
        if isinstance(error, BaseExceptionGroup) and error.split(StartFailed)[1] is None:
            return "does not start"
        raise Broken("the engine broke") from error


class Play:
    """One history while it is played."""

    def __init__(self, number: int, loop: VirtualLoop, verification: Verification) -> None:
        self.world = World(number, loop, _datadir(1))
        chance = self.world.draw("play")
        shards = chance.choice((1, 2))
        self.world = World(number, loop, _datadir(shards))
        self.history = History(self.world, newest=verification == "newest")
        self.faults = Faults(self.world, chance.randint(1, 8))
        self.world.checker, self.world.nemesis = self.history, self.faults
        self._rounds = chance.randint(3, 12)
        self._config = _config(shards, chance, verification)
        numbers = chance.sample(range(CHANNELS), chance.randint(1, 5))
        self._clients = [Client(self.world, self.history, one) for one in numbers]
        self._end = chance.choice(("told to stop", "killed", "without power"))

    async def run(self) -> None:
        """Play it; raises what was broken."""
        world = self.world
        self.world.say("history", f"number {world.number}")
        operator = asyncio.create_task(Operator(world, self.faults, self._config).run())
        world.own(operator)
        script = asyncio.create_task(self._script())
        world.own(script)
        await asyncio.wait((script, world.over), return_when=asyncio.FIRST_COMPLETED)
        if world.over.done():
            await world.over
        operator.cancel()
        await self._verify()

    async def _script(self) -> None:
        trouble = asyncio.create_task(self.faults.run())
        self.world.own(trouble)
        await _all((client.run(self._rounds) for client in self._clients), PLAY_MAX_S)
        await asyncio.wait((trouble,), timeout=PLAY_MAX_S)
        self.faults.calm()
        self.world.say("history", "no more trouble from here")
        await _all((client.finish() for client in self._clients), FINISH_MAX_S)
        await self._stop(self._end)
        await _all((client.finish() for client in self._clients), FINISH_MAX_S)
        await self._stop("told to stop")

    async def _stop(self, how: str) -> None:
        self.world.down.clear()
        if how == "without power":
            self.faults.lose_power()
        else:
            self.faults.ask_stop(how)
        await self.world.down.wait()

    async def _verify(self) -> None:
        """Every byte that is left must check out."""
        for shard in range(self._config.placement.shards):
            files = SimFiles(self.world.disk, self.world.clock.now_ns, lambda call, path: "")
            report = verify(
                shard_directory(Path(self.world.datadir), shard), EventCodec, None, files
            )
            if not report.ok:
                raise Broken(f"shard {shard} is damaged at the end: {report}")


def play(number: int, verification: Verification = "every") -> Played:
    """Play history `number`, in an engine with this setting."""
    loop = VirtualLoop()
    broken = ""
    with clock_of(loop):
        act = Play(number, loop, verification)
        try:
            loop.run_until_complete(act.run())
        except Stuck:
            broken = "nobody moves any more"
        except Exception as error:
            broken = _words(error).replace(act.world.datadir + "/", "")
        end_tasks(loop)
    seconds = loop.now - 1_000
    loop.close()
    if broken:
        act.world.say("history", f"BROKEN: {broken}")
    counts = {str(key): count for key, count in act.history.counts.items()}
    counts["faults"] = act.faults.struck
    return Played(number, broken, tuple(act.world.story), counts, seconds)


@contextmanager
def stage() -> Iterator[None]:
    """Set up what all histories of this process share: silence, and signatures checked once."""
    before = structlog.get_config()
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    with (
        mock.patch("engine.channels.host.logs_to_stderr"),
        mock.patch("engine.verify.worker.SignatureChecker", RememberingChecker),
    ):
        structlog.configure(wrapper_class=silent, cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)


def totals(played: Sequence[Played]) -> Counter[str]:
    """Return the counts of several histories, added up."""
    counts: Counter[str] = Counter()
    for one in played:
        counts.update(one.counts)
    return counts


def _forget(life: "asyncio.Task[None]") -> None:
    if not life.cancelled():
        life.exception()


async def _all(parts: "Iterator[object]", most_s: float) -> None:
    try:
        async with asyncio.timeout(most_s), asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)  # type: ignore[arg-type]
    except TimeoutError as error:
        raise Broken(f"not done after {most_s} s of virtual time") from error


def _words(error: BaseException) -> str:
    """Return what was broken in words, through whatever groups carried it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = f" ({_words(error.__cause__)})" if error.__cause__ is not None else ""
    return (
        f"{error or type(error).__name__}{cause}"
        if isinstance(error, Broken)
        else f"{error!r}{cause}"
    )


@cache
def _datadir(shards: int) -> Path:
    """Return a folder that holds nothing but a layout; all else lies on the simulated disk."""
    folder = Path(tempfile.mkdtemp(prefix="paychan-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    load_or_create_placement(folder, PlacementOptions(shards=shards))
    return folder.resolve()


def _config(shards: int, chance: Random, verification: Verification) -> Config:
    """Return settings under which a short history has all that a long one has."""
    return Config(
        datadir=str(_datadir(shards)),
        placement=PlacementOptions(runtime="inline", shards=shards),
        shard=ShardOptions(
            awake_channels_max=1,
            tick_ms=50,
            checkpoint_events=chance.choice((3, 10, 60)),
            increments_max=2,
            log_kept=chance.choice(("all", "checkpointed", "checkpointed")),
            segment_bytes=8_192,
            pack_after_s=chance.choice((0, 1)),
        ),
        lane=LaneOptions(
            batch_claims_max=chance.choice((8, 16, 64)),
            gather_ms=5,
            unavailable_after_ms=1_500,
            silent_after_ms=chance.choice((500, 2_000)),
        ),
        validation=ValidationOptions(hold_ms=300),
        verify=VerifyOptions(
            verification=verification,
            verify_timeout_s=0.5,
            wait_timeout_s=1.0,
            restart_backoff_s=0.05,
        ),
    )
