"""The same shard and verifiers in one process without Ray: for tests and tiny deployments."""

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.channels.host import ShardHost, ShardSettings
from engine.ports import Shard, ShardDown, VerdictWorker
from engine.validation.risk import RiskRule
from engine.verify.options import VerifyOptions
from engine.verify.seal import load_or_create_seal_key
from engine.verify.worker import VerifierWorker


class InlineShard:
    """A shard on a thread of its own. See `ports.Shard`."""

    def __init__(self, settings: ShardSettings, rules: tuple[RiskRule, ...]) -> None:
        self._number = settings.number
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"shard-{self._number}")
        self._host = self._thread.submit(ShardHost, settings, rules)

    @property
    def number(self) -> int:
        """Which shard."""
        return self._number

    def ask(self, step: str, *arguments: bytes | int | str) -> Awaitable[bytes]:
        """Start a step in the order of the calls; await its answer."""
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._thread, self._take, step, *arguments)
        except RuntimeError as stopped:
            raise ShardDown(str(stopped)) from stopped

    def stop(self) -> None:
        """Let the thread end once it has taken what it was asked."""
        self._thread.shutdown(wait=False)

    def _take(self, step: str, *arguments: bytes | int | str) -> bytes:
        error = self._host.exception()  # known by now: the host was made on this very thread
        if error is not None:
            raise ShardDown(str(error)) from error
        answer: bytes = getattr(self._host.result(), step)(*arguments)
        return answer


class InlineVerifier:
    """A verifier on a thread of its own; the libraries release the lock while they check."""

    def __init__(self, seal_key: bytes, options: VerifyOptions) -> None:
        self._worker = VerifierWorker(seal_key, options.key_cache_max, newest=options.is_newest)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")

    async def verify(self, blob: bytes) -> bytes:
        """Return sealed verdicts."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._worker.verify, blob)

    def stop(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    async def restart(self) -> None:
        """Nothing to restart: a thread that hangs takes the process with it."""


class InlineRuntime:
    """Runs everything in this process. See `runtime.Runtime`."""

    def __init__(self, rules: tuple[RiskRule, ...] = ()) -> None:
        self._rules = rules
        self._hosted: list[InlineShard | InlineVerifier] = []

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """End the threads of all that was hosted."""
        for hosted in self._hosted:
            hosted.stop()

    async def lost(self) -> str:
        """Never return: what is lost here takes this process with it."""
        await asyncio.Event().wait()
        return ""

    async def shard(self, settings: ShardSettings) -> Shard:
        """Return a shard; its first call waits for its recovery."""
        shard = InlineShard(settings, self._rules)
        self._hosted.append(shard)
        return shard

    async def verifier(self, datadir: Path, options: VerifyOptions) -> VerdictWorker:
        """Return a verifier that passed its self-test."""
        seal_key = load_or_create_seal_key(datadir / "seal.key")
        verifier = InlineVerifier(seal_key, options)
        self._hosted.append(verifier)
        return verifier
