"""What is used of LMDB's transactions; without buffers, so keys and values are bytes."""

from collections.abc import Iterator
from typing import Literal, Protocol, overload


class Cursor(Protocol):
    """A place in the sorted line of keys."""

    def set_range(self, key: bytes) -> bool:
        """Go to the first key that is not below `key`; False = there is none."""

    def prev(self) -> bool:
        """Go one back; False = this was the first."""

    def last(self) -> bool:
        """Go to the last key; False = there is none."""

    @overload
    def iternext(self) -> Iterator[tuple[bytes, bytes]]: ...
    @overload
    def iternext(self, keys: Literal[True], values: Literal[False]) -> Iterator[bytes]: ...

    def iterprev(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield from here on backwards."""


class Transaction(Protocol):
    """One consistent view, and what is changed in it."""

    def get(self, key: bytes) -> bytes | None:
        """Return what is stored."""

    def put(self, key: bytes, value: bytes) -> bool:
        """Store."""

    def delete(self, key: bytes) -> bool:
        """Remove; False = it was not there."""

    def cursor(self) -> Cursor:
        """Return a cursor that is nowhere."""

    def id(self) -> int:
        """Return the version of the store that is seen; of a writer, the one that it makes."""

    def stat(self) -> dict[str, int]:
        """Return counts, among them `entries`."""
