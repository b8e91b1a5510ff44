"""Write the log of a shard with a long past, fast, by a process that then ends as if killed.

The shard is the real one, with its own checkpoints and bases; only what comes before it is left
out: nobody signs, nobody checks. Claims come at 10,000 a second of the history's own clock, so that
windows of answers are as long as they would be. Keys and signatures are made up, but for the first
channel of each shard, whose payer can go on.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

import msgspec
import structlog

from bench.signing import (
    STEP_DROPS,
    Curve,
    Payer,
    channel_id_of,
    make_payer,
    opening_command,
)
from engine.channels.background.merge import MergeOptions, Merger
from engine.channels.host import shard_directory
from engine.channels.journal import LogOptions, ShardJournal
from engine.channels.options import PlacementOptions
from engine.channels.placement import load_or_create_placement, slot_of
from engine.channels.recovery import begun
from engine.channels.shard import Shard
from engine.core.commands import AnyCommand
from engine.core.events import ClaimReceived
from engine.core.types import ChannelId, Drops, TimeNs
from engine.core.types import Sequence as ClaimSequence
from engine.validation.options import ValidationOptions
from engine.validation.pipeline import Pipeline
from engine.validation.risk import RiskStage

EVENT_NS: Final = 100_000
STARTS_AT: Final = 1_700_000_000_000_000_000
OPENING_EVENTS: Final = 2
SIGNATURES: Final = 8_192
"""More than a frame holds, or it would be compressed as no frame of true signatures is."""
REPORT_EVENTS: Final = 50_000
CHECKPOINT_PAUSE_S: Final = 0.001


class HistoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one shard is to have behind it.

    Attributes:
        datadir: Where all shards lie.
        shard: Which of them this is.
        shards: How many there are.
        channels: Of this shard.
        events: Of this shard, two for each opening among them.
        batch: Events committed at once, at most.
        tail: Events after the newest checkpoint; None for no checkpoint at all.
        every: Events between two checkpoints before that; 0 for one only.
        real: Channels with a number below this have the key that signs for them on `curve`.
    """

    datadir: str
    shard: int = 0
    shards: int = 1
    channels: int
    events: int
    batch: int = 4_096
    tail: int | None = None
    every: int = 0
    real: int = 0
    curve: Curve = "secp256k1"


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: bytes of frames and of checkpoints, and the number of the real payer.

    `checkpoint_s` are the seconds a checkpoint and its base took, out of `seconds`.
    """

    payer: int
    claims: int
    log_bytes: int
    checkpoint_bytes: int
    checkpoints: int
    bases: int
    checkpoint_s: float
    seconds: float


def write_histories(
    plans: Sequence[HistoryPlan], told: Callable[[int, int], None]
) -> list[Written]:
    """Write every plan in a process of its own; `told` hears of events written and in all.

    Raises:
        RuntimeError: one of the processes ended before it was done.
    """
    for plan in plans:  # before there are processes that would do it at the same time
        _layout(plan)
    context = get_context("spawn")
    ends: dict[Connection, int] = {}
    for index, plan in enumerate(plans):
        ours, theirs = context.Pipe(duplex=False)
        context.Process(target=_child, args=(plan, theirs), daemon=True).start()
        theirs.close()
        ends[ours] = index
    done, total = [0] * len(plans), sum(plan.events for plan in plans)
    written: dict[int, Written] = {}
    while ends:
        for end in wait(list(ends)):
            assert isinstance(end, Connection)
            try:
                news = end.recv()
            except EOFError as error:
                raise RuntimeError("a process that wrote history ended too early") from error
            if isinstance(news, int):
                done[ends[end]] = news
                told(sum(done), total)
            else:
                written[ends.pop(end)] = news
    return [written[index] for index in range(len(plans))]


def _child(plan: HistoryPlan, end: Connection) -> None:
    """Write, tell, and be gone: nothing is closed, nothing is sealed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    end.send(write_history(plan, end.send))
    os._exit(0)


def write_history(plan: HistoryPlan, told: Callable[[int], None]) -> Written:
    """Write one shard's past in this process; the log stays open, as a crash would leave it."""
    started = time.perf_counter()
    writer = _Writer(plan)
    reported = 0
    for stop in _stops(plan):
        while writer.position < stop:
            writer.write(min(plan.batch, stop - writer.position))
            if writer.position - reported >= REPORT_EVENTS:
                reported = writer.position
                told(reported)
        if stop < plan.events or plan.tail == 0:
            writer.checkpoint()
    return writer.written(time.perf_counter() - started)


def _stops(plan: HistoryPlan) -> list[int]:
    """Return the positions of the checkpoints, and of the end; none lies among the openings."""
    if plan.tail is None:
        return [plan.events]
    newest = plan.events - plan.tail
    opened = plan.channels * OPENING_EVENTS
    kept = range(newest, opened - 1, -plan.every) if plan.every else [newest]
    return sorted({*kept, plan.events})


class _Clock:
    """The history's own time."""

    def __init__(self) -> None:
        self.now = TimeNs(STARTS_AT)

    def now_ns(self) -> TimeNs:
        """See `ports.Clock`."""
        return self.now


class _Shard(Shard):
    """A shard that takes claims as events, where nobody is there to ask."""

    def take(self, claims: Sequence[ClaimReceived]) -> None:
        """Commit claims as one batch."""
        for claim in claims:
            self._take(self._actors[claim.channel_id], claim)
        self._commit_staged()


class _Writer:
    """A shard, and what its channels say next: all are opened, then they claim by turns."""

    def __init__(self, plan: HistoryPlan) -> None:
        directory = shard_directory(Path(plan.datadir), plan.shard)
        directory.mkdir(parents=True, exist_ok=True)
        self._journal = ShardJournal(directory, LogOptions(shard_id=plan.shard))
        self._merger = Merger(self._journal, directory, MergeOptions(), in_background=False)
        self._clock = _Clock()
        self._shard = _Shard(
            self._journal,
            self._journal.epoch,
            bytes(32),
            Pipeline(ValidationOptions(), RiskStage(())),
            self._clock,
            begun(),
        )
        self._payer, payers = _payers(plan)
        self._ids = [ChannelId(payer.channel_id) for payer in payers]
        self._openings: Iterator[AnyCommand] = map(opening_command, payers)
        self._opened = self._claims = 0
        self._signatures = [
            hashlib.shake_128(number.to_bytes(2, "big")).digest(64) for number in range(SIGNATURES)
        ]
        self._checkpoint_s = 0.0

    @property
    def position(self) -> int:
        """Position of the newest event."""
        return self._shard.position

    def write(self, events: int) -> None:
        """Commit so many events more; one more than asked where an opening needs two."""
        self._clock.now = TimeNs(self._clock.now + events * EVENT_NS)
        openings = list(islice(self._openings, -(-events // OPENING_EVENTS)))
        if openings:
            self._shard.execute(openings)
        else:
            self._shard.take([self._claim() for _ in range(events)])

    def checkpoint(self) -> None:
        """Have a checkpoint, and a base where one is due, before anything else is written."""
        started = time.perf_counter()
        count = self._journal.checkpoints + 1
        begun = self._shard.checkpoint(wait=True)
        while begun and self._journal.checkpoints < count:
            self._shard.tick()
            time.sleep(CHECKPOINT_PAUSE_S)
        self._merger.look()
        self._checkpoint_s += time.perf_counter() - started

    def written(self, seconds: float) -> Written:
        """Return what was done in all."""
        return Written(
            payer=self._payer,
            claims=-(-self._claims // len(self._ids)),
            log_bytes=self._journal.bytes_written,
            checkpoint_bytes=self._journal.checkpoint_bytes,
            checkpoints=self._journal.checkpoints - self._merger.bases,
            bases=self._merger.bases,
            checkpoint_s=self._checkpoint_s,
            seconds=seconds,
        )

    def _claim(self) -> ClaimReceived:
        turn, index = divmod(self._claims, len(self._ids))
        self._claims += 1
        return ClaimReceived(
            channel_id=self._ids[index],
            version=turn + 1 + OPENING_EVENTS,
            at=self._clock.now,
            sequence=ClaimSequence(turn + 1),
            amount=Drops((turn + 1) * STEP_DROPS),
            signature=self._signatures[self._claims % SIGNATURES],
        )


def _payers(plan: HistoryPlan) -> tuple[int, list[Payer]]:
    """Return the number of the first payer of a shard, who is real, and all its payers."""
    slots = _layout(plan)
    numbers = (number for number in count() if slots[slot_of(channel_id_of(number))] == plan.shard)
    first = next(numbers)
    real = max(plan.real, first + 1)
    everyone = islice(chain((first,), numbers), plan.channels)
    return first, [
        make_payer(number, plan.curve) if number < real else _made_up(number) for number in everyone
    ]


def _made_up(number: int) -> Payer:
    """Return a payer whose key nobody has."""
    return Payer(channel_id_of(number), b"\xed" + hashlib.sha256(b"%d" % number).digest(), b"")


def _layout(plan: HistoryPlan) -> list[int]:
    """Return the shard of each slot, written down for the engine that comes after."""
    Path(plan.datadir).mkdir(parents=True, exist_ok=True)
    return load_or_create_placement(Path(plan.datadir), PlacementOptions(shards=plan.shards)).slots
