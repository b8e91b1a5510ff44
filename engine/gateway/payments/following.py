"""The payments that one WebSocket follows: each update once it is durable, then the end of it.

Writers run in threads and never wait for a reader. What a slow one has not read waits in its
subscription, which thins it out to the newest state of each payment, and ends one of all payments
that falls behind further.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from engine.gateway.payments import answers
from engine.gateway.payments.desk import PaymentsDesk
from engine.gateway.payments.refusals import payments_off, refusal
from engine.gateway.payments.texts import octets_in
from engine.gateway.problems import Problem
from engine.payments import PaymentDBError
from engine.payments.subscriptions import Subscription
from engine.payments.tower import ControlTower

Wanted = Sequence[str] | Literal["all"]
EVERYTHING = None
"""What stands for all payments where an identifier could be."""


class _Stream:
    """One subscription and its way from writers' threads into the loop."""

    def __init__(self, identifier: bytes | None, heard: Callable[["_Stream"], None]) -> None:
        self.identifier = identifier
        self.subscription: Subscription
        self.loading: asyncio.Task[None] | None = None
        self.problem: Problem | None = None
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._is_told = False

    def wake(self) -> None:
        """Tell the loop that there is something to take; from any thread, at once."""
        if not self._is_told:
            self._is_told = True
            self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._is_told = False  # first, so that what comes from here on is told again
        self._heard(self)


class PaymentsFollowed:
    """The streams of one connection.

    Args:
        desk: None where the engine serves no payments.
        rouse: Called, in the loop, when `next_message` may have something.
    """

    def __init__(self, desk: PaymentsDesk | None, rouse: Callable[[], None]) -> None:
        self._desk = desk
        self._rouse = rouse
        self._streams: dict[bytes | None, _Stream] = {}
        self._ready: dict[_Stream, None] = {}

    async def open(self, wanted: Wanted) -> list[_Stream]:
        """Subscribe to payments, or to none where one is refused; `follow` them or `drop` them.

        Raises:
            Problem: one of them is not there, or it would be too many.
            Malformed: one of them is no identifier.
        """
        if self._desk is None:
            raise payments_off()
        keys = _keys(wanted)
        most = self._desk.options.followed_max
        if len(self._streams.keys() | keys) > most:
            raise Problem(400, "malformed", f"a connection follows at most {most} payments")
        streams = [_Stream(key, self._hear) for key in keys]

        opening = self._desk.start(lambda tower: _subscribe(tower, streams))
        try:
            return await self._desk.outcome(opening)
        except asyncio.CancelledError:
            # Nobody takes what the thread will have; it must not be kept for anybody.
            opening.add_done_callback(_forget)
            raise

    def follow(self, streams: Iterable[_Stream]) -> None:
        """Tell the state of these payments, and every change of them from here on."""
        for stream in streams:
            before = self._streams.pop(stream.identifier, None)
            if before is not None:
                self._drop(before)
            self._streams[stream.identifier] = stream
            self._hear(stream)

    def unfollow(self, wanted: Wanted) -> None:
        """Tell no more of these payments.

        Raises:
            Malformed: one of them is no identifier.
        """
        for key in _keys(wanted):
            stream = self._streams.pop(key, None)
            if stream is not None:
                self._drop(stream)

    def close(self) -> None:
        """Tell no more of anything."""
        for stream in self._streams.values():
            self._drop(stream)
        self._streams.clear()

    def counts(self) -> dict[str, Any]:
        """Return how many payments are followed one by one, and whether all are."""
        follows_all = EVERYTHING in self._streams
        return {"payments": len(self._streams) - follows_all, "all_payments": follows_all}

    def next_message(self) -> dict[str, Any] | None:
        """Return what to tell next, of each stream in turn; None when nothing waits."""
        while self._ready:
            stream = next(iter(self._ready))
            del self._ready[stream]
            message = self._take(stream)
            if message is not None:
                return message
        return None

    def _take(self, stream: _Stream) -> dict[str, Any] | None:
        subscription = stream.subscription
        if stream.problem is not None:
            return self._cut_off(stream, stream.problem)
        if stream.loading is None and subscription.wants_more:
            stream.loading = asyncio.create_task(self._load(stream))
        is_ended = subscription.is_ended  # before the look: what comes after it is seen next time
        try:
            payment = subscription.take()
        except PaymentDBError as lagged:
            return self._cut_off(stream, refusal(lagged))
        if payment is not None:
            self._ready[stream] = None
            return {"type": "payment", **answers.payment(payment)}
        if not is_ended or stream.loading is not None:  # which says why, if that ended it
            return None
        self._streams.pop(stream.identifier, None)
        return _end(stream)

    async def _load(self, stream: _Stream) -> None:
        """Have a thread fetch more of what was in flight at first."""
        assert self._desk is not None
        try:
            await self._desk.call(lambda tower: stream.subscription.load())
        except Problem as problem:
            stream.problem = problem
        stream.loading = None
        self._hear(stream)

    def _cut_off(self, stream: _Stream, problem: Problem) -> dict[str, Any]:
        self._streams.pop(stream.identifier, None)
        self._drop(stream)
        return _end(stream) | {
            "error": problem.code,
            "error_code": problem.status,
            "error_message": problem.detail,
        }

    def _hear(self, stream: _Stream) -> None:
        if self._streams.get(stream.identifier) is stream:
            self._ready[stream] = None
            self._rouse()

    def _drop(self, stream: _Stream) -> None:
        self._ready.pop(stream, None)
        stream.subscription.cancel()
        if stream.loading is not None:
            stream.loading.cancel()


def _keys(wanted: Wanted) -> dict[bytes | None, None]:
    if wanted == "all":
        return {EVERYTHING: None}
    return dict.fromkeys(octets_in("payments", text) for text in wanted)


def _subscribe(tower: ControlTower, streams: list[_Stream]) -> list[_Stream]:
    """Subscribe to all or to none."""
    done: list[_Stream] = []
    try:
        for stream in streams:
            if stream.identifier is None:
                stream.subscription = tower.subscribe_all(stream.wake)
            else:
                stream.subscription = tower.subscribe(stream.identifier, stream.wake)
            done.append(stream)
    except BaseException:
        drop(done)
        raise
    return done


def drop(streams: Iterable[_Stream]) -> None:
    """Cancel subscriptions that nobody will follow."""
    for stream in streams:
        stream.subscription.cancel()


def _forget(opening: Future[list[_Stream]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        drop(opening.result())


def _end(stream: _Stream) -> dict[str, Any]:
    if stream.identifier is None:
        return {"type": "payment_end", "payments": "all"}
    return {"type": "payment_end", "identifier": stream.identifier.hex().upper()}
