"""`paychan channel …`: one command per thing that can be done to a channel."""

import itertools
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.arguments import CHANNEL_ID, DROPS, DROPS_OR_NONE, MOMENT, PUBLIC_KEY
from engine.cli.connection import Connection, talks_to_engine
from engine.cli.output import Output
from engine.core.commands import OpenChannel
from engine.core.types import Sequencing, State

if TYPE_CHECKING:
    from engine.client import ChannelInfo

SETTLE_DELAY_S_MAX: Final = 2**32 - 1
COLUMNS: Final = ("channel_id", "state", "sequence", "claimed", "available", "capacity")

channel_id_argument = click.argument("channel_id", type=CHANNEL_ID)
redeemed_option = click.option(
    "--redeemed",
    type=DROPS_OR_NONE,
    help="What the ledger paid, drops; without it, all that was claimed.",
)


@click.group()
def channel() -> None:
    """Open, look at, change and end channels."""


def _show(output: Output, info: "ChannelInfo") -> None:
    output.record(info, "drops")


@channel.command("open")
@channel_id_argument
@click.option("--source", required=True, metavar="ADDRESS", help="Who pays.")
@click.option("--destination", required=True, metavar="ADDRESS", help="Who is paid.")
@click.option("--public-key", type=PUBLIC_KEY, required=True, help="What claims are checked with.")
@click.option("--capacity", type=DROPS, required=True, help="Drops locked up in it.")
@click.option(
    "--settle-delay",
    type=click.IntRange(0, SETTLE_DELAY_S_MAX),
    required=True,
    help="Seconds between asking for the close and the end.",
)
@click.option("--expiration", type=MOMENT, help="Its end, which a close may move.")
@click.option("--cancel-after", type=MOMENT, help="An end that nothing moves.")
@click.option(
    "--sequencing",
    type=click.Choice([kind.value for kind in Sequencing]),
    default=Sequencing.STRICT.value,
    show_default=True,
    help="strict: claims are numbered; amount: the amount alone orders them.",
)
@click.option("--funded", is_flag=True, help="The ledger has it already; Active at once.")
@talks_to_engine
def open_(
    connection: Connection, output: Output, channel_id: bytes, settle_delay: int, **terms: Any
) -> None:
    """Open a channel; the same again is no error."""
    terms["sequencing"] = Sequencing(terms["sequencing"])
    command = OpenChannel(channel_id=channel_id, settle_delay_s=settle_delay, **terms)  # type: ignore[arg-type]
    _show(output, connection.run(lambda client: client.open_channel(command)))


@channel.command("show")
@channel_id_argument
@talks_to_engine
def show(connection: Connection, output: Output, channel_id: bytes) -> None:
    """Show one channel as it is on disk."""
    _show(output, connection.run(lambda client: client.channel(channel_id)))


@channel.command("list")
@click.option(
    "--state",
    type=click.Choice([state.value for state in State], case_sensitive=False),
    help="Only those in this state.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many; without it, all.")
@talks_to_engine
def list_(connection: Connection, output: Output, state: str | None, limit: int | None) -> None:
    """List channels by id."""
    wanted = None if state is None else State(state)
    found = connection.stream(lambda client: client.channels(wanted))
    output.records(itertools.islice(found, limit), COLUMNS)


@channel.command("confirm")
@channel_id_argument
@talks_to_engine
def confirm(connection: Connection, output: Output, channel_id: bytes) -> None:
    """Say that the ledger holds it: Pending becomes Active."""
    _show(output, connection.run(lambda client: client.confirm_funding(channel_id)))


@channel.command("fund")
@channel_id_argument
@click.option("--amount", type=DROPS, required=True, help="Drops to add.")
@click.option(
    "--previous", type=DROPS, help="The capacity you believe in: makes it safe to send again."
)
@talks_to_engine
def fund(
    connection: Connection, output: Output, channel_id: bytes, amount: int, previous: int | None
) -> None:
    """Add drops to its capacity."""
    _show(output, connection.run(lambda client: client.fund(channel_id, amount, previous)))


@channel.command("close")
@channel_id_argument
@talks_to_engine
def close(connection: Connection, output: Output, channel_id: bytes) -> None:
    """Ask for the close: Active becomes Settling."""
    _show(output, connection.run(lambda client: client.request_close(channel_id)))


@channel.command("settle")
@channel_id_argument
@redeemed_option
@talks_to_engine
def settle(connection: Connection, output: Output, channel_id: bytes, redeemed: int | None) -> None:
    """End it, with what the ledger paid: Settling becomes Settled."""
    _show(output, connection.run(lambda client: client.settle(channel_id, redeemed)))


@channel.command("dispute")
@channel_id_argument
@click.option("--reason", default="", help="A note, at most 256 characters.")
@talks_to_engine
def dispute(connection: Connection, output: Output, channel_id: bytes, reason: str) -> None:
    """Stop it, because the parties disagree."""
    _show(output, connection.run(lambda client: client.dispute(channel_id, reason)))


@channel.command("resolve")
@channel_id_argument
@click.option(
    "--outcome",
    type=click.Choice([State.ACTIVE.value, State.SETTLING.value, State.SETTLED.value]),
    required=True,
    help="What it becomes.",
)
@redeemed_option
@talks_to_engine
def resolve(
    connection: Connection,
    output: Output,
    channel_id: bytes,
    outcome: str,
    redeemed: int | None,
) -> None:
    """End a dispute."""
    _show(
        output,
        connection.run(lambda client: client.resolve(channel_id, State(outcome), redeemed)),
    )
