"""An engine that takes signatures as checked: the ledger path alone, for measuring it.

No configuration reaches this: a served engine is made by `engine.app` from `engine.config`, and
neither knows of it. It takes the arguments of `paychan serve` that benchmarks use.
"""

import os
from pathlib import Path

import click
import uvloop

from engine.app import runtime_of, serve_until_stopped
from engine.channels.host import ShardSettings
from engine.channels.runtime import Runtime
from engine.config import load_config
from engine.ports import Shard, VerdictWorker
from engine.verify.batch import PROBE_COUNT, PROBE_VERDICTS, item_count
from engine.verify.options import VerifyOptions
from engine.verify.seal import load_or_create_seal_key, seal


class PrecheckedVerifier:
    """Says good to everything but the probe that must be bad. See `ports.VerdictWorker`."""

    def __init__(self, seal_key: bytes) -> None:
        self._seal_key = seal_key

    async def verify(self, blob: bytes) -> bytes:
        """Return sealed verdicts at once."""
        verdicts = b"\1" * (item_count(blob) - PROBE_COUNT) + PROBE_VERDICTS
        return seal(self._seal_key, blob, verdicts)

    async def restart(self) -> None:
        """Nothing to restart."""


class PrecheckedRuntime:
    """Another runtime, but for its verifiers. See `runtime.Runtime`."""

    def __init__(self, inner: Runtime) -> None:
        self.start = inner.start
        self.stop = inner.stop
        self._inner = inner

    async def lost(self) -> str:
        """See `Runtime.lost`."""
        return await self._inner.lost()

    async def shard(self, settings: ShardSettings) -> Shard:
        """Start a shard where the other runtime does."""
        return await self._inner.shard(settings)

    async def verifier(self, datadir: Path, options: VerifyOptions) -> VerdictWorker:
        """Return a verifier that checks nothing."""
        return PrecheckedVerifier(load_or_create_seal_key(datadir / "seal.key"))


@click.command()
@click.argument("verb", type=click.Choice(["serve"]))
@click.option("--datadir", required=True)
@click.option("--listen", required=True)
def main(verb: str, datadir: str, listen: str) -> None:
    """Serve on loopback for a benchmark."""
    host, _, port = listen.rpartition(":")
    flags = {"datadir": datadir, "gateway.host": host, "gateway.port": port}
    config, _ = load_config(None, os.environ, flags)
    uvloop.run(serve_until_stopped(config, PrecheckedRuntime(runtime_of(config))))


if __name__ == "__main__":
    main()
