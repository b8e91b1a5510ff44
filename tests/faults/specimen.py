"""A small log with everything in it that a log can have, written by the engine itself, in memory.

Three incarnations of one shard with truly signed claims: segments sealed by rotation, by a close
and by a recovery, one of them packed, checkpoints of both kinds, and a live segment whose newest
events a watermark proves durable.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from engine.channels.background.merge import merging_of
from engine.channels.journal import (
    EventCodec,
    LogOptions,
    ShardJournal,
    accept_base,
    pack_segment,
)
from engine.channels.recovery import Recovered, recover, state_hash
from engine.channels.shard import Shard
from engine.core import commands
from engine.core.types import Sequencing
from engine.validation.options import ValidationOptions
from engine.validation.pipeline import Pipeline
from engine.validation.risk import RiskStage
from tests.channels.world import SEAL_KEY, Desk, item, spoiled
from tests.faults.memory import MemoryFiles
from wal import VerifyReport, verify
from wal.format import CHAIN_BYTES, MANIFEST_NAME, SEGMENT_HEADER_BYTES, SnapshotKind
from wal.manifest import Manifest, decode_manifest

ROOT = Path("/log")
SHARD = 3
OPTIONS = LogOptions(shard_id=SHARD, segment_bytes=8192, spare_in_background=False)
LIMITS = ValidationOptions().retries


class MemoryDesk(Desk):
    """A desk whose shard writes to a disk in memory."""

    def __init__(self, files: MemoryFiles, options: LogOptions = OPTIONS) -> None:
        self.files = files
        self.options = options
        super().__init__(ROOT)

    def start(self) -> None:
        self.log = ShardJournal(self.directory, self.options, self.files)
        self.recovered = recover(self.log, self.validation.retries)
        self.pipeline = Pipeline(self.validation, RiskStage(()))
        self.shard = Shard(
            self.log, self.log.epoch, SEAL_KEY, self.pipeline, self.clock, self.recovered
        )
        self.turns = Counter()


class Frame(NamedTuple):
    """Where a frame lies in its file, and where its parts end."""

    start: int
    payload: int
    chain: int
    padding: int
    end: int


class Specimen(NamedTuple):
    """A log as it lies on disk.

    Attributes:
        image: every file by its path.
        manifest: what the MANIFEST says.
        frames: of every segment, by path; of the live one up to the last.
        state: hash of all channels, from the first event on.
        events: how many there are.
    """

    image: dict[str, bytes]
    manifest: Manifest
    frames: dict[str, list[Frame]]
    state: str
    events: int

    @property
    def segments(self) -> list[str]:
        """Paths of the segments, oldest first."""
        live = () if self.manifest.live is None else (self.manifest.live,)
        return [f"{ROOT}/{entry.path}" for entry in (*self.manifest.sealed, *live)]

    @property
    def snapshots(self) -> list[str]:
        """Paths of the checkpoints, oldest first."""
        return [f"{ROOT}/{entry.path}" for entry in self.manifest.snapshots]

    @property
    def newest_line(self) -> list[str]:
        """Paths of the newest base and the increments upon it: what a start reads."""
        bases = [entry.kind == SnapshotKind.BASE for entry in self.manifest.snapshots]
        return self.snapshots[len(bases) - 1 - bases[::-1].index(True) :]

    @property
    def acknowledged(self) -> dict[str, int]:
        """How many bytes of each file hold what was acknowledged or what vouches for it.

        Of the live segment all but the watermark at its end, which nothing vouches for.
        """
        sizes = {path: len(self.image[path]) for path in (*self.segments, *self.snapshots)}
        if self.manifest.live is not None:
            live = self.segments[-1]
            sizes[live] = self.frames[live][-1].start
        manifest = f"{ROOT}/{MANIFEST_NAME}"
        return sizes | {manifest: len(self.image[manifest])}

    def disk(self, **changes: bytes | None) -> MemoryFiles:
        """Return a disk that holds the log, with some files changed or gone."""
        return disk_of(self.image | changes)


def disk_of(image: dict[str, bytes | None]) -> MemoryFiles:
    """Return a disk that holds `image`; a file without bytes is not there."""
    files = MemoryFiles({path: data for path, data in image.items() if data is not None})
    files.make_folders(f"{ROOT}/{part}" for part in ("wal", "snap", "quarantine", "archive"))
    return files


def read_specimen(files: MemoryFiles, options: LogOptions = OPTIONS) -> Specimen:
    """Return what lies on `files`, which no log has open."""
    image = files.image()
    manifest = decode_manifest(image[f"{ROOT}/{MANIFEST_NAME}"])
    paths = [f"{ROOT}/{entry.path}" for entry in manifest.sealed]
    if manifest.live is not None:
        paths.append(f"{ROOT}/{manifest.live.path}")
    found = started(disk_of(dict(image)), options, from_genesis=True)
    return Specimen(
        image=image,
        manifest=manifest,
        frames={path: list(frames_in(image[path])) for path in paths},
        state=state_hash(found.actors),
        events=found.position,
    )


def frames_in(data: bytes) -> Iterator[Frame]:
    """Yield where the frames of a segment lie, by their lengths alone."""
    at = SEGMENT_HEADER_BYTES
    while data[at : at + 4].strip(b"\0"):
        payload = at + 64
        chain = payload + int.from_bytes(data[at + 36 : at + 40], "little")
        padding = chain + CHAIN_BYTES
        end = padding + -padding % 8
        yield Frame(at, payload, chain, padding, end)
        at = end


def started(
    files: MemoryFiles, options: LogOptions = OPTIONS, *, from_genesis: bool = False
) -> Recovered:
    """Open the log as a shard does, rebuild its state, and leave it as a crash would.

    Raises:
        CorruptLogError: the log does not open, or does not replay.
    """
    journal = ShardJournal(ROOT, options, files)
    try:
        return recover(journal, LIMITS, from_genesis=from_genesis)
    finally:
        journal._log.abandon()


def judged(files: MemoryFiles) -> VerifyReport:
    """Return what the verifier says of every byte."""
    return verify(ROOT, EventCodec, files=files)


@cache
def specimen() -> Specimen:
    """Return the log; it is made once a process."""
    files = MemoryFiles()
    desk = MemoryDesk(files)
    desk.open("a", "b", capacity=100_000)
    desk.open("c", sequencing=Sequencing.AMOUNT, capacity=100_000)
    _claims(desk, range(1, 13))
    desk.shard.checkpoint()
    _claims(desk, range(13, 19))
    desk.restart(clean=True)
    _claims(desk, range(19, 23))
    desk.do(commands.RequestClose, "b")
    desk.restart()
    _claims(desk, range(23, 25))
    desk.shard.checkpoint()
    pack_oldest(desk)
    merge(desk)
    _claims(desk, range(25, 27))
    desk.shard.checkpoint()
    _claims(desk, range(27, 29))
    desk.rest()
    desk.crash()
    return read_specimen(files)


def _claims(desk: MemoryDesk, steps: range) -> None:
    """Submit a batch a step: claims in sequence, some by amount alone, a badly signed one."""
    for step in steps:
        by_amount = [item("c", 10 * step + more) for more in range(1 + step % 4)]
        desk.submit(item("a", step, step), *by_amount, spoiled(item("c", step)), item("a", 1, 1))
        desk.clock.forward(7)


def pack_oldest(desk: MemoryDesk) -> None:
    """Pack the oldest segment, as a process of its own would."""
    packed = pack_segment(desk.directory, desk.log.sealed[0].name, desk.files)
    assert packed is not None
    assert desk.log.adopt(packed)


def merge(desk: MemoryDesk) -> None:
    """Make a base of the newest base and its increments, as a process of its own would."""
    made = merging_of(desk.directory, desk.log.epoch, desk.files)
    assert made.base is not None, made.error
    accept_base(desk.files, desk.directory, made.base)
    desk.log.adopt_base(made.base, None)
