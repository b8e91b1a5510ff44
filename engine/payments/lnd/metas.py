"""Find out how a bbolt file is laid out: its two meta pages, and which of them counts.

Each commit of bbolt rewrites the older of the two, so one may be torn and the file still whole.
A meta page is a page head, and then, little-endian::

    magic u32 · version u32 · page size u32 · flags u32 · root page u64 · root sequence u64 ·
    freelist page u64 · high water u64 · transaction u64 · FNV-1a 64 of the 56 bytes before u64
"""

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from engine.payments.lnd.pages import HEAD, META, read_head

MAGIC: Final = 0xED0CDAED
VERSION: Final = 2
PAGE_SIZES: Final = tuple(1024 << shift for shift in range(7))
"""1 KiB to 64 KiB. bbolt takes the page size of the machine that made the file."""

_META: Final = struct.Struct("<IIIIQQQQQQ")
META_BYTES: Final = HEAD.size + _META.size
_SUMMED: Final = _META.size - 8

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> the bytes there, fewer where the file ends."""


class Meta(msgspec.Struct, frozen=True, gc=False):
    """One meta page: where the tree begins, and how many pages the file has."""

    page_size: int
    root_page: int
    root_sequence: int
    high_water: int
    transaction: int


def fnv1a_64(data: bytes) -> int:
    """Return the FNV-1a hash of 64 bits (IETF draft-eastlake-fnv)."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def choose_meta(read_at: ReadAt) -> Meta | str:
    """Return the valid meta page of the newer transaction; or why there is none, in words."""
    first = read_meta(read_at(0, META_BYTES))
    # A torn first page does not say where the second lies.
    sizes = (first.page_size,) if isinstance(first, Meta) else PAGE_SIZES
    metas = [first, *(read_meta(read_at(size, META_BYTES)) for size in sizes)]
    places = (0, *sizes)
    valid = [
        meta
        for meta, place in zip(metas, places, strict=True)
        if isinstance(meta, Meta) and place in (0, meta.page_size)
    ]
    return max(valid, key=lambda meta: meta.transaction) if valid else str(first)


def read_meta(data: bytes) -> Meta | str:
    """Read the meta page at the start of `data`; or say why it is none, in words."""
    if len(data) < META_BYTES:
        return "it is shorter than a meta page"
    fields = _META.unpack_from(data, HEAD.size)
    magic, version, page_size, _, root, sequence, _, high_water, transaction, checksum = fields
    if read_head(data).flags != META or magic != MAGIC:
        return "it does not begin like a bbolt file"
    if version != VERSION:
        return f"it is of version {version} of the format; this reader knows {VERSION}"
    if fnv1a_64(data[HEAD.size : HEAD.size + _SUMMED]) != checksum:
        return "the checksum of its meta page is wrong"
    if page_size not in PAGE_SIZES:
        return f"its page size of {page_size} bytes is not one that bbolt uses"
    return Meta(page_size, root, sequence, high_water, transaction)
