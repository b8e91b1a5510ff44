"""Take fields off the front of a value that lnd wrote, and refuse what it would not have written.

Numbers are big-endian. Three ways to say a length or a type, each accepted in its shortest form
only: compact size (Bitcoin), BigSize (BOLT 1) and truncated numbers (BOLT 1: no leading zeros).
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

U64_BYTES: Final = 8

_WIDTHS: Final = {0xFD: ("H", 0xFD), 0xFE: ("I", 1 << 16), 0xFF: ("Q", 1 << 32)}
_BIG_SIZE: Final = {mark: (struct.Struct(">" + c), low) for mark, (c, low) in _WIDTHS.items()}
_COMPACT: Final = {mark: (struct.Struct("<" + c), low) for mark, (c, low) in _WIDTHS.items()}


class MalformedError(Exception):
    """A value is not what lnd writes. Stays in this package, where its place is added."""


class Fields:
    """The bytes of one value, and how far they were read.

    Every method raises `MalformedError` where the bytes end early or are not as they must be.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        """Return how many bytes are left."""
        return len(self._data) - self._at

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Take fields of fixed width."""
        start = self._at
        if layout.size > len(self._data) - start:
            raise MalformedError(f"it ends {layout.size - len(self)} bytes early")
        self._at = start + layout.size
        return layout.unpack_from(self._data, start)

    def take(self, size: int) -> bytes:
        """Take `size` bytes."""
        start = self._at
        if size > len(self._data) - start:
            raise MalformedError(f"it ends {size - len(self)} bytes early")
        self._at = start + size
        return self._data[start : start + size]

    def counted(self, size_max: int) -> bytes:
        """Take bytes behind their compact size of at most `size_max`."""
        size = self._prefixed(_COMPACT)
        if size > size_max:
            raise MalformedError(f"a field of {size} bytes is longer than {size_max}")
        return self.take(size)

    def stream(self) -> Iterator[tuple[int, bytes]]:
        """Take all that is left as a TLV stream (BOLT 1): types rise, nothing follows the last."""
        last = -1
        while len(self):
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
        first = self.take(1)[0]
        if first not in widths:
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
