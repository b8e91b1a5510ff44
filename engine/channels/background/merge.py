"""Make bases of increments beside the work of a shard, in a process of low priority.

The process (`python -m engine.channels.background.merge PARENT DIRECTORY EPOCH`) reads files,
writes one and tells what it wrote. The one rule: it changes nothing the log relies on. A thread of
the shard reads back what was written, and the shard adopts it between two steps. A base is never
needed: what goes wrong with one is logged, and the increments do as before.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from engine.channels.background.process import Aside, begin, tell
from engine.channels.checkpoint import RecoveryBroken, UnorderedCheckpointError, merged
from engine.channels.journal import (
    OS_FILES,
    Base,
    CorruptLogError,
    Files,
    ShardJournal,
    accept_base,
    write_base,
)

LIGHT: Final = 16
"""Increments that are left alone, however much they weigh: a small base is quickly outweighed."""

log = structlog.get_logger()


class MergeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """When to merge: `increments_max` follow a base; whether the log may then be cut."""

    increments_max: int = 64
    cut: bool = False


class Merging(msgspec.Struct, frozen=True, kw_only=True):
    """How it went. `damaged`: what there was to merge is of no use."""

    base: Base | None = None
    older: Base | None = None
    error: str = ""
    damaged: bool = False


def merging_of(
    directory: Path,
    epoch: int,
    files: Files = OS_FILES,
    keep_going: Callable[[], None] = lambda: None,
) -> Merging:
    """Write a base under a temporary name; whatever goes wrong is told.

    Args:
        directory: The log.
        epoch: The incarnation of the shard this is for.
        files: The disk.
        keep_going: Called now and then; what it raises ends the work.
    """

    def chunks(line: list[tuple[int, Iterator[bytes]]]) -> Iterator[bytes]:
        for chunk in merged(line):
            keep_going()
            yield chunk

    try:
        return Merging(base=write_base(files, directory, epoch, chunks))
    except (CorruptLogError, RecoveryBroken, UnorderedCheckpointError) as error:
        return Merging(error=repr(error), damaged=True)
    except Exception as error:  # a base is never needed, so nothing may end with it
        return Merging(error=repr(error))


class Merger:
    """Sees to it that increments become bases. The shard's thread calls it, between steps.

    Attributes:
        bases: Bases adopted so far.
    """

    def __init__(
        self,
        journal: ShardJournal,
        directory: Path,
        options: MergeOptions,
        files: Files = OS_FILES,
        *,
        in_background: bool = True,
    ) -> None:
        self._journal = journal
        self._directory = directory
        self._options = options
        self._files = files
        self._in_background = in_background
        self._thread: threading.Thread | None = None
        self._process: Aside[Merging] | None = None
        self._stopped = threading.Event()
        self._made: Merging | None = None
        self._not_before = 0
        self.bases = 0

    def look(self) -> None:
        """Adopt the base that is ready, or begin with one when it is due.

        Raises:
            LogFailedError: the disk refused; the process must end.
        """
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
        if self._made is not None:
            self._settle(self._made)
        elif self._is_due():
            self._begin()

    def close(self) -> None:
        """End the work; what it has written is removed at the next start."""
        self._stopped.set()
        if self._process is not None:
            self._process.kill()
        if self._thread is not None:
            self._thread.join()

    def _is_due(self) -> bool:
        base_bytes, count, increment_bytes = self._journal.checkpoint_weight()
        if count < max(self._not_before, 1) or self._journal.whole_wanted:
            return False
        heavy = count >= LIGHT and increment_bytes * 2 >= base_bytes
        return heavy or count >= self._options.increments_max

    def _begin(self) -> None:
        if not self._in_background:
            made = merging_of(self._directory, self._journal.epoch, self._files)
            self._settle(self._accepted(made))
            return
        self._thread = threading.Thread(target=self._run, name="checkpoint-base", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._made = self._accepted(self._ask_process())
        except Exception as error:  # as in `merging_of`
            self._made = Merging(error=repr(error))

    def _ask_process(self) -> Merging:
        arguments = (str(self._directory), str(self._journal.epoch))
        self._process = Aside(__name__, *arguments, told=Merging)
        if self._stopped.is_set():
            self._process.kill()
        return self._process.result()

    def _accepted(self, made: Merging) -> Merging:
        if made.base is None or self._stopped.is_set():
            return made
        older = accept_base(self._files, self._directory, made.base)
        return msgspec.structs.replace(made, older=older)

    def _settle(self, made: Merging) -> None:
        self._made = None
        if made.base is None:
            _, count, _ = self._journal.checkpoint_weight()
            self._not_before = 0 if made.damaged else count + LIGHT
            self._journal.whole_wanted = made.damaged
            log.error("base_not_made", error=made.error, damaged=made.damaged)
            return
        self._not_before = 0
        cut = self._journal.adopt_base(made.base, made.older if self._options.cut else None)
        self.bases += 1
        log.info("base_adopted", position=made.base.position, bytes=made.base.size, cut=cut)


def main(parent: str, directory: str, epoch: str) -> None:
    """Make a base for the process `parent`, and tell it how that went."""
    keep_going = begin(int(parent))
    tell(merging_of(Path(directory), int(epoch), keep_going=keep_going))


if __name__ == "__main__":
    main(*sys.argv[1:])
