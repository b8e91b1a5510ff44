"""Recompute everything that is kept for speed, and compare.

All payments are walked by their records, and what the indexes should say of each is computed from
its attempts and looked up. An index that has as many entries as were found has no others; one that
has more is walked, and each entry is traced back to its payment.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from engine.core.types import NS_PER_S
from engine.payments.errors import PaymentDBError, StoreDamagedError
from engine.payments.kv import layout, rows
from engine.payments.kv.layout import (
    CREATED,
    LINE,
    OWNER,
    PAYMENT,
    SESSION_KEY,
    STATUS,
    ZONE,
    number_bytes,
)
from engine.payments.kv.reading import DECODERS, NUMBER_AT, Found, Reading, decoded, found_of
from engine.payments.records import PROBLEMS_MAX, Problem, VerifyReport
from engine.payments.state import status_of, tally_of
from engine.payments.values import Attempt, DuplicatePayment, PaymentStatus

Progress = Callable[[int, int], None]
Entry = tuple[bytes, bytes]

TELL_EACH: Final = 1_000
INDEXES: Final = {
    LINE: "the number line",
    STATUS: "the index over statuses",
    CREATED: "the index over times",
    OWNER: "the index over attempts",
    SESSION_KEY: "the index over session keys",
}


def verify(reading: Reading, progress: Progress | None) -> VerifyReport:
    """Look at everything in the store."""
    return Verification(reading, progress or _tell_nobody).run()


def _tell_nobody(done: int, total: int) -> None:
    pass


class Verification:
    """One look at everything."""

    def __init__(self, reading: Reading, progress: Progress) -> None:
        self._reading = reading
        self._progress = progress
        self._kept = reading.counters()
        self._payments = 0
        self._attempts = 0
        self._duplicates = 0
        self._highest_number = 0
        self._highest_index = 0
        self._entries: Counter[bytes] = Counter()
        self._problem_count = 0
        self._problems: list[Problem] = []

    def run(self) -> VerifyReport:
        """Look at all payments, then at what the indexes have besides, then at the counters."""
        for identifier, keys in groupby(self._keys(PAYMENT), _identifier_of):
            self._look_at(identifier, list(keys))
            if self._payments % TELL_EACH == 0:
                self._progress(self._payments, max(self._payments, self._kept.payments))
        self._look_for_strays()
        self._look_at_zones()
        self._look_at_counters()
        self._progress(self._payments, self._payments)
        return VerifyReport(
            *(self._payments, self._attempts, self._duplicates, self._problem_count),
            tuple(self._problems),
        )

    def _keys(self, region: bytes) -> Iterator[bytes]:
        cursor = self._reading.transaction.cursor()
        if cursor.set_range(region):
            for key in cursor.iternext(keys=True, values=False):
                if key[:1] != region:
                    return
                yield key

    def _problem(self, identifier: bytes, what: str, kept: object, computed: object) -> None:
        self._problem_count += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(identifier, what, str(kept), str(computed)))

    # One payment ----------------------------------------------------------------------------------

    def _look_at(self, identifier: bytes, keys: list[bytes]) -> None:
        parts: tuple[list[tuple[bytes, object]], ...] = ([], [], [], [], [], [])
        try:
            for key in keys:
                kind = key[layout.KIND_AT]
                stored = self._reading.transaction.get(key) or b""
                parts[kind].append((key[NUMBER_AT:], decoded(key, stored, DECODERS[kind])))
            found = found_of(identifier, parts)
        except (StoreDamagedError, IndexError) as error:
            self._problem(identifier, "a record", error, "a record that can be read")
            return
        self._look_at_parts(identifier, parts)
        if found is None:
            self._problem(identifier, "records", "there", "none, since there is no header")
            return
        self._payments += 1
        self._attempts += len(found.attempts)
        self._look_at_header(identifier, found)
        self._look_at_indexes(identifier, found, parts[layout.DUPLICATE])

    def _look_at_parts(
        self, identifier: bytes, parts: tuple[list[tuple[bytes, object]], ...]
    ) -> None:
        attempts = {number for number, _ in parts[layout.ATTEMPT]}
        for kind, what in ((layout.HOPS, "hops"), (layout.RESULT, "results")):
            numbers = {number for number, _ in parts[kind]}
            stray = numbers - attempts
            lost = attempts - numbers if kind == layout.HOPS else set()
            for number in sorted(stray | lost):
                index = int.from_bytes(number, "big")
                self._problem(
                    identifier, f"{what} of attempt {index}", number in stray, number in lost
                )

    def _look_at_header(self, identifier: bytes, found: Found) -> None:
        header = found.header
        tally = tally_of(found.attempts)
        if header.tally != tally:
            self._problem(identifier, "the tally of the attempts", header.tally, tally)
        try:
            _ = found.payment
        except PaymentDBError as refusal:
            self._problem(identifier, "the amounts", refusal, "at most the value")

    def _look_at_indexes(
        self, identifier: bytes, found: Found, duplicates: list[tuple[bytes, object]]
    ) -> None:
        header = found.header
        status = status_of(tally_of(found.attempts), header.reason)
        self._look_at_number(
            *(header.sequence_number, layout.IS_PAYMENT, header.created_at_ns, identifier, status)
        )
        for attempt in found.attempts:
            self._look_at_attempt(identifier, attempt)
        for number, row in duplicates:
            assert isinstance(row, rows.DuplicateRow)
            duplicate = rows.duplicate_of(identifier, int.from_bytes(number, "big"), row)
            self._look_at_duplicate(identifier, duplicate)

    def _look_at_duplicate(self, identifier: bytes, duplicate: DuplicatePayment) -> None:
        self._duplicates += 1
        self._look_at_number(
            *(duplicate.sequence_number, layout.IS_DUPLICATE, duplicate.created_at_ns),
            *(identifier, duplicate.status),
        )

    def _look_at_attempt(self, identifier: bytes, attempt: Attempt) -> None:
        index = attempt.attempt_index
        self._highest_index = max(self._highest_index, index)
        self._expect(identifier, OWNER + number_bytes(index), identifier)
        self._expect(identifier, SESSION_KEY + attempt.session_key, number_bytes(index))

    def _look_at_number(
        self, number: int, kind: int, created_at_ns: int, identifier: bytes, status: PaymentStatus
    ) -> None:
        self._highest_number = max(self._highest_number, number)
        line = layout.line_bytes(kind, created_at_ns, identifier)
        second = created_at_ns // NS_PER_S
        self._expect(identifier, LINE + number_bytes(number), line)
        self._expect(identifier, layout.status_key(status, number), line)
        self._expect(identifier, layout.created_key(second, number), b"")
        for level in range(len(layout.ZONE_SHIFTS)):
            stored = self._reading.transaction.get(layout.zone_key(level, number))
            first, last = (1, 0) if stored is None else layout.span_of(stored)
            if not first <= second <= last:
                self._problem(identifier, f"the times of zone {level}", (first, last), second)

    def _expect(self, identifier: bytes, key: bytes, value: bytes) -> None:
        stored = self._reading.transaction.get(key)
        if stored is not None:
            self._entries[key[:1]] += 1
        if stored != value:
            kept = "nothing" if stored is None else stored.hex()
            self._problem(identifier, f"{INDEXES[key[:1]]} at {key[1:].hex()}", kept, value.hex())

    # The indexes, from the other side -------------------------------------------------------------

    def _look_for_strays(self) -> None:
        for region, what in INDEXES.items():
            count = sum(1 for _ in self._keys(region))
            if count != self._entries[region]:
                self._name_strays(region, what)

    def _name_strays(self, region: bytes, what: str) -> None:
        for key in self._keys(region):
            try:
                is_claimed = self._is_claimed(region, key)
            except StoreDamagedError:
                continue  # the damage has its own problem
            if not is_claimed:
                self._problem(b"", f"{what} at {key[1:].hex()}", "an entry", "nothing")

    def _is_claimed(self, region: bytes, key: bytes) -> bool:
        """Say whether a payment has what an entry of an index says."""
        if region == OWNER:
            return self._has_attempt(key[1:], None)
        if region == SESSION_KEY:
            index = self._reading.transaction.get(key)
            return index is not None and self._has_attempt(index, key[1:])
        return self._has_number(region, key)

    def _has_attempt(self, index: bytes, session_key: bytes | None) -> bool:
        owner = self._reading.transaction.get(OWNER + index)
        if owner is None:
            return False
        key = layout.part_key(owner, layout.ATTEMPT, layout.number_of(index))
        row = self._reading.record(key, rows.decode_attempt)
        return row is not None and session_key in (None, row.session_key)

    def _has_number(self, region: bytes, key: bytes) -> bool:
        number = layout.number_of(key[-8:])
        line = self._reading.line(number)
        if line is None:
            return False
        kind, created_at_ns, identifier = line
        if region == CREATED:
            return key == layout.created_key(created_at_ns // NS_PER_S, number)
        status = self._status_of(kind, identifier, number)
        return status is not None and (region == LINE or key == layout.status_key(status, number))

    def _status_of(self, kind: int, identifier: bytes, number: int) -> PaymentStatus | None:
        if kind == layout.IS_DUPLICATE:
            duplicate = self._reading.duplicate(identifier, number)
            return None if duplicate is None else duplicate.status
        found = self._reading.find(identifier)
        if found is None or found.header.sequence_number != number:
            return None
        return status_of(tally_of(found.attempts), found.header.reason)

    # What is counted ------------------------------------------------------------------------------

    def _look_at_zones(self) -> None:
        """A zone without a number would only cost time, but nothing is to be left behind."""
        for key in self._keys(ZONE):
            shift = layout.ZONE_SHIFTS[key[1]]
            first = layout.number_of(key[2:]) << shift
            if next(self._reading.walk(LINE, first, first + (1 << shift) - 1), None) is None:
                self._problem(b"", f"the zone {key[1:].hex()}", "there", "no number is in it")

    def _look_at_counters(self) -> None:
        kept = self._kept
        for what, counted, there in (
            ("the count of payments", kept.payments, self._payments),
            ("the count of duplicates", kept.duplicates, self._duplicates),
        ):
            if counted != there:
                self._problem(b"", what, counted, there)
        for what, counter, highest in (
            ("the last sequence number", kept.sequence_number, self._highest_number),
            ("the last attempt index", kept.attempt_index, self._highest_index),
        ):
            if counter < highest:
                self._problem(b"", what, counter, f"{highest} or more")


def _identifier_of(key: bytes) -> bytes:
    return key[1 : layout.KIND_AT]
