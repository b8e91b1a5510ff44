"""Pack the sealed segments of a shard beside its work, one at a time, in a process of low priority.

The process (`python -m engine.channels.background.packing PARENT DIRECTORY SEGMENT`) reads the
segment, writes the packed form, reads that back and compares every event. The one rule: it changes
nothing that the log relies on; only the shard adopts what it made, between two steps.
"""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import structlog

from engine.channels.background.process import Aside, NothingToldError, begin, tell
from engine.channels.journal import (
    OS_FILES,
    Files,
    LogOptions,
    Packed,
    ShardJournal,
    pack_segment,
)
from engine.channels.machine import Machine
from engine.core.types import NS_PER_S

LOOK_EVERY_S: Final = 1.0
AGAIN_AFTER_S: Final = 600.0
SMALL_BYTES: Final = 65_536

log = structlog.get_logger()


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: `packed` waits to be adopted; neither it nor `error`: nothing is to be won.

    `again`: what went wrong may go away by itself.
    """

    packed: Packed | None = None
    error: str = ""
    again: bool = False


def packing_of(
    directory: Path,
    name: str,
    files: Files = OS_FILES,
    keep_going: Callable[[], None] = lambda: None,
) -> Packing:
    """Pack a sealed segment; whatever goes wrong is told and leaves it as it is."""
    try:
        return Packing(packed=pack_segment(directory, name, files, keep_going))
    except OSError as error:
        return Packing(error=repr(error), again=True)
    except Exception as error:  # packing is never needed, so nothing may end with it
        return Packing(error=repr(error))


class Packer:
    """Sees to it that segments of a certain age are packed. Not thread-safe but for `look`.

    Attributes:
        packed: Segments adopted so far.
        bytes_saved: How much shorter they are.
        failures: Times a segment could not be packed.
    """

    def __init__(
        self, journal: ShardJournal, directory: Path, after_s: int, machine: Machine
    ) -> None:
        """Pack what was sealed `after_s` seconds ago; 0 packs nothing."""
        self._journal = journal
        self._directory = directory
        self._after_ns = after_s * NS_PER_S
        self._machine = machine
        self._leave: set[str] = set()
        self._look_at = 0.0
        self._name = ""
        self._process: Aside[Packing] | None = None
        self._made: Packing | None = None
        self.packed = self.bytes_saved = self.failures = 0

    def look(self) -> None:
        """Begin with the next segment when one is old enough, or see how the work goes.

        Takes no part in a step, so it may run while the shard is at one.
        """
        if self._process is not None and self._process.code is not None:
            self._made = _result_of(self._process)
            self._process = None
        now = self._machine.monotonic()
        if self._name or not self._after_ns or now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        before_ns = self._machine.clock.now_ns() - self._after_ns
        name = self._journal.oldest_unpacked(before_ns, self._leave)
        if name is not None:
            self._begin(name)

    def adopt(self) -> None:
        """Take what is ready into the log, between two steps.

        Raises:
            LogFailedError: the disk refused; the process must end.
        """
        if self._made is None:
            return
        name, made = self._name, self._made
        self._name, self._made = "", None
        if made.packed is not None and self._journal.adopt(made.packed):
            entry = made.packed.entry
            self.packed += 1
            self.bytes_saved += entry.plain_bytes - entry.size
            log.info("segment_packed", segment=name, bytes=entry.size, before=entry.plain_bytes)
            return
        if made.again:
            self._look_at = self._machine.monotonic() + AGAIN_AFTER_S
        else:
            self._leave.add(name)
        if made.error:
            self.failures += 1
            log.error("segment_not_packed", segment=name, error=made.error)

    def close(self) -> None:
        """End the work; what it has written is removed at the next start."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _begin(self, name: str) -> None:
        self._name = name
        if not self._machine.threads:
            self._made = packing_of(self._directory, name, self._machine.files)
            return
        try:
            self._process = Aside(__name__, str(self._directory), name, told=Packing)
        except NothingToldError as error:
            self._made = Packing(error=str(error), again=True)


class PackReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the sealed segments of a log; bytes are of all of them."""

    packed: int
    bytes_before: int
    bytes_after: int
    errors: tuple[str, ...]


def pack_directory(
    directory: Path, number: int, progress: Callable[[int, int], None]
) -> PackReport:
    """Pack every sealed segment of shard `number`, whose engine does not run.

    `progress` is told the bytes gone through and those in all.

    Raises:
        LogInUseError: it does run.
        CorruptLogError: the log cannot be opened.
        LogFailedError: the disk refused.
    """
    options = LogOptions(shard_id=number, segment_bytes=SMALL_BYTES, spare_in_background=False)
    with closing(ShardJournal(directory, options)) as journal:
        before = journal.sealed
        errors = []
        done, total = 0, sum(entry.size for entry in before)
        for entry in before:
            if not entry.packed:
                made = packing_of(directory, entry.name)
                if made.packed is not None:
                    journal.adopt(made.packed)
                elif made.error:
                    errors.append(f"{entry.name}: {made.error}")
            done += entry.size
            progress(done, total)
        after = journal.sealed
    return PackReport(
        packed=sum(entry.packed for entry in after) - sum(entry.packed for entry in before),
        bytes_before=total,
        bytes_after=sum(entry.size for entry in after),
        errors=tuple(errors),
    )


def _result_of(process: Aside[Packing]) -> Packing:
    try:
        return process.result()
    except NothingToldError as error:
        return Packing(error=str(error), again=True)


def main(parent: str, directory: str, name: str) -> None:
    """Pack one segment for the process `parent`, and tell it how that went."""
    keep_going = begin(int(parent))
    tell(packing_of(Path(directory), name, keep_going=keep_going))


if __name__ == "__main__":
    main(*sys.argv[1:])
