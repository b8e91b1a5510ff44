"""A process of low priority that does one piece of work for a shard and tells what came of it.

It is started as `python -m MODULE PARENT ARGUMENT ...`, speaks once, on standard output, and ends
with its shard: the shard kills it, or it notices that the shard is gone.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

NICE: Final = 19

T = TypeVar("T")
encode: Final = msgspec.msgpack.Encoder().encode


class NothingToldError(Exception):
    """The process ended, or could not begin, and said nothing that can be understood."""


class Aside(Generic[T]):
    """The process, seen from the shard; the one who starts it waits for it or ends it."""

    def __init__(self, module: str, *arguments: str, told: type[T]) -> None:
        """Start `module`, whose `main` begins with `begin` and ends with `tell(T)`.

        Raises:
            NothingToldError: there can be no further process.
        """
        command = [sys.executable, "-m", module, str(os.getpid()), *arguments]
        self._told = told
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise NothingToldError(f"the process did not start: {error!r}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def result(self) -> T:
        """Wait until it has ended, and return what it told.

        Raises:
            NothingToldError: it told nothing.
        """
        told, _ = self._process.communicate()
        code = self._process.returncode
        try:
            if code == 0:
                return msgspec.msgpack.decode(told, type=self._told)
        except msgspec.MsgspecError as error:
            raise NothingToldError(f"the process told rubbish: {error}") from error
        raise NothingToldError(f"the process ended with {code}")

    def kill(self) -> None:
        """End it; whoever waits in `result` gets an error at once."""
        self._process.kill()

    def end(self) -> None:
        """End it and return once it is gone; nobody else may wait for it."""
        self._process.kill()
        self._process.communicate()


def begin(parent: int) -> Callable[[], None]:
    """Give way to everybody; called by the process itself.

    Returns:
        A function to call now and then: raises InterruptedError once the process `parent` is gone.
    """
    os.nice(NICE)
    return lambda: keep_going_for(parent)


def keep_going_for(parent: int) -> None:
    """Do nothing while the process `parent` is the one that started this one.

    Raises:
        InterruptedError: it is gone.
    """
    if os.getppid() != parent:
        raise InterruptedError("the shard is gone")


def tell(value: object) -> None:
    """Say what came of the work, on standard output."""
    with contextlib.suppress(BrokenPipeError):  # nobody is left to hear it
        os.write(sys.stdout.fileno(), encode(value))
