"""Every write of a log's life, with the disk as it was before it: what a power cut may leave of it.

While a write is not synced its sectors may be old, new, zero or garbage, in any mixture. All before
it was synced, and bytes outside it are not harmed: that much is assumed of the disk.
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import msgspec

from engine.channels.recovery import state_hash
from engine.core import commands
from engine.core.types import Sequencing
from tests.channels.world import item
from tests.faults.memory import MemoryFiles
from tests.faults.specimen import OPTIONS, ROOT, MemoryDesk, disk_of, merge, pack_oldest, started
from wal.files import How
from wal.format import MANIFEST_NAME

SECTORS = (512, 4096)
OPTIONS_LARGE = msgspec.structs.replace(OPTIONS, segment_bytes=20_480)


class Moment(NamedTuple):
    """A write under way.

    Attributes:
        image: the disk before it.
        path: the file it goes to.
        offset: where in it.
        data: what is written.
        acknowledged: events that were answered before.
        next_acknowledged: events that will have been answered after the commit under way.
    """

    image: dict[str, bytes]
    path: str
    offset: int
    data: bytes
    acknowledged: int
    next_acknowledged: int

    def disk(self, written: bytes, size: int | None = None) -> MemoryFiles:
        """Return the disk with `written` in place of the data, and the file `size` long."""
        old = self.image.get(self.path, b"")
        new = bytearray(old.ljust(self.offset + len(written), b"\0"))
        new[self.offset : self.offset + len(written)] = written
        return disk_of({**self.image, self.path: bytes(new[:size])})

    @property
    def has_log(self) -> bool:
        """Whether a MANIFEST lies there, so that there is a log to be judged."""
        return f"{ROOT}/{MANIFEST_NAME}" in self.image

    def old(self) -> bytes:
        """Return what lay there before the write; beyond the end of the file it is zeros."""
        before = self.image.get(self.path, b"")[self.offset : self.offset + len(self.data)]
        return before.ljust(len(self.data), b"\0")


class _Recording(MemoryFiles):
    """A disk that keeps the moment of each write."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []
        self.acknowledged = 0
        self._paths: dict[int, str] = {}

    def open(self, path, how: How) -> int:
        handle = super().open(path, how)
        self._paths[handle] = str(path)
        return handle

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        path = self._paths[handle]
        if not path.endswith(("next.pre", "LOCK")):  # they hold nothing, whatever they hold
            self.moments.append(
                Moment(self.image(), path, offset, bytes(data), self.acknowledged, 0)
            )
        return super().write(handle, data, offset)


class Story(NamedTuple):
    """A life of a log, write by write, and the hash of its state at every position answered."""

    moments: list[Moment]
    states: dict[int, str]


@cache
def story() -> Story:
    """Live a life of two incarnations: frames of all sizes, rotations, checkpoints of both kinds, a
    segment packed, a close."""
    files = _Recording()
    desk = MemoryDesk(files, OPTIONS_LARGE)
    for life in range(2):
        if life == 0:
            desk.open("a", capacity=100_000)
            files.acknowledged = desk.shard.position
            desk.open("c", sequencing=Sequencing.AMOUNT, capacity=100_000)
            files.acknowledged = desk.shard.position
        for step in range(1, 7):
            count = 1 + 30 * (step % 4)
            first = 1_000 * (6 * life + step)
            desk.submit(*(item("c", first + more) for more in range(count)))
            files.acknowledged = desk.shard.position
            if step % 2:
                desk.rest()
        desk.shard.checkpoint()
        desk.submit(item("c", 7_000 * (life + 1)))
        files.acknowledged = desk.shard.position
        if life == 0:
            desk.shard.checkpoint()
            pack_oldest(desk)
            merge(desk)
            desk.restart()
    desk.do(commands.RequestClose, "a")
    files.acknowledged = desk.shard.position
    last = desk.shard.position
    desk.shard.close()
    moments = list(_with_next(files.moments, last))
    whole = [started(moment.disk(moment.data), from_genesis=True) for moment in moments]
    return Story(moments, {found.position: state_hash(found.actors) for found in whole})


def _with_next(moments: list[Moment], last: int) -> Iterator[Moment]:
    following = last
    done: list[Moment] = []
    for moment in reversed(moments):
        if done and done[-1].acknowledged != moment.acknowledged:
            following = done[-1].acknowledged
        done.append(moment._replace(next_acknowledged=following))
    yield from reversed(done)


def torn(chance: random.Random, moment: Moment) -> bytes:
    """Return what a power cut may leave of a write: each sector new, old, zero or garbage."""
    sector = chance.choice(SECTORS)
    written = bytearray(moment.data)
    old = moment.old()
    first = -(moment.offset % sector)
    for at in range(first, len(written), sector):
        part = slice(max(at, 0), min(at + sector, len(written)))
        kind = chance.randrange(4)
        if kind == 1:
            written[part] = old[part]
        elif kind == 2:
            written[part] = bytes(part.stop - part.start)
        elif kind == 3:
            written[part] = chance.randbytes(part.stop - part.start)
    return bytes(written)
