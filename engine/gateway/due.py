"""The answer to a frame on its way out: made when it is sent, from what is decided by then."""

import time
from collections.abc import Callable
from typing import Protocol

from engine.channels.intake.submission import Submission
from engine.gateway.asgi import Message


class Outbox(Protocol):
    """What an answer needs of its connection."""

    def answered(self, took_s: float) -> None:
        """Count a frame whose claims all have an answer."""

    def put(self, message: "Message | Due") -> None:
        """Have something sent, after what waits already."""


class Due:
    """The answer to a frame; made when it is sent, so late decisions that come together are one."""

    __slots__ = ("_outbox", "_render", "_started", "_submission", "count", "is_sent")

    def __init__(self, outbox: Outbox, count: int, render: Callable[[Submission], Message]) -> None:
        self.count = count
        self.is_sent = False
        self._outbox = outbox
        self._render = render
        self._started = time.perf_counter()
        self._submission: Submission | None = None

    def first(self, submission: Submission) -> None:
        """Every claim has an answer."""
        self._outbox.answered(time.perf_counter() - self._started)
        self.again(submission)

    def again(self, submission: Submission) -> None:
        """A claim that was answered `buffered` has been decided."""
        if self._submission is None:
            self._submission = submission
            self._outbox.put(self)

    def message(self) -> Message:
        """Return what to send, as of now."""
        submission, self._submission = self._submission, None
        assert submission is not None
        return self._render(submission)
