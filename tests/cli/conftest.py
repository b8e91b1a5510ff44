"""The command line as a test runs it: in this process, its output a pipe."""

import json
from collections.abc import Callable
from typing import Any

import click.testing
import pytest

from engine.cli.main import cli


class Run:
    """What a command did."""

    def __init__(self, result: click.testing.Result) -> None:
        self.code = result.exit_code
        self.out = result.stdout
        self.err = result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects it wrote."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        """The only JSON object it wrote."""
        (line,) = self.lines
        return line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`run("claim", "verify", "--stdin", given="…")` in a clean environment."""
    monkeypatch.delenv("PAYCHAN_SERVER", raising=False)

    def call(*arguments: object, given: str | None = None) -> Run:
        words = [str(argument) for argument in arguments]
        runner = click.testing.CliRunner()
        return Run(runner.invoke(cli, words, input=given, prog_name="paychan"))

    return call
