"""The order of the layers: the first refusal wins, and an answer given before is given again."""

import pytest

from engine.core.commands import SubmitClaim
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import NS_PER_S, Sequencing, State
from engine.validation.dedup import FirstAnswer, RetryWindow
from engine.validation.options import ValidationOptions
from engine.validation.pipeline import Buffered, Pipeline
from engine.validation.reorder import TICKETS_MAX
from engine.validation.risk import RiskStage
from tests.builders import NOON, claim_command, make_channel, text_table

TICKET = ("gateway", 0, 0)
LONG_AGO = NOON - 10_000 * NS_PER_S


class Never:
    """Refuses every claim it is asked about."""

    name = "never"

    def check(self, channel, claim, at):
        return Rejected(RejectCode.RISK_REFUSED, detail=self.name)

    def saw_bad_signature(self, channel_id, at):
        pass


def pipeline(*rules, **options):
    return Pipeline(ValidationOptions(**options), RiskStage(rules))


def word(admission):
    match admission:
        case SubmitClaim():
            return "decide"
        case FirstAnswer():
            return "repeat"
        case Buffered():
            return "hold"
        case Rejected(code=code):
            return code.value


ORDER = """
    what_is_wrong                       answer
    nothing                             decide
    risk                                risk_refused
    risk,early                          hold
    risk,early,clock                    clock_skew
    risk,early,clock,state              decide
    risk,clock,state,old                sequence_used
    risk,clock,state,other_content      sequence_conflict
    risk,clock,state,seen               repeat
    unnumbered,risk,clock,state         malformed
"""
"""`decide` for a channel that is not Active: the core has the last word, and says not_active."""


@pytest.mark.parametrize("row", text_table(ORDER), ids=lambda row: row["what_is_wrong"])
def test_the_first_layer_that_objects_gives_the_answer(row):
    wrong = set(row["what_is_wrong"].split(","))
    channel = make_channel(State.SETTLING if "state" in wrong else State.ACTIVE, claimed=100)
    window = RetryWindow()
    if "old" not in wrong:
        window.remember(100, 3, NOON, ValidationOptions().retries)
    sequence, amount = 2, 200
    if wrong & {"seen", "other_content", "old"}:
        sequence, amount = 1, 101 if "other_content" in wrong else 100
    if "early" in wrong:
        sequence = 3
    if "unnumbered" in wrong:
        sequence = 0
    sent_at = LONG_AGO if "clock" in wrong else NOON
    claim = claim_command(sequence, amount, sent_at=sent_at)
    layers = pipeline(*([Never()] if "risk" in wrong else []))
    assert word(layers.admit(channel, window, claim, TICKET, NOON)) == row["answer"]


def test_a_claim_ordered_by_amount_is_given_its_number():
    channel = make_channel(claimed=100, sequencing=Sequencing.AMOUNT)
    claim = claim_command(0, 200)
    assert pipeline().admit(channel, RetryWindow(), claim, TICKET, NOON).sequence == 2


def test_an_amount_that_was_never_accepted_is_no_duplicate():
    channel = make_channel(claimed=100, sequencing=Sequencing.AMOUNT)
    window = RetryWindow()
    window.remember(100, 3, NOON, ValidationOptions().retries)

    def said(amount):
        return word(pipeline().admit(channel, window, claim_command(0, amount), TICKET, NOON))

    assert [said(99), said(100), said(101)] == ["amount_not_increasing", "repeat", "decide"]


@pytest.mark.parametrize(
    ("age_ns", "answer"), [(300 * NS_PER_S, "repeat"), (300 * NS_PER_S + 1, "sequence_used")]
)
def test_an_answer_is_repeated_for_as_long_as_the_window_says(age_ns, answer):
    channel, window = make_channel(claimed=100), RetryWindow()
    window.remember(100, 3, NOON, ValidationOptions().retries)
    claim = claim_command(1, 100)
    assert word(pipeline().admit(channel, window, claim, TICKET, NOON + age_ns)) == answer


def test_the_same_early_claim_is_held_once_for_all_who_sent_it():
    layers, channel = pipeline(), make_channel()
    for number in range(TICKETS_MAX):
        ticket = ("gateway", number, 0)
        admission = layers.admit(channel, RetryWindow(), claim_command(3, 30), ticket, NOON)
        assert admission == Buffered((1, 2))
    assert len(layers.held) == 1
    held = layers.held.find(channel.terms.channel_id, 3)
    assert [number for _, number, _ in held.tickets] == list(range(TICKETS_MAX))


def test_who_could_not_be_told_later_is_not_promised_a_decision():
    """A gateway keeps a place for each `buffered`, and one never decided would stay for ever."""
    layers, channel = pipeline(), make_channel()
    said = [
        word(layers.admit(channel, RetryWindow(), claim_command(3, 30), TICKET, NOON))
        for _ in range(TICKETS_MAX + 1)
    ]
    assert said == ["hold"] * TICKETS_MAX + ["sequence_gap"]


def test_an_early_claim_with_other_content_than_the_held_one_is_a_conflict():
    layers, channel = pipeline(), make_channel()
    layers.admit(channel, RetryWindow(), claim_command(3, 30), TICKET, NOON)
    other = layers.admit(channel, RetryWindow(), claim_command(3, 31), TICKET, NOON)
    assert (other.code, other.expected, other.actual) == (RejectCode.SEQUENCE_CONFLICT, 30, 31)
