"""`paychan wal pack`: the sealed segments of a stopped engine, packed now rather than beside it."""

from pathlib import Path
from typing import Any, Final

import click

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import directory_argument, judged, number_of, shards_of

COLUMNS: Final = ("shard", "packed", "left", "bytes_before", "bytes_after")


@click.command("pack")
@directory_argument
@json_option
def pack(directory: Path, *, as_json: bool) -> None:
    """Write the closed segments anew, with the same events in fewer bytes.

    An engine does this by itself (`shard.pack_after_s`); here it has to be stopped. Every packed
    segment is read back and compared, event for event, before the original goes.
    """
    from engine.channels.background.packing import pack_directory

    rows: list[dict[str, Any]] = []
    for shard in shards_of(directory):
        with judged(shard), progress(shard.name) as told:
            report = pack_directory(shard, number_of(shard), told)
        rows.append(
            {name: getattr(report, name) for name in report.__struct_fields__}
            | {"shard": shard.name, "left": len(report.errors)}
        )
        if report.errors:
            Output(as_json=as_json).records(rows, COLUMNS)
            advice = "they are as they were; `paychan wal verify` says whether they are damaged"
            raise Failure(ExitCode.FAILED, "\n  ".join(report.errors), advice)
    Output(as_json=as_json).records(rows, COLUMNS)
