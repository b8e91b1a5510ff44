"""The demo's live view: a panel on a terminal, a line every few seconds where there is none."""

import time
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from engine.demo.load import Progress as LoadProgress

LINE_EVERY_S: Final = 5.0


class EngineSeen(msgspec.Struct):
    """What the engine's own counters said last."""

    syncs: int = 0
    memory_mb: int = 0
    shards: str = ""


class View:
    """Shows the load's progress and the engine's figures; use it with `with`."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("claims under way", total=seconds)
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._said_at = 0.0
        self._before = (0.0, 0)
        self._rate = 0
        self.engine = EngineSeen()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """Print one line above the panel."""
        self._console.print(sentence)

    def show(self, load: LoadProgress) -> None:
        """Show the newest figures."""
        seconds, acknowledged = self._before
        if load.seconds > seconds:
            self._rate = round((load.acknowledged - acknowledged) / (load.seconds - seconds))
        self._before = (load.seconds, load.acknowledged)
        self._bar.update(self._task, completed=load.seconds)
        if self._live is not None:
            self._live.update(Group(self._bar, self._table(load)))
        elif time.monotonic() - self._said_at > LINE_EVERY_S or load.done:
            self._said_at = time.monotonic()
            self.say(
                f"{load.seconds:5.1f} s  {load.acknowledged} acknowledged  {self._rate}/s  "
                f"p50 {load.p50_ms} ms  p99 {load.p99_ms} ms  {_refusals(load.answers)}"
            )

    def _table(self, load: LoadProgress) -> Table:
        table = Table(show_header=False, box=None, padding=(0, 2))
        rows: list[tuple[str, Any]] = [
            ("claims a second", self._rate),
            ("acknowledged", load.acknowledged),
            ("p50 / p99", f"{load.p50_ms} / {load.p99_ms} ms a submission of 240"),
            ("other answers", _refusals(load.answers)),
            ("syncs", self.engine.syncs),
            ("memory", f"{self.engine.memory_mb} MB"),
            ("shards", self.engine.shards),
        ]
        for name, value in rows:
            table.add_row(name, str(value))
        return table


def _refusals(answers: dict[str, int]) -> str:
    others = sorted((code, count) for code, count in answers.items() if code != "accepted")
    return ", ".join(f"{code} {count}" for code, count in others) or "none"
