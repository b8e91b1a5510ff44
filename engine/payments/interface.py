"""The payments database: read this first.

A payment is one intent to pay: an identifier and an amount. To pay it, attempts are made, each
along one route; an attempt settles or fails, and where the payment is follows from its attempts:

    init_payment -> register_attempt -> settle_attempt | fail_attempt -> ... -> fail_payment

`PaymentDB` is everything a store can do, in parts that say who needs what: `PaymentReader`,
`PaymentControl` (the life of one payment), `PaymentWriter` (that and deletion), `Sequencer`
(attempt indexes) and `RecordMover` (migration and verification). `open_payment_db` finds the store.

What holds for every call of every store:

- A call is whole or not at all, and durable when it returns. Killed at any point, the store is as
  after the last call that returned, or after the one under way.
- A handle may be used by many threads, and a store by many processes, each with a handle of its own
  (never one carried over a fork). Of two calls that exclude another one wins and the other is
  refused by its code.
- Values are checked before anything is looked up. Every method may so refuse with the codes of
  `engine.payments.checking`: wrong_type, wrong_length, out_of_range and the like. They are not
  repeated below.
- Any method may raise a `StoreError` instead: the store itself is at fault. A store whose last
  number or attempt index is taken is full.
- Sequence numbers are given by `init_payment`, ascend from 1 and are never used again, whatever is
  deleted. A refused call takes none.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from engine.payments.records import Counters, PaymentRecord, VerifyReport
from engine.payments.values import (
    Attempt,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Payment,
    Query,
    Response,
    Settle,
)


class PaymentReader(ABC):
    """Looks, and changes nothing."""

    @abstractmethod
    def query_payments(self, query: Query) -> Response:
        """Return a page of payments, ascending by sequence number whatever the direction.

        Payments and duplicates share one number line, and a page is cut from it: `max_payments`
        counts both, and the offsets of the answer are the lowest and highest number of both.
        Forward: numbers above the offset. Reversed: numbers below it, from the newest; an offset
        above the newest starts at the newest. Filters come before the count. The cost is set by the
        page, not by the store.

        Raises:
            PaymentDBError: dates_reversed.
        """

    @abstractmethod
    def fetch_payment(self, identifier: bytes) -> Payment:
        """Return the payment, never one of its duplicates.

        Raises:
            PaymentDBError: payment_not_initiated.
        """

    @abstractmethod
    def fetch_in_flight_payments(
        self, after: int = 0, max_payments: int | None = None
    ) -> list[Payment]:
        """Return every payment that is not over, ascending by sequence number.

        These are the Initiated ones and those InFlight, also without an attempt in flight (which
        may be tried again). Duplicates are never among them. The cost is set by what is returned.

        Args:
            after: Only those with a higher sequence number.
            max_payments: So many at most, the oldest; None = all, however many there are.
        """

    @abstractmethod
    def fetch_by_number(
        self, identifier: bytes, sequence_number: int
    ) -> Payment | DuplicatePayment:
        """Return the payment, or the duplicate of it, that has this sequence number.

        Raises:
            PaymentDBError: payment_not_initiated; no_duplicate_bucket when it is not the payment's
                number and there are no duplicates; duplicate_not_found when none has the number.
        """


class PaymentControl(ABC):
    """The life of one payment."""

    @abstractmethod
    def init_payment(self, identifier: bytes, info: CreationInfo) -> None:
        """Begin a payment, or begin again one that Failed.

        Afterwards it is Initiated, with a new sequence number above every one ever given; attempts
        and failure reason of a former run are gone, its duplicates are kept.

        Raises:
            PaymentDBError: payment_exists, payment_in_flight, already_paid by its status;
                identifier_mismatch.
        """

    @abstractmethod
    def register_attempt(self, identifier: bytes, attempt: Attempt) -> Payment:
        """Keep an attempt that is about to be sent; return the payment with it.

        Checked in this order: the payment exists; it may take an attempt; neither index nor session
        key is in the store, with any payment; the attempt fits the others.

        Raises:
            PaymentDBError: payment_not_initiated; payment_already_succeeded,
                payment_already_failed, payment_pending_settled, payment_pending_failed;
                attempt_exists, session_key_exists; the codes of
                `engine.payments.compatibility.check_compatible`.
        """

    @abstractmethod
    def settle_attempt(self, identifier: bytes, attempt_index: int, settle: Settle) -> Payment:
        """Keep the preimage of an attempt in flight, and the caller's time; return the payment.

        Raises:
            PaymentDBError: payment_not_initiated; payment_already_succeeded,
                payment_already_failed; attempt_not_found, also when it is another payment's;
                attempt_already_failed, attempt_already_settled; in this order.
        """

    @abstractmethod
    def fail_attempt(self, identifier: bytes, attempt_index: int, failure: Failure) -> Payment:
        """Keep why an attempt in flight failed, and the caller's time; return the payment.

        Raises:
            PaymentDBError: as `settle_attempt`.
        """

    @abstractmethod
    def fail_payment(self, identifier: bytes, reason: FailureReason) -> Payment:
        """Give the payment up: it takes no new attempt. Overwrites a reason; return the payment.

        The status does not matter. What has settled stays Succeeded, and what is in flight stays
        InFlight until it is resolved.

        Raises:
            PaymentDBError: payment_not_initiated.
        """

    @abstractmethod
    def delete_failed_attempts(self, identifier: bytes) -> None:
        """Remove the failed attempts of a payment that is not in flight; again is fine.

        Raises:
            PaymentDBError: payment_not_initiated, payment_in_flight (also when it may be tried
                again).
        """


class PaymentWriter(PaymentControl):
    """Changes payments, and deletes them."""

    @abstractmethod
    def delete_payment(self, identifier: bytes, failed_attempts_only: bool = False) -> None:
        """Remove a payment with its attempts and duplicates, or only its failed attempts.

        Raises:
            PaymentDBError: payment_not_initiated, payment_in_flight.
        """

    @abstractmethod
    def delete_payments(
        self,
        failed_only: bool = False,
        failed_attempts_only: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Remove every payment that is not in flight, or only its failed attempts.

        Goes in transactions of bounded size, so other writers get their turn: a call that is cut
        off has removed some payments whole and left the others whole. What is added meanwhile may
        or may not be seen.

        Args:
            failed_only: Only the Failed ones.
            failed_attempts_only: Keep the payments, remove failed attempts.
            progress: Called after each transaction with how many payments it was about so far and
                how many there were, and at the end with twice the first.

        Returns:
            How many payments were removed; 0 with `failed_attempts_only`.
        """


class Sequencer(ABC):
    """Gives attempt indexes."""

    @abstractmethod
    def next_attempt_index(self) -> int:
        """Return an index that no handle of this store ever returned, from 1.

        It is also above every index registered or moved in through this handle, so registering it
        is not refused. What another handle moves in, or registers without having been given it, may
        lie in a block that this one has taken already: that index is refused as attempt_exists, and
        the caller asks for another. Ascending in a handle; several handles draw from blocks of at
        most 1,000, each above all that is in the store then, and what is left of a block is lost
        when the handle closes.
        """


class RecordMover(ABC):
    """What migration and verification need besides. Not for the life of a payment."""

    @abstractmethod
    def read_records(
        self, after: int = 0, batch_size: int = 500
    ) -> Iterator[tuple[PaymentRecord, ...]]:
        """Walk all payments by ascending sequence number, each with its duplicates.

        Args:
            after: The sequence number of the last payment that is not wanted.
            batch_size: The most records at a time; each batch is one consistent read.
        """

    @abstractmethod
    def write_records(self, records: Sequence[PaymentRecord], note: bytes | None = None) -> None:
        """Add whole payments, with numbers and indexes as they are, in one transaction.

        The counters rise to at least what is added. `note` replaces the note, see there.

        Raises:
            PaymentDBError: payment_exists, sequence_number_exists, attempt_exists,
                session_key_exists; sent_exceeds_total; the codes of
                `engine.payments.records.check_record`. Nothing of the batch was added.
        """

    @abstractmethod
    def note(self) -> bytes | None:
        """Return what the last `write_records` left; while it is not None a move is unfinished."""

    @abstractmethod
    def counters(self) -> Counters:
        """Return the numbers that are given next, and how much there is; at once, no scan."""

    @abstractmethod
    def raise_counters(self, sequence_number: int = 0, attempt_index: int = 0) -> None:
        """Let the next number and index be above these; a counter never goes down.

        Another handle may first give what is left of its block of indexes.
        """

    @abstractmethod
    def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Recompute all that is kept for speed from the attempts, and compare. Reads everything.

        Args:
            progress: Called now and then, and at the end, with how many payments were looked at
                and how many there are.
        """


class PaymentDB(PaymentReader, PaymentWriter, Sequencer, RecordMover):
    """A store. Closes at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the store; again is fine. Any other call afterwards raises a `StoreError`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
