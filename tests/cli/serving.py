"""A real `paychan serve` in a process of its own: one process, no Ray, a free port."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

READY: Final = b"ready on "
READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 60.0
SETTINGS: Final = {"PAYCHAN_PLACEMENT__RUNTIME": "inline", "PAYCHAN_VERIFY__VERIFIERS": "1"}


class Served:
    """A running engine: its address, and its process."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self._log = log

    def stop(self) -> int:
        """Stop it as an operator would; return its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_WITHIN_S)

    def kill(self) -> None:
        """End it with no chance to do anything."""
        self.process.kill()
        self.process.communicate(timeout=STOP_WITHIN_S)

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text()


def start(datadir: Path, port: int = 0) -> Served:
    """Start an engine and return once it says that it is ready."""
    log = datadir.with_suffix(".log")
    command = [sys.executable, "-m", "engine.cli.main", "serve", "--datadir", str(datadir)]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{port}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | SETTINGS,
            cwd=datadir.parent,
        )
    try:
        return Served(process, _wait_until_ready(process, log), log)
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    if process.stdout is None:
        raise ValueError("its output must be a pipe")
    deadline = time.monotonic() + READY_WITHIN_S
    said = b""
    while READY not in said or not said.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        piece = os.read(process.stdout.fileno(), 65_536) if readable else b""
        if not piece:
            raise AssertionError(f"not ready; it said {said!r} and {log.read_text()}")
        said += piece
    return said.split(READY)[1].split()[0].decode()


@contextlib.contextmanager
def serving(datadir: Path, port: int = 0) -> Iterator[Served]:
    """Yield a running engine and end it afterwards, whatever happened."""
    served = start(datadir, port)
    try:
        yield served
    finally:
        served.kill()
