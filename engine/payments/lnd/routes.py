"""Read a route as lnd keeps it: a head, then hop after hop with its records.

::

    route:  time lock u32 · amount u64 · 33 · source key 33 bytes · hops u32
    hop:    33 · key 33 bytes · channel u64 · time lock u32 · amount u64 · legacy u8 · records u32
    record: type u64 · compact size · bytes
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from engine.payments.checking import CUSTOM_RECORD_TYPE_MIN, HASH_BYTES, HOP_BYTES_MAX, HOPS_MAX
from engine.payments.lnd.fields import U64_BYTES, Fields, MalformedError, truncated
from engine.payments.values import AMP, MPP, Hop, Route

_ROUTE: Final = struct.Struct(">IQB33sI")
_HOP: Final = struct.Struct(">B33sQIQBI")
_TYPE: Final = struct.Struct(">Q")
_KEY_BYTES: Final = 33

Warn = Callable[[str], None]
"""Takes a sentence about something that was left out."""


def read_route(fields: Fields, warn: Warn) -> Route:
    """Read the route that `fields` go on with; the hops of blinded paths are put right.

    Raises:
        MalformedError: it is not a route.
    """
    time_lock, amount, key_size, source, count = fields.unpack(_ROUTE)
    if key_size != _KEY_BYTES:
        raise MalformedError(f"its source key is said to have {key_size} bytes")
    if count > HOPS_MAX:
        raise MalformedError(f"its {count} hops do not fit into an onion")
    hops = []
    for index in range(count):
        try:
            hops.append(_hop(fields, partial(_warn_of_hop, warn, index)))
        except MalformedError as error:
            raise MalformedError(f"hop {index}: {error}") from error
    return Route(time_lock, amount, source, tuple(hops))


def _warn_of_hop(warn: Warn, index: int, text: str) -> None:
    warn(f"hop {index}: {text}")


def _hop(fields: Fields, warn: Warn) -> Hop:
    key_size, key, channel, time_lock, amount, legacy, count = fields.unpack(_HOP)
    if key_size != _KEY_BYTES or legacy > 1:
        raise MalformedError("its key, or the kind of its payload, is not one of lnd")
    if not count:
        return Hop(key, channel, time_lock, amount, bool(legacy))
    known, custom = _records(fields, count)
    _blinding(known, warn)
    return Hop(key, channel, time_lock, amount, bool(legacy), **known, custom_records=custom)


def _records(fields: Fields, count: int) -> tuple[dict[str, Any], dict[int, bytes]]:
    """Read records in any order: lnd takes them from a map."""
    known: dict[str, Any] = {}
    custom: dict[int, bytes] = {}
    for _ in range(count):
        (kind,) = fields.unpack(_TYPE)
        value = fields.counted(HOP_BYTES_MAX)
        if kind in custom or (kind in _KNOWN and _KNOWN[kind][0] in known):
            raise MalformedError(f"record {kind} comes twice")
        if kind >= CUSTOM_RECORD_TYPE_MIN:
            custom[kind] = value
        elif kind in _KNOWN:
            name, read = _KNOWN[kind]
            known[name] = read(value)
        else:
            raise MalformedError(f"record {kind} is none that lnd keeps")
    return known, custom


def _blinding(known: dict[str, Any], warn: Warn) -> None:
    """Let what belongs to a blinded path stand only where its encrypted data is."""
    if known.get("encrypted_data"):
        return
    known.pop("encrypted_data", None)
    if "blinding_point" in known:
        raise MalformedError("it has a blinding point and no encrypted data")
    total = known.pop("blinded_total_msat", 0)
    if total:
        warn(f"the blinded total of {total} msat was left out, for there is no encrypted data")


def _mpp(value: bytes) -> MPP:
    if len(value) < HASH_BYTES:
        raise MalformedError("its MPP record is too short")
    return MPP(value[:HASH_BYTES], truncated(value[HASH_BYTES:], U64_BYTES))


def _amp(value: bytes) -> AMP:
    if len(value) < 2 * HASH_BYTES:
        raise MalformedError("its AMP record is too short")
    root, set_id, child = value[:HASH_BYTES], value[HASH_BYTES:64], value[2 * HASH_BYTES :]
    return AMP(root, set_id, truncated(child, U64_BYTES // 2))


def _point(value: bytes) -> bytes:
    if len(value) != _KEY_BYTES or value[0] not in (2, 3):
        raise MalformedError("its blinding point is not one of a curve")
    return value


def _total(value: bytes) -> int:
    return truncated(value, U64_BYTES)


_KNOWN: Final[dict[int, tuple[str, Callable[[bytes], Any]]]] = {
    8: ("mpp", _mpp),
    10: ("encrypted_data", bytes),
    12: ("blinding_point", _point),
    14: ("amp", _amp),
    16: ("metadata", bytes),
    18: ("blinded_total_msat", _total),
}
