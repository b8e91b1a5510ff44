"""`paychan wal …`: what lies on disk, judged and folded, beside a running engine or without one."""

from typing import Final

import click

from engine.cli.lazy import Commands, LazyGroup

COMMANDS: Final = Commands(
    {
        "inspect": (
            "engine.cli.wal.looking:inspect",
            "List segments, frames, positions and sizes.",
        ),
        "verify": (
            "engine.cli.wal.looking:verify",
            "Judge every byte; exit code 6 on corruption, saying where.",
        ),
        "pack": (
            "engine.cli.wal.pack:pack",
            "Write the closed segments of a stopped engine anew, in fewer bytes.",
        ),
        "repair": (
            "engine.cli.wal.repair:repair",
            "Bring a damaged log back as far as can be proven, with the engine stopped.",
        ),
        "export": (
            "engine.cli.wal.export:export",
            "Write all events, shard by shard, each in the order of its log.",
        ),
        "replay": (
            "engine.cli.wal.replay:replay",
            "Show the channels as they were at a position or a time.",
        ),
    }
)


@click.group("wal", cls=LazyGroup, commands=COMMANDS)
def wal_group() -> None:
    """Look at the log on disk, pack it or repair it.

    DIR is the directory of a shard, or a data directory with all its shards.
    """
