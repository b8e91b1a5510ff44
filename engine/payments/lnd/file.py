"""Read pages of a bbolt file that nobody writes to, each for one place in the tree only.

`pread`, not `mmap`: a file that is cut while it is read gives a short read and an error, where a
mapping would end the process. The lock is the shared one of bbolt's own read-only mode, so a
running lnd is noticed, and cannot start over a file that is being read.
"""

import errno
import fcntl
import os
import stat
from array import array
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Self

from engine.payments.lnd.errors import DamagedFileError, FileLockedError, UnreadableFileError
from engine.payments.lnd.metas import META_BYTES, Meta, choose_meta
from engine.payments.lnd.pages import (
    BRANCH,
    LEAF,
    Head,
    Page,
    Refuse,
    read_branch,
    read_head,
    read_leaf,
)
from engine.payments.lnd.work import Work

PAGE_BYTES_MAX: Final = 4 << 20
"""How long one page with its overflow may be; what lnd keeps in one value is far below."""

KEPT_BYTES_MAX: Final = 8 << 20
"""How many bytes of pages stay in memory, the ones used last."""

ROOT_OWNER: Final = 1
"""What points at the root page: the meta page, and nothing else."""

TOO_MUCH: Final = "to read this file takes more work than a sound one does"

PAGES_MAX: Final = 1 << 40
"""More than any disk has; the number of an element of a page takes 16 bits more, out of 64."""

_OWNERS_CHUNK: Final = 64


class BboltFile:
    """A bbolt file, open for reading under a shared lock. Close it, or use it in a `with`.

    Attributes:
        path: of the file.
        meta: what the newer valid meta page says.
        identity: device, inode, size and time of change when it was opened.
        work: what reading it took so far.

    Raises:
        UnreadableFileError: there is no file at `path` that could be opened and read.
        FileLockedError: a running lnd holds it.
        DamagedFileError: it is not a bbolt file, or was cut.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._owners: dict[int, array[int]] = {}
        self._kept: OrderedDict[int, tuple[int, Page]] = OrderedDict()
        self._kept_bytes = 0
        self._descriptor = _open(self.path)
        try:
            _lock(self._descriptor, self.path)
            self._size = os.fstat(self._descriptor).st_size
            self.identity = self._look()
            self.meta = self._read_meta()
            self.work = Work(self.meta.page_size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file and its lock back; closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def page(self, number: int, owner: int) -> Page:
        """Read the page `number` on behalf of the one element that may point at it.

        Args:
            number: of the page; a wrong one is an error of the file.
            owner: `place_of` the element, or `ROOT_OWNER`. A page with two owners is a cycle, or
                is shared by two trees; neither is ever written by bbolt.

        Raises:
            DamagedFileError: it is not a sound page of a tree.
        """
        self._claim(number, number, owner)
        self.work.looks += 1
        kept = self._kept.get(number)
        if kept is None:
            return self._read_page(number, owner)
        if self.work.is_too_much:
            self.refuse(number, TOO_MUCH)
        self._kept.move_to_end(number)
        return kept[1]

    def spend_inline(self, size: int, head: Head, refuse: Refuse) -> None:
        """Count an inline bucket that is about to be taken apart.

        Args:
            size: of its page, head included. bbolt gives a bucket pages of its own once that is
                more than a quarter of a page.
            head: of its page.
            refuse: raises the error of the place where it lies.

        Raises:
            DamagedFileError: it is longer than that, or was taken apart far too often.
        """
        size_max = self.meta.page_size // 4
        if size > size_max:
            refuse(f"its page has {size} bytes, and no more than {size_max} lie in a parent")
        self.work.add_inline(size, head.count)
        if self.work.is_too_much:
            refuse(TOO_MUCH)

    def refuse(self, number: int, reason: str) -> NoReturn:
        """Raise what is wrong with page `number`."""
        raise DamagedFileError(self.path, number, number * self.meta.page_size, reason)

    def check_unchanged(self) -> None:
        """Look whether somebody wrote to the file since it was opened.

        Raises:
            DamagedFileError: somebody did, so what was read may be of two moments.
        """
        if self._look() != self.identity:
            raise DamagedFileError(self.path, 0, 0, "it was written to while it was read")

    def _look(self) -> tuple[int, ...]:
        found = os.fstat(self._descriptor)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read_at(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise UnreadableFileError(self.path, str(error)) from error

    def _read_meta(self) -> Meta:
        if self._size < META_BYTES:
            raise DamagedFileError(self.path, 0, 0, "it is empty, or too short for a bbolt file")
        meta = choose_meta(self._read_at)
        if isinstance(meta, str):
            raise DamagedFileError(self.path, 0, 0, meta)
        if meta.high_water > PAGES_MAX:
            raise DamagedFileError(self.path, 0, 0, f"it counts {meta.high_water} pages")
        pages = self._size // meta.page_size
        if meta.high_water > pages:
            reason = f"it was cut: it has {pages} of the {meta.high_water} pages it counts"
            raise DamagedFileError(self.path, 0, 0, reason)
        return meta

    def _read_page(self, number: int, owner: int) -> Page:
        size = self.meta.page_size
        data = self._read_whole(number, size)
        head = read_head(data)
        self._check_head(number, head)
        if head.overflow:
            self._claim(number, number + head.overflow, owner)
            data += self._read_whole(number + 1, head.overflow * size)
        self.work.add_page(len(data), head.count)
        refuse = partial(self.refuse, number)
        if self.work.is_too_much:
            refuse(TOO_MUCH)
        page: Page
        if head.flags == LEAF:
            page = read_leaf(data, number, refuse)
        else:
            page = read_branch(data, number, refuse)
        self._keep(number, len(data), page)
        return page

    def _check_head(self, number: int, head: Head) -> None:
        if head.page != number:
            self.refuse(number, f"it says it is page {head.page}")
        if head.flags not in (LEAF, BRANCH):
            self.refuse(number, f"flags {head.flags:#x} are not those of a page of a tree")
        if number + head.overflow >= self.meta.high_water:
            self.refuse(number, f"its {head.overflow} further pages reach beyond the file")
        if (head.overflow + 1) * self.meta.page_size > PAGE_BYTES_MAX:
            self.refuse(number, f"with its {head.overflow} further pages it is too long")

    def _read_whole(self, number: int, size: int) -> bytes:
        data = self._read_at(number * self.meta.page_size, size)
        if len(data) < size:
            self.refuse(number, "the file ends in it: it was cut while it was read")
        return data

    def _keep(self, number: int, size: int, page: Page) -> None:
        self._kept[number] = size, page
        self._kept_bytes += size
        while self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= self._kept.popitem(last=False)[1][0]

    def _claim(self, first: int, last: int, owner: int) -> None:
        if not 2 <= first <= last < self.meta.high_water:
            self.refuse(first, "there is no such page of a tree")
        for number in range(first, last + 1):
            chunk, index = divmod(number, _OWNERS_CHUNK)
            owners = self._owners.get(chunk)
            if owners is None:
                owners = self._owners[chunk] = array("Q", bytes(8 * _OWNERS_CHUNK))
            if not owners[index]:
                owners[index] = owner
                self.work.reached += self.meta.page_size
            elif owners[index] != owner:
                self.refuse(number, "two places of the file point at it")


def place_of(page: int, index: int) -> int:
    """Return the number of an element of a page, as owner of the page it points at."""
    return (page << 16 | index) + ROOT_OWNER + 1


def _open(path: Path) -> int:
    try:
        # Without O_NONBLOCK a pipe under that name would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnreadableFileError(path, str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableFileError(path, "it is not a file")
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise FileLockedError(path) from error
        raise UnreadableFileError(path, f"it cannot be locked: {error}") from error
