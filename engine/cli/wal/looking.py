"""`paychan wal inspect` and `paychan wal verify`."""

from pathlib import Path
from typing import Any, Final

import click

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import directory_argument, judged, shards_of

SEGMENT_COLUMNS: Final = (
    *("shard", "name", "epoch", "sealed", "packed", "first_position", "last_position"),
    *("frames", "records", "bytes"),
)
VERIFY_COLUMNS: Final = (
    *("shard", "ok", "segments", "snapshots", "frames", "records", "bytes"),
    *("last_position", "torn_bytes", "damages"),
)


@click.command("inspect")
@directory_argument
@json_option
def inspect(directory: Path, *, as_json: bool) -> None:
    """List segments, frames, positions and sizes.

    It believes what it reads; `verify` is what judges it.
    """
    from wal import inspect as inspect_log

    output = Output(as_json=as_json)
    rows: list[dict[str, Any]] = []
    for shard in shards_of(directory):
        with judged(shard):
            report = inspect_log(shard)
        if output.is_json:
            output.record({"shard": shard.name, "report": report})
        rows += [
            {name: getattr(segment, name) for name in segment.__struct_fields__}
            | {"shard": shard.name}
            for segment in report.segments
        ]
    if not output.is_json:
        output.records(rows, SEGMENT_COLUMNS)


@click.command("verify")
@directory_argument
@json_option
def verify(directory: Path, *, as_json: bool) -> None:
    """Judge every byte; exit code 6 on corruption, saying where.

    Needs no lock and disturbs no engine that runs on it.
    """
    from engine.channels.journal import EventCodec
    from wal import verify as verify_log

    rows: list[dict[str, Any]] = []
    damages: list[str] = []
    for shard in shards_of(directory):
        with judged(shard), progress(shard.name) as told:
            report = verify_log(shard, EventCodec, told)
        row = {name: getattr(report, name) for name in report.__struct_fields__}
        rows.append({"shard": shard.name, "ok": report.ok} | row)
        damages += [
            f"{shard.name}/{damage.segment} at byte {damage.offset}: {damage.reason}"
            for damage in report.damages
        ]
    Output(as_json=as_json).records(rows, VERIFY_COLUMNS)
    if damages:
        advice = (
            "keep a copy of the directory before all else;"
            " `paychan wal repair --dry-run` says what can be kept"
        )
        raise Failure(ExitCode.INTEGRITY, "\n  ".join(damages), advice)
