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
            for place in range(len(claims)):
                self._answer(submission, place, OVERLOADED)
            return
        good: list[ClaimLike] = []
        places: list[int] = []
        bad: list[tuple[int, Malformed]] = []
        for place, claim in enumerate(claims):
            if isinstance(claim, Malformed):
                bad.append((place, claim))
            else:
                good.append(claim)
                places.append(place)
        self.router.submit(good, submission, places)
        for place, why in bad:
            self._answer(submission, place, malformed(str(why)))

    def _answer(self, submission: Submission, place: int, answer: Answer) -> None:
        self.router.count(answer)
        submission.answer((place,), (answer,))
