"""A stream of payments as they change: one reader, bounded, never in a writer's way.

A reader that falls behind gets fewer updates, not older ones: what waits is thinned out to the
newest state of each payment. One that falls behind further is cut off and told so. What may wait is
bounded in number and in weight, for a payment may be large; the newest state of the only one always
may.

What was there when a stream of all payments began comes page by page, as the reader makes room.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import Condition
from typing import Final

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.memory import weight_of
from engine.payments.rules import TERMINAL
from engine.payments.values import Payment

UPDATES_MAX: Final = 1_000
"""How many updates may wait for a reader."""

BYTES_MAX: Final = 2**23
BYTES_OF_ONE_MAX: Final = 2**18
"""About how much memory they may take, of all payments and of one. What is left of them when they
are thinned out may take as much again."""

PAGE_FIRST: Final = 8
PAGE_BYTES: Final = 2**21
"""A page of what was there at first: so many payments, and later as many as take about so much."""


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
        page_size: How many payments that were there at first are asked for next.
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
        self._page_max = max(1, updates_max // 4)
        self.page_size = min(PAGE_FIRST, self._page_max)
        self.after = 0
        self._wake = wake
        self._updates_max = updates_max
        self._loader = loader
        self._last = 0
        self._waiting: deque[tuple[Payment, int]] = deque()
        self._bytes_max = BYTES_MAX if identifier is None else BYTES_OF_ONE_MAX
        self._thin_above = self._bytes_max
        self._weight = 0
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
            self._keep([])
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
                payment, weight = self._waiting.popleft()
                self._weight -= weight
                if not self._waiting:
                    self._thin_above = self._bytes_max
                return payment
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

    def publish(self, payment: Payment, weight: int) -> None:
        """Add an update; at once, however slow the reader is.

        Args:
            payment: As it is now.
            weight: About how many bytes it takes.
        """
        with self._changed:
            if self._is_ended:
                return
            if self._unsettled is not None:
                self._unsettled.add(payment.info.identifier)
                return
            self._waiting.append((payment, weight))
            self._weight += weight
            if len(self._waiting) > self._updates_max or self._weight > self._thin_above:
                self._thin_out()
            if self.identifier is not None and payment.status in TERMINAL:
                self._is_ended = True
            self._changed.notify_all()
        self._rouse()

    def _thin_out(self) -> None:
        """Keep the newest update of each payment; give the reader up if that is still too much.

        Half of the places must become free, or as much room again is given, so that a writer does
        this once in many updates.
        """
        newest: dict[bytes, tuple[Payment, int]] = {}
        for payment, weight in self._waiting:
            newest.pop(payment.info.identifier, None)  # to its new place, behind the others
            newest[payment.info.identifier] = payment, weight
        is_heavy = sum(weight for _, weight in newest.values()) > self._bytes_max
        is_too_much = len(newest) > self._updates_max // 2 or (is_heavy and len(newest) > 1)
        if is_too_much and self.identifier is None:
            self._lagged_by = len(self._waiting)
            self._is_ended = True
            newest.clear()
        self._keep(newest.values())

    def _keep(self, some: Iterable[tuple[Payment, int]]) -> None:
        """Let only these wait."""
        self._waiting = deque(some)
        self._weight = sum(weight for _, weight in self._waiting)
        self._thin_above = self._bytes_max + self._weight

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
            and len(self._waiting) <= self._page_max
            and self._weight <= PAGE_BYTES
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
        weighed = [(payment, weight_of(payment)) for payment in payments]
        with self._changed:
            changed, self._unsettled = self._unsettled or set(), None
            is_full = len(payments) == self.page_size
            self.after = payments[-1].sequence_number if is_full else self._last
            new = (
                (payment, weight)
                for payment, weight in weighed
                if payment.info.identifier not in changed and payment.sequence_number <= self._last
            )
            self._keep([*self._waiting, *new])
            total = sum(weight for _, weight in weighed)
            fitting = len(weighed) * PAGE_BYTES // max(total, 1)
            self.page_size = max(1, min(fitting, 2 * self.page_size, self._page_max))
            self._changed.notify_all()
        self._rouse()
        return changed
