"""What one transaction sees of the store: payments, their parts, counters."""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from engine.payments.errors import StoreDamagedError
from engine.payments.kv import layout, rows
from engine.payments.kv.layout import LINE, OWNER, PAYMENT, SESSION_KEY, part_key, unseal
from engine.payments.kv.transaction import Cursor, Transaction
from engine.payments.state import FAILED, Tally, state_of, status_of, tally_of
from engine.payments.values import (
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Payment,
    PaymentStatus,
)

T = TypeVar("T")

DECODERS: Final[tuple[Callable[[bytes], Any], ...]] = (
    rows.decode_header,
    rows.decode_info,
    rows.decode_attempt,
    rows.decode_result,
    rows.decode_hops,
    rows.decode_duplicate,
)
"""By the kind of a part."""

PREFIX_BYTES: Final = layout.KIND_AT
NUMBER_AT: Final = layout.KIND_AT + 1

Parts = tuple[list[tuple[bytes, Any]], ...]
"""The parts of a payment by kind, each with what follows the kind in its key."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """A payment as it is stored; tally and status are computed from its attempts."""

    header: rows.HeaderRow
    info: CreationInfo
    attempts: tuple[Attempt, ...]
    tally: Tally
    status: PaymentStatus

    @property
    def payment(self) -> Payment:
        """The payment as it is read.

        Raises:
            PaymentDBError: sent_exceeds_total.
        """
        header, info = self.header, self.info
        reason = header.reason
        state = state_of(info.value_msat, self.tally, reason)
        return Payment(header.sequence_number, info, self.attempts, reason, self.status, state)


def status_of_header(header: rows.HeaderRow) -> PaymentStatus:
    """Return the status by the counts that are kept."""
    return status_of(header, header.reason)


class Reading:
    """Reads within one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self._parts_cursor: Cursor | None = None

    @property
    def _cursor(self) -> Cursor:
        """The cursor of all walks over the parts of a payment; many calls make none."""
        if self._parts_cursor is None:
            self._parts_cursor = self.transaction.cursor()
        return self._parts_cursor

    # Records --------------------------------------------------------------------------------------

    def record(self, key: bytes, decode: Callable[[bytes], T]) -> T | None:
        """Return the record under a key, if there is one."""
        stored = self.transaction.get(key)
        return None if stored is None else decoded(key, stored, decode)

    def counters(self) -> rows.CountersRow:
        """Return the counters."""
        return self.record(layout.COUNTERS_KEY, rows.decode_counters) or rows.CountersRow()

    def note(self) -> bytes | None:
        """Return the note of a migration."""
        stored = self.transaction.get(layout.NOTE_KEY)
        return None if stored is None else unseal(layout.NOTE_KEY, stored)

    def header(self, identifier: bytes) -> rows.HeaderRow | None:
        """Return the header of a payment, if there is one."""
        return self.record(part_key(identifier, layout.HEADER), rows.decode_header)

    def owner(self, attempt_index: int) -> bytes | None:
        """Return whose attempt has this index."""
        return self.transaction.get(OWNER + layout.number_bytes(attempt_index))

    def index_of_key(self, session_key: bytes) -> int | None:
        """Return which attempt has this session key."""
        stored = self.transaction.get(SESSION_KEY + session_key)
        return None if stored is None else layout.number_of(stored)

    # Payments -------------------------------------------------------------------------------------

    def find(self, identifier: bytes, *, with_hops: bool = True) -> Found | None:
        """Return a payment, in one walk over its parts."""
        return found_of(identifier, self.parts(identifier, with_hops=with_hops))

    def find_listed(self, identifier: bytes, *, with_hops: bool = True) -> Found:
        """Return a payment that an index says there is."""
        found = self.find(identifier, with_hops=with_hops)
        if found is None:
            raise StoreDamagedError(
                f"an index names the payment {identifier.hex()}, which is not there; run "
                "`paychan payments verify`"
            )
        return found

    def parts(
        self, identifier: bytes, *, with_hops: bool = True, with_duplicates: bool = False
    ) -> Parts:
        """Return the parts of a payment: none when there is no payment."""
        last = layout.RESULT
        if with_hops:
            last = layout.DUPLICATE if with_duplicates else layout.HOPS
        prefix = PAYMENT + identifier
        parts: Parts = ([], [], [], [], [], [])
        cursor = self._cursor
        if cursor.set_range(prefix):
            for key, stored in cursor.iternext():
                if key[:PREFIX_BYTES] != prefix or (kind := key[PREFIX_BYTES]) > last:
                    break
                parts[kind].append((key[NUMBER_AT:], decoded(key, stored, DECODERS[kind])))
        return parts

    def attempt_rows(self, identifier: bytes) -> list[tuple[int, rows.AttemptRow, bool]]:
        """Return index, attempt and whether it failed, of all attempts of a payment."""
        parts = self.parts(identifier, with_hops=False)
        failed = {number for number, row in parts[layout.RESULT] if row.code == FAILED}
        return [
            (layout.number_of(number), row, number in failed)
            for number, row in parts[layout.ATTEMPT]
        ]

    def duplicates(self, identifier: bytes) -> list[DuplicatePayment]:
        """Return the duplicates of a payment, ascending by number."""
        prefix = part_key(identifier, layout.DUPLICATE)
        found = []
        cursor = self._cursor
        if cursor.set_range(prefix):
            for key, stored in cursor.iternext():
                if key[:NUMBER_AT] != prefix:
                    break
                row = decoded(key, stored, rows.decode_duplicate)
                number = layout.number_of(key[NUMBER_AT:])
                found.append(rows.duplicate_of(identifier, number, row))
        return found

    def duplicate(self, identifier: bytes, number: int) -> DuplicatePayment | None:
        """Return the duplicate of a payment that has this number."""
        row = self.record(part_key(identifier, layout.DUPLICATE, number), rows.decode_duplicate)
        return None if row is None else rows.duplicate_of(identifier, number, row)

    def listed_duplicate(self, identifier: bytes, number: int) -> DuplicatePayment:
        """Return a duplicate that an index says there is."""
        found = self.duplicate(identifier, number)
        if found is None:
            raise StoreDamagedError(
                f"an index names the duplicate {number} of {identifier.hex()}, which is not there; "
                "run `paychan payments verify`"
            )
        return found

    # Indexes --------------------------------------------------------------------------------------

    def walk(
        self, region: bytes, lowest: int, highest: int, *, descending: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Yield number and value of the keys of a region that end in a number of a range."""
        cursor = self.transaction.cursor()
        first, last = region + layout.number_bytes(lowest), region + layout.number_bytes(highest)
        start = len(region)
        if not descending:
            if cursor.set_range(first):
                for key, value in cursor.iternext():
                    if key > last:
                        return
                    yield layout.number_of(key[start:]), value
        # The region is never the first of the store, so there is always something before.
        elif cursor.prev() if cursor.set_range(last + b"\0") else cursor.last():
            for key, value in cursor.iterprev():
                if key < first:
                    return
                yield layout.number_of(key[start:]), value

    def line(self, number: int) -> tuple[int, int, bytes] | None:
        """Return kind, creation time and identifier of what has a sequence number."""
        stored = self.transaction.get(LINE + layout.number_bytes(number))
        return None if stored is None else layout.line_of(stored)


def decoded(key: bytes, stored: bytes, decode: Callable[[bytes], T]) -> T:
    """Return the record of `stored`.

    Raises:
        StoreDamagedError: it is none.
    """
    record = unseal(key, stored)
    try:
        return decode(record)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreDamagedError(f"the record {key.hex()} makes no sense: {error}") from error


def found_of(identifier: bytes, parts: Parts) -> Found | None:
    """Build a payment from its parts; without header there is none.

    Raises:
        StoreDamagedError: a part is missing.
    """
    headers, infos, attempts, results, hops, _ = parts
    if not headers:
        return None
    header = headers[0][1]
    if not infos:
        raise StoreDamagedError(f"payment {identifier.hex()} has lost its creation info")
    info = rows.info_of(identifier, header, infos[0][1])
    if not attempts:
        return found_with(header, info, ())
    result_of, hops_of = dict(results), dict(hops)
    if hops and len(hops_of) != len(attempts):
        raise StoreDamagedError(f"payment {identifier.hex()} has lost hops of an attempt")
    built = [
        rows.attempt_of(layout.number_of(number), row, hops_of.get(number), result_of.get(number))
        for number, row in attempts
    ]
    return found_with(header, info, tuple(built))


def found_with(header: rows.HeaderRow, info: CreationInfo, attempts: tuple[Attempt, ...]) -> Found:
    """Return a payment with these attempts."""
    tally = tally_of(attempts)
    return Found(header, info, attempts, tally, status_of(tally, header.reason))
