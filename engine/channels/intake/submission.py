"""Claims on their way through a gateway, and the places their answers go to."""

from collections.abc import Callable, Sequence
from itertools import chain

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

    def answer(self, places: Sequence[int], answers: Sequence[Answer], shard: int = 0) -> None:
        """Give the claims at `places` their first answers, which came from `shard`.

        Raises:
            ValueError: not one answer a claim.
        """
        own, shards = self.answers, self.shards
        for place, answer in zip(places, answers, strict=True):
            own[place] = answer
            shards[place] = shard
        self.unanswered -= len(places)
        if not self.unanswered:
            self.on_done(self)

    def answer_late(self, place: int, answer: Answer) -> None:
        """Replace the answer `buffered` to the claim at `place` by the decision."""
        self.answers[place] = answer
        if not self.unanswered and self.on_late is not None:
            self.on_late(self)


class Parcel:
    """Claims of one submission that go the same way, and their places in it.

    One object for many claims: what is done for each claim on the way in is done in a few loops.

    Attributes:
        items: The claims, in the order they came.
        places: Where the answer to each goes.
        submission: Whose they are.
        came_at: When they came into a queue, on the monotonic clock.
    """

    __slots__ = ("came_at", "items", "places", "submission")

    def __init__(self, items: list[Item], places: list[int], submission: Submission) -> None:
        self.items = items
        self.places = places
        self.submission = submission
        self.came_at = 0.0

    def __len__(self) -> int:
        return len(self.items)

    def split(self, count: int) -> "Parcel":
        """Keep the first `count` claims; return the others."""
        rest = Parcel(self.items[count:], self.places[count:], self.submission)
        rest.came_at = self.came_at
        del self.items[count:], self.places[count:]
        return rest


def items_of(parcels: Sequence[Parcel]) -> list[Item]:
    """Return the claims of `parcels` in order."""
    return list(chain.from_iterable([parcel.items for parcel in parcels]))


def answer_all(parcels: Sequence[Parcel], answers: Sequence[Answer], shard: int = 0) -> None:
    """Give every claim of `parcels` its answer; `answers` are in the order of `items_of`.

    Raises:
        ValueError: not one answer a claim.
    """
    start = 0
    for parcel in parcels:
        end = start + len(parcel)
        parcel.submission.answer(parcel.places, answers[start:end], shard)
        start = end
    if start != len(answers):
        raise ValueError(f"{len(answers)} answers to {start} claims")


def claim_at(parcels: Sequence[Parcel], index: int) -> tuple[Submission, int, Item]:
    """Return (submission, place, claim) of claim `index` of all `parcels`."""
    for parcel in parcels:
        if index < len(parcel):
            return parcel.submission, parcel.places[index], parcel.items[index]
        index -= len(parcel)
    raise IndexError(index)
