"""`paychan getinfo`."""

import click

from engine.cli.connection import Connection, talks_to_engine
from engine.cli.output import Output


@click.command()
@talks_to_engine
def getinfo(connection: Connection, output: Output) -> None:
    """Show version, sizes and health of a running engine."""
    info = connection.run(lambda client: client.server_info())
    if output.is_json:
        output.record(info)
        return
    shards = info.pop("shards", [])
    output.record(info)
    output.records(shards, tuple(shards[0]) if shards else ("shard",))
