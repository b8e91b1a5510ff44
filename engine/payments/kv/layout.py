"""Where everything lies in the LMDB store: keys, and what stands behind each.

One LMDB database, one sorted line of keys. The first byte of a key is its region; numbers in keys
are 8 bytes, big-endian, so they sort by size. Regions that a call writes together lie together:

    meta      01 name                        schema, counters or note
    status    02 status(1) number(8)         line      which payments have which status
    line      03 number(8)                   line      which number is which payment
    created   04 second(8) number(8)         (empty)   when each was made
    zone      05 level(1) block(8)           span      between when a run of numbers was made
    owner     06 attempt index(8)            identifier(32)
    key       07 session key(32)             attempt index(8)
    payment   08 identifier(32) kind(1) ...  record    see below

    line  kind(1: 0 payment, 1 duplicate) created ns(8) identifier(32)
    span  first second(8) last second(8)

A payment is one run of keys, so a read is one walk, mostly within a page of 4 KiB; hops come after
all that a query without hops needs:

    00 header   01 info   02 index(8) attempt   03 index(8) result   04 index(8) hops
    05 number(8) duplicate

Records are msgpack arrays (`engine.payments.kv.rows`) and end in a CRC-32 of key and record, since
LMDB has no checksums. In-flight payments are those of two statuses: no index of its own is needed.
"""

from struct import Struct
from typing import Final
from zlib import crc32

from engine.payments.errors import StoreDamagedError

SCHEMA_VERSION: Final = 1

META: Final = b"\x01"
STATUS: Final = b"\x02"
LINE: Final = b"\x03"
CREATED: Final = b"\x04"
ZONE: Final = b"\x05"
OWNER: Final = b"\x06"
SESSION_KEY: Final = b"\x07"
PAYMENT: Final = b"\x08"

SCHEMA_KEY: Final = META + b"schema"
COUNTERS_KEY: Final = META + b"counters"
NOTE_KEY: Final = META + b"note"

HEADER, INFO, ATTEMPT, RESULT, HOPS, DUPLICATE = range(6)
KIND_AT: Final = 33
"""Where in a key of a payment its kind is."""

ZONE_SHIFTS: Final = (7, 14)
"""A zone of the first level is 128 numbers, one of the second 16,384."""

IS_PAYMENT: Final = 0
IS_DUPLICATE: Final = 1

_NUMBER: Final = Struct(">Q")
_LINE: Final = Struct(">BQ32s")
_SPAN: Final = Struct(">QQ")
_CHECKSUM_BYTES: Final = 4

number_bytes: Final = _NUMBER.pack
line_bytes: Final = _LINE.pack
span_bytes: Final = _SPAN.pack


def number_of(data: bytes) -> int:
    """Read 8 bytes.

    Raises:
        StoreDamagedError: there are more or fewer.
    """
    if len(data) != _NUMBER.size:
        raise StoreDamagedError(f"a number of the store has {len(data)} bytes; {_RESTORE}")
    number: int = _NUMBER.unpack(data)[0]
    return number


def line_of(data: bytes) -> tuple[int, int, bytes]:
    """Read kind, creation time and identifier.

    Raises:
        StoreDamagedError: it is something else.
    """
    if len(data) != _LINE.size:
        raise StoreDamagedError(f"a line of the store has {len(data)} bytes; {_RESTORE}")
    kind, created_at_ns, identifier = _LINE.unpack(data)
    return kind, created_at_ns, identifier


def span_of(data: bytes) -> tuple[int, int]:
    """Read the first and the last second of a zone.

    Raises:
        StoreDamagedError: it is something else.
    """
    if len(data) != _SPAN.size:
        raise StoreDamagedError(f"a zone of the store has {len(data)} bytes; {_RESTORE}")
    first, last = _SPAN.unpack(data)
    return first, last


def part_key(identifier: bytes, kind: int, number: int | None = None) -> bytes:
    """Return the key of a part of a payment."""
    key = b"%b%b%c" % (PAYMENT, identifier, kind)
    return key if number is None else key + number_bytes(number)


def status_key(status: int, number: int) -> bytes:
    """Return the key that says that a number has a status."""
    return b"%b%c%b" % (STATUS, status, number_bytes(number))


def created_key(second: int, number: int) -> bytes:
    """Return the key that says when a number was made."""
    return CREATED + number_bytes(second) + number_bytes(number)


def zone_key(level: int, number: int) -> bytes:
    """Return the key of the zone, of level 0 or 1, that a sequence number is in."""
    return b"%b%c%b" % (ZONE, level, number_bytes(number >> ZONE_SHIFTS[level]))


def seal(key: bytes, record: bytes) -> bytes:
    """Return a record as it is stored under `key`."""
    return record + crc32(key + record).to_bytes(_CHECKSUM_BYTES, "big")


def unseal(key: bytes, stored: bytes) -> bytes:
    """Return the record that is stored under `key`.

    Raises:
        StoreDamagedError: it is not what was written there.
    """
    record = stored[:-_CHECKSUM_BYTES]
    if stored[-_CHECKSUM_BYTES:] != crc32(key + record).to_bytes(_CHECKSUM_BYTES, "big"):
        raise StoreDamagedError(f"the record {key.hex()} is not what was written; {_RESTORE}")
    return record


_RESTORE: Final = "`paychan payments verify` names all damage; restore a backup"
