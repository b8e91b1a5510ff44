"""An event as a row: stable names and values that any tool can read.

Names are those of `docs/reference/events.md`. Ids, keys and signatures are upper-case hex, drops
decimal strings, times ISO 8601 in UTC.
"""

from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from engine.core.events import AnyEvent

DROPS: Final = frozenset({"amount", "capacity", "redeemed", "previous"})
"""Told as strings; `previous` is one where it is no digest."""

TIMES: Final = frozenset({"at", "expiration", "cancel_after", "sent_at"})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def event_row(shard: int, position: int, event: AnyEvent) -> dict[str, Any]:
    """Return an event with its place; a field that says nothing is left out."""
    row: dict[str, Any] = {
        "position": f"{shard}-{position}",
        "event": type(event).__name__,
    }
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if value is not None:
            row[name] = _told(name, value)
    return row


@lru_cache(maxsize=256)  # the events of a batch happened at one moment
def moment(at: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC, with microseconds where there are any."""
    told = _EPOCH + timedelta(microseconds=at // 1_000)
    return told.isoformat().replace("+00:00", "Z")


def _told(name: str, value: Any) -> Any:
    kind = type(value)
    if kind is bytes:
        return value.hex().upper()
    if kind is int:
        if name in TIMES:
            return moment(value)
        return str(value) if name in DROPS else value
    return value.value if isinstance(value, Enum) else value
