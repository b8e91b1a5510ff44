"""Claims on their way to an engine: pipelined, and sent again until each has its final answer.

A claim has an identity, so sending it again is safe: what was taken is answered as a duplicate.
What may be sent when is `order`'s to say.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from engine.client.errors import ClientError, ProtocolViolated, ServerUnreachable
from engine.client.lookup import DOUBTFUL
from engine.client.options import Backoff, ClientOptions
from engine.client.order import Order
from engine.client.pipe import Answer, Pipe, decode_answers, encode_claims
from engine.client.values import Result, Status
from engine.core.claim import Claim
from engine.core.rejections import RETRYABLE, RejectCode

Progress = Callable[[int, int], None]
"""(claims with a final answer, claims in all)"""

STATUSES: Final = tuple(Status)
BUFFERED: Final = STATUSES.index(Status.BUFFERED)
REJECTED: Final = STATUSES.index(Status.REJECTED)
_RETRYABLE: Final = frozenset(code.value for code in RETRYABLE)
_GAP: Final = RejectCode.SEQUENCE_GAP.value
_TICK_S: Final = 0.25


class _Flight:
    """A frame under way. See `pipe.Taker`.

    `_open` are the places in the frame without a final answer. `_since` is the landing after which
    the engine saw the claims: what moved their channel later may have filled a gap.
    """

    __slots__ = ("_indices", "_is_first", "_open", "_since", "_submission")

    def __init__(self, submission: "Submission", indices: Sequence[int]) -> None:
        self._submission = submission
        self._indices = indices
        self._open: Sequence[int] = range(len(indices))
        self._is_first = True
        self._since = submission.landings

    def answer(self, answers: msgspec.Raw) -> bool:
        """Take first answers, then later ones to what was buffered."""
        decoded = decode_answers(answers)
        if len(decoded) != len(self._indices):
            raise ProtocolViolated(f"{len(decoded)} answers to {len(self._indices)} claims")
        submission = self._submission
        submission.land(
            [(self._indices[place], decoded[place]) for place in self._open],
            self._since,
            first=self._is_first,
        )
        self._open = [place for place in self._open if decoded[place].status == BUFFERED]
        if self._is_first:
            self._is_first, self._since = False, submission.landings
        return bool(self._open)

    def lost(self, error: ClientError) -> None:
        """Send again what has no final answer."""
        indices = [self._indices[place] for place in self._open]
        self._submission.lose(indices, error, first=self._is_first)


class Submission:
    """One call of `Client.submit`."""

    def __init__(
        self,
        claims: Sequence[Claim],
        options: ClientOptions,
        backoff: Backoff,
        progress: Progress | None,
    ) -> None:
        self.landings = 0
        self._claims = claims
        self._options = options
        self._backoff = backoff
        self._progress = progress
        self._changed = asyncio.Event()
        self._order = Order(claims, options.claims_per_frame_max, backoff, self._changed.set)
        self._results: list[Result | None] = [None] * len(claims)
        self._reported = len(claims)
        self._in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._progress_at = self._landed_at = self._loop.time()
        self._error: ClientError | None = None

    async def run(self, connected: Callable[[], Awaitable[Pipe]]) -> list[Result]:
        """Send everything; return an answer for each claim, in the order they were given.

        Args:
            connected: Returns a pipe that works, or raises `ServerUnreachable`.

        Raises:
            ClientError: not one claim was answered; the outcome of those sent is unknown.
        """
        attempt = 0
        while self._order.open and not self._is_out_of_patience():
            open_before = self._order.open
            try:
                await self._feed(await connected())
            except ServerUnreachable as error:
                self._error = error
            if self._order.open:
                attempt = 1 if self._order.open < open_before else attempt + 1
                await asyncio.sleep(self._backoff.pause_s(attempt))
        self._report()
        return self._finish()

    def doubtful(self) -> list[int]:
        """Return the claims, sent more than once, whose refusal may be of their own making."""
        return [
            index
            for index, result in enumerate(self._results)
            if self._order.was_repeated(index) and result is not None and result.code in DOUBTFUL
        ]

    # Out ----------------------------------------------------------------------------------------

    def _is_out_of_patience(self) -> bool:
        return self._loop.time() - self._progress_at > self._options.retry_s

    async def _feed(self, pipe: Pipe) -> None:
        """Keep the window of one connection full until all is answered or it breaks."""
        while self._order.open and not pipe.is_broken and not self._is_out_of_patience():
            self._report()
            indices: list[int] = []
            if self._in_flight < self._options.frames_in_flight_max:
                indices = self._order.next_frame()
            if indices:
                await self._post(pipe, indices)
            else:
                await self._wait(pipe)

    async def _post(self, pipe: Pipe, indices: Sequence[int]) -> None:
        if not self._in_flight:
            self._landed_at = self._loop.time()
        self._in_flight += 1
        flight = _Flight(self, indices)
        try:
            await pipe.post(encode_claims(self._claims[index] for index in indices), flight)
        except ServerUnreachable as error:
            flight.lost(error)
            raise

    async def _wait(self, pipe: Pipe) -> None:
        """Return when something changed, or a moment later to look at the clock."""
        self._changed.clear()
        try:
            async with asyncio.timeout(_TICK_S):
                await self._changed.wait()
        except TimeoutError:
            owes_s = self._loop.time() - self._landed_at
            if self._in_flight and owes_s > self._options.answer_timeout_s:
                pipe.fail(f"no answer for {owes_s:.0f} s")

    def _report(self) -> None:
        """Tell the caller how far it is. Not while answers are taken: the caller may raise."""
        if self._progress is not None and self._order.open != self._reported:
            self._reported = self._order.open
            self._progress(len(self._claims) - self._order.open, len(self._claims))

    # In -----------------------------------------------------------------------------------------

    def land(self, answers: Sequence[tuple[int, Answer]], since: int, *, first: bool) -> None:
        """Take answers to claims that were sent after landing `since`."""
        self.landings += 1
        order, open_before = self._order, self._order.open
        for index, answer in answers:
            channel = order.of[index]
            channel.flying -= first
            if not order.is_final(index):
                self._results[index] = self._result(index, answer)
                if answer.status != BUFFERED:
                    self._judge(index, answer, since)
            if not channel.flying:
                order.go_on(channel)
        self._note_landing(open_before, first=first)

    def _judge(self, index: int, answer: Answer, since: int) -> None:
        """Close a claim, or have it sent again."""
        if answer.status != REJECTED:
            self._order.of[index].moved_at = self.landings
        elif self._is_worth_another_try(index, answer.code, since):
            self._order.send_again(index)
            return
        self._order.close(index)

    def _is_worth_another_try(self, index: int, code: str | None, since: int) -> bool:
        """A gap is final unless an earlier claim of this submission fills it, or just did."""
        if code != _GAP:
            return code in _RETRYABLE
        return self._order.of[index].moved_at > since or not self._order.is_first_open(index)

    def lose(self, indices: Sequence[int], error: ClientError, *, first: bool) -> None:
        """Send claims again whose answers will not come."""
        self._error = error
        order = self._order
        for index in indices:
            order.of[index].flying -= first
            if not order.is_final(index):
                order.send_again(index)
            order.go_on(order.of[index])
        self._note_landing(order.open, first=first)

    def _note_landing(self, open_before: int, *, first: bool) -> None:
        self._landed_at = self._loop.time()
        self._in_flight -= first
        self._changed.set()
        if self._order.open < open_before:
            self._progress_at = self._landed_at

    # What to say --------------------------------------------------------------------------------

    def _result(self, index: int, answer: Answer) -> Result:
        claim = self._claims[index]
        return Result(
            claim.channel_id,
            answer.sequence or claim.sequence,
            claim.amount,
            STATUSES[answer.status],
            answer.code,
            retryable=answer.code in _RETRYABLE,
            position=answer.position,
            covered_by=answer.covered_by,
        )

    def _finish(self) -> list[Result]:
        if self._order.open and not any(self._results) and self._error is not None:
            raise self._error
        return [result or self._unanswered(index) for index, result in enumerate(self._results)]

    def _unanswered(self, index: int) -> Result:
        claim = self._claims[index]
        return Result(
            claim.channel_id,
            claim.sequence,
            claim.amount,
            Status.REJECTED,
            RejectCode.UNAVAILABLE.value,
            f"outcome unknown: {self._error}" if self._error else "outcome unknown",
            retryable=True,
        )
