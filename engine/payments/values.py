"""What a payment is made of: frozen values with lnd's numbers, the same on every store.

Amounts are whole millisatoshis (`_msat`, 0 to 2^64-1), times whole nanoseconds since 1970 (`_ns`,
0 = unset, as in old data). Where a field may be absent it is None; empty bytes stay empty bytes.

`gc=False`: a value is made from the leaves up and cannot be part of itself, so the collector need
not follow the thousands that a page is made of.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final

import msgspec
from msgspec.structs import force_setattr

AMOUNT_MSAT_MAX: Final = 2**64 - 1
NUMBER_MAX: Final = 2**63 - 1
"""The highest sequence number, attempt index and time: every store has a signed 64-bit integer."""

NO_RECORDS: Final[Mapping[int, bytes]] = {}


class PaymentStatus(IntEnum):
    """Where a payment is in its life; computed from its attempts and its failure reason."""

    INITIATED = 1
    IN_FLIGHT = 2
    SUCCEEDED = 3
    FAILED = 4


class FailureReason(IntEnum):
    """Why a payment was given up."""

    TIMEOUT = 0
    NO_ROUTE = 1
    ERROR = 2
    INCORRECT_PAYMENT_DETAILS = 3
    INSUFFICIENT_BALANCE = 4
    CANCELED = 5


class AttemptFailureReason(IntEnum):
    """Why an attempt failed."""

    UNKNOWN = 0
    UNREADABLE = 1
    INTERNAL = 2
    MESSAGE = 3


class CreationInfo(msgspec.Struct, frozen=True, gc=False):
    """What is to be paid.

    Attributes:
        identifier: 32 bytes: the payment hash, or the set id of an AMP payment.
        value_msat: What the receiver is to get.
        created_at_ns: When the payment was made; 0 in old data.
        payment_request: The invoice as it came; may be empty.
        first_hop_custom_records: Type >= 65536 to value.
    """

    identifier: bytes
    value_msat: int
    created_at_ns: int
    payment_request: bytes = b""
    first_hop_custom_records: Mapping[int, bytes] = msgspec.field(default_factory=dict)


class MPP(msgspec.Struct, frozen=True, gc=False):
    """The record that makes an attempt a part of a larger whole: 32-byte address, the whole."""

    payment_addr: bytes
    total_msat: int


class AMP(msgspec.Struct, frozen=True, gc=False):
    """The record of an atomic multi-path shard: 32-byte share and set id, unsigned 32-bit child."""

    root_share: bytes
    set_id: bytes
    child_index: int


class Hop(msgspec.Struct, frozen=True, gc=False):
    """One step of a route.

    Attributes:
        pub_key: 33 bytes.
        channel_id: Unsigned 64-bit.
        outgoing_time_lock: Block height, unsigned 32-bit.
        amount_to_forward_msat: What this hop passes on; of the last hop: what the receiver gets.
        legacy_payload: The fixed-size payload of before 2019; kept for a lossless export.
        encrypted_data: For a hop of a blinded path, never empty. A blinding point (33 bytes) or
            a blinded total is only there beside it.
        custom_records: Type >= 65536 to value, which may be empty.
    """

    pub_key: bytes
    channel_id: int
    outgoing_time_lock: int
    amount_to_forward_msat: int
    legacy_payload: bool = False
    mpp: MPP | None = None
    amp: AMP | None = None
    encrypted_data: bytes | None = None
    blinding_point: bytes | None = None
    blinded_total_msat: int = 0
    metadata: bytes | None = None
    custom_records: Mapping[int, bytes] = msgspec.field(default_factory=dict)


class Route(msgspec.Struct, frozen=True, gc=False):
    """The way of one attempt.

    Attributes:
        total_amount_msat: What leaves us, fees and all.
        hops: From the first after us to the receiver; empty when a query omitted them.
        first_hop_amount_msat: 0 = unset.
        omitted_receiver_msat: What the receiver gets, when a query omitted the hops; else None.
    """

    total_time_lock: int
    total_amount_msat: int
    source_pub_key: bytes
    hops: Sequence[Hop]
    first_hop_amount_msat: int = 0
    first_hop_wire_records: Mapping[int, bytes] = msgspec.field(default_factory=dict)
    omitted_receiver_msat: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.hops, list):
            force_setattr(self, "hops", tuple(self.hops))

    @property
    def receiver_msat(self) -> int:
        """What the last hop passes on; 0 for a route without hops."""
        if self.hops:
            return self.hops[-1].amount_to_forward_msat
        return self.omitted_receiver_msat or 0

    @property
    def fees_msat(self) -> int:
        """What the way costs."""
        return self.total_amount_msat - self.receiver_msat


class Settle(msgspec.Struct, frozen=True, gc=False):
    """The proof that an attempt arrived: its 32-byte preimage, and when it came back."""

    preimage: bytes
    settled_at_ns: int


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why and when an attempt failed.

    Attributes:
        source_index: The hop that said so; 0 = ourselves.
        message: The failure message as it came off the wire, whatever is in it; None = none.
    """

    failed_at_ns: int
    reason: AttemptFailureReason
    source_index: int = 0
    message: bytes | None = None


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try to pay, or to pay a part.

    Attributes:
        attempt_index: 1 to 2^63-1, from `next_attempt_index`; unique in the store.
        session_key: 32 bytes, unique in the store.
        payment_hash: 32 bytes; None in old data: then the payment's identifier holds.
        settle: Set by the store once it settled.
        failure: Set by the store once it failed.
    """

    attempt_index: int
    session_key: bytes
    route: Route
    attempted_at_ns: int
    payment_hash: bytes | None = None
    settle: Settle | None = None
    failure: Failure | None = None

    @property
    def is_in_flight(self) -> bool:
        """Whether nothing has come back yet."""
        return self.settle is None and self.failure is None


class PaymentState(msgspec.Struct, frozen=True, gc=False):
    """What the attempts add up to; failed ones do not count."""

    attempts_in_flight: int
    remaining_msat: int
    fees_msat: int
    has_settled: bool
    has_failure_reason: bool


class Payment(msgspec.Struct, frozen=True, gc=False):
    """A payment as read, its attempts in the order of their indexes."""

    sequence_number: int
    info: CreationInfo
    attempts: tuple[Attempt, ...]
    failure_reason: FailureReason | None
    status: PaymentStatus
    state: PaymentState


class DuplicatePayment(msgspec.Struct, frozen=True, gc=False):
    """A second payment of one hash, from before they were refused; only in imported data.

    Exactly one of `failure_reason` and `settle` is set: a duplicate is over.

    Attributes:
        sequence_number: Its own, on the same number line as the payments.
        identifier: The hash that it shares with its payment.
        attempt: Its only attempt, where the source still has it; its index claims no uniqueness.
    """

    sequence_number: int
    identifier: bytes
    value_msat: int
    created_at_ns: int
    payment_request: bytes = b""
    failure_reason: FailureReason | None = None
    settle: Settle | None = None
    attempt: Attempt | None = None

    @property
    def status(self) -> PaymentStatus:
        """SUCCEEDED or FAILED."""
        return PaymentStatus.FAILED if self.settle is None else PaymentStatus.SUCCEEDED


class Query(msgspec.Struct, frozen=True, gc=False):
    """Which payments to return; see `PaymentReader.query_payments`.

    Attributes:
        index_offset: Exclusive; 0 = from the end that the direction begins at.
        max_payments: 0 = the default of 100.
        include_incomplete: Without it, only what Succeeded.
        creation_date_start: Whole seconds, inclusive; 0 = no bound.
        creation_date_end: Whole seconds, inclusive; 0 = no bound.
        count_total: Whether `Response.total_count` is wanted.
        omit_hops: Leave the hops of the routes out; every sum stays right.
    """

    index_offset: int = 0
    max_payments: int = 100
    reversed: bool = False
    include_incomplete: bool = True
    creation_date_start: int = 0
    creation_date_end: int = 0
    count_total: bool = False
    omit_hops: bool = False


class Response(msgspec.Struct, frozen=True, gc=False):
    """A page: ascending sequence numbers, whatever the direction.

    Attributes:
        first_index_offset: The lowest number of the page, payment or duplicate; 0 if it is empty.
        last_index_offset: The highest.
        total_count: All payments of the store, filters ignored, duplicates not counted; 0 unless
            asked for.
        duplicate_payments: The duplicates of the page by payment hash.
    """

    payments: tuple[Payment, ...]
    first_index_offset: int = 0
    last_index_offset: int = 0
    total_count: int = 0
    duplicate_payments: Mapping[bytes, tuple[DuplicatePayment, ...]] = msgspec.field(
        default_factory=dict
    )
