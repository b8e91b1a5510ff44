"""The control tower: a store whose changes can be watched.

All writing of a process goes through one tower; it sees nothing that others write to the store. For
each payment it does one thing at a time, so that updates come in the order of what happened.
"""

from collections import defaultdict
from collections.abc import Callable
from threading import Lock
from typing import Final

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.interface import PaymentDB, PaymentReader, PaymentWriter, Sequencer
from engine.payments.memory import weight_of
from engine.payments.subscriptions import UPDATES_MAX, Subscription
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

STRIPES: Final = 1_024
"""Locks for payments; two payments of one lock wait for each other, which is only slow."""

SUBSCRIPTIONS_MAX: Final = 1_000

Wake = Callable[[], None]


class ControlTower(PaymentReader, PaymentWriter, Sequencer):
    """Passes every call on to `store` and tells subscribers what came of it.

    Args:
        store: Closed by whoever opened it.
        keep_failed_attempts: Whether `finish` leaves failed attempts where they are.
        updates_max: How many updates may wait for one slow subscriber.
    """

    def __init__(
        self,
        store: PaymentDB,
        *,
        keep_failed_attempts: bool = False,
        updates_max: int = UPDATES_MAX,
    ) -> None:
        self._store = store
        self._keep_failed_attempts = keep_failed_attempts
        self._updates_max = updates_max
        self._locks = tuple(Lock() for _ in range(STRIPES))
        self._register = Lock()
        self._of_one: dict[bytes, list[Subscription]] = defaultdict(list)
        self._of_all: list[Subscription] = []

    # Watching -----------------------------------------------------------------------------------

    def subscribe(self, identifier: bytes, wake: Wake | None = None) -> Subscription:
        """Return the payment as it is and each change from here on, until it is over or deleted.

        Raises:
            PaymentDBError: payment_not_initiated, too_many_subscriptions.
        """
        subscription = Subscription(identifier, wake, self._updates_max)
        with self._lock_of(identifier):
            payment = self._store.fetch_payment(identifier)
            self._enter(subscription)
            self._publish_to([subscription], payment)
        return subscription

    def subscribe_all(self, wake: Wake | None = None) -> Subscription:
        """Return every payment that is in flight, then each change of any payment.

        A change that happens meanwhile may come twice, but never an older state after a newer one.
        What is in flight is read page by page as there is room for it, the first page at once.

        Raises:
            PaymentDBError: too_many_subscriptions.
        """
        subscription = Subscription(None, wake, self._updates_max, self._load)
        self._enter(subscription)
        # What begins from here on is published.
        try:
            subscription.expect(self._store.counters().sequence_number)
        except BaseException:
            subscription.cancel()
            raise
        subscription.load()
        return subscription

    def _load(self, subscription: Subscription) -> None:
        """Give a subscription the next page of what was in flight when it began."""
        if not subscription.hold():
            return
        try:
            page = self._store.fetch_in_flight_payments(subscription.after, subscription.page_size)
            for identifier in subscription.add_page(page):
                self._tell_again(subscription, identifier)
        except BaseException:
            subscription.cancel()
            raise

    def subscriptions(self) -> int:
        """Return how many there are."""
        with self._register:
            return self._count()

    def _count(self) -> int:
        self._drop_ended()
        return len(self._of_all) + sum(map(len, self._of_one.values()))

    def _enter(self, subscription: Subscription) -> None:
        with self._register:
            if self._count() >= SUBSCRIPTIONS_MAX:
                raise PaymentDBError(
                    PaymentDBCode.TOO_MANY_SUBSCRIPTIONS, expected=SUBSCRIPTIONS_MAX
                )
            if subscription.identifier is None:
                self._of_all.append(subscription)
            else:
                self._of_one[subscription.identifier].append(subscription)

    def _drop_ended(self) -> None:
        self._of_all = [each for each in self._of_all if not each.is_ended]
        for identifier, some in list(self._of_one.items()):
            left = [each for each in some if not each.is_ended]
            if left:
                self._of_one[identifier] = left
            else:
                del self._of_one[identifier]

    def _watchers_of(self, identifier: bytes) -> list[Subscription]:
        with self._register:
            return [*self._of_one.get(identifier, ()), *self._of_all]

    def _publish(self, payment: Payment) -> Payment:
        self._publish_to(self._watchers_of(payment.info.identifier), payment)
        return payment

    def _publish_to(self, watchers: list[Subscription], payment: Payment) -> None:
        if not watchers:
            return
        weight = weight_of(payment)
        for subscription in watchers:
            subscription.publish(payment, weight)
        if any(subscription.is_ended for subscription in watchers):
            with self._register:
                self._drop_ended()

    def _tell_again(self, subscription: Subscription, identifier: bytes) -> None:
        """Publish a payment as it is now; it changed while the subscription began."""
        with self._lock_of(identifier):
            payment = self._find(identifier)
            if payment is not None:
                self._publish_to([subscription], payment)

    def _find(self, identifier: bytes) -> Payment | None:
        try:
            return self._store.fetch_payment(identifier)
        except PaymentDBError as refusal:
            if refusal.code is not PaymentDBCode.PAYMENT_NOT_INITIATED:
                raise
            return None

    def _lock_of(self, identifier: bytes) -> Lock:
        # What is no identifier gets a lock too: the store refuses it by name.
        return self._locks[hash(identifier) % STRIPES if isinstance(identifier, bytes) else 0]

    # Writing ------------------------------------------------------------------------------------

    def init_payment(self, identifier: bytes, info: CreationInfo) -> None:
        """Begin a payment and publish it."""
        with self._lock_of(identifier):
            self._store.init_payment(identifier, info)
            watchers = self._watchers_of(identifier)
            if watchers:
                self._publish_to(watchers, self._store.fetch_payment(identifier))

    def register_attempt(self, identifier: bytes, attempt: Attempt) -> Payment:
        """Keep an attempt and publish the payment."""
        with self._lock_of(identifier):
            return self._publish(self._store.register_attempt(identifier, attempt))

    def settle_attempt(self, identifier: bytes, attempt_index: int, settle: Settle) -> Payment:
        """Settle an attempt and publish the payment."""
        with self._lock_of(identifier):
            return self._publish(self._store.settle_attempt(identifier, attempt_index, settle))

    def fail_attempt(self, identifier: bytes, attempt_index: int, failure: Failure) -> Payment:
        """Fail an attempt and publish the payment."""
        with self._lock_of(identifier):
            return self._publish(self._store.fail_attempt(identifier, attempt_index, failure))

    def fail_payment(self, identifier: bytes, reason: FailureReason) -> Payment:
        """Give a payment up and publish it."""
        with self._lock_of(identifier):
            return self._publish(self._store.fail_payment(identifier, reason))

    def delete_failed_attempts(self, identifier: bytes) -> None:
        """Delete failed attempts; nothing is published."""
        with self._lock_of(identifier):
            self._store.delete_failed_attempts(identifier)

    def delete_payment(self, identifier: bytes, failed_attempts_only: bool = False) -> None:
        """Delete a payment; whoever watches it comes to the end."""
        with self._lock_of(identifier):
            self._store.delete_payment(identifier, failed_attempts_only)
            if not failed_attempts_only:
                self._end_watching(identifier)

    def delete_payments(
        self,
        failed_only: bool = False,
        failed_attempts_only: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Delete many payments; whoever watches one of them comes to the end."""
        count = self._store.delete_payments(failed_only, failed_attempts_only, progress)
        with self._register:
            watched = list(self._of_one)
        for identifier in watched if count else ():
            with self._lock_of(identifier):
                if self._find(identifier) is None:
                    self._end_watching(identifier)
        return count

    def _end_watching(self, identifier: bytes) -> None:
        with self._register:
            watchers = self._of_one.pop(identifier, [])
        for subscription in watchers:
            subscription.end()

    def finish(self, identifier: bytes) -> bool:
        """Tidy up after a payment that is over; a payer calls this last.

        Returns:
            Whether failed attempts were deleted: not when they are to be kept.

        Raises:
            PaymentDBError: as `delete_failed_attempts`.
        """
        if self._keep_failed_attempts:
            return False
        self.delete_failed_attempts(identifier)
        return True

    # Reading ------------------------------------------------------------------------------------

    def query_payments(self, query: Query) -> Response:
        """Ask the store."""
        return self._store.query_payments(query)

    def fetch_payment(self, identifier: bytes) -> Payment:
        """Ask the store."""
        return self._store.fetch_payment(identifier)

    def fetch_in_flight_payments(
        self, after: int = 0, max_payments: int | None = None
    ) -> list[Payment]:
        """Ask the store."""
        return self._store.fetch_in_flight_payments(after, max_payments)

    def fetch_by_number(
        self, identifier: bytes, sequence_number: int
    ) -> Payment | DuplicatePayment:
        """Ask the store."""
        return self._store.fetch_by_number(identifier, sequence_number)

    def next_attempt_index(self) -> int:
        """Ask the store."""
        return self._store.next_attempt_index()
