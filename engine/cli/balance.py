"""`paychan balance`."""

from typing import Literal

import click

from engine.cli.arguments import CHANNEL_ID
from engine.cli.connection import Connection, talks_to_engine
from engine.cli.output import Output


@click.command()
@click.argument("channel_id", type=CHANNEL_ID)
@click.option(
    "--consistency",
    type=click.Choice(("strong", "session", "eventual")),
    default="strong",
    show_default=True,
    help="strong asks the shard; the others take what is at hand.",
)
@click.option("--at-least", metavar="POSITION", help="For session: the position last seen.")
@talks_to_engine
def balance(
    connection: Connection,
    output: Output,
    channel_id: bytes,
    consistency: Literal["strong", "session", "eventual"],
    at_least: str | None,
) -> None:
    """Show what a channel owes and has left, in drops."""
    output.record(connection.run(lambda client: client.balance(channel_id, consistency, at_least)))
