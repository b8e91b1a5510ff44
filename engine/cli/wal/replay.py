"""`paychan wal replay`: the channels as they were, and what led there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from engine.cli.arguments import CHANNEL_ID
from engine.cli.config import config_option, load
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import directory_argument, judged, number_of, shards_of
from engine.cli.wal.until import PLACE

if TYPE_CHECKING:
    from engine.channels.actor import ChannelActor
    from engine.channels.offline.history import Until
    from engine.channels.recovery import Recovered
    from engine.validation.options import RetryLimits


CHANNEL_COLUMNS: Final = ("channel_id", "state", "sequence", "claimed", "available", "position")
EVENT_COLUMNS: Final = ("position", "at", "event", "sequence", "amount")


class Question(NamedTuple):
    """What is to be shown."""

    until: "Until | None"
    channel_id: bytes | None
    events_max: int
    from_genesis: bool


@click.command("replay")
@directory_argument
@click.option(
    "--until",
    type=PLACE,
    metavar="POSITION|TIME",
    help="The last that counts: a position, a time in ISO 8601, or @ and unix seconds.",
)
@click.option("--channel", "channel_id", type=CHANNEL_ID, help="Only this channel.")
@click.option(
    "--events",
    "events_max",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="With --channel: so many of the events that led there.",
)
@click.option(
    "--from-genesis", is_flag=True, help="Fold the whole log and compare with the checkpoints."
)
@config_option
@json_option
def replay(directory: Path, config_file: Path | None, *, as_json: bool, **asked: Any) -> None:
    """Show the channels as they were at a position or a time.

    Begins at the newest checkpoint below that place. With --from-genesis the log is folded from its
    first event as well; both ways must give the same state, or the exit code is 6. Which answers a
    channel still repeats is part of the state: give the --config that the engine runs with. Needs
    no lock.
    """
    question = Question(**asked)
    limits = load(config_file, {})[0].validation.retries
    channel_id = question.channel_id
    output = Output(as_json=as_json)
    rows: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for shard in _wanted(directory, channel_id):
        recovered = _fold(shard, question, limits)
        actors = [recovered.actors.get(channel_id)] if channel_id else recovered.actors.values()
        rows += [_channel_row(shard, actor) for actor in actors if actor is not None]
        if channel_id and rows:
            events = _events(shard, recovered.actors[channel_id], question.events_max)
            break
    if channel_id is not None and not rows:
        raise Failure(ExitCode.NOT_FOUND, f"no channel {channel_id.hex().upper()} in this log then")
    _show(output, sorted(rows, key=lambda row: row["channel_id"]), events, bool(channel_id))


def _show(
    output: Output, rows: Sequence[dict[str, Any]], events: list[dict[str, Any]], one: bool
) -> None:
    if one and output.is_json:
        output.record(rows[0] | {"events": events})
        return
    output.records(rows, CHANNEL_COLUMNS)
    if events:
        output.records(events, EVENT_COLUMNS, "the events that led there")


def _wanted(directory: Path, channel_id: bytes | None) -> list[Path]:
    """Return the shards to look at: only the channel's own where the layout tells it."""
    from engine.channels.placement import PlacementMismatch, shard_number_of

    shards = shards_of(directory)
    if channel_id is None or len(shards) == 1:
        return shards
    try:
        number = shard_number_of(directory, channel_id)
    except PlacementMismatch:
        return shards
    return [shard for shard in shards if number in (None, number_of(shard))]


def _fold(shard: Path, question: Question, limits: "RetryLimits") -> "Recovered":
    """Return the channels of a shard as they were; say on standard error what they add up to.

    Raises:
        Failure: the checkpoints lead somewhere else than the log from its first event.
    """
    from engine.channels.offline.history import NEWEST, Until, position_of, shard_at
    from engine.channels.recovery import state_hash
    from wal import inspect as inspect_log

    with judged(shard), progress(shard.name) as told:
        last = inspect_log(shard).last_position
        place = position_of(shard, question.until or NEWEST)
        until = Until(position=place)
        recovered = shard_at(shard, until, limits, progress=lambda done: told(done, place or last))
    told_hash = state_hash(recovered.actors)
    click.echo(
        f"{shard.name}: {recovered.position} events, {len(recovered.actors)} channels,"
        f" state {told_hash}",
        err=True,
    )
    if question.from_genesis:
        _compare(shard, recovered, told_hash, limits)
    return recovered


def _compare(shard: Path, recovered: "Recovered", told_hash: str, limits: "RetryLimits") -> None:
    """Fold the log from its first event and hold the state against the one from a checkpoint."""
    from engine.channels.offline.history import Until, shard_at
    from engine.channels.recovery import state_hash

    last = recovered.position
    with judged(shard), progress(f"{shard.name} from its first event") as told:
        until = Until(position=last)
        whole = shard_at(
            shard, until, limits, from_genesis=True, progress=lambda done: told(done, last)
        )
    proved = state_hash(whole.actors)
    below = f"from the checkpoint at {recovered.checkpoint_position}"
    same = "the same" if proved == told_hash else "NOT the same"
    click.echo(f"{shard.name}: from its first event state {proved}, {same} as {below}", err=True)
    if proved != told_hash:
        seen = (
            f"{shard}: the checkpoint at {recovered.checkpoint_position} is not what the log says"
        )
        advice = (
            "the log is the truth: with the engine stopped, move that checkpoint from snap/ to"
            " quarantine/; a start then takes an older one"
        )
        raise Failure(ExitCode.INTEGRITY, seen, advice)


def _events(shard: Path, actor: "ChannelActor", events_max: int) -> list[dict[str, Any]]:
    from engine.channels.offline.event_fields import event_row
    from engine.channels.offline.history import events_before

    with judged(shard):
        found = events_before(shard, actor, events_max)
    return [event_row(number_of(shard), past.position, past.event) for past in found]


def _channel_row(shard: Path, actor: "ChannelActor") -> dict[str, Any]:
    channel = actor.channel
    return {
        "channel_id": channel.terms.channel_id,
        "shard": shard.name,
        "state": channel.state,
        "sequence": channel.sequence,
        "claimed": channel.claimed,
        "available": channel.available,
        "redeemed": channel.redeemed,
        "capacity": channel.capacity,
        "position": actor.position,
    }
