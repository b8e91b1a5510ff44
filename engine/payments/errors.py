"""What can go wrong: refusals with a code, and faults of a store with what to do.

A refusal (`PaymentDBError`) is an answer: the call changed nothing, the store is well. A fault
(`StoreError`) is about the store itself, and its sentence says what to do. Both are the same for
every store; no error of a driver gets through. One page: docs/reference/payments.md.
"""

from enum import StrEnum
from typing import Final


class PaymentDBCode(StrEnum):
    """Why a call was refused; stable, on the wire and on the command line."""

    # by the status of the payment
    PAYMENT_EXISTS = "payment_exists"
    PAYMENT_IN_FLIGHT = "payment_in_flight"
    ALREADY_PAID = "already_paid"
    PAYMENT_NOT_INITIATED = "payment_not_initiated"
    PAYMENT_ALREADY_SUCCEEDED = "payment_already_succeeded"
    PAYMENT_ALREADY_FAILED = "payment_already_failed"
    PAYMENT_PENDING_SETTLED = "payment_pending_settled"
    PAYMENT_PENDING_FAILED = "payment_pending_failed"
    UNKNOWN_PAYMENT_STATUS = "unknown_payment_status"
    PAYMENT_INTERNAL = "payment_internal"
    # by the attempt
    ATTEMPT_EXISTS = "attempt_exists"
    SESSION_KEY_EXISTS = "session_key_exists"
    ATTEMPT_NOT_FOUND = "attempt_not_found"
    ATTEMPT_ALREADY_SETTLED = "attempt_already_settled"
    ATTEMPT_ALREADY_FAILED = "attempt_already_failed"
    UNKNOWN_RESOLUTION = "unknown_resolution"
    # by what the attempts of a payment must have in common
    BLINDED_MISSING_TOTAL_AMOUNT = "blinded_missing_total_amount"
    MPP_RECORD_IN_BLINDED_PAYMENT = "mpp_record_in_blinded_payment"
    MIXED_BLINDED_AND_NON_BLINDED = "mixed_blinded_and_non_blinded"
    BLINDED_TOTAL_AMOUNT_MISMATCH = "blinded_total_amount_mismatch"
    MPP_PAYMENT = "mpp_payment"
    NON_MPP_PAYMENT = "non_mpp_payment"
    MPP_PAYMENT_ADDR_MISMATCH = "mpp_payment_addr_mismatch"
    MPP_TOTAL_AMOUNT_MISMATCH = "mpp_total_amount_mismatch"
    VALUE_MISMATCH = "value_mismatch"
    VALUE_EXCEEDS_AMT = "value_exceeds_amt"
    SENT_EXCEEDS_TOTAL = "sent_exceeds_total"
    # by the look of a value: nothing was looked up
    WRONG_TYPE = "wrong_type"
    WRONG_LENGTH = "wrong_length"
    OUT_OF_RANGE = "out_of_range"
    IDENTIFIER_MISMATCH = "identifier_mismatch"
    ATTEMPT_INDEX_ZERO = "attempt_index_zero"
    NO_ROUTE_HOPS = "no_route_hops"
    TOO_MANY_HOPS = "too_many_hops"
    CUSTOM_RECORD_TYPE = "custom_record_type"
    RECORDS_TOO_LARGE = "records_too_large"
    BLINDING_WITHOUT_DATA = "blinding_without_data"
    DATES_REVERSED = "dates_reversed"
    DELETE_FLAGS = "delete_flags"
    # by what is moved in or looked up by number
    NO_SEQUENCE_NUMBER = "no_sequence_number"
    SEQUENCE_NUMBER_EXISTS = "sequence_number_exists"
    NO_DUPLICATE_BUCKET = "no_duplicate_bucket"
    DUPLICATE_NOT_FOUND = "duplicate_not_found"
    DUPLICATE_NOT_OVER = "duplicate_not_over"
    # by the control tower
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    SUBSCRIPTION_LAGGED = "subscription_lagged"


_SENTENCES: Final = {
    PaymentDBCode.PAYMENT_EXISTS: "this payment was begun already",
    PaymentDBCode.PAYMENT_IN_FLIGHT: "this payment is in flight",
    PaymentDBCode.ALREADY_PAID: "this payment was paid already",
    PaymentDBCode.PAYMENT_NOT_INITIATED: "there is no payment with this identifier",
    PaymentDBCode.PAYMENT_ALREADY_SUCCEEDED: "the payment has succeeded",
    PaymentDBCode.PAYMENT_ALREADY_FAILED: "the payment has failed",
    PaymentDBCode.PAYMENT_PENDING_SETTLED: "an attempt has settled; no new one may be made",
    PaymentDBCode.PAYMENT_PENDING_FAILED: "the payment was given up; no new attempt may be made",
    PaymentDBCode.UNKNOWN_PAYMENT_STATUS: "no payment has the status {actual}",
    PaymentDBCode.PAYMENT_INTERNAL: "status and amounts contradict: {actual} msat are missing",
    PaymentDBCode.ATTEMPT_EXISTS: "attempt {actual} exists already",
    PaymentDBCode.SESSION_KEY_EXISTS: "attempt {expected} has the same session key as {actual}",
    PaymentDBCode.ATTEMPT_NOT_FOUND: "the payment has no attempt {actual}",
    PaymentDBCode.ATTEMPT_ALREADY_SETTLED: "attempt {actual} has settled",
    PaymentDBCode.ATTEMPT_ALREADY_FAILED: "attempt {actual} has failed",
    PaymentDBCode.UNKNOWN_RESOLUTION: "no attempt is resolved with the code {actual}",
    PaymentDBCode.BLINDED_MISSING_TOTAL_AMOUNT: "a blinded route must say the total amount",
    PaymentDBCode.MPP_RECORD_IN_BLINDED_PAYMENT: "MPP records and blinded routes exclude another",
    PaymentDBCode.MIXED_BLINDED_AND_NON_BLINDED: "all routes of a payment are blinded, or none",
    PaymentDBCode.BLINDED_TOTAL_AMOUNT_MISMATCH: (
        "the blinded total of this payment is {expected} msat, not {actual}"
    ),
    PaymentDBCode.MPP_PAYMENT: "the payment is made in parts, and this attempt is not one",
    PaymentDBCode.NON_MPP_PAYMENT: "the payment is not made in parts, and this attempt is one",
    PaymentDBCode.MPP_PAYMENT_ADDR_MISMATCH: "the parts of a payment have one payment address",
    PaymentDBCode.MPP_TOTAL_AMOUNT_MISMATCH: (
        "the parts of this payment total {expected} msat, not {actual}"
    ),
    PaymentDBCode.VALUE_MISMATCH: "an attempt that is the whole must be {expected} msat: {actual}",
    PaymentDBCode.VALUE_EXCEEDS_AMT: "the payment is {expected} msat; with this it is {actual}",
    PaymentDBCode.SENT_EXCEEDS_TOTAL: "{actual} msat were sent of {expected}",
    PaymentDBCode.WRONG_TYPE: "{detail}",
    PaymentDBCode.WRONG_LENGTH: "{detail} must have {expected} bytes; it has {actual}",
    PaymentDBCode.OUT_OF_RANGE: "{detail} may be at most {expected} and not below 0: {actual}",
    PaymentDBCode.IDENTIFIER_MISMATCH: "the identifier is not that of the creation info",
    PaymentDBCode.ATTEMPT_INDEX_ZERO: "attempt indexes begin at 1; ask next_attempt_index for one",
    PaymentDBCode.NO_ROUTE_HOPS: "a route needs a hop",
    PaymentDBCode.TOO_MANY_HOPS: "a route may have {expected} hops; this one has {actual}",
    PaymentDBCode.CUSTOM_RECORD_TYPE: (
        "{detail}: the type of a custom record is {expected} or more; {actual}"
    ),
    PaymentDBCode.RECORDS_TOO_LARGE: "{detail} may take {expected} bytes; they take {actual}",
    PaymentDBCode.BLINDING_WITHOUT_DATA: "a hop has blinded fields and no encrypted data",
    PaymentDBCode.DATES_REVERSED: "the start {expected} is after the end {actual}",
    PaymentDBCode.DELETE_FLAGS: "say either all payments, or failed only, failed attempts only",
    PaymentDBCode.NO_SEQUENCE_NUMBER: "a payment to be moved needs a sequence number of 1 or more",
    PaymentDBCode.SEQUENCE_NUMBER_EXISTS: "the sequence number {actual} is taken",
    PaymentDBCode.NO_DUPLICATE_BUCKET: "the payment has no duplicates; {actual} is not its number",
    PaymentDBCode.DUPLICATE_NOT_FOUND: "no duplicate of the payment has the number {actual}",
    PaymentDBCode.DUPLICATE_NOT_OVER: "a duplicate is either settled or failed, never both",
    PaymentDBCode.TOO_MANY_SUBSCRIPTIONS: "there may be {expected} subscriptions at a time",
    PaymentDBCode.SUBSCRIPTION_LAGGED: (
        "{actual} updates waited to be read; subscribe again to see where everything is"
    ),
}


class PaymentsError(Exception):
    """Anything that this package raises on purpose."""


class PaymentDBError(PaymentsError):
    """A refusal: the call changed nothing.

    Attributes:
        code: The reason; the same on every store.
        expected: What would have passed, where numbers disagree.
        actual: What came.
        detail: The word that numbers cannot say, such as the name of a field.
    """

    def __init__(
        self, code: PaymentDBCode, *, expected: int = 0, actual: int = 0, detail: str = ""
    ) -> None:
        self.code = code
        self.expected = expected
        self.actual = actual
        self.detail = detail
        sentence = _SENTENCES[code].format(expected=expected, actual=actual, detail=detail)
        super().__init__(f"{code}: {sentence}")

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.code, self.expected, self.actual, self.detail)


def _again(code: PaymentDBCode, expected: int, actual: int, detail: str) -> PaymentDBError:
    """Build a refusal that came from another process."""
    return PaymentDBError(code, expected=expected, actual=actual, detail=detail)


class StoreError(PaymentsError):
    """A fault of a store. The sentence says which store, what is wrong and what to do."""


class UnknownStoreError(StoreError):
    """The URL names no kind of store that there is, or is not well-formed."""


class StoreNotFoundError(StoreError):
    """There is no store at this place, and none was to be made."""


class StoreTooNewError(StoreError):
    """A newer version wrote this store; nothing was read or changed."""


class StoreDamagedError(StoreError):
    """What is stored does not make sense."""


class StoreLockedError(StoreError):
    """Somebody else holds the store and did not let go in time; nothing was changed."""


class StoreFullError(StoreError):
    """The disk, or the map of the store, is full; nothing was changed."""


class StoreReadOnlyError(StoreError):
    """The store cannot be written: opened so, or the file or disk is read-only."""


class StoreUnavailableError(StoreError):
    """The store does not answer, or went away in the middle of a call that changed nothing."""


class StoreOutcomeUnknownError(StoreUnavailableError):
    """The store went away while it committed: the call is whole or not at all. Fetch and see."""


class StoreNotEmptyError(StoreError):
    """A migration wants an empty destination."""


class StoreUnfinishedError(StoreError):
    """A migration into this store did not finish: its payments are not all there."""


class UnsafeSQLiteError(StoreError):
    """The SQLite library is older than 3.51.3 and may lose committed data (WAL-reset bug)."""
