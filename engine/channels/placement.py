"""Which shard a channel belongs to, written down once per data directory.

A channel's slot is a hash of its id and a table maps slots to shards, so moving channels is moving
slots, never rehashing. Under dedicated placement every channel has a shard of its own instead.
"""

import os
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import msgspec

from engine.channels.options import SLOTS, PlacementOptions

FILE_NAME: Final = "placement.json"


class PlacementMismatch(Exception):  # noqa: N818
    """The data directory was laid out otherwise than the configuration asks for."""


class PlacementRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The layout of a data directory: shard of each slot, or `dedicated` with no slots."""

    placement: Literal["sharded", "dedicated"]
    shards: int
    slots: list[int]


def slot_of(channel_id: bytes) -> int:
    """Return the slot, 0 to 1,023, of a channel."""
    return crc32(channel_id) % SLOTS


def load_or_create_placement(datadir: Path, options: PlacementOptions) -> PlacementRecord:
    """Return the layout of `datadir`, laying it out first where it is new.

    Raises:
        PlacementMismatch: it was laid out with another placement or number of shards, or what
            stands there is no layout.
    """
    path = datadir / FILE_NAME
    if not path.exists():
        _write(path, _fresh(options))
    record = _read(path)
    if record.placement != options.placement:
        raise PlacementMismatch(
            f"{path} says placement {record.placement!r}, the configuration "
            f"{options.placement!r}; use the former or another data directory"
        )
    if record.placement == "sharded" and record.shards != options.shards:
        raise PlacementMismatch(
            f"{path} says {record.shards} shards, the configuration {options.shards}; "
            "use the former or another data directory"
        )
    return record


def shard_number_of(datadir: Path, channel_id: bytes) -> int | None:
    """Return the shard of a channel; None where `datadir` has no layout, or one without slots.

    Raises:
        PlacementMismatch: what stands there is no layout.
    """
    path = datadir / FILE_NAME
    if not path.exists():
        return None
    slots = _read(path).slots
    return slots[slot_of(channel_id)] if slots else None


def _read(path: Path) -> PlacementRecord:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=PlacementRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlacementMismatch(f"{path} cannot be read: {error}") from error
    if record.placement == "sharded":
        shards = range(record.shards)
        if len(record.slots) != SLOTS or not all(shard in shards for shard in record.slots):
            raise PlacementMismatch(f"{path} does not give each of {SLOTS} slots a shard")
    return record


def _fresh(options: PlacementOptions) -> PlacementRecord:
    if options.placement == "dedicated":
        return PlacementRecord(placement="dedicated", shards=0, slots=[])
    slots = [slot % options.shards for slot in range(SLOTS)]
    return PlacementRecord(placement="sharded", shards=options.shards, slots=slots)


def _write(path: Path, record: PlacementRecord) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record)))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
