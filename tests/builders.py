"""Channels, commands and events in words, made only as the engine makes them."""

from typing import Any, Final

from engine.core import commands, events
from engine.core.channel import Channel
from engine.core.opening import decide_open
from engine.core.rejections import RejectCode, Rejected
from engine.core.transition import Decision, decide, replay
from engine.core.types import NS_PER_S, Checks, State, TimeNs

CHANNEL_ID: Final = bytes(range(32))
SOURCE: Final = "rDx69ebzbowuqztksVDmZXjizTd12BVr4x"
DESTINATION: Final = "rLFtVprxUEfsH54eCWKsZrEQzMDsx1wqso"
PUBLIC_KEY: Final = b"\x02" + bytes(range(32, 64))
SETTLE_DELAY_S: Final = 3_600
NOON: Final = TimeNs(1_800_000_000 * NS_PER_S)
"""When everything happens, unless a test says otherwise."""

ROUTES: Final = {
    State.PENDING: (),
    State.ACTIVE: (),
    State.SETTLING: (commands.RequestClose,),
    State.SETTLED: (commands.RequestClose, commands.SettleChannel),
    State.DISPUTED: (commands.OpenDispute,),
}
"""The commands that bring a funded channel into each state."""


def open_command(**changes: Any) -> commands.OpenChannel:
    """Return the command that opens a funded channel of 1,000 drops."""
    fields: dict[str, Any] = {
        "channel_id": CHANNEL_ID,
        "source": SOURCE,
        "destination": DESTINATION,
        "public_key": PUBLIC_KEY,
        "capacity": 1_000,
        "settle_delay_s": SETTLE_DELAY_S,
        "funded": True,
    }
    return commands.OpenChannel(**fields | changes)


def claim_command(sequence: int, amount: int, **changes: Any) -> commands.SubmitClaim:
    """Return a claim that has passed every layer before the channel."""
    fields: dict[str, Any] = {
        "channel_id": CHANNEL_ID,
        "sequence": sequence,
        "amount": amount,
        "signature": b"signature of %d" % amount,
        "checks": Checks.ALL,
    }
    return commands.SubmitClaim(**fields | changes)


def cover_command(sequence: int, amount: int, covered_by: int) -> commands.CoverClaim:
    """Return a claim that has passed every layer but the signature, and names a newer one."""
    return commands.CoverClaim(
        channel_id=CHANNEL_ID,
        sequence=sequence,
        amount=amount,
        signature=b"not looked at",
        covered_by=covered_by,
    )


def run(channel: Channel, command: commands.AnyCommand, at: TimeNs = NOON) -> Channel:
    """Return the channel after a command that must not be refused."""
    return replay(channel, taken(decide(channel, command, at)))


def taken(decision: Decision) -> tuple[events.AnyEvent, ...]:
    """Return the events of a decision that must not be a refusal."""
    if isinstance(decision, Rejected):
        raise AssertionError(f"refused: {decision}")
    return decision


def make_channel(
    state: State = State.ACTIVE,
    claimed: int = 0,
    redeemed: int | None = None,
    at: TimeNs = NOON,
    **terms: Any,
) -> Channel:
    """Return a channel in `state` that has taken one claim of `claimed` drops, or none.

    Args:
        state: Where it is in its life; a Disputed one was Active before.
        claimed: The newest claim; 0 for none.
        redeemed: What the ledger paid, for a Settled one; None for all that was claimed.
        at: When all of it happened.
        **terms: Fields of `OpenChannel`, such as `capacity` or `cancel_after`.
    """
    opening = open_command(funded=state is not State.PENDING, **terms)
    channel = replay(None, taken(decide_open(opening, at)))
    if claimed:
        claim = claim_command(1, claimed, channel_id=opening.channel_id)
        channel = run(channel, claim, at)
    for kind in ROUTES[state]:
        extra = {"redeemed": redeemed} if kind is commands.SettleChannel else {}
        channel = run(channel, kind(channel_id=opening.channel_id, **extra), at)
    return channel


def make_event(kind: type[events.Event], channel: Channel | None = None) -> events.AnyEvent:
    """Return an event of `kind` that would be the next of `channel`, or the first of none."""
    bodies: dict[type[events.Event], dict[str, Any]] = {
        events.ChannelOpened: {
            "source": SOURCE,
            "destination": DESTINATION,
            "public_key": PUBLIC_KEY,
            "capacity": 1_000,
            "settle_delay_s": SETTLE_DELAY_S,
            "expiration": None,
            "cancel_after": None,
            "sequencing": "strict",
        },
        events.ClaimReceived: {"sequence": 1, "amount": 400, "signature": b"a signature"},
        events.ClaimCovered: {
            "sequence": 1,
            "amount": 400,
            "signature": b"not looked at",
            "covered_by": 3,
        },
        events.ClaimRejected: {
            "sequence": 9,
            "amount": 400,
            "signature": b"a signature",
            "code": RejectCode.SEQUENCE_GAP,
        },
        events.ChannelFunded: {"amount": 500},
        events.CloseRequested: {"expiration": NOON + NS_PER_S},
        events.SettlingResumed: {"expiration": NOON + NS_PER_S},
        events.ChannelSettled: {"redeemed": 300},
        events.DisputeOpened: {"reason": "goods never came"},
    }
    body = dict(bodies.get(kind, {}))
    if issubclass(kind, events.ClaimReceived) and channel is not None:
        body["sequence"] = channel.sequence + 1
    version = 1 if channel is None else channel.version + 1
    return kind(channel_id=CHANNEL_ID, version=version, at=NOON, **body)


def descendants(kind: type) -> list[type]:
    """Return every class that goes back to `kind`."""
    return [each for child in kind.__subclasses__() for each in (child, *descendants(child))]


def text_table(text: str) -> list[dict[str, str]]:
    """Return the rows of a table whose first line names the columns, by column."""
    head, *rows = (line.split() for line in text.strip().splitlines() if line.strip())
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"{len(head)} columns, but the row is {row}")
    return [dict(zip(head, row, strict=True)) for row in rows]
