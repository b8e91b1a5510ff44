"""Every statement, written in SQLAlchemy Core and compiled once for each dialect.

A statement is then run by the driver itself: Core's own execution costs more than SQLite's. All
arguments are positional, in the order in which they stand in the statement.
"""

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    union_all,
    update,
)

from engine.payments.sql import tables as t
from engine.payments.sql.compiler import Compiler
from engine.payments.state import FAILED
from engine.payments.values import NUMBER_MAX, PaymentStatus

LIMIT: Final = bindparam("limit", type_=BigInteger())
NO_OFFSET: Final[ColumnElement[int]] = literal_column("0")
ONE: Final[ColumnElement[int]] = literal_column("1")

TALLY: Final = (
    "attempts_in_flight",
    "attempts_settled",
    "attempts_failed",
    "sent_msat",
    "fees_msat",
)


class Statements(Compiler):
    """The statements of one dialect, as text."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._write_statements()
        self._read_statements()
        self._page_statements()
        self._delete_statements()
        self._move_statements()

    def _write_statements(self) -> None:
        payments, sequences = t.payments.c, t.payment_sequences.c
        # Locks the payment. SQLite has one writer at a time, and Core leaves FOR UPDATE out there.
        self.lock = self.text(
            select(payments.sequence_number, payments.status)
            .where(payments.identifier == bindparam("identifier"))
            .with_for_update()
        )
        self.take_number = self.text(
            update(t.payment_sequences)
            .values(
                last_sequence_number=sequences.last_sequence_number + ONE,
                payment_count=sequences.payment_count + ONE,
            )
            .where(sequences.last_sequence_number < literal_column(str(NUMBER_MAX)))
            .returning(sequences.last_sequence_number)
        )
        self.take_indexes = self.text(
            update(t.payment_sequences)
            .values(last_attempt_index=sequences.last_attempt_index + bindparam("count"))
            .where(sequences.last_attempt_index <= bindparam("highest"))
            .returning(sequences.last_attempt_index)
        )
        self.raise_index = self.text(
            update(t.payment_sequences)
            .values(last_attempt_index=bindparam("index"))
            .where(sequences.last_attempt_index < bindparam("below"))
        )
        self.add_payment = self.add(t.payments)
        self.add_intent = self.add(t.payment_intents)
        self.add_payment_record = self.add(t.payment_first_hop_custom_records)
        self.add_attempt = self.add(t.payment_htlc_attempts)
        attempts = t.payment_htlc_attempts
        self.add_new_attempt = self.add_new(attempts, attempts.c.attempt_index)
        self.add_wire_record = self.add(t.payment_attempt_first_hop_custom_records)
        self.add_hop = self.add(t.payment_route_hops)
        self.add_mpp = self.add(t.payment_route_hop_mpp)
        self.add_amp = self.add(t.payment_route_hop_amp)
        self.add_blinded = self.add(t.payment_route_hop_blinded)
        self.add_hop_record = self.add(t.payment_hop_custom_records)
        self.add_resolution = self.add(t.payment_htlc_attempt_resolutions)
        self.add_duplicate = self.add(t.payment_duplicates)
        self.keep = self._update_payment("failure_reason", "status", *TALLY)
        self.begin_again = self._update_payment(
            *("sequence_number", "identifier", "value_msat", "created_at_ns"),
            *("failure_reason", "status", *TALLY),
        )

    def _update_payment(self, *names: str) -> str:
        """Return the update of these columns by sequence number."""
        return self.text(
            update(t.payments)
            .values(
                {name: bindparam(f"new_{name}", type_=t.payments.c[name].type) for name in names}
            )
            .where(t.payments.c.sequence_number == bindparam("number"))
        )

    # Reading ------------------------------------------------------------------------------------

    def _headers(self) -> Select[Any]:
        """Return the payments with their requests, and whether they have custom records."""
        records = t.payment_first_hop_custom_records
        has_records = _is_any(records.c.payment_number == t.payments.c.sequence_number)
        return select(*t.payments.c, t.payment_intents.c.payload, has_records).select_from(
            t.payments.outerjoin(t.payment_intents)
        )

    def _read_statements(self) -> None:
        payments, attempts = t.payments.c, t.payment_htlc_attempts.c
        records, duplicates = t.payment_first_hop_custom_records, t.payment_duplicates.c
        of_identifier = payments.identifier == bindparam("identifier")
        self.header = self.text(self._headers().where(of_identifier))
        self.headers = self.text(self._headers().where(self.among(payments.sequence_number)))
        self.payment_records = self.text(
            select(*records.c).where(self.among(records.c.payment_number))
        )
        self._attempt_statements()
        self._hop_statements()
        of_index = attempts.attempt_index == bindparam("index")
        of_key = attempts.session_key == bindparam("key")
        self.taken = self.text(
            union_all(
                *(select(attempts.attempt_index).where(found) for found in (of_index, of_key))
            )
        )
        self.counters = self.text(select(*_without(t.payment_sequences, "id", "note")))
        self.note = self.text(select(t.payment_sequences.c.note))
        self.duplicates = self.text(self._duplicates().where(of_identifier))
        self.duplicates_of = self.text(
            self._duplicates().where(self.among(duplicates.payment_number))
        )

    def _attempt_statements(self) -> None:
        """Make what reads attempts with their resolutions, without hops; of many, or of one."""
        attempts, wire = t.payment_htlc_attempts, t.payment_attempt_first_hop_custom_records
        resolutions = t.payment_htlc_attempt_resolutions
        of_payments = self.among(attempts.c.payment_number)
        has_wire = _is_any(wire.c.attempt_index == attempts.c.attempt_index)
        rows = select(*_without(attempts, "id"), *_own(resolutions), has_wire)
        rows = rows.select_from(attempts.outerjoin(resolutions))
        self.attempts = self.text(rows.where(of_payments))
        self.attempts_of_one = self.text(rows.where(_of_one(attempts)))
        self.wire_records = self.text(
            select(*wire.c).select_from(attempts.join(wire)).where(of_payments)
        )

    def _hop_statements(self) -> None:
        """Make what reads hops with their side tables, and their custom records."""
        attempts, hops = t.payment_htlc_attempts, t.payment_route_hops
        records = t.payment_hop_custom_records
        of_payments = self.among(attempts.c.payment_number)
        sides = (t.payment_route_hop_mpp, t.payment_route_hop_amp, t.payment_route_hop_blinded)
        joined: Any = hops
        for side in sides:
            joined = joined.outerjoin(side, _same_hop(side))
        own = (column for side in sides for column in _own(side))
        rows = select(*hops.c, *own, _is_any(_same_hop(records))).select_from(joined)
        found = select(attempts.c.attempt_index)
        of, index = self.among_found, hops.c.attempt_index
        self.hops = self.text(rows.where(of(index, found.where(of_payments))))
        self.hops_of_one = self.text(rows.where(of(index, found.where(_of_one(attempts)))))
        same_attempt = records.c.attempt_index == attempts.c.attempt_index
        self.hop_records = self.text(
            select(*records.c).select_from(attempts.join(records, same_attempt)).where(of_payments)
        )

    def _duplicates(self) -> Select[Any]:
        """Return the duplicates with the identifiers of their payments."""
        return select(t.payments.c.identifier, *t.payment_duplicates.c).select_from(
            t.payments.join(t.payment_duplicates)
        )

    # Pages --------------------------------------------------------------------------------------

    def _page_statements(self) -> None:
        payments = t.payments.c
        # Each status has a run of its own in the index: so a page costs what it has.
        waiting = union_all(
            *(
                select(self._of_status(status).subquery().c.sequence_number)
                for status in (PaymentStatus.INITIATED, PaymentStatus.IN_FLIGHT)
            )
        )
        self.in_flight = self._cut(
            self._headers().where(payments.sequence_number.in_(waiting)),
            *(payments.sequence_number, False),
        )
        self.window_size = self.text(
            select(func.count()).select_from(
                select(ONE)
                .where(payments.created_at_ns.between(bindparam("since"), bindparam("until")))
                .limit(LIMIT)
                .offset(NO_OFFSET)
                .subquery()
            )
        )

    @cache  # noqa: B019  (as many as there are kinds of pages, and one object a dialect)
    def page(self, *, descending: bool, dated: bool, paid: bool) -> str:
        """Return the walk along the numbers: lowest, highest, dates if any, limit.

        Args:
            descending: Whether the newest come first.
            dated: Whether there are dates.
            paid: Whether only Succeeded ones are wanted.
        """
        payments = t.payments.c
        rows = self._headers().where(between(payments.sequence_number, "number"), *_paid(paid))
        if dated:
            rows = rows.where(between(unindexed(payments.created_at_ns), "date"))
        return self._cut(rows, payments.sequence_number, descending)

    @cache  # noqa: B019  (as for `page`)
    def numbers_by_date(self, *, descending: bool, paid: bool) -> str:
        """Return the walk along the dates to the same numbers; arguments as for `page`."""
        payments = t.payments.c
        number = unindexed(payments.sequence_number)
        inside = between(number, "number"), between(payments.created_at_ns, "date")
        return self._cut(
            select(payments.sequence_number).where(*inside, *_paid(paid)), number, descending
        )

    @cache  # noqa: B019  (as for `page`)
    def duplicate_page(self, *, descending: bool, paid: bool) -> str:
        """Return the duplicates of a page: lowest, highest, dates, limit."""
        duplicates = t.payment_duplicates.c
        inside = [between(duplicates.sequence_number, "number")]
        inside += [between(duplicates.created_at_ns, "date")]
        inside += [duplicates.settle_preimage.is_not(None)] if paid else []
        return self._cut(self._duplicates().where(*inside), duplicates.sequence_number, descending)

    def _cut(self, rows: Select[Any], number: ColumnElement[Any], descending: bool) -> str:
        order = number.desc() if descending else number
        return self.text(rows.order_by(order).limit(LIMIT).offset(NO_OFFSET))

    def _of_status(self, status: PaymentStatus, *more: ColumnElement[Any]) -> Select[Any]:
        """Return the payments of a status by number: after, limit.

        The status stands in the text: so a plan that is made once is made for it.
        """
        payments = t.payments.c
        of_status = payments.status == literal_column(str(int(status)))
        rows = select(payments.sequence_number, *more)
        rows = rows.where(of_status, payments.sequence_number > bindparam("after"))
        return rows.order_by(payments.sequence_number).limit(LIMIT).offset(NO_OFFSET)

    @cache  # noqa: B019  (as for `page`)
    def removable(self, status: PaymentStatus) -> str:
        """Return what finds payments of a status and how many attempts they have: after, limit."""
        payments = t.payments.c
        over = payments.attempts_settled + payments.attempts_failed
        return self.text(self._of_status(status, over, payments.attempts_failed))

    # Deletion and moving ------------------------------------------------------------------------

    def _delete_statements(self) -> None:
        payments, attempts, sequences = t.payments, t.payment_htlc_attempts, t.payment_sequences.c
        resolutions = t.payment_htlc_attempt_resolutions.c
        listed = self.among(payments.c.sequence_number)
        self.lock_listed = self.text(
            select(payments.c.sequence_number, payments.c.status)
            .where(listed)
            .order_by(payments.c.sequence_number)
            .with_for_update()
        )
        self.delete_payments = self.text(delete(payments).where(listed))
        self.delete_attempts = self.text(
            delete(attempts).where(self.among(attempts.c.payment_number))
        )
        failed = select(ONE).where(
            resolutions.attempt_index == attempts.c.attempt_index,
            resolutions.resolution_type == literal_column(str(FAILED)),
        )
        self.delete_failed = self.text(
            delete(attempts).where(self.among(attempts.c.payment_number), failed.exists())
        )
        self.forget_failed = self.text(
            update(payments).values(attempts_failed=literal_column("0")).where(listed)
        )
        intents, records = t.payment_intents, t.payment_first_hop_custom_records
        self.delete_intents = self.text(delete(intents).where(self.among(intents.c.payment_number)))
        self.delete_payment_records = self.text(
            delete(records).where(self.among(records.c.payment_number))
        )
        self.count_duplicates = self.text(
            select(func.count()).where(self.among(t.payment_duplicates.c.payment_number))
        )
        self.count_less = self.text(
            update(t.payment_sequences).values(
                payment_count=sequences.payment_count - bindparam("payments"),
                duplicate_count=sequences.duplicate_count - bindparam("duplicates"),
            )
        )

    def _move_statements(self) -> None:
        payments, sequences = t.payments.c, t.payment_sequences
        attempts, duplicates = t.payment_htlc_attempts.c, t.payment_duplicates.c
        self.walk = self.text(
            self._headers()
            .where(payments.sequence_number > bindparam("after"))
            .order_by(payments.sequence_number)
            .limit(LIMIT)
            .offset(NO_OFFSET)
        )
        self.identifiers_there = self._there(payments.identifier, of_bytes=True)
        self.numbers_there = self._there(payments.sequence_number)
        self.duplicates_there = self._there(duplicates.sequence_number)
        self.indexes_there = self._there(attempts.attempt_index)
        self.keys_there = self._there(attempts.session_key, attempts.attempt_index, of_bytes=True)
        self.lock_counters = self.text(select(*_without(sequences, "id", "note")).with_for_update())
        names = [column.name for column in _without(sequences, "id", "note")]
        self.set_counters = self.text(
            update(sequences).values({name: bindparam(name) for name in names})
        )
        self.set_note = self.text(update(sequences).values(note=bindparam("note")))
        shared = payments.sequence_number == duplicates.sequence_number
        totals = (
            func.coalesce(func.max(payments.sequence_number), literal_column("0")),
            func.coalesce(func.max(duplicates.sequence_number), literal_column("0")),
            func.coalesce(func.max(attempts.attempt_index), literal_column("0")),
            func.count(attempts.id),
            func.count(duplicates.sequence_number),
        )
        numbers_of_two = select(func.count()).select_from(
            t.payments.join(t.payment_duplicates, shared)
        )
        self.totals = self.text(
            select(
                *(select(total).scalar_subquery() for total in totals),
                numbers_of_two.scalar_subquery(),
            )
        )
        self.receivers = self.text(
            select(attempts.attempt_index, attempts.receiver_msat).where(
                self.among(attempts.payment_number)
            )
        )

    def _there(
        self, column: ColumnElement[Any], *more: ColumnElement[Any], of_bytes: bool = False
    ) -> str:
        """Return the statement that finds which of a list are stored."""
        return self.text(select(column, *more).where(self.among(column, of_bytes=of_bytes)))


def _of_one(attempts: Table) -> ColumnElement[bool]:
    """Return the condition that attempts are of one payment; a list of one costs more."""
    return attempts.c.payment_number == bindparam("number")


def _is_any(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Say whether a row meets the condition; for `EXISTS` PostgreSQL may read the table whole."""
    found = select(ONE).where(condition).limit(ONE).offset(NO_OFFSET)
    return found.scalar_subquery().is_not(None)


def _same_hop(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the hop beside it."""
    hops = t.payment_route_hops.c
    return and_(table.c.attempt_index == hops.attempt_index, table.c.hop_index == hops.hop_index)


def _own(table: Table) -> list[ColumnElement[Any]]:
    """Return the columns of a side table that are not its key."""
    return [column for column in table.columns if column.name not in ("attempt_index", "hop_index")]


def _without(table: Table, *names: str) -> list[ColumnElement[Any]]:
    """Return the other columns of a table."""
    return [column for column in table.columns if column.name not in names]


def _paid(paid: bool) -> list[ColumnElement[bool]]:
    succeeded: ColumnElement[int] = literal_column(str(int(PaymentStatus.SUCCEEDED)))
    return [t.payments.c.status == succeeded] if paid else []


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the column in a form that keeps it out of the choice of an index."""
    return column + literal_column("0")


def between(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column is inside two bounds, both included."""
    return column.between(bindparam(f"{name}_from"), bindparam(f"{name}_until"))
