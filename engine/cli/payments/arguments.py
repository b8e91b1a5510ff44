"""What may stand on the command line of `paychan payments`."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from engine.cli.arguments import HexBytes, parse_hex
from engine.core.types import NS_PER_S
from engine.gateway.forms import Malformed
from engine.gateway.payments.texts import time_in
from engine.payments.checking import HASH_BYTES, MESSAGE_BYTES_MAX, U64_MAX
from engine.payments.values import NUMBER_MAX

_DIGITS: Final = re.compile(r"[0-9]{1,20}", re.ASCII)


class Number(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """A whole number without a sign."""

    def __init__(self, name: str, what: str, most: int = U64_MAX) -> None:
        self.name = name
        self._what = what
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if isinstance(value, int):
            return value
        if not _DIGITS.fullmatch(value) or int(value) > self._most:
            self.fail(f"{value!r} is not {self._what} from 0 to {self._most}", param, ctx)
        return int(value)


class Instant(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """A time in ISO 8601 with its zone, as nanoseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds."""
        if isinstance(value, int):
            return value
        try:
            return time_in("time", value)
        except Malformed as error:
            self.fail(error.detail, param, ctx)


class Second(Instant):
    """A second: a time in ISO 8601, or a number of seconds since 1970 as lncli takes it."""

    name = "time|seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return whole seconds since 1970."""
        if isinstance(value, int):
            return value
        if _DIGITS.fullmatch(value):
            return int(value)
        return super().convert(value, param, ctx) // NS_PER_S


class Record(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """A custom record: its type and its value in hex."""

    name = "type=hex"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, bytes]:
        """Return type and value."""
        if isinstance(value, tuple):
            return value
        kind, equals, octets = value.partition("=")
        try:
            if not equals or not _DIGITS.fullmatch(kind):
                raise ValueError("no type")
            return int(kind), parse_hex(octets) if octets else b""
        except ValueError:
            self.fail(f"{value!r} is no record; give one like 65536=AB12", param, ctx)


HASH: Final = HexBytes("a payment hash", HASH_BYTES)
OCTETS_32: Final = HexBytes("it", HASH_BYTES)
MESSAGE: Final = HexBytes("a message", size_max=MESSAGE_BYTES_MAX)
MSAT: Final = Number("msat", "whole millisatoshis")
OFFSET: Final = Number("number", "a sequence number")
COUNT: Final = Number("count", "a count")
INDEX: Final = Number("index", "an attempt index", NUMBER_MAX)
INSTANT: Final = Instant()
SECOND: Final = Second()
RECORD: Final = Record()

attempt_index_option = click.option(
    "--attempt-index", type=INDEX, help="Which attempt; without it, the only one in flight."
)


def payment_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `identifier`: its argument, or `--payment-hash`."""

    @click.argument("hash_", metavar="PAYMENT_HASH", type=HASH, required=False)
    @click.option("--payment-hash", type=HASH, help="The payment, if it is no argument.")
    @wraps(command)
    def wrapped(
        *arguments: Any, hash_: bytes | None, payment_hash: bytes | None, **options: Any
    ) -> None:
        identifier = one_of(hash_, payment_hash)
        if identifier is None:
            raise click.UsageError("give the payment hash")
        command(*arguments, identifier=identifier, **options)

    return wrapped


def one_of(argument: bytes | None, option: bytes | None) -> bytes | None:
    """Return what was given, in either way.

    Raises:
        UsageError: both were, and differ.
    """
    if argument is not None and option not in (None, argument):
        raise click.UsageError("the argument and --payment-hash name two payments")
    return option if argument is None else argument
