"""The buckets of a bbolt file: look a key up, walk all keys in order, go one bucket deeper.

A bucket is a tree of pages, or, when small, one leaf that lies inline in the value it has in its
parent. The work of a walk is bounded by the pages of the file: each has one place in one tree
(`file`), trees are at most `DEPTH_MAX` deep, and keys lie where the branches above say.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn, Self

import msgspec

from engine.payments.lnd.file import ROOT_OWNER, BboltFile, place_of
from engine.payments.lnd.pages import HEAD, LEAF, Branch, Leaf, Page, read_head, read_leaf

DEPTH_MAX: Final = 40
"""Pages from the root of a bucket to a leaf. Two keys a branch reach 2^40 pages so."""

_BUCKET: Final = struct.Struct("<QQ")


class _Reach(msgspec.Struct, frozen=True):
    """Which keys may lie below a branch element: from `low`, and before `high` if there is one."""

    low: bytes = b""
    high: bytes | None = None


class _Below(msgspec.Struct, frozen=True):
    """A page that is yet to be read, the element that points at it, and what it may hold."""

    page: int
    owner: int
    reach: _Reach
    depth: int


class Bucket:
    """One bucket. Every method may raise `DamagedFileError`.

    Attributes:
        sequence: the counter that bbolt keeps with it.
        page: where it begins; for an inline one where its parent lies.
    """

    def __init__(self, file: BboltFile, root: _Below | Leaf, sequence: int, page: int) -> None:
        self.sequence = sequence
        self._file = file
        self._root = root
        self.page = page

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None when there is none; refuse a bucket under that key."""
        leaf, index = self._find(key)
        if index is None:
            return None
        if leaf.is_bucket(index):
            self.refuse(f"a bucket lies under {key!r}, where a value should be")
        return leaf.value(index)

    def bucket(self, key: bytes) -> "Bucket | None":
        """Return the bucket under `key`, None when there is none; refuse a value under that key."""
        leaf, index = self._find(key)
        if index is None:
            return None
        if not leaf.is_bucket(index):
            self.refuse(f"a value lies under {key!r}, where a bucket should be")
        return self._nested(leaf, index)

    def has_bucket(self, key: bytes) -> bool:
        """Say whether a bucket lies under `key`."""
        leaf, index = self._find(key)
        return index is not None and leaf.is_bucket(index)

    def items(self, after: bytes | None = None) -> "Iterator[tuple[bytes, bytes | Bucket]]":
        """Yield keys in order with their values or buckets, those after `after` only."""
        for leaf in self._leaves(after):
            start = 0 if after is None else bisect_right(leaf.keys, after)
            for index in range(start, len(leaf.keys)):
                yield leaf.keys[index], self._entry(leaf, index)

    def count(self) -> int:
        """Count the keys; reads every page of this bucket, and none of the buckets in it."""
        return sum(len(leaf.keys) for leaf in self._leaves(None))

    def last(self) -> "tuple[bytes, bytes | Bucket] | None":
        """Return the highest key with what lies under it; None in an empty bucket."""
        below = self._root
        while not isinstance(below, Leaf):
            page = self._read(below)
            if isinstance(page, Leaf):
                below = page
            else:
                below = self._element(below, page, len(page.pages) - 1)
        index = len(below.keys) - 1
        return None if index < 0 else (below.keys[index], self._entry(below, index))

    def refuse(self, reason: str) -> NoReturn:
        """Raise that what this bucket holds is wrong, with its page."""
        self._file.refuse(self.page, reason)

    # Going down ----------------------------------------------------------------------------------

    def _find(self, key: bytes) -> tuple[Leaf, int | None]:
        below = self._root
        while not isinstance(below, Leaf):
            page = self._read(below)
            if isinstance(page, Leaf) and below is self._root:
                # A bucket of one leaf, as of nearly every payment: its keys are asked for in turn.
                self._root = page
            below = page if isinstance(page, Leaf) else self._child(below, page, key)
        index = bisect_right(below.keys, key) - 1
        return below, index if index >= 0 and below.keys[index] == key else None

    def _leaves(self, after: bytes | None) -> Iterator[Leaf]:
        # One iterator for each page on the way down: what lies beside it is made when it is due.
        ways: list[Iterator[_Below | Leaf]] = [iter((self._root,))]
        while ways:
            below = next(ways[-1], None)
            if below is None:
                ways.pop()
                continue
            page = below if isinstance(below, Leaf) else self._read(below)
            if isinstance(page, Leaf):
                yield page
            else:
                assert isinstance(below, _Below)
                ways.append(self._children(below, page, after))

    def _children(self, above: _Below, page: Branch, after: bytes | None) -> Iterator[_Below]:
        first = 0 if after is None else max(bisect_right(page.keys, after) - 1, 0)
        for index in range(first, len(page.keys)):
            yield self._element(above, page, index)

    def _child(self, above: _Below, page: Branch, key: bytes) -> _Below:
        return self._element(above, page, max(bisect_right(page.keys, key) - 1, 0))

    def _element(self, above: _Below, page: Branch, index: int) -> _Below:
        following = index + 1
        high = page.keys[following] if following < len(page.keys) else above.reach.high
        return _Below(
            page.pages[index],
            place_of(page.page, index),
            _Reach(page.keys[index], high),
            above.depth + 1,
        )

    def _read(self, below: _Below) -> Page:
        if below.depth > DEPTH_MAX:
            self._file.refuse(below.page, f"it lies more than {DEPTH_MAX} pages deep")
        page = self._file.page(below.page, below.owner)
        if page.keys:
            low, high = below.reach.low, below.reach.high
            if page.keys[0] < low or (high is not None and page.keys[-1] >= high):
                self._file.refuse(below.page, "it holds keys that belong to another page")
        elif below.depth > 1:
            self._file.refuse(below.page, "it is empty")
        return page

    # Going in ------------------------------------------------------------------------------------

    def _entry(self, leaf: Leaf, index: int) -> "bytes | Bucket":
        return self._nested(leaf, index) if leaf.is_bucket(index) else leaf.value(index)

    def _nested(self, leaf: Leaf, index: int) -> "Bucket":
        _, start, end = leaf.slots[index]
        size = end - start - _BUCKET.size
        if size < 0:
            self._file.refuse(leaf.page, f"the bucket at element {index} has no head")
        root, sequence = _BUCKET.unpack_from(leaf.data, start)
        if root == 0:
            return Bucket(self._file, self._inline(leaf, index), sequence, leaf.page)
        if size > 0:
            self._file.refuse(leaf.page, f"the bucket at element {index} is longer than its head")
        return Bucket(self._file, _below(root, place_of(leaf.page, index)), sequence, root)

    def _inline(self, leaf: Leaf, index: int) -> Leaf:
        def refuse(reason: str) -> NoReturn:
            self._file.refuse(leaf.page, f"in the bucket at element {index}: {reason}")

        data = leaf.value(index)[_BUCKET.size :]
        if len(data) < HEAD.size:
            refuse("its page has no head")
        head = read_head(data)
        self._file.spend_inline(len(data), head, refuse)
        if head.flags != LEAF or head.page or head.overflow:
            refuse("its page is not an inline leaf")
        inline = read_leaf(data, 0, refuse)
        if any(inline.is_bucket(each) for each in range(len(inline.keys))):
            refuse("it holds another bucket")
        return inline


class BboltReader:
    """An open bbolt file and its outermost bucket; see `BboltFile` for what can go wrong."""

    def __init__(self, path: str | Path) -> None:
        self.file = BboltFile(path)
        meta = self.file.meta
        self.root = Bucket(
            self.file, _below(meta.root_page, ROOT_OWNER), meta.root_sequence, meta.root_page
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _below(page: int, owner: int) -> _Below:
    return _Below(page, owner, _Reach(), 1)
