"""Feel a shard's pulse: is its disk quick, has it room, does it answer at all?

Asked once a second, in the row of all other calls: so the time of an answer is what a claim would
wait for. What is found goes into the metrics, into the log where it changes, and into readiness.
"""

import asyncio
import contextlib
import math
import time
from typing import Final

import structlog

from engine.channels.intake.calls import ask_in_time
from engine.channels.messages import Pulse, decode_pulse
from engine.channels.options import LaneOptions
from engine.ports import Shard, ShardDown

PULSE_EVERY_S: Final = 1.0
CALM_S: Final = 5.0
"""For so long everything must have been quick before a shard counts as ready again."""

SAID_AGAIN_S: Final = 60.0
"""A trouble that stays is logged again after so long."""

LOOK: Final = "see what else uses the disk, or holds the process: docs/how-to/slow-disk.md"
MAKE_ROOM: Final = "make room, it goes on by itself: docs/how-to/disk-full.md"

log = structlog.get_logger()


class Vitals:
    """What one shard's pulse was, and since when it has not been felt.

    Attributes:
        pulse: The newest answer; None before the first.
    """

    def __init__(self, shard: Shard, options: LaneOptions) -> None:
        self.pulse: Pulse | None = None
        self._shard = shard
        self._options = options
        self._asked_at: float | None = None
        self._slow_at = -math.inf
        self._said: dict[str, float] = {}

    async def run(self) -> None:
        """Ask once a second until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_silence())
            while True:
                await asyncio.sleep(PULSE_EVERY_S)
                await self._ask()

    @property
    def silent_s(self) -> float:
        """How long ago the oldest question without an answer was asked; 0 when there is none."""
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at

    @property
    def is_full(self) -> bool:
        """Whether the shard takes nothing new for want of room."""
        return self.pulse is not None and self.pulse.storage_full

    @property
    def slowest_sync_s(self) -> float:
        """The slowest commit of late; 0 where all were quick."""
        return 0.0 if self.pulse is None else self.pulse.slowest_sync_us / 1_000_000

    def slow_because(self) -> str:
        """Return why claims would wait too long here; empty when they would not."""
        limit_s = self._options.unready_sync_ms / 1_000
        number = self._shard.number
        if self.silent_s > limit_s:
            return f"shard {number} has not answered for {self.silent_s:.1f} s"
        if self.slowest_sync_s > limit_s:
            return f"the disk of shard {number} took {self.slowest_sync_s:.1f} s to sync"
        if time.monotonic() - self._slow_at < CALM_S:
            return f"shard {number} was slow a moment ago"
        return ""

    async def _ask(self) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        wait_s = self._options.silent_after_ms / 1_000
        answered = False
        with contextlib.suppress(ShardDown):  # the lane finds that out, and what to do
            self.pulse = decode_pulse(await ask_in_time(self._shard, wait_s, "pulse"))
            answered = True
        self._judge()
        if answered:
            self._asked_at = None

    async def _watch_silence(self) -> None:
        """Say it while a shard hangs, not only once it answers again."""
        while True:
            await asyncio.sleep(PULSE_EVERY_S)
            self._judge()

    def _judge(self) -> None:
        """Note slowness, and log what is wrong."""
        options = self._options
        if max(self.silent_s, self.slowest_sync_s) * 1_000 > options.unready_sync_ms:
            self._slow_at = time.monotonic()
        shard, slowest_ms = self._shard.number, round(self.slowest_sync_s * 1_000)
        if self.silent_s * 1_000 > options.unready_sync_ms and self._is_news("shard_silent"):
            log.warning("shard_silent", shard=shard, silent_s=round(self.silent_s, 1), do=LOOK)
        if slowest_ms > options.slow_sync_ms and self._is_news("disk_slow"):
            log.warning("disk_slow", shard=shard, slowest_sync_ms=slowest_ms, do=LOOK)
        if self.pulse is not None:
            self._judge_room(shard, self.pulse)

    def _judge_room(self, shard: int, pulse: Pulse) -> None:
        room = {"free_bytes": pulse.free_bytes, "limit_bytes": pulse.limit_bytes}
        if pulse.storage_full and self._is_news("disk_nearly_full"):
            log.warning("disk_nearly_full", shard=shard, **room, do=MAKE_ROOM)
        if not pulse.storage_full and self._said.pop("disk_nearly_full", None) is not None:
            log.info("disk_has_room", shard=shard, **room)

    def _is_news(self, event: str) -> bool:
        """Say whether a trouble should be logged: it is new, or has lasted a while."""
        now = time.monotonic()
        if now - self._said.get(event, -math.inf) < SAID_AGAIN_S:
            return False
        self._said[event] = now
        return True
