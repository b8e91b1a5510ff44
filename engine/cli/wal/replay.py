"""`paychan wal replay`: the channels as they were."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.arguments import CHANNEL_ID
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import directory_argument, judged, shards_of

if TYPE_CHECKING:
    from engine.channels.recovery import Recovered

CHANNEL_COLUMNS: Final = ("channel_id", "state", "sequence", "claimed", "available", "position")


@click.command("replay")
@directory_argument
@click.option("--until", type=click.IntRange(1), metavar="POSITION", help="Only events up to it.")
@click.option("--channel", "channel_id", type=CHANNEL_ID, help="Only this channel.")
@json_option
def replay(directory: Path, until: int | None, channel_id: bytes | None, *, as_json: bool) -> None:
    """Show the channels as they were at a position or a time."""
    from engine.channels.recovery import state_hash

    rows: list[dict[str, Any]] = []
    for shard in shards_of(directory):
        with judged(shard), progress(shard.name) as told:
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
