"""A covered claim counts only together with the one that covers it."""

import pytest
from msgspec.structs import replace

from engine.core import events
from engine.core.invariants import InvariantBroken
from engine.core.transition import apply, decide, refuse_claim, replay
from engine.core.types import Checks, State
from tests.builders import (
    NOON,
    claim_command,
    cover_command,
    make_channel,
    make_event,
    run,
    taken,
    text_table,
)

COVERED = make_channel(State.ACTIVE, claimed=100)
"""A channel with one claim, of 100 drops, which was checked."""


def covered(*amounts: int):
    """Return the channel after covered claims that wait for the one after them."""
    channel = COVERED
    for sequence, amount in enumerate(amounts, 2):
        channel = run(channel, cover_command(sequence, amount, covered_by=2 + len(amounts)))
    return channel


def test_a_covered_claim_is_owed_and_the_newest_checked_claim_is_still_what_can_be_redeemed():
    channel = covered(200, 300)
    assert (channel.claimed, channel.sequence) == (300, 3)
    assert channel.best == (100, 1)
    assert channel.signature == COVERED.signature


def test_before_the_first_checked_claim_nothing_can_be_redeemed():
    channel = run(make_channel(State.ACTIVE, claimed=0), cover_command(1, 50, covered_by=2))
    assert (channel.claimed, channel.best, channel.signature) == (50, (0, 0), b"")


def test_the_covering_claim_is_proof_of_all_before_it():
    channel = run(covered(200, 300), claim_command(4, 400))
    assert channel.best == (400, 4) == (channel.claimed, channel.sequence)
    assert channel.signature == b"signature of 400"
    assert channel.proven is None


OTHERS = [kind for kind in events.EVENT_TYPES if kind is not events.ClaimReceived]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_nothing_but_claims_comes_between_a_covered_claim_and_its_proof(kind):
    channel = covered(200)
    with pytest.raises((InvariantBroken, KeyError)):
        apply(channel, replace(make_event(kind, channel), version=channel.version + 1))


WRONG = text_table("""
    sequence  amount  covered_by
    4         400     5
    5         400     -
    4         400     3
    4         300     -
    3         400     -
""")


@pytest.mark.parametrize("row", WRONG, ids=lambda row: "-".join(row.values()))
def test_what_follows_must_be_the_claims_that_were_named(row):
    channel = covered(200, 300)
    body = {"sequence": int(row["sequence"]), "amount": int(row["amount"])}
    kind = events.ClaimReceived
    if row["covered_by"] != "-":
        kind, body["covered_by"] = events.ClaimCovered, int(row["covered_by"])
    event = kind(
        channel_id=channel.terms.channel_id,
        version=channel.version + 1,
        at=NOON,
        signature=b"",
        **body,
    )
    with pytest.raises(InvariantBroken):
        apply(channel, event)


def test_a_run_does_not_end_before_the_claim_that_was_named():
    channel = run(COVERED, cover_command(2, 200, covered_by=4))
    early = replace(make_event(events.ClaimReceived, channel), version=channel.version + 1)
    assert early.sequence == 3
    with pytest.raises(InvariantBroken, match="end with the one that covers them"):
        apply(channel, early)


def test_a_claim_cannot_cover_itself():
    event = replace(make_event(events.ClaimCovered, COVERED), covered_by=2)
    with pytest.raises(InvariantBroken):
        apply(COVERED, event)


def test_the_log_says_that_the_signature_was_not_looked_at():
    (event,) = taken(decide(COVERED, cover_command(2, 200, covered_by=9), NOON))
    assert isinstance(event, events.ClaimCovered)
    assert event.covered_by == 9
    assert not event.checks & Checks.SIGNATURE
    assert refuse_claim(COVERED, event, NOON) is None


def test_a_claim_without_a_look_at_its_signature_is_refused_unless_it_is_covered():
    for claim in (claim_command(2, 200, checks=Checks.COVERED), cover_command(2, 200, 3)):
        refusal = refuse_claim(COVERED, claim, NOON)
        assert (refusal is None) is hasattr(claim, "covered_by")
    bare = replace(cover_command(2, 200, 3), checks=Checks.SYNTAX)
    assert refuse_claim(COVERED, bare, NOON).code == "bad_signature"


def test_replay_of_a_covered_run_is_the_live_channel():
    channel, written = COVERED, []
    for command in (cover_command(2, 150, 4), cover_command(3, 160, 4), claim_command(4, 170)):
        decision = taken(decide(channel, command, NOON))
        written += decision
        channel = replay(channel, decision)
    assert replay(COVERED, written) == channel
