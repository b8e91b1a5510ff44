"""Claims on their way through a gateway, and the places their answers go to."""

from collections.abc import Callable

import msgspec

from engine.channels.answers import UNAVAILABLE
from engine.channels.messages import Answer
from engine.verify.batch import Item


class Submission:
    """Claims that were sent together, their answers as they come in, and which shard gave each.

    `on_done` is called once, when every claim has an answer; `on_late` each time a claim that was
    answered `buffered` has been decided after that.
    """

    __slots__ = ("answers", "on_done", "on_late", "shards", "unanswered")

    def __init__(
        self,
        count: int,
        on_done: Callable[["Submission"], None],
        on_late: Callable[["Submission"], None] | None = None,
    ) -> None:
        self.answers: list[Answer] = [UNAVAILABLE] * count
        self.shards = [0] * count
        self.unanswered = count
        self.on_done = on_done
        self.on_late = on_late

    def answer(self, index: int, answer: Answer) -> None:
        """Give the first answer to claim `index`."""
        self.answers[index] = answer
        self.unanswered -= 1
        if not self.unanswered:
            self.on_done(self)

    def answer_late(self, index: int, answer: Answer) -> None:
        """Replace the answer `buffered` to claim `index` by the decision."""
        self.answers[index] = answer
        if not self.unanswered and self.on_late is not None:
            self.on_late(self)


class Waiting(msgspec.Struct, gc=False):
    """A claim in a lane, and whose it is."""

    item: Item
    submission: Submission
    index: int
