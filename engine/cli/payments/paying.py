"""`paychan payments init` and `attempt`: a payment, and the tries to make it."""

import secrets
from typing import IO, Any, Final

import click

from engine.channels.timers import SystemClock
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output
from engine.cli.payments.arguments import (
    INDEX,
    INSTANT,
    MSAT,
    OCTETS_32,
    RECORD,
    payment_argument,
)
from engine.cli.payments.stores import Place, on_store
from engine.cli.payments.views import write_payment
from engine.gateway.payments.bodies import RouteBody, decoded, route_of
from engine.payments.checking import HASH_BYTES
from engine.payments.values import Attempt, CreationInfo, Route

ROUTE_BYTES_MAX: Final = 2 << 20


@click.command("init")
@payment_argument
@click.option("--value-msat", type=MSAT, required=True, help="What the receiver is to get.")
@click.option("--created-at", type=INSTANT, help="When it was made; without it, now.")
@click.option("--payment-request", default="", help="The invoice.")
@click.option(
    "--record", "records", type=RECORD, multiple=True, help="A custom record for the first hop."
)
@on_store
def init(
    place: Place,
    output: Output,
    identifier: bytes,
    value_msat: int,
    created_at: int | None,
    **more: Any,
) -> None:
    """Begin a payment, or begin again one that failed.

    Makes the store if there is none.
    """
    info = CreationInfo(
        identifier=identifier,
        value_msat=value_msat,
        created_at_ns=_now() if created_at is None else created_at,
        payment_request=more["payment_request"].encode(errors="surrogateescape"),
        first_hop_custom_records=dict(more["records"]),
    )
    with place.opened(create=True) as store:
        store.init_payment(identifier, info)
        payment = store.fetch_payment(identifier)
    write_payment(output, payment)


@click.command("attempt")
@payment_argument
@click.option(
    "--route",
    "route_file",
    type=click.File("rb"),
    required=True,
    help="A file with the route as JSON; - reads standard input.",
)
@click.option("--attempt-index", type=INDEX, help="Its index; without it, the next one there is.")
@click.option(
    "--session-key", type=OCTETS_32, help="The key of its onion; without it, one is made up."
)
@click.option("--attempted-at", type=INSTANT, help="When it was made; without it, now.")
@click.option("--attempt-hash", type=OCTETS_32, help="Its own hash, where it has one, as with AMP.")
@on_store
def attempt(
    place: Place, output: Output, identifier: bytes, route_file: IO[bytes], **given: Any
) -> None:
    """Keep an attempt along a route, which is about to be sent.

    The route has the fields that `paychan payments show` writes of one.
    """
    session_key, attempted_at = given["session_key"], given["attempted_at"]
    with place.opened() as store:
        route = _route(route_file)
        index = given["attempt_index"]
        made = Attempt(
            attempt_index=store.next_attempt_index() if index is None else index,
            session_key=secrets.token_bytes(HASH_BYTES) if session_key is None else session_key,
            route=route,
            attempted_at_ns=_now() if attempted_at is None else attempted_at,
            payment_hash=given["attempt_hash"],
        )
        payment = store.register_attempt(identifier, made)
    write_payment(output, payment, attempt_index=made.attempt_index)


def _route(file: IO[bytes]) -> Route:
    """Read a route.

    Raises:
        Failure: it cannot be read, or is too long for one.
        Malformed: it is none.
    """
    try:
        data = file.read(ROUTE_BYTES_MAX + 1)
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{file.name}: {error.strerror or error}") from error
    if len(data) > ROUTE_BYTES_MAX:
        raise Failure(ExitCode.USAGE, f"a route has at most {ROUTE_BYTES_MAX} bytes")
    return route_of(decoded(data, RouteBody))


def _now() -> int:
    return SystemClock().now_ns()
