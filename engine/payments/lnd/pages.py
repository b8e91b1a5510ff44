"""Read one page of a bbolt file: every number in it is checked before it is used.

A page holds a sorted table of keys. Leaves hold values, branches the pages below them::

    id u64 · flags u16 · count u16 · overflow u32      the head; little-endian, like all of it
    leaf:   flags u32 · pos u32 · key size u32 · value size u32      per element
    branch: pos u32 · key size u32 · page u64                        per element

`pos` counts from the element itself. `overflow` is how many pages follow that belong to this one.
"""

import struct
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

HEAD: Final = struct.Struct("<QHHI")
LEAF_ELEMENT: Final = struct.Struct("<IIII")
BRANCH_ELEMENT: Final = struct.Struct("<IIQ")
ELEMENT_SIZE: Final = 16

BRANCH: Final = 0x01
LEAF: Final = 0x02
META: Final = 0x04
FREELIST: Final = 0x10

BUCKET_ELEMENT: Final = 1
"""The one flag of a leaf element: its value is the head of a bucket."""

KEY_BYTES_MAX: Final = 32_768
"""bbolt takes no longer key. Keys are compared at each look-up, and a long one takes its time."""

Refuse = Callable[[str], NoReturn]
"""Raises the error of the page that is read, with a reason in words."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """The 16 bytes every page begins with."""

    page: int
    flags: int
    count: int
    overflow: int


class Leaf(msgspec.Struct, frozen=True):
    """A page of keys and values; `slots[i]` says where in `data` the value of `keys[i]` lies."""

    page: int
    keys: list[bytes]
    slots: list[tuple[int, int, int]]
    data: bytes

    def value(self, index: int) -> bytes:
        """Return the value of the key at `index`."""
        _, start, end = self.slots[index]
        return self.data[start:end]

    def is_bucket(self, index: int) -> bool:
        """Say whether that value is the head of a bucket."""
        return self.slots[index][0] == BUCKET_ELEMENT


class Branch(msgspec.Struct, frozen=True):
    """A page of pages: `pages[i]` holds the keys from `keys[i]` up to `keys[i + 1]`."""

    page: int
    keys: list[bytes]
    pages: list[int]


Page = Leaf | Branch


def read_head(data: bytes) -> Head:
    """Read the head of a page; `data` holds at least its 16 bytes."""
    return Head(*HEAD.unpack_from(data))


def read_leaf(data: bytes, page: int, refuse: Refuse) -> Leaf:
    """Read a leaf whose head says how many elements it has.

    Args:
        data: the whole page with its overflow, head included.
        page: its number, 0 for one that lies inline in the value of a bucket.
        refuse: raises the error of this page.
    """
    keys: list[bytes] = []
    slots: list[tuple[int, int, int]] = []
    size, end = len(data), _table_end(data, refuse)
    element = HEAD.size
    last = b""
    for flags, pos, key_size, value_size in LEAF_ELEMENT.iter_unpack(data[element:end]):
        start = element + pos
        value = start + key_size
        if start < end or value + value_size > size:
            refuse(f"element {len(keys)} lies outside its page, or over another one")
        end = value + value_size
        key = data[start:value]
        if key_size > KEY_BYTES_MAX:
            refuse(f"the key of element {len(keys)} has {key_size} bytes")
        if (key <= last and keys) or flags > BUCKET_ELEMENT:
            refuse(f"element {len(keys)} is out of order, or of an unknown kind")
        keys.append(key)
        slots.append((flags, value, end))
        element += ELEMENT_SIZE
        last = key
    return Leaf(page, keys, slots, data)


def read_branch(data: bytes, page: int, refuse: Refuse) -> Branch:
    """Read a branch; arguments as `read_leaf`. It has at least one element."""
    keys: list[bytes] = []
    pages: list[int] = []
    size, end = len(data), _table_end(data, refuse)
    element = HEAD.size
    for pos, key_size, below in BRANCH_ELEMENT.iter_unpack(data[element:end]):
        start = element + pos
        if start < end or start + key_size > size:
            refuse(f"element {len(keys)} lies outside its page, or over another one")
        end = start + key_size
        if key_size > KEY_BYTES_MAX:
            refuse(f"the key of element {len(keys)} has {key_size} bytes")
        key = data[start:end]
        if keys and key <= keys[-1]:
            refuse(f"element {len(keys)} is out of order")
        keys.append(key)
        pages.append(below)
        element += ELEMENT_SIZE
    if not keys:
        refuse("a branch without a page below it")
    return Branch(page, keys, pages)


def _table_end(data: bytes, refuse: Refuse) -> int:
    end = HEAD.size + ELEMENT_SIZE * read_head(data).count
    if end > len(data):
        refuse("it counts more elements than a page can hold")
    return end
