"""Fork processes that wait to be traced: everything is imported once, a case costs milliseconds.

A deed is a function `deed(directory, say, **arguments)`. It runs in a process of its own; each
`say(value)` puts one line of JSON into the case's own file before it returns, so what was said is
known whatever becomes of the process. The file is in memory and outlives a SIGKILL.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.faults.tracer import Call, Fault, Tracer

ROOT = Path(__file__).parents[2]
EXIT_REFUSED = 71
"""Exit code of a deed that ended with an exception; the last thing said is which."""
STOPPED = "stopped\n"

_PR_SET_PTRACER = 0x59616D61
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)

Say = Callable[[Any], None]
Deed = Callable[..., None]


class Case(NamedTuple):
    """A process that has ended.

    `code` is its exit code, or minus the signal that ended it; `said` all it said, `error` the
    exception it ended with, `calls` what it asked of the kernel if it was traced.
    """

    code: int
    said: list[Any]
    error: str
    calls: list[Call]


class Nursery:
    """A process that forks on demand; use it as a context, from one thread."""

    def __init__(self, module: str, scratch: Path) -> None:
        """Import `module`, call its `prepare(scratch)`, and wait for deeds of that module."""
        self.heard = scratch / "heard"
        self._errors = scratch / "stderr"
        self._tracer = Tracer(scratch / "trace")
        with self._errors.open("w") as errors:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery", module, str(scratch)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._pid = 0

    def __enter__(self) -> Self:
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        with ExitStack() as closing:
            closing.callback(self._server.wait)
            closing.enter_context(self._server.stdout)  # type: ignore[arg-type]
            closing.enter_context(self._server.stdin)  # type: ignore[arg-type]

    def run(
        self, deed: str, directory: Path, faults: tuple[Fault, ...] | None = None, **arguments: Any
    ) -> Case:
        """Do a deed in a new process until it ends; traced, unless `faults` is None."""
        pid = self.begin(deed, directory, **arguments)
        if faults is None:
            self.start()
            return self.ended()
        with self._tracer.attached(pid, faults):
            self.start()
            code = self.wait()
        return self._case(code, self._tracer.calls())

    def begin(self, deed: str, directory: Path, **arguments: Any) -> int:
        """Fork a process that waits before its deed; return its process id."""
        self._ask({"deed": deed, "directory": str(directory), "arguments": arguments})
        self._pid = int(self._answer())
        return self._pid

    def start(self) -> None:
        """Let the waiting process do its deed."""
        self._ask({})

    def wait_until_stopped(self) -> None:
        """Return once the process that runs has stopped itself."""
        answer = self._answer()
        if answer != STOPPED:
            raise RuntimeError(f"the process did not stop but ended {answer}")

    def wait(self) -> int:
        """Return the exit code of the process that runs, once it has ended."""
        code = int(self._answer())
        self._pid = 0
        return code

    def ended(self) -> Case:
        """Wait for the process that runs and return what became of it."""
        return self._case(self.wait(), [])

    def said(self) -> list[Any]:
        """Return what the newest process has said by now."""
        lines = self.heard.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _case(self, code: int, calls: list[Call]) -> Case:
        said = self.said()
        failed = code == EXIT_REFUSED and said and isinstance(said[-1], dict)
        error = said.pop()["refused"] if failed and "refused" in said[-1] else ""
        return Case(code, said, error, calls)

    def _ask(self, question: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            code = self._server.wait()
            raise RuntimeError(f"the nursery ended with {code}:\n{self._errors.read_text()}")
        return line


def serve(module_name: str, scratch: Path) -> None:
    """Fork a child for each line of standard input that names a deed."""
    module = import_module(module_name)
    module.prepare(scratch)
    tell("ready\n")
    for line in sys.stdin:
        wanted = json.loads(line)
        reading, writing = os.pipe()
        # Opened before there is a child: a tracer may come at once, and the first call it counts
        # must be the deed's.
        heard = os.open(scratch / "heard", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        child = os.fork()
        if child == 0:
            os.close(writing)
            _let_be_traced()
            os.read(reading, 1)  # until told to go, or nobody is left who could tell
            os.close(reading)
            deed = getattr(module, wanted["deed"])
            _do(deed, Path(wanted["directory"]), heard, wanted["arguments"])
        os.close(heard)
        os.close(reading)
        tell(f"{child}\n")
        sys.stdin.readline()
        os.write(writing, b"!")
        os.close(writing)
        while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
            tell(STOPPED)
        tell(f"{os.waitstatus_to_exitcode(status)}\n")


def tell(line: str) -> None:
    """Answer whoever runs this server."""
    sys.stdout.write(line)
    sys.stdout.flush()


def _let_be_traced() -> None:
    """Allow any process of this user to trace this one, where only a parent may otherwise."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)  # fails where everybody may anyway


def _do(deed: Deed, directory: Path, heard: int, arguments: dict[str, Any]) -> None:
    """Do a deed and end this process."""
    code = EXIT_REFUSED

    def say(value: Any) -> None:
        os.write(heard, (json.dumps(value) + "\n").encode())

    try:
        deed(directory, say, **arguments)
        code = 0
    except Exception as error:  # whatever it was, it is told and the process ends
        say({"refused": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
