"""What an Active channel takes and what it refuses, told as short stories of claims."""

import pytest

from engine.core import commands
from engine.core.claim import NO_CLAIM_DIGEST, claim_digest
from engine.core.opening import decide_open
from engine.core.rejections import RejectCode, Rejected
from engine.core.transition import decide, replay
from engine.core.types import NS_PER_S, SEQUENCE_MAX, Checks, State
from tests.builders import (
    CHANNEL_ID,
    NOON,
    claim_command,
    make_channel,
    open_command,
    run,
    text_table,
)

STORIES = {
    "sequences run from 1 without holes": """
        seq  amount  answer
        0    100     sequence_used
        2    100     sequence_gap
        1    100     ok
        1    100     sequence_used
        3    300     sequence_gap
        0    300     sequence_used
        2    300     ok
        -1   400     sequence_used
        9223372036854775807  400  sequence_gap
        3    400     ok
    """,
    "amounts rise up to the capacity": """
        seq  amount  answer
        1    -1      amount_not_increasing
        1    0       amount_not_increasing
        1    1       ok
        2    1       amount_not_increasing
        2    0       amount_not_increasing
        2    2       ok
        3    1001    amount_over_capacity
        3    9223372036854775808   amount_over_capacity
        3    18446744073709551615  amount_over_capacity
        3    18446744073709551616  amount_over_capacity
        3    1000    ok
        4    1000    amount_not_increasing
        4    1001    amount_over_capacity
    """,
    "the sequence is judged before the amount": """
        seq  amount  answer
        2    5000    sequence_gap
        1    500     ok
        1    5000    sequence_used
        1    0       sequence_used
    """,
    "a refusal leaves no trace": """
        seq  amount  answer
        1    5000    amount_over_capacity
        1    0       amount_not_increasing
        2    10      sequence_gap
        1    10      ok
    """,
    "the sender may say which amount it believes is the mark": """
        seq  amount  previous  answer
        1    100     1         conflict
        1    100     0         ok
        2    200     0         conflict
        2    200     99        conflict
        2    200     101       conflict
        2    200     100       ok
        3    300     -         ok
        4    400     300       ok
    """,
    "a stale mark is told before a bad amount": """
        seq  amount  previous  answer
        1    100     -         ok
        2    50      0         conflict
        2    5000    0         conflict
        3    200     0         sequence_gap
    """,
}


@pytest.mark.parametrize("name", STORIES)
def test_claims_get_the_answers_of_the_story(name):
    channel = make_channel()
    for row in text_table(STORIES[name]):
        previous = row.get("previous", "-")
        claim = claim_command(
            int(row["seq"]),
            int(row["amount"]),
            previous=None if previous == "-" else int(previous),
        )
        decision = decide(channel, claim, NOON)
        assert answer_of(decision) == row["answer"], row
        if row["answer"] == "ok":
            channel = replay(channel, decision)
            assert (channel.claimed, channel.sequence) == (claim.amount, claim.sequence)
            assert channel.available == channel.capacity - claim.amount
            assert channel.signature == claim.signature


REFUSALS = text_table("""
    seq  amount  code                   expected  actual
    1    500     sequence_used          2         1
    4    500     sequence_gap           2         4
    2    400     amount_not_increasing  400       400
    2    1001    amount_over_capacity   1000      1001
""")


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row["code"])
def test_a_refusal_names_the_two_numbers_that_disagreed(row):
    claim = claim_command(int(row["seq"]), int(row["amount"]))
    refusal = decide(make_channel(claimed=400), claim, NOON)
    assert refusal == Rejected(RejectCode(row["code"]), int(row["expected"]), int(row["actual"]))


@pytest.mark.parametrize("checks", [Checks(bits) for bits in range(32)], ids=lambda c: f"{c:05b}")
def test_no_claim_without_a_checked_signature_becomes_an_event(checks):
    decision = decide(make_channel(), claim_command(1, 100, checks=checks), NOON)
    if Checks.SIGNATURE in checks:
        assert decision[0].checks == checks
    else:
        assert decision == Rejected(RejectCode.BAD_SIGNATURE)


def test_an_unsigned_claim_is_told_nothing_else_about_the_channel():
    late = NOON + NS_PER_S
    channel = make_channel(expiration=NOON, claimed=100, at=NOON - 1)
    claim = claim_command(9, 5_000, checks=Checks.ALL & ~Checks.SIGNATURE)
    assert decide(channel, claim, late) == Rejected(RejectCode.BAD_SIGNATURE)


ENDS = text_table("""
    expiration  cancel_after  now   answer           end
    -           -             9999  ok               -
    100         -             99    ok               100
    100         -             100   channel_expired  100
    100         -             101   channel_expired  100
    -           100           99    ok               100
    -           100           100   channel_expired  100
    100         200           100   channel_expired  100
    200         100           99    ok               100
    200         100           100   channel_expired  100
    0           200           0     channel_expired  0
""")


@pytest.mark.parametrize("row", ENDS, ids=lambda row: "-".join(row.values()))
def test_a_channel_takes_claims_until_whichever_end_comes_first(row):
    moments = {
        name: None if row[name] == "-" else NOON + int(row[name])
        for name in ("expiration", "cancel_after", "now", "end")
    }
    channel = make_channel(expiration=moments["expiration"], cancel_after=moments["cancel_after"])
    assert channel.ends_at == moments["end"]
    decision = decide(channel, claim_command(1, 100), moments["now"])
    assert answer_of(decision) == row["answer"]
    if isinstance(decision, Rejected):
        assert (decision.expected, decision.actual) == (moments["end"], moments["now"])


def test_a_channel_reinstated_after_a_close_still_ends_when_the_close_said():
    channel = run(make_channel(State.SETTLING), commands.OpenDispute(channel_id=CHANNEL_ID))
    outcome = commands.ResolveDispute(channel_id=CHANNEL_ID, outcome=State.ACTIVE)
    channel = run(channel, outcome)
    claim = claim_command(1, 100)
    assert answer_of(decide(channel, claim, channel.expiration - 1)) == "ok"
    assert answer_of(decide(channel, claim, channel.expiration)) == "channel_expired"


def test_a_hash_chain_holds_when_each_claim_names_the_one_before():
    channel = make_channel()
    link = NO_CLAIM_DIGEST
    for sequence in range(1, 6):
        channel = run(channel, claim_command(sequence, sequence * 100, previous=link))
        link = claim_digest(CHANNEL_ID, sequence, sequence * 100, link)
        assert channel.mark_digest == link


def test_a_digest_of_any_other_claim_is_a_conflict():
    first = run(make_channel(), claim_command(1, 100, previous=NO_CLAIM_DIGEST))
    right = claim_digest(CHANNEL_ID, 1, 100, NO_CLAIM_DIGEST)
    wrong = (
        NO_CLAIM_DIGEST,
        claim_digest(CHANNEL_ID, 1, 100, None),
        claim_digest(CHANNEL_ID, 1, 101, NO_CLAIM_DIGEST),
        claim_digest(CHANNEL_ID, 2, 100, NO_CLAIM_DIGEST),
        claim_digest(bytes(32), 1, 100, NO_CLAIM_DIGEST),
        right[:-1],
        b"",
    )
    for digest in wrong:
        decision = decide(first, claim_command(2, 200, previous=digest), NOON)
        assert answer_of(decision) == "conflict", digest
        assert decision.expected == first.claimed
    assert answer_of(decide(first, claim_command(2, 200, previous=right), NOON)) == "ok"


def test_an_amount_as_previous_starts_the_chain_anew():
    channel = run(make_channel(), claim_command(1, 100, previous=NO_CLAIM_DIGEST))
    channel = run(channel, claim_command(2, 200, previous=100))
    assert channel.link is None
    assert channel.mark_digest == claim_digest(CHANNEL_ID, 2, 200, None)


def test_added_funds_can_be_claimed():
    channel = make_channel(claimed=1_000)
    assert answer_of(decide(channel, claim_command(2, 1_001), NOON)) == "amount_over_capacity"
    channel = run(channel, commands.FundChannel(channel_id=CHANNEL_ID, amount=1))
    assert answer_of(decide(channel, claim_command(2, 1_001), NOON)) == "ok"


def test_the_event_keeps_all_that_the_sender_said():
    claim = claim_command(1, 100, previous=0, sent_at=NOON - 5, checks=Checks.SIGNATURE)
    (event,) = decide(make_channel(), claim, NOON)
    for name in ("channel_id", "sequence", "amount", "signature", "previous", "sent_at", "checks"):
        assert getattr(event, name) == getattr(claim, name), name


def test_the_largest_sequence_is_a_gap_like_any_other():
    decision = decide(make_channel(), claim_command(SEQUENCE_MAX, 1), NOON)
    assert decision == Rejected(RejectCode.SEQUENCE_GAP, 1, SEQUENCE_MAX)


def answer_of(decision):
    return decision.code.value if isinstance(decision, Rejected) else "ok"


@pytest.mark.parametrize(
    ("delay", "opens"), [(0, True), (2**32 - 1, True), (2**32, False), (-1, False)]
)
def test_a_settle_delay_is_one_the_ledger_can_hold(delay, opens):
    decision = decide_open(open_command(settle_delay_s=delay), NOON)
    assert isinstance(decision, Rejected) is not opens


@pytest.mark.parametrize(("length", "opens"), [(256, True), (257, False)])
def test_a_reason_has_a_limit_even_where_no_gateway_stands_before(length, opens):
    dispute = commands.OpenDispute(channel_id=CHANNEL_ID, reason="x" * length)
    decision = decide(make_channel(), dispute, NOON)
    assert isinstance(decision, Rejected) is not opens
