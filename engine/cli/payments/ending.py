"""`paychan payments settle` and `fail`: how attempts, and payments, end."""

from enum import IntEnum
from hashlib import sha256
from typing import Any, Final

import click

from engine.channels.timers import SystemClock
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output
from engine.cli.payments.arguments import (
    INDEX,
    INSTANT,
    MESSAGE,
    OCTETS_32,
    attempt_index_option,
    payment_argument,
)
from engine.cli.payments.stores import Place, on_store
from engine.cli.payments.views import write_payment
from engine.gateway.payments.texts import reason_in
from engine.payments.checking import U32_MAX
from engine.payments.values import AttemptFailureReason, FailureReason, Payment, Settle
from engine.payments.values import Failure as Failed


def _names(kind: type[IntEnum]) -> str:
    return ", ".join(reason.name for reason in kind)


REASONS: Final = [reason.name for reason in (*FailureReason, *AttemptFailureReason)]


@click.command("settle")
@payment_argument
@attempt_index_option
@click.option("--preimage", type=OCTETS_32, required=True, help="The proof that it arrived.")
@click.option("--settled-at", type=INSTANT, help="When it came back; without it, now.")
@click.option("--unchecked", is_flag=True, help="Take a preimage whose hash is another.")
@on_store
def settle(
    place: Place, output: Output, identifier: bytes, attempt_index: int | None, **given: Any
) -> None:
    """Settle an attempt with its preimage.

    Its SHA-256 must be the hash of the attempt, or of the payment where the attempt has none of
    its own. The store itself does not ask for that.
    """
    preimage, settled_at = given["preimage"], given["settled_at"]
    with place.opened() as store:
        payment = store.fetch_payment(identifier)
        index = _index_of(payment) if attempt_index is None else attempt_index
        if not given["unchecked"]:
            _check_preimage(payment, index, preimage)
        ended_at = SystemClock().now_ns() if settled_at is None else settled_at
        payment = store.settle_attempt(identifier, index, Settle(preimage, ended_at))
    write_payment(output, payment)


def _check_preimage(payment: Payment, attempt_index: int, preimage: bytes) -> None:
    """Allow the preimage of an attempt; one that is not there is for the store to refuse.

    Raises:
        Failure: it is another's.
    """
    for attempt in payment.attempts:
        wanted = attempt.payment_hash or payment.info.identifier
        if attempt.attempt_index == attempt_index and sha256(preimage).digest() != wanted:
            seen = f"the SHA-256 of this preimage is not {wanted.hex().upper()}"
            raise Failure(ExitCode.REJECTED, seen, "--unchecked takes it all the same")


def _index_of(payment: Payment) -> int:
    """Return the attempt that is meant where none was named.

    Raises:
        UsageError: none is in flight, or more than one.
    """
    indexes = [each.attempt_index for each in payment.attempts if each.is_in_flight]
    if len(indexes) != 1:
        found = ", ".join(map(str, indexes)) or "none"
        raise click.UsageError(f"give --attempt-index; in flight: {found}")
    return indexes[0]


@click.command("fail")
@payment_argument
@click.option(
    "--reason",
    type=click.Choice(REASONS, case_sensitive=False),
    metavar="REASON",
    required=True,
    help=f"Why: {_names(FailureReason)}; or, of an attempt, {_names(AttemptFailureReason)}.",
)
@click.option("--attempt-index", type=INDEX, help="Fail this attempt; the payment goes on.")
@click.option(
    "--source-index",
    type=click.IntRange(0, U32_MAX),
    default=0,
    show_default=True,
    help="The hop that said so; 0 is ourselves.",
)
@click.option("--message", type=MESSAGE, help="The failure message as it came off the wire.")
@click.option("--failed-at", type=INSTANT, help="When the attempt failed; without it, now.")
@on_store
def fail(place: Place, output: Output, identifier: bytes, reason: str, **given: Any) -> None:
    """Fail an attempt, or give the payment up.

    With --attempt-index, that attempt has failed and another may be made. Without it no more
    attempts are made, and once none is in flight the payment has failed.
    """
    attempt_index: int | None = given["attempt_index"]
    with place.opened() as store:
        if attempt_index is None:
            payment = store.fail_payment(identifier, reason_in("reason", reason, FailureReason))
        else:
            payment = store.fail_attempt(identifier, attempt_index, _failure(reason, **given))
    write_payment(output, payment)


def _failure(reason: str, *, failed_at: int | None, **given: Any) -> Failed:
    return Failed(
        failed_at_ns=SystemClock().now_ns() if failed_at is None else failed_at,
        reason=reason_in("reason", reason, AttemptFailureReason),
        source_index=given["source_index"],
        message=given["message"],
    )
