"""What may stand on the command line; a wrong value is told what it is, and what it may be."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from engine.core.types import (
    AMOUNT_MAX,
    CHANNEL_ID_BYTES,
    PUBLIC_KEY_BYTES,
    SEQUENCE_MAX,
    SIGNATURE_BYTES_MAX,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DIGITS: Final = re.compile(r"[0-9]{1,20}")


class HexBytes(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """Hex of `size` bytes, or of up to `size_max`."""

    name = "hex"

    def __init__(self, what: str, size: int = 0, size_max: int = 0) -> None:
        self.what = what
        self._size = size
        self._size_max = size_max or size

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the bytes."""
        if isinstance(value, bytes):
            return value
        allowed = f"{self._size or 'up to ' + str(self._size_max)} bytes"
        try:
            data = parse_hex(value)
        except ValueError:
            self.fail(f"{value!r} is not hex; {self.what} is {allowed} of it", param, ctx)
        if len(data) > self._size_max or (self._size and len(data) != self._size):
            self.fail(f"{value!r} is {len(data)} bytes; {self.what} is {allowed}", param, ctx)
        return data


class Amount(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """Whole drops within 64 bits."""

    name = "drops"

    def __init__(self, smallest: int) -> None:
        self._smallest = smallest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of drops."""
        if isinstance(value, int):
            return value
        if not _DIGITS.fullmatch(value) or not self._smallest <= int(value) <= AMOUNT_MAX:
            self.fail(
                f"{value!r} is no amount; give whole drops from {self._smallest} to {AMOUNT_MAX}"
                " (1 XRP is 1000000 drops)",
                param,
                ctx,
            )
        return int(value)


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """A time in ISO 8601 with its zone, as nanoseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds, whole microseconds."""
        if isinstance(value, int):
            return value
        example = "2026-08-01T12:00:00Z"
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; give one like {example}", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} does not say its zone; give one like {example}", param, ctx)
        return (moment - _EPOCH) // _MICROSECOND * 1_000


class ServerUrl(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """Where an engine listens."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the URL."""
        if not re.fullmatch(r"https?://[^/\s]+/?", value):
            self.fail(f"{value!r} is no server; give one like http://127.0.0.1:8480", param, ctx)
        return str(value).rstrip("/")


def parse_hex(text: str) -> bytes:
    """Return the bytes of hex digits in either case.

    Raises:
        ValueError: anything else is in it; unlike `bytes.fromhex`, blanks too.
    """
    if not text.isascii() or not text.isalnum():
        raise ValueError("not hex")
    return bytes.fromhex(text)


CHANNEL_ID: Final = HexBytes("a channel id", CHANNEL_ID_BYTES)
PUBLIC_KEY: Final = HexBytes("a public key", PUBLIC_KEY_BYTES)
SIGNATURE: Final = HexBytes("a signature", size_max=SIGNATURE_BYTES_MAX)
DROPS: Final = Amount(1)
DROPS_OR_NONE: Final = Amount(0)
SEQUENCE: Final = click.IntRange(1, SEQUENCE_MAX)
MOMENT: Final = Moment()
SERVER: Final = ServerUrl()
