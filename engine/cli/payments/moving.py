"""`paychan payments migrate` and `import-lnd`: a bar, a report, a way out that loses nothing."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option
from engine.cli.payments.stores import told

if TYPE_CHECKING:
    from types import FrameType

    from engine.payments.migration import Progress, Report

SAID_EVERY_S: Final = 10.0
"""How often a pipe is told how far it is; a terminal has a bar."""

Told = Callable[["Progress"], None]

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Read and check everything, write nothing."
)


class Stopped(Exception):  # noqa: N818  (it reads as the sentence it is)
    """Somebody pressed Ctrl-C; raised between two batches, when everything is in order."""


@click.command("migrate")
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@dry_run_option
@json_option
def migrate(source: str, destination: str, *, dry_run: bool, as_json: bool) -> None:
    """Move all payments of one store into a new one.

    FROM and TO are URLs, of the same kind of store or another. Sequence numbers and attempt indexes
    stay what they are, and every payment is read back and compared. FROM is only read; TO must be
    new. Stopped or killed, the same command goes on where it was.
    """
    from engine.payments.migration import migrate_store

    _move(lambda tell: migrate_store(source, destination, dry_run=dry_run, progress=tell),
          Output(as_json=as_json), dry_run=dry_run)  # fmt: skip


@click.command("import-lnd")
@click.argument("file", metavar="CHANNEL_DB", type=click.Path())
@click.argument("destination", metavar="TO")
@dry_run_option
@json_option
def import_lnd(file: str, destination: str, *, dry_run: bool, as_json: bool) -> None:
    """Move the payments of a channel.db of lnd into a new store.

    The file is only read, under a lock that keeps lnd from starting on it; a running lnd must be
    stopped first, or the file copied. TO is the URL of a store that is new. Stopped or killed, the
    same command goes on where it was.
    """
    from engine.payments.lnd import import_lnd as run

    _move(lambda tell: run(file, destination, dry_run=dry_run, progress=tell),
          Output(as_json=as_json), dry_run=dry_run)  # fmt: skip


def _move(work: "Callable[[Told], Report]", output: Output, *, dry_run: bool) -> None:
    """Do the work and write its report.

    Raises:
        Failure: a store is at fault, or somebody stopped it.
    """
    last: list[Progress] = []
    try:
        with told(), _interruptible() as check, _bar() as show:

            def tell(progress: "Progress") -> None:
                last[:] = [progress]
                show(progress)
                check()

            report = work(tell)
    except Stopped as error:
        raise _stopped(last, dry_run=dry_run) from error
    if output.is_json:
        output.record(_fields(report))
    else:
        for line in report.lines():
            click.echo(line)


def _stopped(last: "list[Progress]", *, dry_run: bool) -> Failure:
    done, total = (last[0].done, last[0].total) if last else (0, 0)
    advice = "nothing was written" if dry_run else "the same command goes on from there"
    return Failure(ExitCode.FAILED, f"stopped after {done:,} of {total:,} payments", advice)


def _fields(report: "Report") -> dict[str, Any]:
    fields = {name: getattr(report, name) for name in report.__struct_fields__}
    totals = fields.pop("totals")
    rate = round(report.rate, 1)
    fields["seconds"] = round(report.seconds, 3)
    return fields | {"payments_per_s": rate} | {
        name: getattr(totals, name) for name in totals.__struct_fields__
    }  # fmt: skip


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Yield what raises `Stopped` once Ctrl-C was pressed; pressed again, it ends at once."""
    pressed = False

    def press(number: int, frame: "FrameType | None") -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)
        click.echo("stopping after this batch; Ctrl-C again ends it at once", err=True)

    def check() -> None:
        if pressed:
            raise Stopped

    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _bar() -> Iterator[Told]:
    """Yield what shows how far it is: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines().tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("payments"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("payments", total=None, pace="")

        def tell(progress: "Progress") -> None:
            bar.update(task, completed=progress.done, total=progress.total, pace=pace_of(progress))

        yield tell


class _Lines:
    """Says how far it is in a line, now and then."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def tell(self, progress: "Progress") -> None:
        now = time.monotonic()
        if now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            seen = f"{progress.done:,} of {progress.total:,} payments"
            click.echo(f"{seen}, {pace_of(progress)}", err=True)


def pace_of(progress: "Progress") -> str:
    """Return the rate and the time left, in words."""
    words = f"{progress.rate:,.0f} a second"
    if progress.seconds_left is None:
        return words
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{words}, {left} left"
