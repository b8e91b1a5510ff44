"""`paychan backup` and `paychan restore`: a data directory copied while it is in use, and back."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import judged, shards_of

if TYPE_CHECKING:
    from wal import VerifyReport
    from wal.backup import CopyReport, LogCopy

LAYOUT: Final = "placement.json"
UNFINISHED: Final = ".partial"
COLUMNS: Final = (
    *("shard", "last_position", "last_frame_at", "segments", "snapshots", "bytes"),
    "snapshots_left",
)
IGNORED: Final = frozenset({"lost+found"})
"""What a fresh file system holds."""

folder = click.Path(path_type=Path, file_okay=False)


@click.command("backup")
@click.argument("directory", metavar="DATADIR", type=folder)
@click.argument("target", metavar="TARGET", type=folder)
@json_option
def backup(directory: Path, target: Path, *, as_json: bool) -> None:
    """Copy a data directory to TARGET, also while the engine runs on it.

    Every claim answered before the backup began is in it. The copy is read back and judged byte by
    byte before it gets its name; TARGET must not exist. The key seal.key is a secret and stays
    behind: a start without it makes a new one.
    """
    if target.exists() and not _is_empty(target):
        raise Failure(
            ExitCode.USAGE, f"{target} exists already", "give each backup a directory of its own"
        )
    shards = shards_of(directory)
    draft = target.with_name(target.name + UNFINISHED)
    if draft.exists():
        shutil.rmtree(draft)  # what a backup that broke off has left
    with _failing_as(target):
        draft.mkdir(parents=True)
        rows = _copied(shards, _places(shards, directory, draft), 0)
        _copy_layout(directory, draft)
        _judge(_places(shards, directory, draft))
        _sync(draft)
        os.rename(draft, target)
        _sync(target.parent)
    Output(as_json=as_json).records(rows, COLUMNS)


@click.command("restore")
@click.argument("source", metavar="SOURCE", type=folder)
@click.argument("directory", metavar="DATADIR", type=folder)
@json_option
def restore(source: Path, directory: Path, *, as_json: bool) -> None:
    """Put a backup back as a data directory, which must be empty or not exist.

    The backup is judged first and what was written afterwards. The logs go on under a far higher
    epoch, so that nothing written to the lost directory can ever be taken for theirs. Claims that
    were accepted after the backup are not in it: their senders hold answers that say so.
    """
    from wal.backup import EPOCHS_ASIDE

    if directory.exists() and not _is_empty(directory):
        advice = "a restore never overwrites; move the directory away, or give another"
        raise Failure(ExitCode.USAGE, f"{directory} is not empty", advice)
    shards = shards_of(source)
    _judge(shards)
    with _failing_as(directory):
        directory.mkdir(parents=True, exist_ok=True)
        places = _places(shards, source, directory)
        rows = _copied(shards, places, EPOCHS_ASIDE)
        _copy_layout(source, directory)
        _sync(directory)
        _sync(directory.parent)
    _judge(places)
    Output(as_json=as_json).records(rows, COLUMNS)
    newest = max((row["last_frame_at"] or "" for row in rows), default="")
    if newest:
        click.echo(
            f"The newest event is of {newest}. Claims accepted later are not here: compare with"
            " `paychan best-claims export` of anyone who kept one, or have the payers send again.",
            err=True,
        )


def _copied(shards: Sequence[Path], places: Sequence[Path], aside: int) -> list[dict[str, Any]]:
    """Copy every log; none of the copies is one before the files of all are there."""
    with contextlib.ExitStack() as stack:
        copies = [_copy_files(stack, *pair) for pair in zip(shards, places, strict=True)]
        reports = [copy.finish(epochs_aside=aside) for copy in copies]
    return [_row(shard, report) for shard, report in zip(shards, reports, strict=True)]


def _copy_files(stack: contextlib.ExitStack, shard: Path, place: Path) -> "LogCopy":
    from wal.backup import LogCopy

    with judged(shard), progress(f"copy {shard.name}") as told:
        copy = LogCopy(shard, place, told)
        stack.callback(copy.close)
        copy.copy_files()
        return copy


def _judge(shards: Sequence[Path]) -> None:
    """Judge every byte of a copy.

    Raises:
        Failure: a byte is wrong.
    """
    from engine.channels.journal import verify_directory

    for shard in shards:
        with judged(shard), progress(f"verify {shard.name}") as told:
            report: VerifyReport = verify_directory(shard, told)
        if not report.ok:
            damage = report.damages[0]
            seen = f"{shard}: {damage.segment} at byte {damage.offset}: {damage.reason}"
            raise Failure(ExitCode.INTEGRITY, seen, "`paychan wal verify` lists all of it")


@contextlib.contextmanager
def _failing_as(place: Path) -> Iterator[None]:
    """Say of a disk that refuses which directory was being written."""
    try:
        yield
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{place}: {error.strerror or error}") from error


def _places(shards: Sequence[Path], source: Path, target: Path) -> list[Path]:
    """Return where the logs of `source` lie in `target`: at the same names."""
    return [target / shard.relative_to(source) for shard in shards]


def _copy_layout(source: Path, target: Path) -> None:
    """Copy which shard each channel belongs to; without it a data directory is laid out anew."""
    layout = source / LAYOUT
    if layout.exists():
        copy = target / LAYOUT
        copy.write_bytes(layout.read_bytes())
        _sync(copy)


def _is_empty(directory: Path) -> bool:
    return not {path.name for path in directory.iterdir()} - IGNORED


def _row(shard: Path, report: "CopyReport") -> dict[str, Any]:
    row = {name: getattr(report, name) for name in report.__struct_fields__}
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=report.wall_ns // 1_000)
    return row | {"shard": shard.name, "last_frame_at": moment if report.last_lsn else None}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
