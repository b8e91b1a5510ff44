"""`paychan payments delete`: one payment, or many."""

import sys
from typing import Final

import click

from engine.cli.output import Output, progress
from engine.cli.payments.arguments import HASH, one_of
from engine.cli.payments.stores import Place, on_store
from engine.payments.rules import check_delete_choice

WHAT: Final = {
    (False, False): "every payment that is not in flight",
    (True, False): "every payment that failed",
    (False, True): "the failed attempts of every payment that is not in flight",
    (True, True): "the failed attempts of every payment that failed",
}


@click.command("delete")
@click.argument("hash_", metavar="[PAYMENT_HASH]", type=HASH, required=False)
@click.option("--payment-hash", type=HASH, help="The payment, if it is no argument.")
@click.option("--all", "all_payments", is_flag=True, help="All payments; excludes the next two.")
@click.option("--failed-only", is_flag=True, help="Only payments that failed.")
@click.option("--failed-attempts-only", is_flag=True, help="Only failed attempts; payments stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_store
def delete(
    place: Place,
    output: Output,
    hash_: bytes | None,
    payment_hash: bytes | None,
    *,
    yes: bool,
    **choice: bool,
) -> None:
    """Delete payments that are not in flight, or their failed attempts.

    Either one payment by its hash, or many: --all, or --failed-only, or --failed-attempts-only, or
    the last two together. Many are asked about first, unless --yes is given.
    """
    identifier = one_of(hash_, payment_hash)
    if identifier is not None:
        _delete_one(place, output, identifier, **choice)
    else:
        _delete_many(place, output, is_sure=yes, **choice)


def _delete_one(
    place: Place,
    output: Output,
    identifier: bytes,
    *,
    all_payments: bool,
    failed_only: bool,
    failed_attempts_only: bool,
) -> None:
    if all_payments or failed_only:
        raise click.UsageError("a payment hash goes with --failed-attempts-only, or alone")
    with place.opened() as store:
        store.delete_payment(identifier, failed_attempts_only)
    output.record({"deleted": 0 if failed_attempts_only else 1})


def _delete_many(
    place: Place,
    output: Output,
    *,
    is_sure: bool,
    all_payments: bool,
    failed_only: bool,
    failed_attempts_only: bool,
) -> None:
    with place.opened() as store:
        check_delete_choice(
            all_payments=all_payments,
            failed_only=failed_only,
            failed_attempts_only=failed_attempts_only,
        )
        if not is_sure:
            _ask(WHAT[failed_only, failed_attempts_only])
        with progress("payments") as seen:
            count = store.delete_payments(failed_only, failed_attempts_only, seen)
    output.record({"deleted": count})


def _ask(what: str) -> None:
    """Go on only where somebody says yes.

    Raises:
        UsageError: there is nobody to ask.
        Abort: they said no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"this deletes {what}; give --yes where nobody can be asked")
    click.confirm(f"Delete {what}?", abort=True, err=True)
