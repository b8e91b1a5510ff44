"""What else one could do with the same claims: programs as simple as they can be and still durable.

Each checks the signature, takes a claim only if it continues its channel, and commits to disk
before it says yes, one claim a transaction. None has a queue, a socket or a crash to recover from.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Account(msgspec.Struct, frozen=True):
    """A channel: its id and its payer's key."""

    channel_id: bytes
    public_key: bytes


class Rival(Protocol):
    """One worker's way into a store that others use at the same time."""

    def take(self, channel_id: bytes, sequence: int, amount: int, signature: bytes) -> bool:
        """Say whether the claim was taken; when it returns, it is on disk."""

    def close(self) -> None:
        """Let go of the store."""


class Kind(Protocol):
    """How a rival's store is made, in one process, and then used, in each worker."""

    def prepare(self, place: str, accounts: Sequence[Account]) -> None:
        """Make the store, with its channels."""

    def worker(self, place: str) -> Rival:
        """Open the store."""
