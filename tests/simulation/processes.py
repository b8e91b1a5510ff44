"""Shards and verifiers as processes that can die, hang and lie, all in one thread.

A shard is the real `ShardHost` on the simulated disk, one call at a time in the order of the calls,
as a synchronous actor takes them. What happens to a call on its way is for `Fate` to say.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable
from pathlib import Path
from typing import NoReturn

from engine.channels.host import ShardHost, ShardSettings, shard_directory
from engine.channels.journal import CorruptLogError
from engine.channels.machine import Machine
from engine.channels.space import Room
from engine.ports import Shard, ShardDown, VerdictWorker
from engine.verify.options import VerifyOptions
from engine.verify.seal import seal
from engine.verify.worker import VerifierWorker
from tests.simulation.disk import Killed, SimFiles
from tests.simulation.world import SEAL_KEY, Broken, World
from wal import LogFailedError

FOREIGN_KEY = bytes(32)
ROOMY = Room(1 << 40, 1 << 41)
CRAMPED = Room(1 << 10, 1 << 41)


class ProcessEnded(BaseException):
    """The shard's process has called for its own end; nothing in it may go on."""


class Call:
    """A step on its way to a shard."""

    __slots__ = ("answer", "arguments", "fate", "step")

    def __init__(self, step: str, arguments: tuple[bytes | int | str, ...], fate: str) -> None:
        self.step = step
        self.arguments = arguments
        self.fate = fate
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def give(self, answer: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(ShardDown(why))
            self.answer.exception()  # who asked may have gone meanwhile, and need not hear of it


class SimTicker:
    """Calls the shard's tick by the virtual clock; see `machine.Ticking`."""

    def __init__(self, process: "SimShard", period_s: float) -> None:
        self._process = process
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(period_s, self._run)

    def stop(self) -> None:
        self._timer.cancel()

    def _run(self) -> None:
        self._timer = self._loop.call_later(self._period_s, self._run)
        self._process.tick()


class SimShard:
    """A shard's process, started again whenever it ends. See `ports.Shard`."""

    def __init__(self, world: World, settings: ShardSettings) -> None:
        self.number = settings.number
        self.world = world
        self.directory = shard_directory(Path(settings.datadir), settings.number)
        self.host: ShardHost | None = None
        self.files: SimFiles | None = None
        self.life = 0
        self.gone = False
        self.is_within = False
        self.keeps_all = settings.shard.log_kept == "all"
        self._settings = settings
        self._ticks: list[SimTicker] = []
        self._queue: deque[Call] = deque()
        self._current: Call | None = None
        self._busy = False
        self._some = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._live())
        world.own(self._task)

    # What the engine sees -----------------------------------------------------------------------

    def ask(self, step: str, *arguments: bytes | int | str) -> Awaitable[bytes]:
        call = Call(step, arguments, self.world.nemesis.fate_of(step))
        if self.gone:  # the gateway that asks is gone as well, and must learn nothing
            return call.answer
        if call.fate == "late":
            asyncio.get_running_loop().call_later(0.05, self._put, Call(step, arguments, ""))
        elif call.fate != "lost":
            self._put(call)
        if call.fate in ("late", "lost"):
            call.fail("unavailable for a moment")
        return call.answer

    def _put(self, call: Call) -> None:
        if not self.gone:
            self._queue.append(call)
            self._some.set()

    # What it does -------------------------------------------------------------------------------

    async def _live(self) -> None:
        while not self.gone:
            if self.host is None:
                await asyncio.sleep(self.world.nemesis.pause_before_start_s())
                self._start()
            elif self._queue:
                await self._take(self._queue.popleft())
            else:
                self._some.clear()
                await self._some.wait()

    def _start(self) -> None:
        world = self.world
        if self.gone:
            return
        self.life += 1
        trouble = world.nemesis.trouble_of(self)
        self.files = SimFiles(world.disk, world.clock.now_ns, trouble)
        self.is_within = True
        machine = Machine(
            files=self.files,
            clock=world.clock,
            ticker=self._tick_every,
            seal_key=lambda _: SEAL_KEY,
            room=lambda _: CRAMPED if world.nemesis.cramped else ROOMY,
            monotonic=world.loop.time,
            threads=False,
        )
        try:
            self.host = ShardHost(self._settings, (), self._ends, machine)
        except CorruptLogError as error:
            self.end(f"refuses to start: {error}")
            world.refused(self, error)
        except (Killed, LogFailedError) as error:
            self.end(f"ended while it started: {error!r}")
        else:
            self.is_within = False
            self.files.taken_s = 0
            self._some.set()
            self.files.trouble = lambda call, path: ""  # the checker is no part of the history
            world.checker.recovered(self)
            self.files.trouble = trouble

    def _tick_every(self, _: object, period_s: float) -> SimTicker:
        self._ticks.append(SimTicker(self, period_s))
        return self._ticks[-1]

    def _ends(self, error: BaseException) -> NoReturn:
        raise ProcessEnded(error) from error

    def tick(self) -> None:
        """Let the shard tick unless it is within a step."""
        if self.host is not None and not self._busy:
            self._within(self.host._tick)

    async def _take(self, call: Call) -> None:
        life, self._current = self.life, call
        await asyncio.sleep(self.world.nemesis.latency_s())
        if life != self.life or self.host is None or self.files is None:
            return
        answer = self._within(lambda: self._step(call))
        if call.fate == "twice" and self.host is not None:
            again = self._within(lambda: self._step(call))
            answer = again if self.world.chance.getrandbits(1) else answer
        if answer is None or self.host is None:
            return
        taken_s, self.files.taken_s = self.files.taken_s, 0.0
        if taken_s:
            self._busy = True
            await asyncio.sleep(taken_s)
            if life != self.life:
                return
            self._busy = False
        self._current = None
        if call.fate == "unheard":
            call.fail("the answer was lost")
        elif call.fate != "silent":
            call.give(answer)

    def _step(self, call: Call) -> bytes:
        answer: bytes = getattr(self.host, call.step)(*call.arguments)
        return answer

    def _within(self, step):
        """Do a step of the host; None where the process ended in it."""
        self.is_within = True
        try:
            done = step()
        except ProcessEnded as ended:
            self._ended(ended.args[0])
            return None
        except Killed as killed:
            self._ended(killed)
            return None
        self.is_within = False
        self.world.checker.stepped(self)
        return done

    def _ended(self, error: BaseException) -> None:
        # Whatever else ends a step is no fault of the disk but of the engine.
        if not isinstance(error, Killed | LogFailedError | OSError):
            raise Broken(f"shard {self.number} broke: {error!r}") from error
        self.end(f"ended itself: {error!r}")

    # How it ends --------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """End this incarnation: who waits for it is told, or hears nothing."""
        world = self.world
        world.say(f"shard {self.number}", why)
        if self.host is not None:
            world.checker.ended(self)
        if self.files is not None:
            self.files.die()
        for ticks in self._ticks:
            ticks.stop()
        self._ticks.clear()
        self.host = None
        self._busy = self.is_within = False
        self.life += 1
        waiting = [*self._queue] if self._current is None else [self._current, *self._queue]
        self._queue.clear()
        self._current = None
        self._some.set()
        if not self.gone:
            for call in waiting:
                call.fail("the shard ended")
        world.nemesis.after_end()

    def kill(self, why: str) -> None:
        if self.host is not None:
            self.end(why)


class SimVerifier:
    """A verifier's process: the real worker, which may die, hang or lie. See `VerdictWorker`."""

    def __init__(self, world: World, number: int, options: VerifyOptions) -> None:
        self.number = number
        self.mode = ""
        self.gone = False
        self._world = world
        self._worker = VerifierWorker(SEAL_KEY, 64, newest=options.is_newest)

    async def verify(self, blob: bytes) -> bytes:
        if self.gone or self.mode == "hangs":
            await asyncio.Event().wait()
        await asyncio.sleep(self._world.nemesis.latency_s())
        sealed = self._worker.verify(blob)
        verdicts = bytes([1]) * (len(sealed) - 32)
        match self.mode:
            case "dies":
                raise ConnectionResetError
            case "answers nonsense":
                return sealed[: len(sealed) // 2]
            case "says no to all":
                return seal(SEAL_KEY, blob, bytes(len(verdicts)))
            case "says yes to all":
                return seal(SEAL_KEY, blob, verdicts)
            case "is an impostor":  # who knows the probes, but not the key
                return seal(FOREIGN_KEY, blob, verdicts[:-2] + b"\0\1")
        return sealed

    async def restart(self) -> None:
        await asyncio.sleep(0.05)
        if self.mode and not self.gone:
            self._world.say(f"verifier {self.number}", "starts again")
        self.mode = ""


class SimRuntime:
    """Where the engine of a simulation runs its parts. See `runtime.Runtime`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.shards: list[SimShard] = []
        self.verifiers: list[SimVerifier] = []

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """End every process, as the end of the engine's own does."""
        for shard in self.shards:
            shard.gone = True
            shard.kill("ends with its engine")
            shard._some.set()
        for verifier in self.verifiers:
            verifier.gone = True

    async def shard(self, settings: ShardSettings) -> Shard:
        self.shards.append(SimShard(self._world, settings))
        return self.shards[-1]

    async def verifier(self, datadir: Path, options: VerifyOptions) -> VerdictWorker:
        self.verifiers.append(SimVerifier(self._world, len(self.verifiers), options))
        return self.verifiers[-1]
