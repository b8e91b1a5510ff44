"""Bulk deletes: a walk over the indexes of what may go, in transactions of bounded size."""

from collections.abc import Iterator
from typing import Final

import msgspec

from engine.payments.kv import layout, life
from engine.payments.kv.layout import STATUS
from engine.payments.kv.reading import Reading, status_of_header
from engine.payments.kv.writing import Writing
from engine.payments.rules import is_removable
from engine.payments.values import NUMBER_MAX, PaymentStatus

LOOK_MAX: Final = 2_000
"""How many payments are looked at in one read."""

RECORDS_MIN: Final = 25
RECORDS_MAX: Final = 100
"""After so many payments and attempts a transaction ends, or sooner where the disk is slow. Each
changes some ten pages, which one sync must write. A payment is never split."""


class Choice(msgspec.Struct, frozen=True):
    """What is to go, see `PaymentWriter.delete_payments`."""

    failed_only: bool
    failed_attempts_only: bool

    @property
    def statuses(self) -> tuple[PaymentStatus, ...]:
        """The statuses of payments that may have something to delete."""
        return tuple(
            status
            for status in PaymentStatus
            if is_removable(status, failed_only=self.failed_only)
            and not (self.failed_attempts_only and status is PaymentStatus.INITIATED)
        )


def candidates(
    choice: Choice, status: PaymentStatus, after: int, reading: Reading
) -> tuple[list[bytes], int]:
    """Look at some payments of a status; return those to delete, and the number looked at last.

    The number is 0 at the end.
    """
    found = []
    for looked, (number, identifier) in enumerate(_payments(reading, status, after), start=1):
        if not choice.failed_attempts_only or _has_failed(reading, identifier):
            found.append(identifier)
        if looked == LOOK_MAX:
            return found, number
    return found, 0


def _payments(reading: Reading, status: PaymentStatus, after: int) -> Iterator[tuple[int, bytes]]:
    region = b"%b%c" % (STATUS, status)
    for number, line in reading.walk(region, after + 1, NUMBER_MAX):
        kind, _, identifier = layout.line_of(line)
        if kind == layout.IS_PAYMENT:
            yield number, identifier


def _has_failed(reading: Reading, identifier: bytes) -> bool:
    header = reading.header(identifier)
    return header is not None and header.failed > 0


def delete_some(
    writing: Writing, choice: Choice, identifiers: list[bytes], size: int
) -> tuple[int, int]:
    """Delete from the first of `identifiers` on; return how many were done, and how many went.

    They were looked up before: each is judged again. It ends after `size` payments and attempts.
    """
    done = removed = records = 0
    while done < len(identifiers) and records < size:
        identifier = identifiers[done]
        done += 1
        records += 1
        header = writing.header(identifier)
        if header is None or not is_removable(
            status_of_header(header), failed_only=choice.failed_only
        ):
            continue
        if choice.failed_attempts_only:
            records += life.delete_failed_attempts(writing, identifier)
        else:
            records += life.delete(writing, identifier)
            removed += 1
    return done, removed
