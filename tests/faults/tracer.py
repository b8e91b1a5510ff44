"""Interfere with the system calls of a process from outside, by strace, and read what it did.

The process knows nothing of it: the same code, the same interpreter, a kernel that fails, stops or
kills at exactly the call that was asked for.
"""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.scorecard import CannotRun

ON_DISK: Final = (
    "openat", "pwrite64", "fdatasync", "fsync", "rename", "ftruncate", "fallocate", "unlink",
    "pread64", "mkdir", "flock", "getdents64", "link",
)  # fmt: skip
"""The calls that reach a file or a directory. Some machines have only the newer forms of a few."""

NEW_THREADS: Final = ("clone", "clone3", "vfork")
"""The calls that begin a thread or a process."""

NEWER: Final = {
    "rename": ("renameat", "renameat2"),
    "unlink": ("unlinkat",),
    "mkdir": ("mkdirat",),
    "link": ("linkat",),
}

OVER_MAX_S: Final = 60.0
ENDS: Final = (" +++\n", "= ?\n")
"""How a trace ends: the process is over, or a call that never came back."""

INSTALL: Final = "strace is missing; install it (Debian, Ubuntu: apt-get install strace)"

_CALL: Final = re.compile(r"^(\d+) +(\w+)\((.*?)(?:\) += (.*)| <unfinished \.\.\.>)$")
_PATH: Final = re.compile(r"<([^<>]*)>|\"([^\"]*)\"")
_HANDLE: Final = re.compile(r"^(\d+)<")


class Fault(NamedTuple):
    """What to do at which call: `what` is the end of an inject expression of strace.

    `nth` counts the calls of that name from the moment the deed begins, from 1.
    """

    call: str
    nth: int
    what: str


class Call(NamedTuple):
    """One system call: name, all paths in it, handle or -1, arguments and result as text."""

    name: str
    paths: tuple[str, ...]
    handle: int
    text: str
    result: str

    @property
    def injected(self) -> bool:
        """Whether the fault struck here."""
        return self.result.endswith("(INJECTED)")

    @property
    def was_killed(self) -> bool:
        """Whether the process did not live to see the result."""
        return self.result == "?"


def names_of(call: str) -> str:
    """Return the call and its newer forms as strace wants them, unknown ones allowed."""
    return ",".join(f"?{name}" for name in (call, *NEWER.get(call, ())))


def require_strace() -> None:
    """Make sure that strace is here.

    Raises:
        CannotRun: it is not.
    """
    if shutil.which("strace") is None:
        raise CannotRun(INSTALL)


@contextmanager
def slowed(pids: Iterable[int], delay_s: float) -> Iterator[None]:
    """Let every fdatasync of running processes take longer while the block runs.

    Raises:
        CannotRun: there is no strace, or it may not attach here.
    """
    require_strace()
    inject = f"inject=fdatasync:delay_enter={round(delay_s * 1_000_000)}"
    command = ["strace", "-f", "-e", "trace=fdatasync", "-e", inject, "-o", "/dev/null"]
    for pid in pids:
        command += ["-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        _wait_until_attached(strace)
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)  # lets all go on, a call that is delayed too


def _wait_until_attached(strace: "subprocess.Popen[str]") -> None:
    assert strace.stderr is not None
    said = strace.stderr.readline()
    if "attached" not in said:
        strace.kill()
        raise CannotRun(f"strace cannot attach to a process here: {said.strip()}")


class Tracer:
    """strace, on one process at a time; what it saw is in a file of ours."""

    def __init__(self, seen: Path) -> None:
        self._seen = seen

    @contextmanager
    def attached(self, pid: int, faults: Sequence[Fault]) -> Iterator[None]:
        """Trace process `pid` and all its threads until it has ended.

        Raises:
            CannotRun: there is no strace, or it may not attach here.
        """
        require_strace()
        command = [*self._command(faults), "-p", str(pid)]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with strace:
            _wait_until_attached(strace)
            yield

    def python(self, path: Path, faults: Sequence[Fault]) -> None:
        """Make `path` a Python that is traced the first time it is started, and then no more."""
        self._seen.unlink(missing_ok=True)
        # As a grandchild of the program, which so keeps its parent. Imports make thousands of calls
        # that are of no interest; where those are skipped no signal can be sent.
        skip = [] if any("signal=" in fault.what for fault in faults) else ["--seccomp-bpf"]
        traced = shlex.join([*self._command(faults), "-D", *skip, sys.executable])
        plain = shlex.join([sys.executable])
        path.write_text(
            f'#!/bin/sh\nmkdir "$0.used" 2>/dev/null && exec {traced} "$@"\nexec {plain} "$@"\n'
        )
        path.chmod(0o700)

    def wait_until_over(self) -> None:
        """Return once the process that was started by itself has ended and all of it is told.

        Raises:
            TimeoutError: that takes far too long.
        """
        give_up_at = time.monotonic() + OVER_MAX_S
        while not (self._seen.exists() and self._seen.read_text().endswith(ENDS)):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"strace has not told the end in {self._seen}")
            time.sleep(0.001)

    def _command(self, faults: Sequence[Fault]) -> list[str]:
        command = ["strace", "-f", "-y", "-s", "0", "-e", "signal=none", "-o", str(self._seen)]
        command += ["-e", "trace=" + ",".join(map(names_of, (*ON_DISK, *NEW_THREADS, "write")))]
        for fault in faults:
            command += ["-e", f"inject={names_of(fault.call)}:{fault.what}:when={fault.nth}"]
        return command

    def calls(self) -> list[Call]:
        """Return what the newest process did, in order."""
        return [call for line in self._seen.read_text().splitlines() if (call := parse(line))]


def parse(line: str) -> Call | None:
    """Return the call a line of strace tells of; None for lines about anything else."""
    found = _CALL.match(line)
    if found is None:
        return None
    name, text = found[2], found[3]
    for plain, newer in NEWER.items():
        if name in newer:
            name = plain
    handle = _HANDLE.match(text)
    paths = tuple(one or other for one, other in _PATH.findall(text) if one or other)
    return Call(name, paths, int(handle[1]) if handle else -1, text, found[4] or "")
