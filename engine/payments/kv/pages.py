"""Which numbers a page is made of, at a cost set by the page.

Without dates a page is cut from the number line, or from the numbers of one status. With dates the
order of numbers need not be that of times, so there are two ways:

- Few were made between the dates: take them all from the index over times, sort, cut.
- Else walk the number line, and skip every zone (a run of 128 numbers, or of 16,384) of which the
  first and last time say that nothing in it can be meant.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from engine.core.types import NS_PER_S
from engine.payments.kv import layout
from engine.payments.kv.layout import CREATED, LINE, STATUS, ZONE, number_bytes
from engine.payments.kv.reading import Reading
from engine.payments.paging import Window
from engine.payments.values import NUMBER_MAX

FEW: Final = 256
"""So many are taken from the index over times and sorted."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A number of a page, and what it is the number of."""

    number: int
    is_duplicate: bool
    identifier: bytes


def page_of(reading: Reading, window: Window) -> list[Entry]:
    """Return what is in the window, ascending by number."""
    if window.is_empty:
        return []
    few = _by_time(reading, window) if _has_dates(window) else None
    found = _by_number(reading, window) if few is None else few
    page = list(islice(found, window.limit))
    return page[::-1] if window.descending else page


def _has_dates(window: Window) -> bool:
    return window.created_from_ns > 0 or window.created_until_ns < NUMBER_MAX


def _region(window: Window) -> bytes:
    """Return the index over numbers that has all that the window may have."""
    return LINE if window.status is None else b"%b%c" % (STATUS, window.status)


def _entry(number: int, line: bytes, window: Window) -> Entry | None:
    """Return an entry, or None when it was not made between the dates."""
    kind, created_at_ns, identifier = layout.line_of(line)
    if not window.created_from_ns <= created_at_ns <= window.created_until_ns:
        return None
    return Entry(number, kind == layout.IS_DUPLICATE, identifier)


# Few of a time ------------------------------------------------------------------------------------


def _by_time(reading: Reading, window: Window) -> Iterator[Entry] | None:
    """Yield what was made between the dates, in the direction of the page; None = too many."""
    numbers: list[int] = []
    for number in _numbers_between(reading, window):
        if len(numbers) == FEW:
            return None
        numbers.append(number)
    wanted = [each for each in numbers if window.lowest <= each <= window.highest]
    wanted.sort(reverse=window.descending)
    return _entries(reading, window, wanted)


def _numbers_between(reading: Reading, window: Window) -> Iterator[int]:
    first = window.created_from_ns // NS_PER_S
    last = CREATED + number_bytes(window.created_until_ns // NS_PER_S) + b"\xff" * 8
    cursor = reading.transaction.cursor()
    if cursor.set_range(CREATED + number_bytes(first)):
        for key in cursor.iternext(keys=True, values=False):
            if key > last:
                return
            yield layout.number_of(key[9:])


def _entries(reading: Reading, window: Window, numbers: list[int]) -> Iterator[Entry]:
    region = _region(window)
    for number in numbers:
        line = reading.transaction.get(region + number_bytes(number))
        if line is not None and (entry := _entry(number, line, window)) is not None:
            yield entry


# Along the numbers --------------------------------------------------------------------------------


def _by_number(reading: Reading, window: Window) -> Iterator[Entry]:
    region = _region(window)
    spans = _spans(reading, window) if _has_dates(window) else [(window.lowest, window.highest)]
    for lowest, highest in spans:
        for number, line in reading.walk(region, lowest, highest, descending=window.descending):
            entry = _entry(number, line, window)
            if entry is not None:
                yield entry


def _spans(reading: Reading, window: Window) -> Iterator[tuple[int, int]]:
    """Yield the ranges of numbers in which something may have been made between the dates."""
    for span in _zones(reading, window, 1, (window.lowest, window.highest)):
        yield from _zones(reading, window, 0, span)


def _zones(
    reading: Reading, window: Window, level: int, within: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range of numbers that are in zones of a level which may have some."""
    lowest, highest = within
    shift = layout.ZONE_SHIFTS[level]
    region = b"%b%c" % (ZONE, level)
    walk = reading.walk(region, lowest >> shift, highest >> shift, descending=window.descending)
    for block, stored in walk:
        first, last = layout.span_of(stored)
        if first * NS_PER_S <= window.created_until_ns and (
            (last + 1) * NS_PER_S > window.created_from_ns
        ):
            start = block << shift
            yield max(lowest, start), min(highest, start + (1 << shift) - 1)
