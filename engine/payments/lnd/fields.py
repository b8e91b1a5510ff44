"""Take fields off the front of a value that lnd wrote, and refuse what it would not have written.

Numbers are big-endian. Three ways to say a length or a type, each accepted in its shortest form
only: compact size (Bitcoin), BigSize (BOLT 1) and truncated numbers (BOLT 1: no leading zeros).
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

U64_BYTES: Final = 8

_MARKS: Final = 0xFD
"""From here on a first byte says how wide the number behind it is."""

_WIDTHS: Final = {0xFD: ("H", 0xFD), 0xFE: ("I", 1 << 16), 0xFF: ("Q", 1 << 32)}
_BIG_SIZE: Final = {mark: (struct.Struct(">" + c), low) for mark, (c, low) in _WIDTHS.items()}
_COMPACT: Final = {mark: (struct.Struct("<" + c), low) for mark, (c, low) in _WIDTHS.items()}


class MalformedError(Exception):
    """A value is not what lnd writes. Stays in this package, where its place is added."""


class Fields:
    """The bytes of one value, and how far they were read.

    Every method raises `MalformedError` where the bytes end early or are not as they must be.
    """

    __slots__ = ("_at", "_data", "_size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._size = len(data)
        self._at = 0

    def __len__(self) -> int:
        """Return how many bytes are left."""
        return self._size - self._at

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Take fields of fixed width."""
        start = self._at
        self._at = end = start + layout.size
        if end > self._size:
            raise MalformedError(f"it ends {end - self._size} bytes early")
        return layout.unpack_from(self._data, start)

    def take(self, size: int) -> bytes:
        """Take `size` bytes."""
        start = self._at
        self._at = end = start + size
        if end > self._size:
            raise MalformedError(f"it ends {end - self._size} bytes early")
        return self._data[start:end]

    def counted(self, size_max: int) -> bytes:
        """Take bytes behind their compact size of at most `size_max`."""
        size = self._prefixed(_COMPACT)
        if size > size_max:
            raise MalformedError(f"a field of {size} bytes is longer than {size_max}")
        return self.take(size)

    def stream(self) -> Iterator[tuple[int, bytes]]:
        """Take all that is left as a TLV stream (BOLT 1): types rise, nothing follows the last."""
        last = -1
        while self._at < self._size:
            kind = self._prefixed(_BIG_SIZE)
            if kind <= last:
                raise MalformedError(f"record {kind} follows record {last}")
            last = kind
            yield kind, self.take(self._prefixed(_BIG_SIZE))

    def end(self) -> None:
        """Refuse bytes that follow the last field."""
        if len(self):
            raise MalformedError(f"{len(self)} bytes follow its last field")

    def _prefixed(self, widths: dict[int, tuple[struct.Struct, int]]) -> int:
        at = self._at
        self._at = at + 1
        if at >= self._size:
            raise MalformedError("it ends 1 bytes early")
        first = self._data[at]
        if first < _MARKS:
            return first
        layout, lowest = widths[first]
        number = int(self.unpack(layout)[0])
        if number < lowest:
            raise MalformedError(f"the number {number} is not in its shortest form")
        return number


def truncated(data: bytes, size_max: int) -> int:
    """Read a number without its leading zero bytes, of at most `size_max` bytes."""
    if len(data) > size_max or data[:1] == b"\0":
        raise MalformedError("a truncated number is too long, or begins with a zero")
    return int.from_bytes(data)


def big_size(data: bytes) -> int:
    """Read a BigSize that fills `data`."""
    fields = Fields(data)
    number = fields._prefixed(_BIG_SIZE)
    fields.end()
    return number
