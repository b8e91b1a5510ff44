"""`paychan wal …`: what lies on disk, judged and folded, beside a running engine or without one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.arguments import CHANNEL_ID
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress

if TYPE_CHECKING:
    from engine.channels.recovery import Recovered

SEGMENT_COLUMNS: Final = (
    *("shard", "name", "epoch", "sealed", "first_position", "last_position"),
    *("frames", "records", "bytes"),
)
VERIFY_COLUMNS: Final = (
    *("shard", "ok", "segments", "snapshots", "frames", "records", "bytes"),
    *("last_position", "torn_bytes", "damages"),
)
CHANNEL_COLUMNS: Final = ("channel_id", "state", "sequence", "claimed", "available", "position")

directory_argument = click.argument(
    "directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False)
)


@click.group("wal")
def wal_group() -> None:
    """Look at the log on disk.

    DIR is the directory of a shard, or a data directory with all its shards.
    """


def _shards(directory: Path) -> list[Path]:
    """Return the shard directories meant by DIR.

    Raises:
        Failure: there is no log.
    """
    if (directory / "MANIFEST").exists():
        return [directory]
    found = sorted(path for path in directory.glob("shard-*") if (path / "MANIFEST").exists())
    if not found:
        advice = "DIR is the engine's --datadir, or one shard-NNNN directory in it"
        raise Failure(ExitCode.NOT_FOUND, f"no log in {directory}", advice)
    return found


@contextlib.contextmanager
def _judged(shard: Path) -> Iterator[None]:
    """Turn what is wrong with a log into how the command ends."""
    from engine.channels.recovery import RecoveryBroken
    from wal import CorruptLogError, WalError

    try:
        yield
    except CorruptLogError as error:
        raise Failure(
            ExitCode.INTEGRITY, f"{shard}: {error}", "keep a copy before all else"
        ) from error
    except RecoveryBroken as error:
        raise Failure(ExitCode.INTEGRITY, f"{shard}: {error}") from error
    except WalError as error:
        raise Failure(ExitCode.NOT_FOUND, f"{shard}: {error}") from error


@wal_group.command("inspect")
@directory_argument
@json_option
def inspect(directory: Path, *, as_json: bool) -> None:
    """List segments, frames, positions and sizes."""
    from wal import inspect as inspect_log

    output = Output(as_json=as_json)
    rows: list[dict[str, Any]] = []
    for shard in _shards(directory):
        with _judged(shard):
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


@wal_group.command("verify")
@directory_argument
@json_option
def verify(directory: Path, *, as_json: bool) -> None:
    """Judge every byte; exit code 6 on corruption, saying where."""
    from engine.channels.journal import EventCodec
    from wal import verify as verify_log

    rows: list[dict[str, Any]] = []
    damages: list[str] = []
    for shard in _shards(directory):
        with _judged(shard), progress(shard.name) as told:
            report = verify_log(shard, EventCodec, told)
        row = {name: getattr(report, name) for name in report.__struct_fields__}
        rows.append({"shard": shard.name, "ok": report.ok} | row)
        damages += [
            f"{shard.name}/{damage.segment} at byte {damage.offset}: {damage.reason}"
            for damage in report.damages
        ]
    Output(as_json=as_json).records(rows, VERIFY_COLUMNS)
    if damages:
        advice = "keep a copy of the directory before anything is repaired"
        raise Failure(ExitCode.INTEGRITY, "\n  ".join(damages), advice)


@wal_group.command("replay")
@directory_argument
@click.option("--until", type=click.IntRange(1), metavar="POSITION", help="Only events up to it.")
@click.option("--channel", "channel_id", type=CHANNEL_ID, help="Only this channel.")
@json_option
def replay(directory: Path, until: int | None, channel_id: bytes | None, *, as_json: bool) -> None:
    """Fold the log from its first event and show the channels as they were then."""
    from engine.channels.recovery import state_hash

    rows: list[dict[str, Any]] = []
    for shard in _shards(directory):
        with _judged(shard), progress(shard.name) as told:
            recovered = _fold(shard, until, told)
        rows += _channel_rows(shard, recovered, channel_id)
        click.echo(
            f"{shard.name}: {recovered.events} events, {len(recovered.actors)} channels,"
            f" state {state_hash(recovered.actors)}",
            err=True,
        )
    if channel_id is not None and not rows:
        raise Failure(ExitCode.NOT_FOUND, f"no channel {channel_id.hex().upper()} in this log")
    Output(as_json=as_json).records(rows, CHANNEL_COLUMNS)


def _fold(shard: Path, until: int | None, told: Any) -> "Recovered":
    """Return the channels of a shard as of `until`, or as of the newest durable event."""
    from engine.channels.journal import read_committed
    from engine.channels.recovery import Recovered, replay_into
    from engine.core.types import TimeNs
    from engine.validation.options import ValidationOptions
    from wal import inspect as inspect_log

    last = min(inspect_log(shard).last_position, until or 2**63)
    limits = ValidationOptions().retries
    recovered = Recovered({}, TimeNs(0), 0, 0)
    for first, events in read_committed(shard):
        replay_into(recovered, first, events[: max(0, last - first + 1)], limits)
        told(recovered.events, last)
        if recovered.events >= last:
            break
    return recovered


def _channel_rows(
    shard: Path, recovered: "Recovered", channel_id: bytes | None
) -> Iterator[dict[str, Any]]:
    for found, actor in sorted(recovered.actors.items()):
        if channel_id in (None, found):
            channel = actor.channel
            yield {
                "channel_id": found,
                "shard": shard.name,
                "state": channel.state,
                "sequence": channel.sequence,
                "claimed": channel.claimed,
                "available": channel.available,
                "redeemed": channel.redeemed,
                "capacity": channel.capacity,
                "position": actor.position,
            }
