"""Turn the records of a frame into its payload and back. The log itself never looks inside."""

import struct
from collections.abc import Callable, Sequence
from typing import NewType, Protocol, TypeVar, runtime_checkable

import msgspec

from wal.format import RAW_BYTES_MAX

Position = NewType("Position", int)
"""Counts records from 1 over the life of the log; 0 stands before the first."""

FIRST = Position(1)

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)

DECODE_FAULTS = (
    ArithmeticError,
    EOFError,
    LookupError,
    RecursionError,
    StopIteration,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
    struct.error,
)
"""What a codec raises when the bytes are not what it wrote."""


class Codec(Protocol[R]):
    """One instance lives for one segment, so it may remember what it saw in it.

    `encode` sees the frames of a segment in order, once; so does `decode`.
    """

    def encode(self, first: Position, records: Sequence[R]) -> bytes:
        """Return the payload of a frame whose first record has position `first`."""

    def decode(self, first: Position, count: int, payload: bytes) -> list[R]:
        """Return the `count` records of a payload, or raise if it is none."""


@runtime_checkable
class Measured(Protocol[R_contra]):
    """A codec that can say beforehand how many bytes a record takes at most.

    With it a commit above 1 MiB is cut into frames without trying.
    """

    def measure(self, record: R_contra) -> int:
        """Return the largest number of bytes `record` can add to a payload."""


@runtime_checkable
class Placed(Protocol):
    """A codec whose payloads say where they belong, for a reader that lost count."""

    def first_of(self, payload: bytes) -> Position:
        """Return the position of the first record of a payload, or raise if it is none."""


@runtime_checkable
class Skipping(Protocol):
    """A codec that can pass a frame nobody wants for less than it costs to decode it."""

    def skip(self, first: Position, count: int, payload: bytes) -> None:
        """Remember of a payload what later ones build on; raise as `decode` if it is none."""


@runtime_checkable
class Packable(Protocol[R]):
    """A codec that has a denser form for segments that are packed.

    Without it their frames are larger, and written as they were.
    """

    def packed(self) -> Codec[R]:
        """Return the codec of one packed segment."""


def codec_for(make: Callable[[], Codec[R]], packed: bool) -> Codec[R]:
    """Return the codec of one segment, in the form it was written in."""
    codec = make()
    return codec.packed() if packed and isinstance(codec, Packable) else codec


class LengthPrefixed:
    """Records are bytes, each behind its length (u32, little endian)."""

    _length = struct.Struct("<I")

    def measure(self, record: bytes) -> int:
        """See `Measured`."""
        return self._length.size + len(record)

    def encode(self, first: Position, records: Sequence[bytes]) -> bytes:
        """See `Codec`."""
        pack = self._length.pack
        return b"".join([part for record in records for part in (pack(len(record)), record)])

    def decode(self, first: Position, count: int, payload: bytes) -> list[bytes]:
        """See `Codec`.

        Raises:
            ValueError: the lengths do not add up to the payload.
        """
        records = []
        at = 0
        for _ in range(count):
            (size,) = self._length.unpack_from(payload, at)
            at += self._length.size + size
            records.append(payload[at - size : at])
        if at != len(payload):
            raise ValueError(f"{count} records end at byte {at} of {len(payload)}")
        return records


def cut(measure: Callable[[R], int] | None, records: Sequence[R]) -> int:
    """Return how many of `records`, from the first on, go into one frame by their measure.

    A codec that does not measure is bounded by the number of records alone, and by trying.
    """
    if measure is None:
        return len(records)
    room = RAW_BYTES_MAX
    for index, record in enumerate(records):
        room -= measure(record)
        if room < 0:
            return max(index, 1)
    return len(records)
