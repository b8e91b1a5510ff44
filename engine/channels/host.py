"""The process around a shard: opens its log, lets one step in at a time, ends when a step fails.

The constructor is recovery. The same class runs under Ray (one process a shard) and inline.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import structlog

from engine.channels.background.merge import MergeOptions, Merger
from engine.channels.background.packing import Packer
from engine.channels.journal import LogInUseError, LogOptions, ShardJournal
from engine.channels.machine import THIS_MACHINE, Machine
from engine.channels.messages import (
    Hello,
    Pulse,
    ShardStatistics,
    decode_commands,
    decode_ids,
    encode,
)
from engine.channels.options import ShardOptions
from engine.channels.recovery import Recovered, recover
from engine.channels.shard import Shard
from engine.channels.space import SpaceWatch
from engine.channels.told import tell_recovery
from engine.core.rejections import RejectCode, Rejected
from engine.monitor.logs import logs_to_stderr
from engine.validation.options import RiskOptions, ValidationOptions
from engine.validation.pipeline import Pipeline
from engine.validation.risk import RiskRule, RiskStage, shipped_rules
from engine.verify.batch import EVERY_VERDICTS

LOCK_WAIT_S: Final = 3.0
LOCK_PAUSE_S: Final = 0.05
EXIT_STEP_FAILED: Final = 70
"""Exit code of a process whose shard could not finish a step: recovery decides."""


class ShardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a shard needs to start, on whatever machine."""

    number: int
    datadir: str
    shard: ShardOptions
    validation: ValidationOptions
    risk: RiskOptions
    known_verdicts: bytes = EVERY_VERDICTS


def shard_directory(datadir: Path, number: int) -> Path:
    """Return where every file of a shard lies."""
    return datadir / f"shard-{number:04d}"


def end_process(error: BaseException) -> NoReturn:
    """Say why and end at once: nobody is answered, nothing is retried."""
    try:
        structlog.get_logger().error("shard_step_failed", error=repr(error), exit=EXIT_STEP_FAILED)
        sys.stderr.flush()
    finally:  # no memory left to say it with, or nobody to hear it, must not keep us alive
        os._exit(EXIT_STEP_FAILED)


class ShardHost:
    """A shard with its log, its clock and its turnstile; speaks bytes to the outside."""

    def __init__(
        self,
        settings: ShardSettings,
        rules: tuple[RiskRule, ...] = (),
        on_failure: Callable[[BaseException], NoReturn] = end_process,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        started = time.perf_counter()
        datadir = Path(settings.datadir)
        directory = shard_directory(datadir, settings.number)
        logs_to_stderr()
        self._settings = settings
        self._on_failure = on_failure
        self._journal = _open_journal(directory, settings, machine)
        tell_recovery(settings.number, self._journal.recovery)
        recovered = _recover(self._journal, settings)
        self._shard = Shard(
            self._journal,
            self._journal.epoch,
            machine.seal_key(datadir / "seal.key"),
            Pipeline(settings.validation, RiskStage(shipped_rules(settings.risk) + rules)),
            machine.clock,
            recovered,
        )
        self._shard.known_verdicts = settings.known_verdicts
        self._space = SpaceWatch(directory, settings.shard, machine.room, machine.monotonic)
        self._space.look()
        self._say_whether_there_is_room()
        self._merger = Merger(
            self._journal,
            directory,
            MergeOptions(
                increments_max=settings.shard.increments_max,
                cut=settings.shard.log_kept == "checkpointed",
            ),
            machine.files,
            in_background=machine.threads,
        )
        self._packer = Packer(self._journal, directory, settings.shard.pack_after_s, machine)
        self._recovered_events = recovered.events
        self._recovery_ms = int((time.perf_counter() - started) * 1_000)
        self._turn = threading.Lock()
        self._closed = False
        self._ticker = machine.ticker(self._tick, settings.shard.tick_ms / 1_000)

    def hello(self, gateway: str, turn: int) -> bytes:
        """Begin with a gateway; its next batch has number `turn`. Returns `Hello`."""
        with self._turn:
            self._shard.greet(gateway, turn)
            return encode(
                Hello(
                    self._settings.number,
                    self._shard.epoch,
                    os.getpid(),
                    self._shard.position,
                    self._shard.channels,
                    self._recovered_events,
                    self._recovery_ms,
                )
            )

    def commit(self, gateway: str, epoch: int, turn: int, blob: bytes, sealed: bytes) -> bytes:
        """Take a batch of claims (`Shard.commit`). Returns `Reply`."""
        return self._step(lambda: self._shard.commit(gateway, epoch, turn, blob, sealed))

    def collect(self, gateway: str) -> bytes:
        """Return decisions on earlier claims, a list of `Late`."""
        return self._step(lambda: self._shard.collect(gateway))

    def execute(self, commands: bytes) -> bytes:
        """Do a list of commands. Returns a list of `Outcome`."""
        decoded = decode_commands(commands)  # before the step: rubbish must not end the process
        return self._step(lambda: self._shard.execute(decoded))

    def read(self, channel_ids: bytes) -> bytes:
        """Return a list of `ChannelView` or None for a list of channel ids."""
        decoded = decode_ids(channel_ids)
        return self._step(lambda: self._shard.read(decoded))

    def page(self, after: bytes, limit: int, state: str) -> bytes:
        """Return a list of `ChannelView` above an id, in order."""
        return self._step(lambda: self._shard.page(after, limit, state))

    def pulse(self) -> bytes:
        """Return `Pulse`; how long that takes says whether the shard is free to answer."""
        return self._step(self._pulse)

    def statistics(self) -> bytes:
        """Return `ShardStatistics`."""
        return self._step(self._statistics)

    def close(self) -> bytes:
        """Checkpoint, seal the log and stop; every step after this one fails."""
        self._ticker.stop()
        return self._step(self._close)

    def _step(self, step: Callable[[], object]) -> bytes:
        with self._turn:
            try:
                return encode(step())
            except BaseException as error:  # whatever it was, memory may be ahead of the disk
                self._on_failure(error)

    def _tick(self) -> None:
        try:
            self._space.look()  # a disk that hangs keeps the ticker, and no step
            self._packer.look()
            with self._turn:
                if self._closed:
                    return
                self._say_whether_there_is_room()
                self._shard.tick()
                self._checkpoint_when_due()  # between steps, so that no answer waits for it
                self._merger.look()
                self._packer.adopt()
        except BaseException as error:  # as in a step; a shard must not go on without its ticker
            self._on_failure(error)

    def _checkpoint_when_due(self) -> None:
        shard, settings = self._shard, self._settings.shard
        if (
            shard.events_since_checkpoint >= settings.checkpoint_events
            or shard.changed_since_checkpoint >= settings.checkpoint_channels
        ):
            shard.checkpoint()

    def _say_whether_there_is_room(self) -> None:
        space = self._space
        self._shard.no_room = (
            Rejected(RejectCode.STORAGE_FULL, space.limit_bytes, space.free_bytes)
            if space.is_short
            else None
        )

    def _pulse(self) -> Pulse:
        space = self._space
        slowest_us = self._journal.times.slowest_us()
        return Pulse(space.free_bytes, space.limit_bytes, space.is_short, slowest_us)

    def _close(self) -> None:
        self._closed = True
        self._packer.close()
        self._merger.close()
        self._shard.close()

    def _statistics(self) -> ShardStatistics:
        shard, syncs = self._shard, self._journal.times
        return ShardStatistics(
            shard=self._settings.number,
            position=shard.position,
            channels=shard.channels,
            held=shard.held,
            commits=syncs.count,
            sync_us_sum=syncs.sum_us,
            sync_us=list(syncs.counts),
            log_bytes=self._journal.bytes_written,
            checkpoints=self._journal.checkpoints,
            spare_failures=self._journal.spare_failures,
            packed_segments=self._packer.packed,
            packed_saved_bytes=self._packer.bytes_saved,
            packing_failures=self._packer.failures,
            risk_refused=shard.risk_refused,
            verdicts_refused=shard.verdicts_refused,
            covered=shard.covering.covered,
            covered_checked=shard.covering.checked,
            rss_bytes=resident_bytes(),
            awake=shard.awake,
        )


def _recover(journal: ShardJournal, settings: ShardSettings) -> Recovered:
    """Recover without the cycle collector: all that is made stays, and none of it is in a cycle."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        awake_max = settings.shard.awake_channels_max
        return recover(journal, settings.validation.retries, awake_max=awake_max)
    finally:
        if collecting:
            gc.enable()
        gc.freeze()


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _open_journal(directory: Path, settings: ShardSettings, machine: Machine) -> ShardJournal:
    """Open the shard's log; a process that was just killed may take a moment to let go of it.

    Raises:
        LogInUseError: somebody holds it still.
    """
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return ShardJournal(directory, _log_options(settings, machine), machine.files)
        except LogInUseError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(LOCK_PAUSE_S)


def _log_options(settings: ShardSettings, machine: Machine) -> LogOptions:
    return LogOptions(
        shard_id=settings.number,
        segment_bytes=settings.shard.segment_bytes,
        segment_age_s=settings.shard.segment_age_s,
        spare_in_background=machine.threads,
    )
