"""How the values of payments look in JSON, and how they are read back.

Hex is written in upper case and read in either; millisatoshis are decimal strings; times are ISO
8601 in UTC to the last nanosecond. What cannot be read is `Malformed`, with the name of the field;
whether a value may be what it says is for the store to judge, so its codes are the same everywhere.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, TypeVar

from engine.core.types import NS_PER_S
from engine.gateway.forms import EPOCH, Malformed, from_hex, integer_of

Reason = TypeVar("Reason", bound=IntEnum)
DIGITS_20: Final = 10**20 - 1
"""Beyond every limit of the store, which names its own."""

_SECOND: Final = timedelta(seconds=1)
_TIME: Final = re.compile(r"([^.]{19})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


def hex_text(octets: bytes | None) -> str | None:
    """Return bytes in upper-case hex."""
    return None if octets is None else octets.hex().upper()


def octets_in(param: str, text: str) -> bytes:
    """Return the bytes that `text` says in hex.

    Raises:
        Malformed: anything else is in it, such as a blank.
    """
    octets = from_hex(text)
    if octets is None:
        raise Malformed(param, f"bytes in hex; got {len(text)} characters, {text[:32]!r}")
    return octets


def number_in(param: str, text: str) -> int:
    """Return the number that `text` says in plain decimal digits, at most 20 of them.

    Raises:
        Malformed: a sign, a blank, a separator, a leading zero.
    """
    return integer_of(param, text, 0, DIGITS_20)


def records_text(records: Mapping[int, bytes]) -> dict[str, str]:
    """Return custom records, ascending by type."""
    return {str(kind): records[kind].hex().upper() for kind in sorted(records)}


def records_in(param: str, records: Mapping[str, str]) -> dict[int, bytes]:
    """Return the custom records that `{"65536": "AB12"}` says.

    Raises:
        Malformed: a type that is no number, or a value that is not hex.
    """
    return {
        number_in(f"{param}: a type", kind): octets_in(f"{param}: record {kind[:20]}", value)
        for kind, value in records.items()
    }


def time_text(at_ns: int) -> str | None:
    """Return a time to the last nanosecond; None for 0, which is no time in old data."""
    if at_ns == 0:
        return None
    seconds, rest = divmod(at_ns, NS_PER_S)
    whole = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return whole + (f".{rest:09d}".rstrip("0") if rest else "") + "Z"


def time_in(param: str, text: str) -> int:
    """Return the nanoseconds since 1970 of an ISO 8601 time with its zone.

    Raises:
        Malformed: no such time, no zone, finer than a nanosecond, or before 1970.
    """
    found = _TIME.fullmatch(text)
    try:
        at = datetime.fromisoformat(found[1] + found[3]).astimezone(UTC) if found else None
    except (ValueError, OverflowError):
        at = None
    if found is None or at is None or at < EPOCH:
        raise Malformed(param, f"a time such as 2026-01-02T03:04:05.123456789Z; got {text[:40]!r}")
    return (at - EPOCH) // _SECOND * NS_PER_S + int((found[2] or "0").ljust(9, "0"))


def reason_in(param: str, text: str, kind: type[Reason]) -> Reason:
    """Return the reason that has this name, in either case.

    Raises:
        Malformed: none has it.
    """
    try:
        return kind[text.upper()]
    except KeyError as error:
        names = ", ".join(reason.name for reason in kind)
        raise Malformed(param, f"one of {names}; got {text[:40]!r}") from error


def request_text(request: bytes) -> dict[str, str]:
    """Return the fields of a payment request: an invoice is text, anything else is hex."""
    if not request:
        return {}
    # What is not plain would reach somebody's terminal as it is.
    if request.isascii() and (text := request.decode()).isprintable():
        return {"payment_request": text}
    return {"payment_request_hex": request.hex().upper()}


def request_in(text: str | None, in_hex: str | None) -> bytes:
    """Return a payment request.

    Raises:
        Malformed: both are given, or it is no hex.
    """
    if in_hex is None:
        return (text or "").encode()
    if text is not None:
        raise Malformed("payment_request", "or payment_request_hex, not both")
    return octets_in("payment_request_hex", in_hex)
