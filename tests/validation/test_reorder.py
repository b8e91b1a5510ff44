"""The hold buffer against a plain list, and under a flood."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.commands import SubmitClaim
from engine.validation.options import ValidationOptions
from engine.validation.reorder import HoldBuffer
from tests.builders import NOON, claim_command

MS = 1_000_000
TICKET = ("gateway", 0, 0)
OPTIONS = ValidationOptions(
    hold_ms=5, hold_claims_per_channel_max=4, hold_claims_max=7, missing_named_max=3
)
CHANNELS = [bytes([number]) * 32 for number in range(3)]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.sampled_from(CHANNELS), st.integers(2, 9)),
        st.tuples(st.just("take"), st.sampled_from(CHANNELS), st.integers(2, 9)),
        st.tuples(st.just("withdraw"), st.sampled_from(CHANNELS)),
        st.tuples(st.just("wait"), st.integers(0, 6)),
        st.tuples(st.just("expired")),
        st.tuples(st.just("missing"), st.sampled_from(CHANNELS), st.integers(2, 12)),
    ),
    max_size=40,
)


class Paper:
    """The same on paper: a list of (channel, sequence, deadline), oldest first."""

    def __init__(self):
        self.rows = []

    def of(self, channel):
        return sorted(row[1] for row in self.rows if row[0] == channel)

    def hold(self, channel, sequence, now):
        if len(self.rows) >= 7 or len(self.of(channel)) >= 4:
            return False
        self.rows.append((channel, sequence, now + 5 * MS))
        return True

    def take(self, channel, sequence):
        found = [row for row in self.rows if row[:2] == (channel, sequence)]
        self.rows = [row for row in self.rows if row not in found]
        return [row[:2] for row in found]

    def expired(self, now):
        late = [row for row in self.rows if row[2] <= now]
        self.rows = [row for row in self.rows if row[2] > now]
        return [row[:2] for row in late]

    def withdraw(self, channel):
        return [row for sequence in self.of(channel) for row in self.take(channel, sequence)]

    def missing(self, channel, sequence):
        return tuple(n for n in range(2, sequence) if n not in self.of(channel))[:3]


def keys(held_claims):
    return [(held.claim.channel_id, held.claim.sequence) for held in held_claims if held]


class Buffer:
    """The real one, asked in the words of `Paper`."""

    def __init__(self):
        self.buffer = HoldBuffer(OPTIONS)

    def hold(self, channel, sequence, now):
        return self.buffer.hold(claim_command(sequence, 1, channel_id=channel), TICKET, now)

    def take(self, channel, sequence):
        return keys([self.buffer.take(channel, sequence)])

    def expired(self, now):
        return keys(self.buffer.expired(now))

    def withdraw(self, channel):
        return keys(self.buffer.withdraw(channel))

    def missing(self, channel, sequence):
        return self.buffer.missing(channel, 2, sequence)


@settings(deadline=None)
@given(steps)
def test_it_does_what_a_list_would_do(steps):
    real, paper, now = Buffer(), Paper(), NOON
    for step, *arguments in steps:
        if step == "wait":
            now += arguments[0] * MS
            continue
        if step in ("hold", "expired"):
            arguments.append(now)
        if step == "hold" and real.buffer.find(*arguments[:2]) is not None:
            continue
        assert getattr(real, step)(*arguments) == getattr(paper, step)(*arguments)
        assert len(real.buffer) == len(paper.rows)
        assert all(real.buffer.find(*row[:2]) is not None for row in paper.rows)


def test_a_million_gaps_hold_no_more_than_the_limits():
    options = ValidationOptions()
    buffer = HoldBuffer(options)
    claims = [claim_command(2, 1, channel_id=b"%32d" % number) for number in range(1_000)]
    held = 0
    for number in range(1_000_000):
        claim = claims[number % 1_000] if number % 2 else claims[0]
        early = SubmitClaim(
            channel_id=claim.channel_id, sequence=number + 2, amount=1, signature=b""
        )
        held += buffer.hold(early, TICKET, NOON)
    assert len(buffer) == held == options.hold_claims_max
    assert len(buffer.withdraw(claims[0].channel_id)) == options.hold_claims_per_channel_max
    assert len(buffer.expired(NOON + options.hold_ms * MS)) == held - 256
    assert len(buffer) == 0


def test_naming_what_is_missing_before_the_largest_number_costs_nothing():
    buffer = HoldBuffer(ValidationOptions())
    missing = buffer.missing(CHANNELS[0], 1, 2**63 - 1)
    assert missing == tuple(range(1, 65))
