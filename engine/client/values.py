"""What an engine answers, as values: ids and signatures are bytes, drops are integers."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from engine.core.claim import Claim
from engine.core.commands import OpenChannel
from engine.core.types import State

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Hex(bytes):
    """Bytes that JSON writes as upper-case hex."""


class Status(StrEnum):
    """What became of a claim; the order is that of the numbers in binary frames."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    BUFFERED = "buffered"
    REJECTED = "rejected"


class Result(msgspec.Struct, frozen=True, gc=False):
    """The answer to one claim.

    Attributes:
        channel_id: Whose claim it was.
        sequence: Its number; None where neither sender nor engine gave one.
        amount: Its running total in drops.
        status: Only `accepted` and `duplicate` are on disk.
        code: Why it was refused (`docs/reference/result-codes.md`).
        message: The same for people.
        expected: The number that would have passed.
        actual: The number that came.
        missing: The sequences a buffered claim waits for, as far as they were named.
        retryable: The same claim, sent again, may be accepted.
        position: Place in the log, `"<shard>-<number>"`, of an accepted claim.
        claimed: The channel's mark in drops at the time of the answer.
        available: What the channel had left then.
        covered_by: The sequence of the newer claim whose signature was checked in place of this
            one's, where the engine checks the newest only.

    Binary frames carry status, code, sequence, position and `covered_by`; what else an engine did
    not say is None. `Client.submit_one` has all of it.
    """

    channel_id: bytes
    sequence: int | None
    amount: int
    status: Status
    code: str | None = None
    message: str | None = None
    expected: int | None = None
    actual: int | None = None
    missing: tuple[int, ...] = ()
    retryable: bool = False
    position: str | None = None
    claimed: int | None = None
    available: int | None = None
    covered_by: int | None = None

    @property
    def is_durable(self) -> bool:
        """Say whether the claim is on disk."""
        return self.status is Status.ACCEPTED or self.status is Status.DUPLICATE


class ChannelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as its shard has it on disk."""

    channel_id: Hex
    source: str
    destination: str
    public_key: Hex
    capacity: int
    settle_delay: int
    state: State
    sequencing: str = "strict"
    expiration: datetime | None = None
    cancel_after: datetime | None = None
    sequence: int = 0
    claimed: int = 0
    available: int = 0
    redeemed: int = 0
    position: str | None = None


class BalanceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel owes and has left, in drops, as of `position`."""

    claimed: int
    available: int
    redeemed: int
    capacity: int
    sequence: int
    position: str | None = None
    consistency: str | None = None
    age_ms: int | None = None


class BestClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The claim to redeem on the ledger."""

    amount: int
    signature: Hex
    sequence: int
    position: str | None = None
    channel_id: Hex | None = None
    public_key: Hex | None = None


class PastClaim(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted claim of a channel's history; `at` is the engine's clock.

    Where `covered_by` is a sequence, the signature of that claim was checked and this one was not.
    """

    sequence: int
    amount: int
    signature: Hex
    position: str | None = None
    at: datetime | None = None
    covered_by: int | None = None


class BalanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """A channel's newest durable balance, as `subscribe` tells it."""

    channel_id: Hex
    claimed: int
    available: int
    redeemed: int = 0
    capacity: int = 0
    sequence: int = 0
    position: str | None = None
    state: State | None = None


def from_hex(kind: type, value: Any) -> Any:
    """Turn JSON's hex into bytes; the hook for msgspec.

    Raises:
        ValueError: not hex, which msgspec reports with the path to the field.
    """
    if kind is Hex and isinstance(value, str):
        return Hex(bytes.fromhex(value))
    raise ValueError(f"{kind.__name__} is not a type of the API")


def iso_time(at_ns: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC; exact to the microsecond."""
    return (_EPOCH + timedelta(microseconds=at_ns // 1_000)).isoformat().replace("+00:00", "Z")


def opening_body(command: OpenChannel) -> dict[str, Any]:
    """Return the JSON body that opens a channel."""
    body: dict[str, Any] = {
        "channel_id": command.channel_id.hex().upper(),
        "source": command.source,
        "destination": command.destination,
        "public_key": command.public_key.hex().upper(),
        "capacity": str(command.capacity),
        "settle_delay": command.settle_delay_s,
        "sequencing": command.sequencing.value,
        "funded": command.funded,
    }
    for name in ("expiration", "cancel_after"):
        at = getattr(command, name)
        if at is not None:
            body[name] = iso_time(at)
    return body


def claim_body(claim: Claim) -> dict[str, Any]:
    """Return the JSON form of a claim."""
    body: dict[str, Any] = {
        "channel_id": claim.channel_id.hex().upper(),
        "amount": str(claim.amount),
        "signature": claim.signature.hex().upper(),
    }
    if claim.sequence is not None:
        body["sequence"] = claim.sequence
    if isinstance(claim.previous, bytes):
        body["previous"] = claim.previous.hex().upper()
    elif claim.previous is not None:
        body["previous"] = str(claim.previous)
    if claim.sent_at is not None:
        body["sent_at"] = iso_time(claim.sent_at)
    return body
