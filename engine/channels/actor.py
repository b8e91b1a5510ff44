"""A channel as an actor: its state, its sequence counter, one command at a time, no locks."""

import msgspec

from engine.channels.messages import ChannelView
from engine.core.channel import Channel
from engine.core.commands import AnyCommand
from engine.core.events import AnyEvent, ClaimCovered, ClaimReceived
from engine.core.rejections import Rejected
from engine.core.transition import apply, decide
from engine.core.types import TimeNs
from engine.validation.dedup import RetryWindow
from engine.validation.options import RetryLimits


class ChannelActor(msgspec.Struct, gc=False, eq=False):
    """One channel and the answers it gave lately.

    A plain class. `Shard` owns many and commits for them; tests just call it. What `step` takes in
    is ahead of the disk until the shard has committed; nobody is told before that, and a shard that
    cannot commit ends, so there is no second copy to go back to.

    `position` is that of the channel's last event, `claim_position` that of its best claim whose
    signature was checked, 0 for none.
    """

    channel: Channel
    position: int
    claim_position: int = 0
    window: RetryWindow | None = None

    def step(self, command: AnyCommand, at: TimeNs) -> tuple[AnyEvent, ...] | Rejected:
        """Decide `command`; the caller takes its events with `take`."""
        return decide(self.channel, command, at)

    def take(
        self, event: AnyEvent, position: int, limits: RetryLimits, after: Channel | None = None
    ) -> None:
        """Make `event`, at `position` of the log, part of the state; live and in replay.

        `after` is what `apply` makes of it, for those who have asked already.
        """
        self.channel = after or apply(self.channel, event)
        self.position = position
        kind = type(event)
        if kind is ClaimReceived or kind is ClaimCovered:
            if kind is ClaimReceived:
                self.claim_position = position
            if self.window is None:
                self.window = RetryWindow()
            self.window.remember(event.amount, position, event.at, limits)  # type: ignore[union-attr]

    def view(self) -> ChannelView:
        """Return what a reader may know."""
        return ChannelView(self.channel, self.position, self.claim_position)
