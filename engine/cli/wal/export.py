"""`paychan wal export`: the events of the log for other tools."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import click

from engine.cli.arguments import CHANNEL_ID
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import progress
from engine.cli.wal.shards import directory_argument, judged, number_of, shards_of
from engine.cli.wal.until import PLACE

if TYPE_CHECKING:
    from engine.channels.offline.export import Sink
    from engine.channels.offline.history import Until

PARQUET: Final = "parquet"
INSTALL: Final = 'pip install "paychan[parquet]"'


class Wanted(NamedTuple):
    """Which events."""

    begin: "Until | None"
    end: "Until | None"
    channel_id: bytes | None


@click.command("export")
@directory_argument
@click.option(
    "--format", "form", type=click.Choice(("jsonl", PARQUET)), default="jsonl", show_default=True,
    help="JSON lines, or Parquet with numbers and times as such.",
)  # fmt: skip
@click.option(
    "--output", "target", type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write, whole or not at all; without it, standard output (JSON lines only).",
)  # fmt: skip
@click.option("--from", "begin", type=PLACE, metavar="POSITION|TIME", help="The first event.")
@click.option("--to", "end", type=PLACE, metavar="POSITION|TIME", help="The last event.")
@click.option("--channel", "channel_id", type=CHANNEL_ID, help="Only events of this channel.")
def export(
    directory: Path,
    form: str,
    target: Path | None,
    *,
    begin: "Until | None",
    end: "Until | None",
    channel_id: bytes | None,
) -> None:
    """Write all events, shard by shard, each in the order of its log.

    Fields have the names of docs/reference/events.md. In JSON drops are strings, ids hex and times
    ISO 8601. Needs no lock and disturbs no engine that runs on it; the newest event is written once
    it is proven durable.
    """
    if form == PARQUET and target is None:
        raise click.UsageError("Parquet needs --output")
    shards = shards_of(directory)
    wanted = Wanted(begin, end, channel_id)
    with _written(target) as file:
        sink = _sink(form, file)
        count = sum(_export(shard, wanted, sink) for shard in shards)
        sink.close()
    click.echo(f"{count} events of {len(shards)} shards", err=True)


def _export(shard: Path, wanted: Wanted, sink: "Sink") -> int:
    """Write one shard; return how many events it had in the span."""
    from engine.channels.offline.export import Span, events_in, write_all
    from engine.channels.offline.history import NEWEST, BeforeTheLog, Until, position_of
    from wal import inspect as inspect_log

    with judged(shard), progress(shard.name) as told:
        report = inspect_log(shard)
        last = position_of(shard, wanted.end or NEWEST)
        first = report.segments[0].first_position if report.segments else 1
        if wanted.begin is not None and wanted.begin.at is not None:
            # The first event at or after a moment is the one behind the last event before it.
            before = position_of(shard, Until(at=wanted.begin.at - 1)) or 0
            first = max(first, before + 1)
        elif wanted.begin is not None:
            first = wanted.begin.position or first
        span = Span(first, last, wanted.channel_id)
        events = events_in(shard, span, lambda done: told(done, last or report.last_position))
        try:
            return write_all(sink, number_of(shard), events)
        except ValueError as error:
            raise BeforeTheLog(f"{shard.name}: {error}") from error


def _sink(form: str, file: IO[bytes]) -> "Sink":
    from engine.channels.offline.export import JsonLines, Parquet, PyarrowMissing

    if form != PARQUET:
        return JsonLines(file)
    try:
        return Parquet(file)
    except PyarrowMissing as error:
        seen = "Parquet needs pyarrow, which is not installed"
        raise Failure(ExitCode.USAGE, seen, INSTALL) from error


@contextmanager
def _written(target: Path | None) -> Iterator[IO[bytes]]:
    """Yield the file to write; it gets its name when all of it is on disk.

    Raises:
        Failure: the disk refused.
    """
    if target is None:
        yield sys.stdout.buffer
        return
    draft = target.with_name(f".{target.name}.draft")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{target}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
