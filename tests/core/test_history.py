"""Any history of commands: the log explains the channel, and a bookkeeper agrees with it."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core import commands
from engine.core.channel import Channel
from engine.core.events import decode_event, encode_event
from engine.core.opening import decide_open
from engine.core.rejections import RejectCode, Rejected
from engine.core.transition import decide, decide_refusal, replay
from engine.core.types import NS_PER_S, Checks, State
from tests.builders import CHANNEL_ID, NOON, SETTLE_DELAY_S, claim_command, open_command, taken

claims = st.tuples(st.sampled_from([1, 1, 1, 1, 0, -1, 2]), st.integers(-20, 400))
"""How far a claim is ahead of the newest one: in sequence and in drops."""

decode_channel = msgspec.msgpack.Decoder(Channel).decode


class Bookkeeper:
    """The same channel on paper: a few numbers, no events, no tables."""

    def __init__(self, capacity, ends, funded):
        self.state = "Active" if funded else "Pending"
        self.capacity = capacity
        self.owed = 0
        self.count = 0
        self.paid = None
        self.cancel_after, self.expiration = ends

    def answer_to_claim(self, number, amount, at):
        ends = [end for end in (self.cancel_after, self.expiration) if end is not None]
        if self.state != "Active":
            return "not_active"
        if any(at >= end for end in ends):
            return "channel_expired"
        if number <= self.count:
            return "sequence_used"
        if number > self.count + 1:
            return "sequence_gap"
        if amount <= self.owed:
            return "amount_not_increasing"
        return "ok" if amount <= self.capacity else "amount_over_capacity"

    def close(self, at):
        notice = at + SETTLE_DELAY_S * NS_PER_S
        self.state = "Settling"
        self.expiration = notice if self.expiration is None else min(notice, self.expiration)


class History(RuleBasedStateMachine):
    """Commands of every kind at any time; some are refused, and those change nothing."""

    @initialize(
        capacity=st.integers(1, 2_000),
        cancel_after=st.none() | st.integers(0, 400),
        expiration=st.none() | st.integers(0, 10_000),
        funded=st.booleans(),
    )
    def open(self, capacity, cancel_after, expiration, funded):
        ends = [None if s is None else NOON + s * NS_PER_S for s in (cancel_after, expiration)]
        self.now = NOON
        self.log = []
        self.channel = None
        self.book = Bookkeeper(capacity, ends, funded)
        opening = open_command(
            capacity=capacity, cancel_after=ends[0], expiration=ends[1], funded=funded
        )
        self.write(taken(decide_open(opening, self.now)))

    def write(self, events):
        self.log += [encode_event(event) for event in events]
        self.channel = replay(self.channel, events)

    def command(self, command):
        """Do it if it may be done; return the code of the refusal, or ok."""
        before = self.channel
        decision = decide(self.channel, command, self.now)
        if isinstance(decision, Rejected):
            assert self.channel is before
            return decision.code.value
        self.write(decision)
        return "ok"

    @rule(seconds=st.integers(0, 120))
    def time_passes(self, seconds):
        self.now += seconds * NS_PER_S

    @rule(claims=st.lists(claims, min_size=1, max_size=5))
    def claim(self, claims):
        for ahead, step in claims:
            number, amount = self.book.count + ahead, self.book.owed + step
            answer = self.command(claim_command(number, amount))
            assert answer == self.book.answer_to_claim(number, amount, self.now)
            if answer == "ok":
                self.book.count, self.book.owed = number, amount

    @rule(step=st.integers(1, 100))
    def claim_that_names_the_mark(self, step):
        number, amount = self.book.count + 1, self.book.owed + step
        claim = claim_command(number, amount, previous=self.channel.mark_digest)
        answer = self.command(claim)
        assert answer == self.book.answer_to_claim(number, amount, self.now)
        if answer == "ok":
            self.book.count, self.book.owed = number, amount

    @rule()
    def claim_without_a_checked_signature(self):
        claim = claim_command(self.book.count + 1, self.book.owed + 1, checks=Checks.SYNTAX)
        expected = "bad_signature" if self.book.state == "Active" else "not_active"
        assert self.command(claim) == expected

    @rule(amount=st.integers(0, 2**64 - 1))
    def a_refusal_is_kept(self, amount):
        claim = claim_command(self.book.count + 9, amount)
        code = RejectCode.SEQUENCE_GAP
        self.write([decide_refusal(self.channel, claim, code, self.now)])

    @rule()
    def confirm(self):
        answer = self.command(commands.ConfirmFunding(channel_id=CHANNEL_ID))
        assert answer == ("ok" if self.book.state == "Pending" else "wrong_state")
        if answer == "ok":
            self.book.state = "Active"

    @rule(amount=st.integers(-5, 500))
    def fund(self, amount):
        answer = self.command(commands.FundChannel(channel_id=CHANNEL_ID, amount=amount))
        if self.book.state not in ("Active", "Settling"):
            assert answer == "wrong_state"
        elif amount <= 0:
            assert answer == "malformed"
        else:
            assert answer == "ok"
            self.book.capacity += amount

    @rule()
    def close(self):
        answer = self.command(commands.RequestClose(channel_id=CHANNEL_ID))
        assert answer == ("ok" if self.book.state == "Active" else "wrong_state")
        if answer == "ok":
            self.book.close(self.now)

    @rule()
    def dispute(self):
        answer = self.command(commands.OpenDispute(channel_id=CHANNEL_ID, reason="late"))
        open_now = self.book.state in ("Active", "Settling")
        assert answer == ("ok" if open_now else "wrong_state")
        if answer == "ok":
            self.book.state = "Disputed"

    @precondition(lambda self: self.book.state == "Disputed")
    @rule(outcome=st.sampled_from(["Active", "Settling"]))
    def resolve(self, outcome):
        resolution = commands.ResolveDispute(channel_id=CHANNEL_ID, outcome=State(outcome))
        assert self.command(resolution) == "ok"
        if outcome == "Settling":
            self.book.close(self.now)
        self.book.state = outcome

    @rule(redeemed=st.none() | st.integers(-10, 2_500))
    def settle(self, redeemed):
        if self.book.state == "Disputed":
            end = commands.ResolveDispute(
                channel_id=CHANNEL_ID, outcome=State.SETTLED, redeemed=redeemed
            )
        else:
            end = commands.SettleChannel(channel_id=CHANNEL_ID, redeemed=redeemed)
        answer = self.command(end)
        if self.book.state not in ("Settling", "Disputed"):
            assert answer == "wrong_state"
            return
        paid = self.book.owed if redeemed is None else redeemed
        assert answer == ("ok" if 0 <= paid <= self.book.capacity else "malformed")
        if answer == "ok":
            self.book.state, self.book.paid = "Settled", paid

    @invariant()
    def the_bookkeeper_agrees(self):
        book, channel = self.book, self.channel
        assert channel.state == book.state
        assert (channel.claimed, channel.sequence) == (book.owed, book.count)
        assert (channel.capacity, channel.expiration) == (book.capacity, book.expiration)
        if book.paid is None:
            accounts = (book.capacity - book.owed, book.owed, 0, 0)
        else:
            accounts = (0, 0, book.paid, book.capacity - book.paid)
        found = (channel.available, channel.unredeemed, channel.redeemed, channel.returned)
        assert found == accounts
        assert channel.version == len(self.log)

    @invariant()
    def the_log_explains_the_channel(self):
        assert replay(None, map(decode_event, self.log)) == self.channel

    @rule(share=st.integers(0, 100))
    def a_checkpoint_and_the_rest_of_the_log_explain_it_too(self, share):
        at = len(self.log) * share // 100
        kept = replay(None, map(decode_event, self.log[:at]))
        if kept is not None:
            kept = decode_channel(msgspec.msgpack.encode(kept))
        assert replay(kept, map(decode_event, self.log[at:])) == self.channel


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
