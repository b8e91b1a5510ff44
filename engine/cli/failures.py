"""How a command fails: an exit code, what was seen, and what to do next."""

from enum import IntEnum
from typing import IO, Any

import click


class ExitCode(IntEnum):
    """What the exit code of a command means; 2 is click's own for wrong usage."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REJECTED = 4
    UNREACHABLE = 5
    INTEGRITY = 6


class Failure(click.ClickException):
    """Ends the command with a code; says on standard error what was seen and what to do."""

    def __init__(self, code: ExitCode, seen: str, advice: str = "") -> None:
        super().__init__(seen)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance
        self.advice = advice

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the two lines."""
        click.echo(f"paychan: {self.message}", file=file, err=True)
        if self.advice:
            click.echo(f"  {self.advice}", file=file, err=True)
