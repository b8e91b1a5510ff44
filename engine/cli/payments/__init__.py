"""`paychan payments …`: the payments database itself, with an engine on it or without one."""

from typing import Final

import click

from engine.cli.lazy import Commands, LazyGroup

COMMANDS: Final = Commands(
    {
        "init": (
            "engine.cli.payments.paying:init",
            "Begin a payment, or begin again one that failed.",
        ),
        "attempt": (
            "engine.cli.payments.paying:attempt",
            "Keep an attempt along a route, which is about to be sent.",
        ),
        "settle": (
            "engine.cli.payments.ending:settle",
            "Settle an attempt with its preimage.",
        ),
        "fail": (
            "engine.cli.payments.ending:fail",
            "Fail an attempt, or give the payment up.",
        ),
        "list": ("engine.cli.payments.looking:list_", "List payments by sequence number."),
        "show": ("engine.cli.payments.looking:show", "Show one payment with its attempts."),
        "in-flight": (
            "engine.cli.payments.looking:in_flight",
            "List the payments that are not over.",
        ),
        "delete": (
            "engine.cli.payments.deleting:delete",
            "Delete payments that are not in flight, or their failed attempts.",
        ),
        "verify": (
            "engine.cli.payments.verifying:verify",
            "Compute anew all that is kept for speed; exit code 6 where it differs.",
        ),
        "migrate": (
            "engine.cli.payments.moving:migrate",
            "Move all payments of one store into a new one.",
        ),
        "import-lnd": (
            "engine.cli.payments.moving:import_lnd",
            "Move the payments of a channel.db of lnd into a new store.",
        ),
    }
)


def _dashed(word: str) -> str:
    """Take `--index_offset` for `--index-offset`: lncli spells its flags so."""
    return word.replace("_", "-")


@click.group(
    "payments",
    cls=LazyGroup,
    commands=COMMANDS,
    context_settings={"token_normalize_func": _dashed},
)
def payments_group() -> None:
    """Keep Lightning-style payments: init, attempts, settle or fail.

    Works on the database itself, also while an engine serves it; but who follows payments through
    that engine is not told of what is changed here.
    """
