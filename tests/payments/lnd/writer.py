"""Write bbolt files for tests: whole, sorted, with every kind of page the format knows.

Written from the description of the format, apart from the reader, so each checks the other.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

NO_FREELIST: Final = (1 << 64) - 1
BRANCH, LEAF, META, FREELIST = 1, 2, 4, 16


@dataclass
class Tree:
    """A bucket: keys with their values or buckets, and its counter.

    bbolt would do none of this: one that `is_whole` lies in one leaf, one that `is_inline` in its
    parent, however long they are; above the pages of one are `depth` branches of one element.
    """

    items: dict[bytes, "bytes | Tree"] = field(default_factory=dict)
    sequence: int = 0
    is_whole: bool = False
    is_inline: bool = False
    depth: int = 0

    def __setitem__(self, key: bytes, value: "bytes | Tree") -> None:
        self.items[key] = value

    def __getitem__(self, key: bytes) -> "bytes | Tree":
        return self.items[key]

    def tree(self, key: bytes) -> "Tree":
        """Return the bucket under `key`, a new one when there is none."""
        found = self.items.setdefault(key, Tree())
        assert isinstance(found, Tree)
        return found


class Writer:
    """Lays the pages of one file out, one after the other, from page 2 on."""

    def __init__(self, page_size: int = 4096, *, freelist: bool = True, inline: bool = True):
        self.page_size = page_size
        self.inline = inline
        self.pages: list[bytes] = []
        self.next = 2
        self.freelist = NO_FREELIST
        if freelist:
            self.freelist = self.add(FREELIST, 2, struct.pack("<QQ", 7777, 8888))

    def add(self, flags: int, count: int, body: bytes) -> int:
        """Append a page, with as many further ones as it needs, and return its number."""
        number = self.next
        size = -(-(16 + len(body)) // self.page_size) * self.page_size
        head = struct.pack("<QHHI", number, flags, count, size // self.page_size - 1)
        self.pages.append((head + body).ljust(size, b"\0"))
        self.next += size // self.page_size
        return number

    def bucket(self, tree: Tree) -> int:
        """Write `tree` and all below it; return the page it begins at."""
        rows = [(key, *self.value(tree.items[key])) for key in sorted(tree.items)]
        level = [
            (page[0][0] if page else b"", self.add(LEAF, len(page), leaf_body(page)))
            for page in ([rows] if tree.is_whole else self.split(rows))
        ]
        while len(level) > 1:
            level = [
                (page[0][0], self.add(BRANCH, len(page), branch_body(page)))
                for page in self.split(level)
            ]
        for _ in range(tree.depth):
            level = [(level[0][0], self.add(BRANCH, 1, branch_body(level)))]
        return level[0][1]

    def value(self, value: bytes | Tree) -> tuple[int, bytes]:
        if isinstance(value, bytes):
            return 0, value
        inline = self.inline_value(value)
        return 1, inline or struct.pack("<QQ", self.bucket(value), value.sequence)

    def inline_value(self, tree: Tree) -> bytes | None:
        if not self.inline or any(isinstance(value, Tree) for value in tree.items.values()):
            return None
        if tree.depth:
            return None
        rows = [(key, 0, tree.items[key]) for key in sorted(tree.items)]
        size = 16 + sum(16 + len(key) + len(value) for key, _, value in rows)
        if size > self.page_size // 4 and not tree.is_inline:
            return None
        head = struct.pack("<QQQHHI", 0, tree.sequence, 0, LEAF, len(rows), 0)
        return head + leaf_body(rows)

    def split(self, rows: list) -> list[list]:
        pages, page, used = [], [], 16
        for row in rows:
            size = 16 + sum(len(part) for part in row if isinstance(part, bytes))
            if page and used + size > self.page_size:
                pages.append(page)
                page, used = [], 16
            page.append(row)
            used += size
        return [*pages, page]


def leaf_body(rows: list[tuple[bytes, int, bytes]]) -> bytes:
    table, data = b"", b""
    for index, (key, flags, value) in enumerate(rows):
        pos = 16 * (len(rows) - index) + len(data)
        table += struct.pack("<IIII", flags, pos, len(key), len(value))
        data += key + value
    return table + data


def branch_body(rows: list[tuple[bytes, int]]) -> bytes:
    table, data = b"", b""
    for index, (key, page) in enumerate(rows):
        table += struct.pack("<IIQ", 16 * (len(rows) - index) + len(data), len(key), page)
        data += key
    return table + data


def meta_page(number: int, page_size: int, root: int, freelist: int, high: int, txid: int) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, page_size, 0, root, 0, freelist, high, txid)
    checksum = 0xCBF29CE484222325
    for byte in body:
        checksum = (checksum ^ byte) * 0x100000001B3 % (1 << 64)
    head = struct.pack("<QHHI", number, META, 0, 0)
    return (head + body + struct.pack("<Q", checksum)).ljust(page_size, b"\0")


def file_bytes(
    root: Tree, page_size: int = 4096, *, freelist: bool = True, inline: bool = True
) -> bytes:
    """Return a file whose outermost bucket is `root`, its second meta page the newer one."""
    writer = Writer(page_size, freelist=freelist, inline=inline)
    first = writer.bucket(root)
    body = b"".join(writer.pages)
    high = 2 + len(body) // page_size
    metas = [
        meta_page(number, page_size, first, writer.freelist, high, 40 + number) for number in (0, 1)
    ]
    return b"".join([*metas, body])


def write_file(path: Path, root: Tree, page_size: int = 4096, **options: bool) -> Path:
    path.write_bytes(file_bytes(root, page_size, **options))
    return path
