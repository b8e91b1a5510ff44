"""The payers' own ledger: what they were told is accepted, on disk, apart from the engine's log."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Acknowledged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One claim that was answered "accepted" or "duplicate"."""

    channel_id: bytes
    sequence: int
    amount: int
    position: str


class AckWriter:
    """Appends acknowledgements; one line of msgpack arrays a batch."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._encode = msgspec.msgpack.Encoder().encode

    def write(self, batch: list[Acknowledged]) -> None:
        """Append a batch and hand it to the system."""
        data = self._encode(batch)
        self._file.write(len(data).to_bytes(4, "big") + data)
        self._file.flush()

    def close(self) -> None:
        """Return once everything is on disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def read_acknowledged(path: Path) -> Iterator[Acknowledged]:
    """Yield every acknowledgement in the order it was written."""
    decode = msgspec.msgpack.Decoder(list[Acknowledged]).decode
    with path.open("rb") as file:
        while head := file.read(4):
            yield from decode(file.read(int.from_bytes(head, "big")))
