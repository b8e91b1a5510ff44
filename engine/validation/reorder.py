"""Claims that came early wait here, bounded in number and time, for the ones before them.

Nothing here is durable or acknowledged. A held claim has a good signature: only a payer can make
the engine hold anything.
"""

from engine.core.commands import SubmitClaim
from engine.validation.options import ValidationOptions

Ticket = tuple[str, int, int]
"""Whom to tell when a held claim is decided: gateway, batch number, index in the batch."""

TICKETS_MAX = 8
"""How many senders of one and the same held claim get an answer of their own later."""


class Held:
    """A claim that waits, who asked, and until when (ns)."""

    __slots__ = ("claim", "deadline", "tickets")

    def __init__(self, claim: SubmitClaim, ticket: Ticket, deadline: int) -> None:
        self.claim = claim
        self.tickets = [ticket]
        self.deadline = deadline


class HoldBuffer:
    """The early claims of one shard.

    Attributes:
        waiting: All of them by (channel, sequence), oldest first.
    """

    def __init__(self, options: ValidationOptions) -> None:
        self._options = options
        self._by_channel: dict[bytes, dict[int, Held]] = {}
        self.waiting: dict[tuple[bytes, int], Held] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def find(self, channel_id: bytes, sequence: int) -> Held | None:
        """Return the claim held for this number, if any."""
        return self.waiting.get((channel_id, sequence))

    def hold(self, claim: SubmitClaim, ticket: Ticket, at: int) -> bool:
        """Keep `claim` until its turn or until time is up; False when there is no room."""
        waiting = self._by_channel.get(claim.channel_id)
        room_in_channel = len(waiting or ()) < self._options.hold_claims_per_channel_max
        if len(self.waiting) >= self._options.hold_claims_max or not room_in_channel:
            return False
        held = Held(claim, ticket, at + self._options.hold_ms * 1_000_000)
        self.waiting[claim.channel_id, claim.sequence] = held
        self._by_channel.setdefault(claim.channel_id, {})[claim.sequence] = held
        return True

    def take(self, channel_id: bytes, sequence: int) -> Held | None:
        """Remove and return the claim whose turn has come."""
        waiting = self._by_channel.get(channel_id)
        if waiting is None:
            return None
        held = waiting.pop(sequence, None)
        if held is not None:
            del self.waiting[channel_id, sequence]
        if not waiting:
            del self._by_channel[channel_id]
        return held

    def holds(self, channel_id: bytes) -> bool:
        """Say whether any claim waits for a channel."""
        return channel_id in self._by_channel

    def expired(self, at: int) -> list[Held]:
        """Remove and return the claims whose time is up, oldest first."""
        late: list[Held] = []
        for held in self.waiting.values():
            if held.deadline > at:
                break
            late.append(held)
        for held in late:
            self.take(held.claim.channel_id, held.claim.sequence)
        return late

    def withdraw(self, channel_id: bytes) -> list[Held]:
        """Remove and return all that waits for a channel, lowest sequence first."""
        waiting = sorted(self._by_channel.get(channel_id, ()))
        taken = [self.take(channel_id, sequence) for sequence in waiting]
        return [held for held in taken if held is not None]

    def missing(self, channel_id: bytes, expected: int, sequence: int) -> tuple[int, ...]:
        """Name the numbers from `expected` to before `sequence` that never came, a bounded list."""
        waiting = self._by_channel.get(channel_id, {})
        limit = self._options.missing_named_max
        named: list[int] = []
        for number in range(expected, sequence):
            if len(named) >= limit:
                break
            if number not in waiting:
                named.append(number)
        return tuple(named)
