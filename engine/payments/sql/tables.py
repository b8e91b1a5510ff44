"""The tables, the same on both databases; docs/reference/payments-schema.md is drawn from here.

Keys are what the values have already: a payment hangs on its sequence number, all parts of an
attempt on its index. Only an attempt has a row id besides, and nothing hangs on it: an index comes
from outside and says when an attempt was made, a row id says where a row lies.

What is computed and kept stands in `payments`, so that no query need read attempts to filter:
`status`, the counts of attempts, `sent_msat` and `fees_msat`. They change with the attempts in one
transaction; a check constraint ties the status to the counts, `verify` ties those to the attempts.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import UserDefinedType

from engine.payments.checking import CUSTOM_RECORD_TYPE_MIN, U64_MAX
from engine.payments.state import FAILED, SETTLED


class AnyNumber(UserDefinedType[int]):
    """SQLite: a signed 64-bit integer where it fits, else its digits as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type of a column that keeps values as they come."""
        return "ANY"


NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")
"""Signed 64-bit."""

SMALL: Final = SmallInteger().with_variant(Integer(), "sqlite")
UNSIGNED: Final = Numeric(20, 0).with_variant(Integer(), "sqlite")
"""Unsigned 64-bit. SQLite has no such type: there 2^63 and above is stored as itself less 2^64."""

SUM: Final = Numeric().with_variant(AnyNumber(), "sqlite")
"""A whole number without bounds, also below 0."""

BYTES: Final = LargeBinary()

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_unique_%(column_0_N_name)s",
        "fk": "%(table_name)s_of_%(referred_table_name)s",
        "ck": "%(table_name)s_check_%(constraint_name)s",
        "ix": "%(table_name)s_by_%(column_0_N_name)s",
    }
)

STATUS: Final = (
    "status = CASE WHEN attempts_in_flight > 0 THEN 2 WHEN attempts_settled > 0 THEN 3 "
    "WHEN failure_reason IS NOT NULL THEN 4 WHEN attempts_failed > 0 THEN 2 ELSE 1 END"
)
"""The truth table of `engine.payments.state.status_of`, where no writer can pass it by."""


def table(name: str, *parts: Column[Any] | Any, rowid: bool = True, comment: str) -> Table:
    """Make a table whose types SQLite checks as strictly as PostgreSQL does."""
    made = Table(
        name,
        metadata,
        *parts,
        sqlite_strict=True,
        sqlite_with_rowid=rowid,
        info={"comment": comment},
    )
    for column in made.columns:
        if "lowest" in column.info:
            lowest = column.info["lowest"]
            rule = f"{column.name} BETWEEN {lowest} AND {U64_MAX}"
            bounds = CheckConstraint(rule, name=f"{column.name}_bounds")
            made.append_constraint(bounds.ddl_if(dialect="postgresql"))
    return made


def unsigned(name: str, lowest: int = 0, **options: Any) -> Column[Any]:
    """Make a column for an amount or a channel. On SQLite all 64 bits are in use: no bounds."""
    return Column(name, UNSIGNED, nullable=False, info={"lowest": lowest}, **options)


def sized(name: str, length: int, *parts: Any, nullable: bool = False) -> Column[Any]:
    """Make a column for bytes of one length."""
    exact = CheckConstraint(f"length({name}) = {length}", name=f"{name}_length")
    return Column(name, BYTES, *parts, exact, nullable=nullable)


def of_payment(**options: Any) -> Column[Any]:
    """Make the column that says whose row it is; it follows when a payment is begun again."""
    owner = ForeignKey("payments.sequence_number", ondelete="CASCADE", onupdate="CASCADE")
    return Column("payment_number", NUMBER, owner, nullable=False, **options)


def of_attempt(**options: Any) -> Column[Any]:
    """Make the column that says whose row it is."""
    owner = ForeignKey("payment_htlc_attempts.attempt_index", ondelete="CASCADE")
    return Column("attempt_index", NUMBER, owner, nullable=False, **options)


def of_hop() -> tuple[Column[Any], Column[Any], ForeignKeyConstraint]:
    """Make the columns that say of which attempt and which hop a row is."""
    return (
        Column("attempt_index", NUMBER, primary_key=True, autoincrement=False),
        Column("hop_index", SMALL, primary_key=True, autoincrement=False),
        ForeignKeyConstraint(
            ["attempt_index", "hop_index"],
            ["payment_route_hops.attempt_index", "payment_route_hops.hop_index"],
            ondelete="CASCADE",
        ),
    )


def record() -> tuple[Column[Any], Column[Any], Any]:
    """Make the columns of a custom record; its type is above those of the protocol."""
    lowest = CUSTOM_RECORD_TYPE_MIN
    upper_half = CheckConstraint(f"key >= {lowest} OR key < 0", name="key_type")
    return (
        unsigned("key", lowest, primary_key=True, autoincrement=False),
        Column("value", BYTES, nullable=False),
        upper_half.ddl_if(dialect="sqlite"),
    )


payments = table(
    "payments",
    Column("sequence_number", NUMBER, primary_key=True, autoincrement=False),
    sized("identifier", 32),
    unsigned("value_msat"),
    Column("created_at_ns", NUMBER, nullable=False),
    Column("failure_reason", SMALL),
    Column("status", SMALL, nullable=False),
    Column("attempts_in_flight", NUMBER, nullable=False),
    Column("attempts_settled", NUMBER, nullable=False),
    Column("attempts_failed", NUMBER, nullable=False),
    unsigned("sent_msat"),
    Column("fees_msat", SUM, nullable=False),
    UniqueConstraint("identifier"),
    CheckConstraint("sequence_number > 0", name="sequence_number"),
    CheckConstraint("failure_reason BETWEEN 0 AND 5", name="failure_reason"),
    CheckConstraint(STATUS, name="status"),
    Index(None, "status", "sequence_number"),
    Index(None, "created_at_ns", "sequence_number"),
    comment="A row a payment. `status` and all behind it is computed from the attempts and kept.",
)
payment_intents = table(
    "payment_intents",
    of_payment(primary_key=True, autoincrement=False),
    Column("intent_type", SMALL, CheckConstraint("intent_type = 0", name="type"), nullable=False),
    Column("payload", BYTES, nullable=False),
    comment="What was asked for: the payment request, where there is one. Type 0 is BOLT 11.",
)
payment_first_hop_custom_records = table(
    *("payment_first_hop_custom_records", of_payment(primary_key=True, autoincrement=False)),
    *record(),
    rowid=False,
    comment="Custom records that every attempt of a payment sends to its first hop.",
)
payment_duplicates = table(
    "payment_duplicates",
    Column("sequence_number", NUMBER, primary_key=True, autoincrement=False),
    of_payment(index=True),
    unsigned("value_msat"),
    Column("created_at_ns", NUMBER, nullable=False),
    Column("payment_request", BYTES, nullable=False),
    Column("failure_reason", SMALL),
    sized("settle_preimage", 32, nullable=True),
    Column("settled_at_ns", NUMBER),
    Column("attempt", BYTES),
    CheckConstraint("(failure_reason IS NULL) <> (settle_preimage IS NULL)", name="over"),
    CheckConstraint("(settle_preimage IS NULL) = (settled_at_ns IS NULL)", name="settle"),
    Index(None, "created_at_ns", "sequence_number"),
    comment=(
        "Legacy duplicates, on one number line with the payments. `attempt` is MessagePack: it is "
        "kept to be exported, and nothing looks into it."
    ),
)
payment_htlc_attempts = table(
    "payment_htlc_attempts",
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("attempt_index", NUMBER, nullable=False),
    of_payment(),
    sized("session_key", 32),
    Column("attempted_at_ns", NUMBER, nullable=False),
    sized("payment_hash", 32, nullable=True),
    Column("total_time_lock", NUMBER, nullable=False),
    unsigned("total_amount_msat"),
    sized("source_pub_key", 33),
    unsigned("first_hop_amount_msat"),
    unsigned("receiver_msat"),
    UniqueConstraint("attempt_index"),
    UniqueConstraint("session_key"),
    CheckConstraint("attempt_index > 0", name="attempt_index"),
    Index(None, "payment_number", "attempt_index"),
    comment="A row an attempt. `receiver_msat` is what its last hop forwards.",
)
payment_htlc_attempt_resolutions = table(
    "payment_htlc_attempt_resolutions",
    of_attempt(primary_key=True, autoincrement=False),
    Column("resolution_type", SMALL, nullable=False),
    Column("resolved_at_ns", NUMBER, nullable=False),
    sized("settle_preimage", 32, nullable=True),
    Column("failure_reason", SMALL),
    Column("failure_source_index", NUMBER),
    Column("failure_message", BYTES),
    CheckConstraint(
        f"(resolution_type = {SETTLED} AND settle_preimage IS NOT NULL AND failure_reason IS NULL "
        "AND failure_source_index IS NULL AND failure_message IS NULL) "
        f"OR (resolution_type = {FAILED} AND settle_preimage IS NULL "
        "AND failure_reason IS NOT NULL AND failure_source_index IS NOT NULL)",
        name="settled_or_failed",
    ),
    comment="How an attempt ended: type 1 settled, 2 failed. In flight: no row.",
)
payment_attempt_first_hop_custom_records = table(
    "payment_attempt_first_hop_custom_records",
    of_attempt(primary_key=True, autoincrement=False),
    *record(),
    rowid=False,
    comment="Wire records of one attempt for its first hop.",
)
payment_route_hops = table(
    "payment_route_hops",
    of_attempt(primary_key=True, autoincrement=False),
    Column("hop_index", SMALL, primary_key=True, autoincrement=False),
    sized("pub_key", 33),
    unsigned("channel_id"),
    Column("outgoing_time_lock", NUMBER, nullable=False),
    unsigned("amount_to_forward_msat"),
    Column("legacy_payload", SMALL, nullable=False),
    Column("metadata", BYTES),
    CheckConstraint("legacy_payload IN (0, 1)", name="legacy_payload"),
    rowid=False,
    comment="The hops of a route, from 0.",
)
payment_route_hop_mpp = table(
    *("payment_route_hop_mpp", *of_hop()),
    sized("payment_addr", 32),
    unsigned("total_msat"),
    rowid=False,
    comment="The MPP record of a hop.",
)
payment_route_hop_amp = table(
    *("payment_route_hop_amp", *of_hop()),
    sized("root_share", 32),
    sized("set_id", 32),
    Column("child_index", NUMBER, nullable=False),
    rowid=False,
    comment="The AMP record of a hop.",
)
payment_route_hop_blinded = table(
    *("payment_route_hop_blinded", *of_hop()),
    Column("encrypted_data", BYTES, nullable=False),
    sized("blinding_point", 33, nullable=True),
    unsigned("total_msat"),
    CheckConstraint("length(encrypted_data) > 0", name="encrypted_data"),
    rowid=False,
    comment="What a hop of a blinded path carries.",
)
payment_hop_custom_records = table(
    *("payment_hop_custom_records", *of_hop(), *record()),
    rowid=False,
    comment="Custom records for one hop.",
)
payment_sequences = table(
    "payment_sequences",
    Column("id", SMALL, CheckConstraint("id = 1", name="one_row"), primary_key=True),
    Column("last_sequence_number", NUMBER, nullable=False),
    Column("last_attempt_index", NUMBER, nullable=False),
    Column("payment_count", NUMBER, nullable=False),
    Column("duplicate_count", NUMBER, nullable=False),
    Column("note", BYTES),
    comment=(
        "One row: the highest numbers ever given, which never go back, how much there is, and the "
        "note of a migration that is not finished."
    ),
)
