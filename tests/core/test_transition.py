"""Every state against every command and every event; the answers are written here by hand."""

import pytest

from engine.core import commands, events
from engine.core.channel import Channel
from engine.core.opening import decide_open, terms_of
from engine.core.rejections import RejectCode, Rejected
from engine.core.transition import (
    COMMANDS,
    TRANSITIONS,
    apply,
    decide,
    decide_refusal,
    replay,
)
from engine.core.types import DROPS_MAX, NS_PER_S, Checks, Sequencing, State
from tests.builders import (
    CHANNEL_ID,
    NOON,
    SETTLE_DELAY_S,
    claim_command,
    cover_command,
    make_channel,
    make_event,
    open_command,
    run,
    taken,
    text_table,
)

AFTER_EVENT = text_table("""
    event              Pending  Active    Settling  Disputed  Settled
    ChannelOpened      -        -         -         -         -
    FundingConfirmed   Active   -         -         -         -
    ClaimReceived      -        Active    -         -         -
    ClaimCovered       -        Active    -         -         -
    ClaimRejected      Pending  Active    Settling  Disputed  Settled
    ChannelFunded      -        Active    Settling  -         -
    CloseRequested     -        Settling  -         -         -
    ChannelSettled     -        -         Settled   Settled   -
    DisputeOpened      -        Disputed  Disputed  -         -
    ChannelReinstated  -        -         -         Active    -
    SettlingResumed    -        -         -         Settling  -
""")

OF_COMMAND = text_table("""
    command                  Pending           Active          Settling        Disputed           Settled
    OpenChannel              wrong_state       wrong_state     wrong_state     wrong_state        wrong_state
    ConfirmFunding           FundingConfirmed  wrong_state     wrong_state     wrong_state        wrong_state
    SubmitClaim              not_active        ClaimReceived   not_active      not_active         not_active
    CoverClaim               not_active        ClaimCovered    not_active      not_active         not_active
    FundChannel              wrong_state       ChannelFunded   ChannelFunded   wrong_state        wrong_state
    RequestClose             wrong_state       CloseRequested  wrong_state     wrong_state        wrong_state
    SettleChannel            wrong_state       wrong_state     ChannelSettled  wrong_state        wrong_state
    OpenDispute              wrong_state       DisputeOpened   DisputeOpened   wrong_state        wrong_state
    ResolveDispute:Active    wrong_state       wrong_state     wrong_state     ChannelReinstated  wrong_state
    ResolveDispute:Settling  wrong_state       wrong_state     wrong_state     SettlingResumed    wrong_state
    ResolveDispute:Settled   wrong_state       wrong_state     wrong_state     ChannelSettled     wrong_state
    ResolveDispute:Pending   wrong_state       wrong_state     wrong_state     malformed          wrong_state
    ResolveDispute:Disputed  wrong_state       wrong_state     wrong_state     malformed          wrong_state
""")  # noqa: E501  (a table is read across)

MOVES = text_table("""
    event              state     available  unredeemed  redeemed  returned  capacity
    FundingConfirmed   Pending   0          0           0         0         0
    ClaimReceived      Active    -300       +300        0         0         0
    ClaimCovered       Active    -300       +300        0         0         0
    ClaimRejected      Active    0          0           0         0         0
    ClaimRejected      Settled   0          0           0         0         0
    ChannelFunded      Active    +500       0           0         0         +500
    ChannelFunded      Settling  +500       0           0         0         +500
    CloseRequested     Active    0          0           0         0         0
    ChannelSettled     Settling  -900       -100        +300      +700      0
    ChannelSettled     Disputed  -900       -100        +300      +700      0
    DisputeOpened      Active    0          0           0         0         0
    DisputeOpened      Settling  0          0           0         0         0
    ChannelReinstated  Disputed  0          0           0         0         0
    SettlingResumed    Disputed  0          0           0         0         0
""")
"""A channel of 1,000 drops with 100 claimed; the claim is for 400, 300 are redeemed."""

EVENT_PAIRS = [(row, state) for row in AFTER_EVENT for state in State]
COMMAND_PAIRS = [(row, state) for row in OF_COMMAND for state in State]


def channel_in(state: State) -> Channel:
    return make_channel(state, claimed=0 if state is State.PENDING else 100)


def sample_command(word: str) -> commands.AnyCommand:
    name, _, outcome = word.partition(":")
    if name == "OpenChannel":
        return open_command()
    if name == "SubmitClaim":
        return claim_command(2, 400)
    if name == "CoverClaim":
        return cover_command(2, 400, covered_by=3)
    bodies = {"FundChannel": {"amount": 500}, "ResolveDispute": {"outcome": outcome}}
    return getattr(commands, name)(channel_id=CHANNEL_ID, **bodies.get(name, {}))


def ids(pairs):
    return [f"{state}-{next(iter(row.values()))}" for row, state in pairs]


def test_the_tables_here_try_every_pair_there_is():
    assert {row["event"] for row in AFTER_EVENT} == {kind.__name__ for kind in events.EVENT_TYPES}
    tried = {row["command"].partition(":")[0] for row in OF_COMMAND}
    assert tried == {kind.__name__ for kind in commands.COMMAND_TYPES}
    assert len(EVENT_PAIRS) == len(State) * len(events.EVENT_TYPES)
    assert {state for _, state in COMMAND_PAIRS} == set(State)


@pytest.mark.parametrize(("row", "state"), EVENT_PAIRS, ids=ids(EVENT_PAIRS))
def test_an_event_leads_where_the_table_says_or_is_a_fault(row, state):
    channel = channel_in(state)
    event = make_event(getattr(events, row["event"]), channel)
    if row[state] == "-":
        with pytest.raises(KeyError):
            apply(channel, event)
        return
    after = apply(channel, event)
    assert (after.state, after.version, after.updated_at) == (row[state], event.version, event.at)


@pytest.mark.parametrize(("row", "state"), COMMAND_PAIRS, ids=ids(COMMAND_PAIRS))
def test_a_command_causes_the_event_of_the_table_or_is_refused(row, state):
    channel = channel_in(state)
    decision = decide(channel, sample_command(row["command"]), NOON)
    if isinstance(decision, Rejected):
        assert decision.code == row[state]
        if decision.code in ("wrong_state", "not_active"):
            assert decision.detail == state.value
        return
    assert [type(event).__name__ for event in decision] == [row[state]]
    assert decision[0].version == channel.version + 1
    assert (decision[0].channel_id, decision[0].at) == (CHANNEL_ID, NOON)
    replay(channel, decision)


@pytest.mark.parametrize("row", MOVES, ids=lambda row: f"{row['state']}-{row['event']}")
def test_an_event_moves_drops_between_accounts_and_they_add_up(row):
    channel = channel_in(State(row["state"]))
    after = apply(channel, make_event(getattr(events, row["event"]), channel))
    for account in ("available", "unredeemed", "redeemed", "returned", "capacity"):
        assert getattr(after, account) - getattr(channel, account) == int(row[account]), account
    assert after.available + after.unredeemed + after.redeemed + after.returned == after.capacity


def test_moves_are_written_down_for_every_event():
    kinds = {kind.__name__ for kind in events.EVENT_TYPES} - {"ChannelOpened"}
    assert {row["event"] for row in MOVES} == kinds


def test_whatever_a_command_causes_has_a_row_in_the_table_of_events():
    assert {state for state, _ in COMMANDS} <= {state for state, _ in TRANSITIONS}
    assert State.SETTLED not in {state for state, _ in COMMANDS}
    leaving = [after for (state, _), (after, _) in TRANSITIONS.items() if state is State.SETTLED]
    assert leaving == [State.SETTLED]


@pytest.mark.parametrize("kind", events.EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_a_channel_begins_with_being_opened_and_with_nothing_else(kind):
    if kind is events.ChannelOpened:
        assert apply(None, make_event(kind)).state is State.PENDING
    else:
        with pytest.raises(KeyError):
            apply(None, make_event(kind))


def test_opening_keeps_every_term():
    command = open_command(
        expiration=NOON + 7, cancel_after=NOON + 9, sequencing=Sequencing.AMOUNT, funded=False
    )
    (opened,) = taken(decide_open(command, NOON))
    channel = apply(None, opened)
    terms = channel.terms
    assert (terms.channel_id, terms.source, terms.destination, terms.public_key) == (
        command.channel_id,
        command.source,
        command.destination,
        command.public_key,
    )
    assert (terms.settle_delay_s, terms.cancel_after, terms.sequencing) == (
        SETTLE_DELAY_S,
        NOON + 9,
        Sequencing.AMOUNT,
    )
    assert (channel.capacity, channel.available, channel.expiration) == (1_000, 1_000, NOON + 7)
    assert (terms.opening_capacity, terms.opening_expiration) == (1_000, NOON + 7)
    assert (channel.claimed, channel.sequence, channel.version) == (0, 0, 1)
    assert terms == terms_of(command) == terms_of(opened)


def test_added_funds_and_a_close_leave_the_terms_alone():
    channel = make_channel(expiration=NOON + 7)
    funded = run(channel, commands.FundChannel(channel_id=CHANNEL_ID, amount=5))
    closing = run(funded, commands.RequestClose(channel_id=CHANNEL_ID))
    assert closing.terms == channel.terms


def test_a_funded_channel_is_opened_active_in_two_events():
    opened, confirmed = taken(decide_open(open_command(funded=True), NOON))
    assert isinstance(opened, events.ChannelOpened)
    assert isinstance(confirmed, events.FundingConfirmed)
    assert replay(None, (opened, confirmed)).state is State.ACTIVE
    assert replay(None, (opened,)).state is State.PENDING


CAPACITIES = text_table("""
    capacity             answer
    -1                   malformed
    0                    malformed
    1                    ok
    100000000000000000   ok
    100000000000000001   malformed
    18446744073709551616 malformed
""")


@pytest.mark.parametrize("row", CAPACITIES, ids=lambda row: row["capacity"])
def test_a_capacity_is_at_least_one_drop_and_at_most_all_there_are(row):
    decision = decide_open(open_command(capacity=int(row["capacity"])), NOON)
    assert answer_of(decision) == row["answer"]


FUNDING = text_table("""
    capacity            amount               answer
    1000                -1                   malformed
    1000                0                    malformed
    1000                1                    ok
    1000                99999999999999000    ok
    1000                99999999999999001    malformed
    100000000000000000  1                    malformed
""")


@pytest.mark.parametrize("row", FUNDING, ids=lambda row: f"{row['capacity']}+{row['amount']}")
def test_funds_are_added_up_to_all_the_drops_there_are(row):
    channel = make_channel(capacity=int(row["capacity"]))
    command = commands.FundChannel(channel_id=CHANNEL_ID, amount=int(row["amount"]))
    decision = decide(channel, command, NOON)
    assert answer_of(decision) == row["answer"]
    if isinstance(decision, Rejected):
        assert (decision.expected, decision.actual) == (
            DROPS_MAX - channel.capacity,
            command.amount,
        )


@pytest.mark.parametrize("stale", [0, 999, 1_001, 2_000])
def test_funds_are_added_once_where_the_sender_names_the_capacity_before(stale):
    channel = make_channel(claimed=100)
    fund = commands.FundChannel(channel_id=CHANNEL_ID, amount=1_000, previous=1_000)
    funded = run(channel, fund)
    again = decide(funded, fund, NOON)
    assert (again.code, again.expected, again.actual) == (RejectCode.CONFLICT, 2_000, 1_000)
    other = commands.FundChannel(channel_id=CHANNEL_ID, amount=1_000, previous=stale)
    assert answer_of(decide(channel, other, NOON)) == "conflict"


SETTLEMENTS = text_table("""
    claimed  redeemed  answer     paid  back
    400      None      ok         400   600
    400      0         ok         0     1000
    400      399       ok         399   601
    400      400       ok         400   600
    400      401       ok         401   599
    400      1000      ok         1000  0
    400      1001      malformed  -     -
    400      -1        malformed  -     -
    0        None      ok         0     1000
    0        7         ok         7     993
""")


@pytest.mark.parametrize("row", SETTLEMENTS, ids=lambda row: f"{row['claimed']}:{row['redeemed']}")
@pytest.mark.parametrize("state", [State.SETTLING, State.DISPUTED])
def test_a_settlement_pays_what_the_ledger_paid_and_returns_the_rest(row, state):
    channel = make_channel(state, claimed=int(row["claimed"]))
    redeemed = None if row["redeemed"] == "None" else int(row["redeemed"])
    command = commands.SettleChannel(channel_id=CHANNEL_ID, redeemed=redeemed)
    if state is State.DISPUTED:
        command = commands.ResolveDispute(
            channel_id=CHANNEL_ID, outcome=State.SETTLED, redeemed=redeemed
        )
    decision = decide(channel, command, NOON)
    assert answer_of(decision) == row["answer"]
    if row["answer"] == "ok":
        after = replay(channel, decision)
        assert (after.redeemed, after.returned) == (int(row["paid"]), int(row["back"]))
        assert (after.available, after.unredeemed) == (0, 0)
        assert (after.claimed, after.state) == (channel.claimed, State.SETTLED)


NOTICE = NOON + SETTLE_DELAY_S * NS_PER_S
EXPIRATIONS = [
    # expiration before, expiration after a close at noon
    (None, NOTICE),
    (NOTICE + 1, NOTICE),
    (NOTICE, NOTICE),
    (NOTICE - 1, NOTICE - 1),
    (NOON - 1, NOON - 1),
]


@pytest.mark.parametrize(("before", "after"), EXPIRATIONS)
def test_a_close_brings_a_far_expiration_forward_and_never_postpones_a_near_one(before, after):
    channel = make_channel(expiration=before)
    closing = run(channel, commands.RequestClose(channel_id=CHANNEL_ID))
    assert closing.expiration == after
    disputed = run(channel, commands.OpenDispute(channel_id=CHANNEL_ID, reason="late"))
    resumed = commands.ResolveDispute(channel_id=CHANNEL_ID, outcome=State.SETTLING)
    assert run(disputed, resumed).expiration == after


def test_a_dispute_changes_no_expiration_by_itself():
    closing = make_channel(State.SETTLING)
    disputed = run(closing, commands.OpenDispute(channel_id=CHANNEL_ID, reason="late"))
    resolved = commands.ResolveDispute(channel_id=CHANNEL_ID, outcome=State.ACTIVE)
    assert disputed.expiration == closing.expiration
    assert run(disputed, resolved).expiration == closing.expiration


def test_a_kept_refusal_is_the_claim_with_its_code():
    channel = make_channel(claimed=100)
    command = claim_command(9, 2**64 - 1, checks=Checks.SIGNATURE)
    event = decide_refusal(channel, command, RejectCode.SEQUENCE_GAP, NOON)
    assert (event.sequence, event.amount, event.signature) == (9, 2**64 - 1, command.signature)
    assert (event.code, event.version) == (RejectCode.SEQUENCE_GAP, channel.version + 1)
    after = apply(channel, event)
    assert after.balance == channel.balance


def answer_of(decision):
    return decision.code.value if isinstance(decision, Rejected) else "ok"
