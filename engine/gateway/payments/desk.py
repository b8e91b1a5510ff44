"""Calls to the payments database from an event loop: in threads, so many at once and no more.

A store is synchronous, and a call may wait for a disk, a lock or a server. What cannot run waits in
a queue of bounded length; beyond it, calls are refused at once and nothing was done.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any, Final, TypeVar

import structlog

from engine.gateway.payments.options import PaymentsOptions
from engine.gateway.payments.refusals import fault, refusal
from engine.gateway.problems import Problem
from engine.monitor.secrets import without_password
from engine.payments import PaymentDB, PaymentDBError, StoreError, open_payment_db
from engine.payments.tower import ControlTower

T = TypeVar("T")
Work = Callable[[ControlTower], T]
log: Final = structlog.get_logger()


class PaymentsDesk:
    """Takes calls to one payments database.

    Attributes:
        options: The limits it keeps.
    """

    def __init__(self, store: PaymentDB, options: PaymentsOptions) -> None:
        self.options = options
        self._tower = ControlTower(store)
        self._pool = ThreadPoolExecutor(options.threads, "payments")
        self._places = BoundedSemaphore(options.threads + options.calls_waiting_max)
        self._health = _Health()

    async def call(self, work: Work[T]) -> T:
        """Return what `work` makes of the control tower, in a thread.

        Raises:
            Problem: the store refused, is at fault, or has too much to do.
        """
        return await self.outcome(self.start(work))

    async def outcome(self, begun: Future[T]) -> T:
        """Return what became of something that was started.

        Raises:
            Problem: the store refused, or is at fault.
        """
        try:
            found = await asyncio.wrap_future(begun)
        except PaymentDBError as error:
            self._health.is_well()
            raise refusal(error) from error
        except StoreError as error:
            self._health.failed(error)
            raise fault(error) from error
        self._health.is_well()
        return found

    def start(self, work: Work[T]) -> Future[T]:
        """Begin `work` and return at once.

        Raises:
            Problem: too much is waiting; it will not be done.
        """
        if not self._places.acquire(blocking=False):
            raise Problem(503, "overloaded", "too many calls wait for the payments database")
        try:
            future = self._pool.submit(work, self._tower)
        except RuntimeError as error:  # it has closed
            self._places.release()
            raise Problem(503, "overloaded", "the engine is stopping; nothing was done") from error
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()

    async def close(self) -> None:
        """Return once everything that was begun has ended."""
        await asyncio.to_thread(self._pool.shutdown)


class _Health:
    """Says once in the log that the store is at fault, and once that it is well again."""

    def __init__(self) -> None:
        self._seen = ""

    def failed(self, error: StoreError) -> None:
        kind = type(error).__name__
        if self._seen != kind:
            log.error("payments_store_failed", kind=kind, error=without_password(str(error)))
        self._seen = kind

    def is_well(self) -> None:
        if self._seen:
            log.info("payments_store_back")
        self._seen = ""


@contextlib.asynccontextmanager
async def payments_desk(options: PaymentsOptions) -> AsyncIterator[PaymentsDesk | None]:
    """Open the payments database while the block runs; None where no URL is configured.

    Raises:
        StoreError: it cannot be used.
    """
    if not options.url:
        yield None
        return
    store = await asyncio.to_thread(open_payment_db, options.url)
    desk = PaymentsDesk(store, options)
    try:
        yield desk
    finally:
        await desk.close()
        await asyncio.to_thread(store.close)
