"""The worker under test where something runs out: memory, all of it or for one moment, or files.

The deeds run in processes of the nursery, like those of `worker`; what is there can be read by the
same judge.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.faults.nursery import Say
from tests.faults.worker import GATEWAY, check, do_steps, open_host, prepare, work, work_threaded

FIRST_BATCH: Final = 2
"""The first step that is a batch of claims."""

HUNG_AFTER_S: Final = 20
SLACK_BYTES: Final = 1 << 20
PIECE_MAX: Final = 1 << 20
PIECE_MIN: Final = 64


class FailingAllocations:
    """Lets the interpreter get no memory from the allocation numbered `start` to before `stop`.

    Begins and ends with nothing but a call each, for anything else may need memory.
    """

    def __init__(self, start: int, stop: int) -> None:
        import _testcapi  # not every Python has it

        self._begin = partial(_testcapi.set_nomemory, start, stop)
        self._end = _testcapi.remove_mem_hooks

    def __enter__(self) -> None:
        self._begin()

    def __exit__(self, *raised: object) -> None:
        self._end()


def one_allocation_fails(left: int) -> FailingAllocations:
    """Let the interpreter get no memory once, after so many times that it did."""
    return FailingAllocations(left, left + 1)


def many_allocations_fail(left: int) -> FailingAllocations:
    """Let the interpreter get no memory a thousand times, after so many times that it did.

    Not for ever: CPython needs an integer to enter a `finally`, and without one tries on and on.
    """
    return FailingAllocations(left, left + 1_000)


@contextlib.contextmanager
def memory_is_full(left: int) -> Iterator[None]:
    """Let the kernel give this process no more memory, and all but a few small pieces be taken."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, before[1]))
    taken = []
    piece = PIECE_MAX
    while piece >= PIECE_MIN:
        try:
            taken.append(bytearray(piece))
        except MemoryError:
            piece //= 2
    del taken[len(taken) - left :]
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        taken.clear()


@contextlib.contextmanager
def files_are_used_up(left: int) -> Iterator[None]:
    """Let this process open so many files more, and no further one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0) for _ in range(left)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), before[1]))
    for handle in taken:
        os.close(handle)
    yield  # and it stays so


SHORTAGES: Final = {
    "one allocation": one_allocation_fails,
    "a thousand allocations": many_allocations_fail,
    "memory": memory_is_full,
    "files": files_are_used_up,
}


def work_short(datadir: Path, say: Say, of: str, at: int, left: int) -> None:
    """Do all the work, with little left of something at step `at`.

    A call that raises is made again when there is enough, as a lane does. A process that hangs is
    ended, which is as wrong as a false answer.
    """
    signal.alarm(HUNG_AFTER_S)
    host = open_host(datadir)

    def call(number: int, ask: Callable[[], bytes]) -> bytes:
        if number != at:
            return ask()
        try:
            with SHORTAGES[of](left):
                return ask()
        except MemoryError:
            say({"again": number})
        host.hello(GATEWAY, number - FIRST_BATCH)
        return ask()

    say("ready")
    do_steps(host, datadir, say, call)
    host.close()
    say("closed")


__all__ = ["check", "prepare", "work", "work_short", "work_threaded"]
