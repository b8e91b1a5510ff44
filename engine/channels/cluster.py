"""Shards and verifiers as Ray actors. The only file that knows Ray.

Ray gives each its process, starts it again when it dies, and carries calls in order; batches go to
a process of this machine over a line of their own (`direct.py`). A shard is a synchronous actor:
only those run one caller's calls in order. Ray never retries a call: a retry is the gateway's, by
the identity of a claim. The constructor of a shard is its recovery.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import ray  # noqa: TID251  (its one place)
import structlog
from ray.exceptions import ActorDiedError, RayError, RayTaskError  # noqa: TID251  (its one place)

from engine.channels.direct import Door, Line, LineBroken, connect
from engine.channels.host import EXIT_STEP_FAILED, ShardHost, ShardSettings
from engine.channels.machine import Machine
from engine.channels.timers import Ticker
from engine.ports import Shard, ShardDown, VerdictWorker
from engine.validation.risk import RiskRule
from engine.verify.options import VerifyOptions
from engine.verify.seal import load_or_create_seal_key
from engine.verify.worker import VerifierWorker

NAMESPACE: Final = "paychan"
QUIET: Final = {"num_cpus": 0, "enable_task_events": False}
"""Ours ask for no cores, and Ray need not keep a record of every batch in its control store."""

RESTART_FIRST_S: Final = 1.0
RESTART_LONGEST_S: Final = 15.0
"""Pause before a shard that could not recover is started again: first, and doubled up to this."""

WORKER_NICE: Final = 0
"""Ray's own is 15: shards would stand behind whatever else the machine does, and barely before the
work in the background, which is at 19."""

OBJECT_STORE_BYTES: Final = 96 << 20
"""Ray's shared memory; batches go over a socket, or inside the calls, and hardly touch it."""


VITAL: Final = frozenset({"raylet", "gcs_server"})
"""The processes of Ray without which nothing is hosted."""

LOOK_EVERY_S: Final = 0.5
"""How often Ray's own processes on this machine are looked at."""

log = structlog.get_logger()


def ticker_of_worker(tick: Callable[[], object], period_s: float) -> Ticker:
    """Tick for as long as the raylet lives that started this process; then end it.

    Nobody can find a shard without a raylet any more, and its log must be free for the next one.
    """
    raylet = os.getppid()

    def tick_or_end() -> None:
        if os.getppid() != raylet:
            os._exit(EXIT_STEP_FAILED)
        tick()

    return Ticker(tick_or_end, period_s)


WORKER: Final = Machine(ticker=ticker_of_worker)
"""The machine of a shard that Ray hosts."""


Place = tuple[str, int, str]
"""Where a process of ours is: its Ray node, its number, the address of its door."""


def _place_of(door: Door) -> Place:
    return ray.get_runtime_context().get_node_id(), os.getpid(), door.address


class VerifierHost:
    """The process around a verifier: fetches the seal key itself, so no gateway handles it."""

    def __init__(self, datadir: str, options: VerifyOptions) -> None:
        seal_key = load_or_create_seal_key(Path(datadir) / "seal.key")
        self._worker = VerifierWorker(seal_key, options.key_cache_max, newest=options.is_newest)
        self._door = Door({"verify": self._worker.verify})

    def verify(self, blob: bytes) -> bytes:
        """Return sealed verdicts."""
        return self._worker.verify(blob)

    def place(self) -> Place:
        """Say where it is."""
        return _place_of(self._door)


class OpenShardHost(ShardHost):
    """The process around a shard, with a door for what gateways on its machine ask all the time."""

    def __init__(
        self, settings: ShardSettings, rules: tuple[RiskRule, ...], machine: Machine
    ) -> None:
        super().__init__(settings, rules, machine=machine)
        self._door = Door({"commit": self.commit, "read": self.read})

    def place(self) -> Place:
        """Say where it is."""
        return _place_of(self._door)


async def _line_to(node: str, address: str) -> Line | None:
    """Return a line to a door on this machine; None where Ray must carry the calls."""
    if node != ray.get_runtime_context().get_node_id():
        return None
    try:
        return await connect(address)
    except OSError as error:  # as in another container on the same machine
        log.warning("no_direct_line", error=repr(error))
        return None


class RayShard:
    """A shard that is a Ray actor. See `ports.Shard`.

    Ray starts a process again that dies, but gives an actor up for good when it cannot recover: a
    full disk, or a lock that its predecessor still holds. Then a new actor is tried, with pauses.

    Attributes:
        starts: How many actors this shard has been so far.
    """

    def __init__(self, settings: ShardSettings, rules: tuple[RiskRule, ...]) -> None:
        self._settings = settings
        self._rules = rules
        self._pause_s = RESTART_FIRST_S
        self._has_lived = False
        self._line: Line | None = None
        self.starts = 0
        self._start()

    def _start(self) -> None:
        actor: Any = ray.remote(OpenShardHost)
        self._actor = actor.options(max_restarts=-1, max_task_retries=0, **QUIET).remote(
            self._settings, self._rules, machine=WORKER
        )
        self._not_before = time.monotonic() + self._pause_s
        self.starts += 1

    @property
    def number(self) -> int:
        """Which shard."""
        return self._settings.number

    def ask(self, step: str, *arguments: bytes | int | str) -> Awaitable[bytes]:
        """Start a step in the order of the calls; await its answer.

        Batches go over a line of their own, which each `hello` sees to: a gateway says it before
        its first batch and after every one that got no answer. Reads go there as well, for the
        first claim of a channel waits for one; without a line they wait at Ray for the next.
        """
        line = self._line
        if line is not None and (step == "commit" or (step == "read" and line.is_up)):
            return self._over_the_line(line.call(step, *arguments))
        answer = self._answer(self._actor, getattr(self._actor, step).remote(*arguments))
        return self._greeted(answer) if step == "hello" else answer

    async def _greeted(self, hello: Awaitable[bytes]) -> bytes:
        answer = await hello
        if self._line is None or not self._line.is_up:
            self._line = None
            with contextlib.suppress(RayError):
                node, _, address = await self._actor.place.remote()
                self._line = await _line_to(node, address)
        return answer

    async def _over_the_line(self, answer: "asyncio.Future[bytes]") -> bytes:
        try:
            return await answer
        except LineBroken as error:
            raise ShardDown(str(error)) from error

    async def _answer(self, actor: Any, reference: "ray.ObjectRef[bytes]") -> bytes:
        try:
            answer: bytes = await asyncio.wrap_future(reference.future())
        except RayError as error:
            if isinstance(error, ActorDiedError) and actor is self._actor:
                self._start_again(_reason(error))
            raise ShardDown(_reason(error)) from error
        self._pause_s = RESTART_FIRST_S
        self._has_lived = True
        return answer

    def _start_again(self, reason: str) -> None:
        """Start another actor in place of one that is gone for good, unless it is too soon.

        One that never lived is for whoever started it to look at.
        """
        if not self._has_lived or time.monotonic() < self._not_before:
            return
        log.warning("shard_started_again", shard=self.number, reason=reason, pause_s=self._pause_s)
        self._pause_s = min(2 * self._pause_s, RESTART_LONGEST_S)
        self._start()


class RayVerifier:
    """A verifier that is a Ray actor. See `ports.VerdictWorker`."""

    def __init__(self, datadir: Path, options: VerifyOptions) -> None:
        self._arguments = (str(datadir), options)
        self._node, self._pid = "", 0
        self._line: Line | None = None
        self._actor = self._start()

    async def ready(self) -> None:
        """Return once the verifier passed its self-test."""
        self._node, self._pid, address = await self._actor.place.remote()
        self._line = await _line_to(self._node, address)

    async def verify(self, blob: bytes) -> bytes:
        """Return sealed verdicts."""
        if self._line is not None:
            return await self._line.call("verify", blob)
        sealed: bytes = await self._actor.verify.remote(blob)
        return sealed

    async def restart(self) -> None:
        """Kill the process, whatever it does, and return once a fresh one can answer."""
        if self._line is not None:
            self._line.close()
            self._line = None
        ray.kill(self._actor, no_restart=True)
        self._end_process()
        self._actor = self._start()
        await self.ready()

    def _end_process(self) -> None:
        """End a process of this machine that is too far gone to hear Ray."""
        if self._pid and self._node == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{self._pid}/cmdline").read_bytes()
                if VerifierHost.__name__.encode() in command:  # or the number is another's by now
                    os.kill(self._pid, signal.SIGKILL)
        self._pid = 0

    def _start(self) -> Any:
        actor: Any = ray.remote(VerifierHost)
        return actor.options(max_restarts=0, max_task_retries=0, **QUIET).remote(*self._arguments)


def _reason(error: RayError) -> str:
    """Return the one line of Ray's long message that says what happened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    is_traceback = isinstance(error, RayTaskError) or "its creation task" in lines[0]
    return lines[-1] if is_traceback else lines[0]


class RayRuntime:
    """Runs shards and verifiers as Ray actors. See `runtime.Runtime`."""

    def __init__(self, address: str, rules: tuple[RiskRule, ...] = ()) -> None:
        self._address = address
        self._rules = rules

    def start(self) -> None:
        """Join the cluster at the address, or start Ray on this machine when it is empty."""
        own: dict[str, Any] = {"address": self._address}
        if not self._address:
            own = {
                "num_cpus": 0,  # ours ask for none, and Ray then starts no idle workers
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_system_config": {"worker_niceness": WORKER_NICE},
            }
        ray.init(namespace=NAMESPACE, log_to_driver=False, configure_logging=False, **own)

    def stop(self) -> None:
        """Leave Ray, and end what was started on this machine."""
        ray.shutdown()

    async def lost(self) -> str:
        """Return which process of Ray is gone, once one of those started here is."""
        # Ray says it to nobody else: its calls wait, for what cannot come back.
        node = ray._private.worker._global_node
        while True:
            dead: list[tuple[str, Any]] = node.dead_processes() if node is not None else []
            vital = sorted({kind for kind, _ in dead} & VITAL)
            if vital:
                return " and ".join(vital)
            await asyncio.sleep(LOOK_EVERY_S)

    async def shard(self, settings: ShardSettings) -> Shard:
        """Return a shard; its first call waits for its recovery."""
        return RayShard(settings, self._rules)

    async def verifier(self, datadir: Path, options: VerifyOptions) -> VerdictWorker:
        """Return a verifier that passed its self-test."""
        verifier = RayVerifier(datadir, options)
        await verifier.ready()
        return verifier
