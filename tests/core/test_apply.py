"""What a claim does to a channel, against the same told slowly: by field names, rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.core import events
from engine.core.invariants import InvariantBroken, check
from engine.core.transition import TRANSITIONS, apply
from engine.core.types import State
from tests.builders import CHANNEL_ID, NOON, make_channel

off_by = st.sampled_from([-2, -1, 1, 2])
ends = st.none() | st.just(NOON + 5)
claimed = st.sampled_from([0, 1, 400, 999])
active = st.builds(make_channel, st.just(State.ACTIVE), claimed, cancel_after=ends)
channels = st.one_of(active, active, st.builds(make_channel, st.sampled_from(State)))
accounts = ["capacity", "available", "unredeemed", "redeemed", "returned", "claimed", "sequence"]


@st.composite
def steps(draw):
    """A channel and a claim that fits it, but for one or two things that are off."""
    channel = draw(channels)
    wrong = draw(st.sets(st.sampled_from([*accounts, "claim", "id", "amount"]), max_size=2))
    for name in wrong & set(accounts):
        channel = replace(channel, **{name: getattr(channel, name) + draw(off_by)})
    version, sequence = (0, 0)
    if "claim" in wrong:
        version, sequence = draw(st.tuples(off_by, st.just(0)) | st.tuples(st.just(0), off_by))
    amount = st.integers(-2, 0) | st.integers(995, 1_005) if "amount" in wrong else st.just(1)
    claim = events.ClaimReceived(
        channel_id=bytes(32) if "id" in wrong else CHANNEL_ID,
        version=channel.version + 1 + version,
        at=NOON + draw(off_by),
        sequence=channel.sequence + 1 + sequence,
        amount=channel.claimed + draw(amount),
        signature=draw(st.binary(max_size=4)),
        previous=draw(st.none() | st.binary(max_size=4) | st.integers(0, 4)),
    )
    return channel, claim


def slowly(channel, claim):
    """Return the channel after `claim`; None where it does not fit."""
    if claim.channel_id != channel.terms.channel_id:
        return None
    if (channel.state, events.ClaimReceived) not in TRANSITIONS:
        return None
    after = replace(
        channel,
        version=claim.version,
        updated_at=claim.at,
        available=channel.available - (claim.amount - channel.claimed),
        unredeemed=channel.unredeemed + (claim.amount - channel.claimed),
        claimed=claim.amount,
        sequence=claim.sequence,
        signature=claim.signature,
        link=claim.previous if isinstance(claim.previous, bytes) else None,
    )
    holds = (
        after.available + after.unredeemed + after.redeemed + after.returned == after.capacity,
        min(after.available, after.unredeemed, after.redeemed, after.returned) >= 0,
        after.claimed <= after.capacity,
        after.unredeemed == after.claimed,
        (after.redeemed, after.returned) == (0, 0),
        after.version == channel.version + 1,
        after.sequence == channel.sequence + 1,
        after.claimed > channel.claimed,
    )
    return after if all(holds) else None


BEFORE = make_channel(claimed=400)
NEXT = events.ClaimReceived(
    channel_id=CHANNEL_ID,
    version=BEFORE.version + 1,
    at=NOON,
    sequence=2,
    amount=500,
    signature=b"",
)
WRONG = [
    # what is wrong with the channel, with its next claim, and the rule that notices
    ({}, {"version": NEXT.version + 1}, "each event makes the next version"),
    ({}, {"sequence": 1}, "each new sequence raises the amount, and nothing else does"),
    ({}, {"sequence": 3}, "sequence rises by one"),
    ({}, {"sequence": 1, "amount": 400}, "sequence rises by one"),
    ({}, {"amount": 400}, "each new sequence raises the amount, and nothing else does"),
    ({}, {"amount": 399}, "claimed never falls"),
    ({}, {"amount": 1_001}, "no account is ever negative"),
    ({"available": 601}, {}, "accounts must add up to the capacity"),
    ({"unredeemed": 401}, {}, "accounts must add up to the capacity"),
    ({"available": 601, "unredeemed": 399}, {}, "all that is claimed is owed"),
    ({"redeemed": 1, "returned": -1}, {}, "no account is ever negative"),
    (
        {"claimed": -2, "unredeemed": -2, "available": 1_002},
        {"amount": -1},
        "no account is ever negative",
    ),
]


@pytest.mark.parametrize(("channel", "claim", "rule"), WRONG)
def test_a_claim_that_breaks_one_rule_is_stopped_by_its_name(channel, claim, rule):
    with pytest.raises(InvariantBroken, match=rule):
        apply(replace(BEFORE, **channel), replace(NEXT, **claim))


@given(steps())
def test_a_claim_does_what_the_slow_way_says_and_is_stopped_where_that_stops_it(step):
    channel, claim = step
    try:
        after = apply(channel, claim)
    except (KeyError, InvariantBroken):
        after = None
    assert after == slowly(channel, claim)


@given(steps(), st.sampled_from(accounts), off_by | st.just(0))
def test_the_check_of_a_step_knows_no_claim_that_the_slow_way_does_not(step, name, off):
    """Whatever an account is off by after the step, the check sees it as the slow way does."""
    channel, claim = step
    after = slowly(channel, claim)
    if after is None:
        return
    wrong = replace(after, **{name: getattr(after, name) + off})
    try:
        check(channel, wrong)
    except InvariantBroken:
        assert off
    else:
        assert wrong == after
