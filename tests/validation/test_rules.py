"""Rules that look at one channel and one claim."""

import pytest

from engine.core.rejections import RejectCode
from engine.core.types import NS_PER_S, State
from engine.validation.rules import refuse_for_ever, refuse_key, refuse_skew
from tests.builders import NOON, PUBLIC_KEY, claim_command, make_channel

SKEW_S = 300


@pytest.mark.parametrize("state", list(State))
def test_only_the_end_of_a_channel_is_for_ever(state):
    refusal = refuse_for_ever(state)
    assert (refusal is not None) == (state is State.SETTLED)


def test_a_verdict_counts_only_for_the_key_of_the_channel():
    channel = make_channel()
    assert refuse_key(channel, PUBLIC_KEY) is None
    assert refuse_key(channel, PUBLIC_KEY[:-1] + b"\0").code is RejectCode.WRONG_KEY


@pytest.mark.parametrize(
    ("off_ns", "refused"),
    [
        (0, False),
        (SKEW_S * NS_PER_S, False),
        (-SKEW_S * NS_PER_S, False),
        (SKEW_S * NS_PER_S + 1, True),
        (-SKEW_S * NS_PER_S - 1, True),
    ],
)
def test_a_senders_clock_may_be_off_by_so_much(off_ns, refused):
    refusal = refuse_skew(claim_command(1, 1, sent_at=NOON + off_ns), NOON, SKEW_S)
    assert (refusal is not None) == refused
    if refusal is not None:
        assert (refusal.code, refusal.expected, refusal.actual) == (
            RejectCode.CLOCK_SKEW,
            NOON,
            NOON + off_ns,
        )


def test_a_claim_without_a_time_is_never_refused_for_it():
    assert refuse_skew(claim_command(1, 1), NOON, 1) is None
