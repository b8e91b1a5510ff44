"""A stream of payments as they change: one reader, bounded, never in a writer's way.

A reader that falls behind gets fewer updates, not older ones: what waits is thinned out to the
newest state of each payment. One that falls behind further is cut off and told so.

What was there when a stream of all payments began comes page by page, as the reader makes room.
"""

from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition
from typing import Final

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.rules import TERMINAL
from engine.payments.values import Payment

UPDATES_MAX: Final = 1_000
"""How many updates may wait for a reader."""


class Subscription:
    """Updates of one payment, or of all.

    Take them from a thread (`for payment in subscription`) or, with a `wake`, from an event loop:
    `take` until it returns None, then wait for the wake; whenever it `wants_more`, have a thread
    `load`.

    Args:
        identifier: The payment; None = all of them. The stream of one payment ends when it is over.
        wake: Called, by a writer's thread, when there is something to take or the stream has ended.
            It must return at once; when it raises, the stream ends.
        updates_max: How many updates may wait.
        loader: Called by `load`.

    Attributes:
        page_max: How many payments that were there at first are asked for at a time.
        after: Up to which sequence number they were told.
    """

    def __init__(
        self,
        identifier: bytes | None = None,
        wake: Callable[[], None] | None = None,
        updates_max: int = UPDATES_MAX,
        loader: "Callable[[Subscription], None] | None" = None,
    ) -> None:
        self.identifier = identifier
        self.page_max = max(1, updates_max // 4)
        self.after = 0
        self._wake = wake
        self._updates_max = updates_max
        self._loader = loader
        self._last = 0
        self._waiting: deque[Payment] = deque()
        self._changed = Condition()
        self._is_ended = False
        self._lagged_by = 0
        self._unsettled: set[bytes] | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing new will come; what waits can still be taken."""
        return self._is_ended

    def cancel(self) -> None:
        """Want no more; what waits is thrown away. May be called from any thread, again too."""
        with self._changed:
            self._waiting.clear()
            self._lagged_by = 0
        self.end()

    def end(self) -> None:
        """Let the reader take what waits, and then come to the end."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        self._rouse()

    # The reader's side --------------------------------------------------------------------------

    def take(self) -> Payment | None:
        """Return the next update, or None when none waits.

        Raises:
            PaymentDBError: subscription_lagged: updates were lost, and this is the end.
        """
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            if self._lagged_by:
                raise PaymentDBError(PaymentDBCode.SUBSCRIPTION_LAGGED, actual=self._lagged_by)
            return None

    def wait(self, timeout_s: float | None = None) -> Payment | None:
        """Return the next update once there is one; None at the end or when time is up.

        Raises:
            PaymentDBError: subscription_lagged.
            StoreError: as `load`.
        """
        while self.wants_more:
            self.load()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ended, timeout_s)
            return self.take()

    def __iter__(self) -> Iterator[Payment]:
        while (payment := self.wait()) is not None:
            yield payment

    # The writers' side --------------------------------------------------------------------------

    def publish(self, payment: Payment) -> None:
        """Add an update; at once, however slow the reader is."""
        with self._changed:
            if self._is_ended:
                return
            if self._unsettled is not None:
                self._unsettled.add(payment.info.identifier)
                return
            self._waiting.append(payment)
            if len(self._waiting) > self._updates_max:
                self._thin_out()
            if self.identifier is not None and payment.status in TERMINAL:
                self._is_ended = True
            self._changed.notify_all()
        self._rouse()

    def _thin_out(self) -> None:
        """Keep the newest update of each payment; give the reader up if that is still too much.

        Half of the room must become free, so that a writer does this once in many updates.
        """
        newest: dict[bytes, Payment] = {}
        for payment in self._waiting:
            newest.pop(payment.info.identifier, None)  # to its new place, behind the others
            newest[payment.info.identifier] = payment
        if len(newest) > self._updates_max // 2 and self.identifier is None:
            self._lagged_by = len(self._waiting)
            self._waiting.clear()
            self._is_ended = True
            return
        self._waiting = deque(newest.values())

    def _rouse(self) -> None:
        if self._wake is None:
            return
        try:
            self._wake()
        except Exception:  # a reader that is gone must not fail the writer, who has written
            self._wake = None
            self._is_ended = True

    # What was there at first --------------------------------------------------------------------

    def expect(self, last: int) -> None:
        """Want what is in flight with sequence numbers up to `last`."""
        self._last = last

    @property
    def wants_more(self) -> bool:
        """Whether there is more of it and room for a page, and nobody is at it."""
        return (
            self.after < self._last
            and self._unsettled is None
            and not self._is_ended
            and len(self._waiting) <= self.page_max
        )

    def load(self) -> None:
        """Take in the next page, if more is wanted. Waits for the store, so it is for a thread.

        Raises:
            StoreError: the store is at fault, and the stream has ended.
        """
        if self._loader is not None:
            self._loader(self)

    def hold(self) -> bool:
        """Only note which payments change until `add_page`; False where no page is wanted."""
        with self._changed:
            if not self.wants_more:
                return False
            self._unsettled = set()
            return True

    def add_page(self, payments: list[Payment]) -> set[bytes]:
        """Add a page, but for those that changed since `hold`; return these.

        What was read of them may be older or newer than the update that was noted. The others were
        read after all that waits, so they stand behind it.
        """
        with self._changed:
            changed, self._unsettled = self._unsettled or set(), None
            is_full = len(payments) == self.page_max
            self.after = payments[-1].sequence_number if is_full else self._last
            self._waiting.extend(
                payment
                for payment in payments
                if payment.info.identifier not in changed and payment.sequence_number <= self._last
            )
            self._changed.notify_all()
        self._rouse()
        return changed
