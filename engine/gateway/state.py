"""What every door of the gateway shares."""

import time
from collections.abc import Sequence

from engine.channels.answers import OVERLOADED
from engine.channels.feed import Feed
from engine.channels.intake.router import ClaimLike, Router
from engine.channels.intake.submission import Submission
from engine.channels.messages import Answer
from engine.gateway.answers import malformed
from engine.gateway.forms import Malformed
from engine.gateway.options import GatewayOptions
from engine.gateway.payments.desk import PaymentsDesk
from engine.monitor.metrics import AckTimes
from engine.verify.pool import VerifierPool


class GatewayState:
    """The engine behind the doors, the payments if it serves any, and whether they are open."""

    def __init__(
        self,
        router: Router,
        pool: VerifierPool,
        feed: Feed,
        options: GatewayOptions,
        payments: PaymentsDesk | None = None,
    ) -> None:
        self.router = router
        self.payments = payments
        self.pool = pool
        self.feed = feed
        self.options = options
        self.acks = AckTimes()
        self.draining = False
        self.started_at = time.monotonic()

    def submit(self, claims: Sequence[ClaimLike | Malformed], submission: Submission) -> None:
        """Send claims on their way; answer here what is none, or comes too late."""
        if self.draining:
            for index in range(len(claims)):
                self._answer(submission, index, OVERLOADED)
            return
        good: list[ClaimLike] = []
        places: list[int] = []
        bad: list[tuple[int, Malformed]] = []
        for index, claim in enumerate(claims):
            if isinstance(claim, Malformed):
                bad.append((index, claim))
            else:
                good.append(claim)
                places.append(index)
        if bad:
            self.router.submit(good, _Part(submission, places))
            for index, why in bad:
                self._answer(submission, index, malformed(str(why)))
        else:
            self.router.submit(good, submission)

    def _answer(self, submission: Submission, index: int, answer: Answer) -> None:
        self.router.count(answer)
        submission.answer(index, answer)


class _Part(Submission):
    """The well-formed claims of a submission; answers go to their places in the whole."""

    __slots__ = ("_places", "_whole")

    def __init__(self, whole: Submission, places: list[int]) -> None:
        super().__init__(len(places), lambda _: None)
        self._whole = whole
        self._places = places

    def answer(self, index: int, answer: Answer) -> None:
        """Answer claim `index` of the part."""
        place = self._places[index]
        self._whole.shards[place] = self.shards[index]
        self._whole.answer(place, answer)

    def answer_late(self, index: int, answer: Answer) -> None:
        """Give the decision on claim `index` of the part."""
        self._whole.answer_late(self._places[index], answer)
