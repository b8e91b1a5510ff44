"""The balances that one WebSocket follows: of each channel the newest, in turn.

A reader that is slow misses steps, never the end, and what waits for it is one balance a channel.
"""

from collections.abc import Callable, Iterable
from typing import Any

from engine.channels.intake.views import BalanceSeen, Views
from engine.gateway.answers import balance
from engine.gateway.forms import JSON


class BalancesFollowed:
    """The channels of one connection.

    Args:
        views: Where changes are heard of.
        rouse: Called when `next_message` has something.
    """

    def __init__(self, views: Views, rouse: Callable[[], None]) -> None:
        self._views = views
        self._rouse = rouse
        self._subscribed: set[bytes] = set()
        self._waiting: dict[bytes, BalanceSeen] = {}

    def __len__(self) -> int:
        return len(self._subscribed)

    def count_with(self, ids: Iterable[bytes]) -> int:
        """Return how many there would be with `ids`."""
        return len(self._subscribed.union(ids))

    def follow(self, seen: BalanceSeen) -> None:
        """Tell the balance as it is now, and every change after it."""
        known = self._views.get(seen.channel_id)
        self._subscribed.add(seen.channel_id)
        self._views.listen(seen.channel_id, self.hear)
        self.hear(seen if known is None else known.balance(seen.channel_id))

    def unfollow(self, ids: Iterable[bytes]) -> None:
        """Tell no more of these."""
        for channel_id in ids:
            self._subscribed.discard(channel_id)
            self._views.unlisten(channel_id, self.hear)
            self._waiting.pop(channel_id, None)

    def close(self) -> None:
        """Tell no more of any."""
        self.unfollow(tuple(self._subscribed))

    def hear(self, seen: BalanceSeen) -> None:
        """Take in a change, in place of one of the same channel that nobody was told of."""
        self._waiting[seen.channel_id] = seen
        self._rouse()

    def next_message(self) -> dict[str, Any] | None:
        """Return the one that waits longest: one that changes all the time must not starve it."""
        if not self._waiting:
            return None
        seen = self._waiting.pop(next(iter(self._waiting)))
        return {"type": "balance", **balance(seen, "eventual", JSON)}
