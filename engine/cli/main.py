"""`paychan`: one verb per call, one module per noun."""

import signal
from types import FrameType

import click

from engine.cli.lazy import Commands, LazyGroup

COMMANDS = Commands(
    {
        "demo": (
            "engine.cli.demo:demo",
            "Stream signed claims into a real engine, kill a shard half way, and reach a verdict.",
        ),
        "serve": ("engine.cli.serve:serve", "Run the engine until SIGTERM."),
        "getinfo": (
            "engine.cli.getinfo:getinfo",
            "Show version, sizes and health of a running engine.",
        ),
        "channel": ("engine.cli.channel:channel", "Open, look at, change and end channels."),
        "balance": (
            "engine.cli.balance:balance",
            "Show what a channel owes and has left, in drops.",
        ),
        "claim": ("engine.cli.claim:claim", "Make, check, submit and look at claims."),
        "wal": ("engine.cli.wal:wal_group", "Look at the log on disk, pack it or repair it."),
        "payments": (
            "engine.cli.payments:payments_group",
            "Keep Lightning-style payments: init, attempts, settle or fail.",
        ),
        "backup": (
            "engine.cli.wal.copies:backup",
            "Copy a data directory to TARGET, also while the engine runs on it.",
        ),
        "restore": (
            "engine.cli.wal.copies:restore",
            "Put a backup back as a data directory, which must be empty or not exist.",
        ),
        "best-claims": (
            "engine.cli.best_claims:best_claims",
            "Keep the best claim of every channel apart, and check such a file offline.",
        ),
        "config": ("engine.cli.config:config_group", "Look at the configuration."),
        "bench": (
            "engine.cli.bench:bench",
            "Measure this machine; every line says with what, where and how.",
        ),
        "completion": ("engine.cli.completion:completion", "Print the completion script."),
    }
)

EPILOG = """
A terminal gets tables; a pipe, or --json, gets one JSON object a line. All amounts are drops:
1 XRP is 1000000; those of payments are millisatoshis.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 rejected, 5 engine or store cannot be
reached, 6 what is on disk does not check out, 70 the engine could not go on. A command that is
told to end gives 1, or 143.
"""


@click.group(
    cls=LazyGroup,
    commands=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="paychan", prog_name="paychan")
def cli() -> None:
    """Keep the state of payment channels: signed claims in, durable answers out."""


def main() -> None:
    """Run the command line; the entry point of the console script."""
    signal.signal(signal.SIGTERM, _end_as_at_ctrl_c)
    cli(prog_name="paychan")


def _end_as_at_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Let a command tidy up when it is told to end: what it started, and its scratch files.

    `serve` hears it in a way of its own once it runs.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background job
        raise SystemExit(128 + number)
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
