"""Each rule broken on purpose, by a channel or an event that no command would make."""

import inspect
import pickle

import pytest
from msgspec.structs import replace

from engine.core import events, invariants
from engine.core.channel import Proven
from engine.core.invariants import InvariantBroken, check
from engine.core.transition import apply
from engine.core.types import State
from tests.builders import CHANNEL_ID, NOON, make_channel, make_event

ACTIVE = make_channel(claimed=400)
NEXT = replace(ACTIVE, version=ACTIVE.version + 1)
SETTLED = make_channel(State.SETTLED, claimed=400)
AFTER_SETTLED = replace(SETTLED, version=SETTLED.version + 1)
OPENED = apply(None, make_event(events.ChannelOpened))

BROKEN = [
    # before, changes to what follows, the rule that notices
    (ACTIVE, NEXT, {"available": 601}, "accounts must add up to the capacity"),
    (ACTIVE, NEXT, {"capacity": 999}, "accounts must add up to the capacity"),
    (ACTIVE, NEXT, {"returned": 1}, "accounts must add up to the capacity"),
    (ACTIVE, NEXT, {"available": -1, "unredeemed": 1_001}, "no account is ever negative"),
    (ACTIVE, NEXT, {"available": 1_001, "unredeemed": -1}, "no account is ever negative"),
    (ACTIVE, NEXT, {"redeemed": -1, "returned": 1}, "no account is ever negative"),
    (ACTIVE, NEXT, {"redeemed": 1, "returned": -1}, "no account is ever negative"),
    (SETTLED, AFTER_SETTLED, {"claimed": 1_001}, "claimed never exceeds the capacity"),
    (ACTIVE, NEXT, {"claimed": 1_001}, "claimed never exceeds the capacity"),
    (
        ACTIVE,
        NEXT,
        {"claimed": 401, "sequence": 2},
        "all that is claimed is owed until the channel settles",
    ),
    (
        ACTIVE,
        NEXT,
        {"available": 500, "redeemed": 100},
        "nothing is paid out before the channel settles",
    ),
    (
        ACTIVE,
        NEXT,
        {"available": 500, "returned": 100},
        "nothing is paid out before the channel settles",
    ),
    (SETTLED, AFTER_SETTLED, {"available": 1, "returned": 599}, "a settled channel holds nothing"),
    (SETTLED, AFTER_SETTLED, {"unredeemed": 1, "redeemed": 399}, "a settled channel holds nothing"),
    (
        SETTLED,
        AFTER_SETTLED,
        {"state": State.ACTIVE, "unredeemed": 400, "available": 600, "redeemed": 0, "returned": 0},
        "Settled is final",
    ),
    (SETTLED, AFTER_SETTLED, {"redeemed": 401, "returned": 599}, "Settled is final"),
    (SETTLED, AFTER_SETTLED, {"claimed": 401, "sequence": 2}, "Settled is final"),
    (
        ACTIVE,
        NEXT,
        {"claimed": 399, "unredeemed": 399, "available": 601, "sequence": 2},
        "claimed never falls",
    ),
    (ACTIVE, NEXT, {"capacity": 999, "available": 599}, "capacity never falls"),
    (ACTIVE, ACTIVE, {}, "each event makes the next version"),
    (ACTIVE, NEXT, {"version": NEXT.version + 1}, "each event makes the next version"),
    (
        ACTIVE,
        NEXT,
        {"claimed": 500, "unredeemed": 500, "available": 500, "sequence": 3},
        "sequence rises by one",
    ),
    (ACTIVE, NEXT, {"sequence": 0}, "sequence rises by one"),
    (
        ACTIVE,
        NEXT,
        {"sequence": 2},
        "each new sequence raises the amount, and nothing else does",
    ),
    (
        ACTIVE,
        NEXT,
        {"claimed": 500, "unredeemed": 500, "available": 500},
        "each new sequence raises the amount, and nothing else does",
    ),
    (
        ACTIVE,
        NEXT,
        {"proven": Proven(0, 0, 2)},
        "covered claims are followed by the one that covers them",
    ),
    (None, OPENED, {"version": 2}, "the first event makes version 1"),
    (None, OPENED, {"available": 999}, "accounts must add up to the capacity"),
]


@pytest.mark.parametrize(("before", "after"), [(ACTIVE, NEXT), (SETTLED, AFTER_SETTLED)])
def test_a_sound_step_passes(before, after):
    check(before, after)
    check(None, OPENED)


@pytest.mark.parametrize(("before", "after", "changes", "rule"), BROKEN)
def test_a_broken_rule_is_named(before, after, changes, rule):
    with pytest.raises(InvariantBroken) as caught:
        check(before, replace(after, **changes))
    assert caught.value.rule == rule


def test_every_rule_is_broken_once_at_least():
    source = inspect.getsource(invariants)
    named = {rule for *_, rule in BROKEN}
    assert all(f'"{rule}"' in source for rule in named)
    assert source.count("raise InvariantBroken(") == len(named)


EVENTS = [
    # an event that `decide` would never make, the rule that stops it in replay
    (
        {"kind": events.ClaimReceived, "sequence": 2, "amount": 300, "signature": b""},
        "claimed never falls",
    ),
    (
        {"kind": events.ClaimReceived, "sequence": 2, "amount": 1_001, "signature": b""},
        "no account is ever negative",
    ),
    (
        {"kind": events.ClaimReceived, "sequence": 3, "amount": 500, "signature": b""},
        "sequence rises by one",
    ),
    (
        {"kind": events.ClaimReceived, "sequence": 2, "amount": 400, "signature": b""},
        "each new sequence raises the amount, and nothing else does",
    ),
    ({"kind": events.ChannelFunded, "amount": -1}, "capacity never falls"),
    ({"kind": events.ChannelFunded, "amount": -601}, "no account is ever negative"),
]


@pytest.mark.parametrize(("body", "rule"), EVENTS)
def test_a_log_that_would_invent_money_is_not_replayed(body, rule):
    body = dict(body)
    event = body.pop("kind")(channel_id=CHANNEL_ID, version=NEXT.version, at=NOON, **body)
    with pytest.raises(InvariantBroken, match=rule):
        apply(ACTIVE, event)


@pytest.mark.parametrize("redeemed", [-1, 1_001])
def test_a_settlement_beyond_the_capacity_is_not_replayed(redeemed):
    settling = make_channel(State.SETTLING, claimed=400)
    event = events.ChannelSettled(
        channel_id=CHANNEL_ID, version=settling.version + 1, at=NOON, redeemed=redeemed
    )
    with pytest.raises(InvariantBroken, match="no account is ever negative"):
        apply(settling, event)


@pytest.mark.parametrize("step", [0, 2, -1])
def test_an_event_left_out_or_told_twice_is_noticed_by_its_version(step):
    event = events.FundingConfirmed(channel_id=CHANNEL_ID, version=1 + step, at=NOON)
    with pytest.raises(InvariantBroken, match="each event makes the next version"):
        apply(OPENED, event)


def test_the_fault_says_which_channel_and_survives_a_process_boundary():
    fault = InvariantBroken(ACTIVE, "claimed never falls")
    again = pickle.loads(pickle.dumps(fault))
    assert str(again) == str(fault) == f"channel {CHANNEL_ID.hex().upper()}: claimed never falls"
    assert (again.channel, again.rule) == (ACTIVE, "claimed never falls")
