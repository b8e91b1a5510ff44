"""Where shards and verifiers run, as the one who wires them sees it."""

from pathlib import Path
from typing import Protocol

from engine.channels.host import ShardSettings
from engine.ports import Shard, VerdictWorker
from engine.verify.options import VerifyOptions


class Runtime(Protocol):
    """Ray (`cluster`) or this very process (`inline`)."""

    def start(self) -> None:
        """Make ready to host."""

    def stop(self) -> None:
        """End all that was hosted."""

    async def lost(self) -> str:
        """Return what is gone, once nothing can be hosted any more; only a new start helps then."""

    async def shard(self, settings: ShardSettings) -> Shard:
        """Start a shard; its first answer comes once it has recovered."""

    async def verifier(self, datadir: Path, options: VerifyOptions) -> VerdictWorker:
        """Start a verifier and return it once it passed its self-test."""
