"""Risk rules: off unless configured, counted, and an operator's own beside the shipped ones."""

import msgspec
import pytest

from engine.core.rejections import RejectCode, Rejected
from engine.core.types import AMOUNT_MAX, NS_PER_S
from engine.validation.options import RiskOptions
from engine.validation.risk import BadSignatureRule, RiskStage, VelocityRule, shipped_rules
from tests.builders import CHANNEL_ID, NOON, claim_command, make_channel
from tests.channels.world import Desk, item, spoiled

OTHER_ID = bytes(32)
WINDOW_S = 10
LATER = NOON + WINDOW_S * NS_PER_S


def options(**fields):
    return RiskOptions(window_s=WINDOW_S, **fields)


def limit_hit(refusal):
    return None if refusal is None else (refusal.expected, refusal.actual, refusal.detail)


def test_every_rule_is_off_by_default():
    assert shipped_rules(RiskOptions()) == ()


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("velocity_claims_max", VelocityRule),
        ("velocity_drops_max", VelocityRule),
        ("bad_signatures_max", BadSignatureRule),
    ],
)
def test_a_limit_turns_its_rule_on(field, rule):
    (only,) = shipped_rules(options(**{field: 1}))
    assert type(only) is rule


def test_a_channel_may_send_so_many_claims_a_window_and_then_again():
    rule, channel = VelocityRule(options(velocity_claims_max=2)), make_channel()
    checks = [rule.check(channel, claim_command(1, 1), NOON) for _ in range(4)]
    assert list(map(limit_hit, checks)) == [None, None, (2, 3, "velocity"), (2, 3, "velocity")]
    assert rule.check(channel, claim_command(1, 1), LATER - 1) is not None
    assert rule.check(channel, claim_command(1, 1), LATER) is None


def test_a_channel_may_promise_so_many_drops_a_window():
    rule, channel = VelocityRule(options(velocity_drops_max=100)), make_channel(claimed=50)
    assert rule.check(channel, claim_command(2, 120), NOON) is None
    assert limit_hit(rule.check(channel, claim_command(2, 81), NOON)) == (100, 101, "velocity")
    assert rule.check(channel, claim_command(2, 80), NOON) is None
    assert rule.check(channel, claim_command(2, 150), LATER) is None


def test_one_channel_never_pays_for_another():
    rule = VelocityRule(options(velocity_claims_max=1))
    mine, other = make_channel(), make_channel(channel_id=OTHER_ID)
    assert rule.check(mine, claim_command(1, 1), NOON) is None
    assert rule.check(other, claim_command(1, 1, channel_id=OTHER_ID), NOON) is None
    assert rule.check(mine, claim_command(1, 1), NOON) is not None


def test_the_channels_watched_are_bounded_and_the_longest_quiet_one_is_forgotten():
    rule = VelocityRule(options(velocity_claims_max=1, channels_watched_max=2))
    ids = [bytes([number]) * 32 for number in range(3)]
    channels = [make_channel(channel_id=one) for one in ids]

    def refused(number):
        claim = claim_command(1, 1, channel_id=ids[number])
        return rule.check(channels[number], claim, NOON) is not None

    assert [refused(number) for number in (0, 1, 0, 2, 0, 1)] == [
        False, False, True, False, True, False,
    ]  # fmt: skip


def test_an_amount_of_64_bits_is_refused_with_a_number_that_can_be_sent():
    rule, channel = VelocityRule(options(velocity_drops_max=1_000)), make_channel()
    assert rule.check(channel, claim_command(1, 900), NOON) is None
    refusal = rule.check(channel, claim_command(1, AMOUNT_MAX), NOON)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(refusal))[2] == AMOUNT_MAX


def test_too_many_bad_signatures_stop_a_channel_for_the_window():
    rule, channel, claim = BadSignatureRule(options(bad_signatures_max=2)), make_channel(), None
    claim = claim_command(1, 1)
    for _ in range(2):
        rule.saw_bad_signature(CHANNEL_ID, NOON)
    assert rule.check(channel, claim, NOON) is None
    rule.saw_bad_signature(CHANNEL_ID, NOON)
    assert limit_hit(rule.check(channel, claim, NOON)) == (2, 3, "bad_signatures")
    assert rule.check(channel, claim, LATER) is None


class Ceiling:
    """An operator's own rule: no claim above a ceiling. Takes part through the protocol alone."""

    name = "ceiling"

    def __init__(self, drops):
        self.drops = drops
        self.bad = 0

    def check(self, channel, claim, at):
        if claim.amount <= self.drops:
            return None
        return Rejected(RejectCode.RISK_REFUSED, self.drops, claim.amount, self.name)

    def saw_bad_signature(self, channel_id, at):
        self.bad += 1


def test_the_first_rule_that_refuses_wins_and_is_counted():
    low, high = Ceiling(10), Ceiling(5)
    high.name = "second"
    stage, channel = RiskStage((low, high)), make_channel()
    assert stage.check(channel, claim_command(1, 1), NOON) is None
    assert stage.check(channel, claim_command(1, 11), NOON).expected == 10
    assert stage.check(channel, claim_command(1, 7), NOON).expected == 5
    assert stage.refused == {"ceiling": 1, "second": 1}
    stage.saw_bad_signature(CHANNEL_ID, NOON)
    assert (low.bad, high.bad) == (1, 1)


# In a shard ---------------------------------------------------------------------------------------


def test_a_rule_of_an_operator_is_asked_about_claims_whose_turn_it_is(tmp_path):
    rule = Ceiling(100)
    desk = Desk(tmp_path, rules=(rule,))
    desk.open("a")
    assert desk.words(item("a", 101, 1), spoiled(item("a", 10, 1)), item("a", 20, 2)) == [
        "risk_refused", "bad_signature", "buffered",
    ]  # fmt: skip
    assert (desk.shard.risk_refused, rule.bad) == ({"ceiling": 1}, 1)
    assert desk.words(item("a", 10, 1)) == ["accepted"]
    assert desk.take_late() == [(0, 2, "accepted")]


def test_a_held_claim_is_weighed_when_its_turn_comes(tmp_path):
    desk = Desk(tmp_path, rules=(Ceiling(100),))
    desk.open("a")
    assert desk.words(item("a", 101, 2), item("a", 10, 1)) == ["buffered", "accepted"]
    assert desk.take_late() == [(0, 0, "risk_refused")]
    assert desk.shard.risk_refused == {"ceiling": 1}


def test_an_answer_given_before_is_given_again_whatever_the_rules_say(tmp_path):
    desk = Desk(tmp_path, rules=shipped_rules(options(velocity_claims_max=1)))
    desk.open("a")
    claims = [item("a", 10, 1), item("a", 20, 2), item("a", 10, 1)]
    assert desk.words(*claims) == ["accepted", "risk_refused", "duplicate"]
