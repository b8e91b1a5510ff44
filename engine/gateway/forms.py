"""How values look on the wire: text in JSON, binary and integers in msgpack.

JSON: ids, keys and signatures are upper-case hex (either case is taken in), drops are decimal
strings, times are ISO 8601 in UTC. msgpack: bytes stay bytes, drops and times (ns) are integers.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from engine.core.types import AMOUNT_MAX, NS_PER_S, TimeNs

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
END: Final = datetime(2262, 1, 1, tzinfo=UTC)
"""Times are nanoseconds in 63 bits: what is later would not fit the log, nor any batch."""

DIGITS_MAX: Final = len(str(AMOUNT_MAX))
_US: Final = timedelta(microseconds=1)


class Malformed(Exception):  # noqa: N818  (it reads as the sentence it is)
    """A value that cannot be what it should; `param` names the field."""

    def __init__(self, param: str, detail: str) -> None:
        self.param = param
        self.detail = detail
        super().__init__(f"{param}: {detail}")


class Form(msgspec.Struct, frozen=True):
    """One of the two ways to write an answer."""

    content_type: str
    octets: Callable[[bytes], Any]
    drops: Callable[[int], Any]
    time: Callable[[int], Any]
    encode: Callable[[Any], bytes]


def iso(at_ns: int) -> str:
    """Return a time as ISO 8601 in UTC, exact to the microsecond."""
    return (EPOCH + timedelta(microseconds=at_ns // 1_000)).isoformat().replace("+00:00", "Z")


def _hex(octets: bytes) -> str:
    return octets.hex().upper()


def _same(value: Any) -> Any:
    return value


JSON: Final = Form("application/json", _hex, str, iso, msgspec.json.Encoder().encode)
MSGPACK: Final = Form("application/msgpack", _same, _same, _same, msgspec.msgpack.Encoder().encode)


def from_hex(text: str) -> bytes | None:
    """Return the bytes that `text` says in hex; None where anything else is in it."""
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        return None
    # fromhex skips blanks; a field with blanks in it is not what its sender meant.
    return octets if len(text) == 2 * len(octets) else None


def octets_of(param: str, text: str, least: int, most: int) -> bytes:
    """Return the bytes that `text` says in hex.

    Raises:
        Malformed: not hex, or not of `least` to `most` bytes.
    """
    octets = from_hex(text)
    if octets is None or not least <= len(octets) <= most:
        size = f"{least}" if least == most else f"{least} to {most}"
        raise Malformed(param, f"{size} bytes in hex; got {len(text)} characters")
    return octets


def integer_of(param: str, text: str, least: int = 0, most: int = AMOUNT_MAX) -> int:
    """Return the number that `text` says in plain decimal digits.

    Raises:
        Malformed: a sign, a blank, a separator, a leading zero; or not from `least` to `most`.
    """
    plain = text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX
    if not plain or (text[0] == "0" and text != "0") or not least <= int(text) <= most:
        raise Malformed(param, f"a decimal string from {least} to {most}; got {text[:32]!r}")
    return int(text)


def time_of(param: str, text: str) -> TimeNs:
    """Return the nanoseconds since 1970 of an ISO 8601 time with its zone.

    Raises:
        Malformed: no such time, no zone, before 1970 or after 2262.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not EPOCH <= at < END:
        raise Malformed(param, f"a time such as 2026-01-02T03:04:05Z; got {text[:40]!r}")
    return TimeNs((at - EPOCH) // _US * (NS_PER_S // 1_000_000))
