"""What a claim does to a channel, against the same told slowly: by field names, rule by rule."""

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.core import events
from engine.core.invariants import InvariantBroken, check
from engine.core.transition import TRANSITIONS, apply
from engine.core.types import State
from tests.builders import CHANNEL_ID, NOON, make_channel

near = st.integers(-2, 2)
ends = st.none() | st.just(NOON + 5)
claimed = st.sampled_from([0, 1, 400, 1_000])
channels = st.one_of(
    st.builds(make_channel, st.sampled_from(State), cancel_after=ends),
    st.builds(make_channel, st.just(State.ACTIVE), claimed, cancel_after=ends),
    st.builds(make_channel, st.just(State.SETTLED), claimed),
)
accounts = ["capacity", "available", "unredeemed", "redeemed", "returned", "claimed", "sequence"]


@st.composite
def steps(draw):
    """A channel, now and then with an account that is off, and a claim near what comes next."""
    channel = draw(channels)
    for name in draw(st.lists(st.sampled_from(accounts), max_size=2)):
        channel = replace(channel, **{name: getattr(channel, name) + draw(near)})
    off = draw(st.tuples(*[st.just(0) | near] * 2))
    claim = events.ClaimReceived(
        channel_id=CHANNEL_ID if draw(st.integers(0, 20)) else bytes(32),
        version=channel.version + 1 + off[0],
        at=NOON + draw(near),
        sequence=channel.sequence + 1 + off[1],
        amount=channel.claimed + draw(near | st.integers(0, 1_200)),
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


TOLD_TWICE = make_channel(claimed=400)
THE_SAME = events.ClaimReceived(
    channel_id=CHANNEL_ID,
    version=TOLD_TWICE.version + 1,
    at=NOON,
    sequence=1,
    amount=400,
    signature=b"",
)


@example((TOLD_TWICE, THE_SAME))
@given(steps())
def test_a_claim_does_what_the_slow_way_says_and_is_stopped_where_that_stops_it(step):
    channel, claim = step
    try:
        after = apply(channel, claim)
    except (KeyError, InvariantBroken):
        after = None
    assert after == slowly(channel, claim)


@given(steps(), st.sampled_from(accounts), near)
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
