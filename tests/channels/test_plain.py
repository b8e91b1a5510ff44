"""The quick way of plain claims decides what the long way decides, and most claims take it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.channels.plain import plain_claim
from engine.core.commands import FundChannel, OpenDispute, RequestClose, ResolveDispute
from engine.core.events import ClaimReceived
from engine.core.rejections import RejectCode, Rejected
from engine.core.transition import decide
from engine.core.types import NS_PER_S, Checks, Sequencing, State
from engine.validation.dedup import RetryWindow
from engine.validation.options import ValidationOptions
from engine.validation.pipeline import Pipeline
from engine.validation.risk import RiskStage
from engine.verify.batch import Item
from tests.builders import CHANNEL_ID, NOON, PUBLIC_KEY, claim_command, make_channel
from tests.channels.world import Desk, item, spoiled, words_of

OTHER_KEY = b"\x03" + bytes(32)
TERMS = [
    {},
    {"sequencing": Sequencing.AMOUNT},
    *({"cancel_after": end} for end in (NOON, NOON + 1, NOON + NS_PER_S)),
    *({"expiration": end} for end in (NOON + 1, NOON + NS_PER_S)),
]
CHANNELS = [
    make_channel(state, claimed, at=NOON - NS_PER_S, **terms)
    for state in State
    for claimed in ((0,) if state is State.PENDING else (0, 100))
    for terms in TERMS
]
STRAYS = {
    "public_key": [OTHER_KEY],
    "amount": [0, 99, 100, 1_000, 1_001],
    "sequence": [None, 0, 1, 2, 3],
    "previous": [100, 0, bytes(32)],
    "sent_at": [NOON, 0],
}


def claims_for(channel):
    """Return the next claim of a channel, and every one that differs from it in a field or two."""
    plain = Item(CHANNEL_ID, PUBLIC_KEY, 101, b"a signature", channel.sequence + 1)
    once = [replace(plain, **{name: to}) for name, tos in STRAYS.items() for to in tos]
    twice = [
        replace(one, **{name: to}) for one in once for name, tos in STRAYS.items() for to in tos
    ]
    return [plain, *once, *twice]


def the_long_way(channel, claim, at):
    """Return the event that rules and channel give a claim with a good signature, or None."""
    if claim.public_key != channel.terms.public_key:
        return None
    command = claim_command(
        claim.sequence or 0,
        claim.amount,
        signature=claim.signature,
        previous=claim.previous,
        sent_at=claim.sent_at,
        checks=Checks.ALL,
    )
    pipeline = Pipeline(ValidationOptions(), RiskStage())
    admitted = pipeline.admit(channel, RetryWindow(), command, ("gateway", 0, 0), at)
    if type(admitted) is not type(command):
        return None
    decision = decide(channel, admitted, at)
    return None if isinstance(decision, Rejected) else decision[0]


@pytest.mark.parametrize("at", [NOON - 1, NOON, NOON + 1])
def test_a_plain_claim_is_decided_as_the_long_way_decides_it(at):
    for channel in CHANNELS:
        for claim in claims_for(channel):
            plain, long = plain_claim(channel, claim, at), the_long_way(channel, claim, at)
            if plain is not None:
                assert plain == long, (channel, claim)
            elif long is not None:
                unusual = claim.previous is not None or claim.sent_at is not None
                assert unusual or channel.expiration, (channel, claim)


def test_an_ordinary_claim_is_a_plain_one():
    claim = Item(CHANNEL_ID, PUBLIC_KEY, 101, b"a signature", 2)
    assert plain_claim(make_channel(claimed=100), claim, NOON) == the_long_way(
        make_channel(claimed=100), claim, NOON
    )
    assert isinstance(plain_claim(make_channel(claimed=100), claim, NOON), ClaimReceived)


# The same with a whole shard ----------------------------------------------------------------------

claims = st.tuples(st.sampled_from("ab"), st.integers(1, 6), st.integers(-1, 1), st.booleans())
steps = st.one_of(
    st.lists(claims, min_size=1, max_size=6),
    st.sampled_from(["fund", "close", "dispute", "resolve", "time", "no room", "room"]),
)
COMMANDS = {
    "fund": (FundChannel, {"amount": 10}),
    "close": (RequestClose, {}),
    "dispute": (OpenDispute, {}),
    "resolve": (ResolveDispute, {"outcome": State.ACTIVE}),
}


def played(steps):
    """Return all answers, late ones too, and the log, of a shard that `steps` happen to."""
    told = []
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        desk.open("a", "b")
        for step in steps:
            desk.clock.forward(700)
            if isinstance(step, list):
                batch = [
                    signed if good else spoiled(signed)
                    for name, number, off, good in step
                    for signed in [item(name, 10 * number + off, number)]
                ]
                told.append(words_of(desk.submit(*batch)))
            elif step in COMMANDS:
                kind, fields = COMMANDS[step]
                desk.do(kind, "a", **fields)
            elif step == "time":
                desk.shard.tick()
            else:
                full = Rejected(RejectCode.STORAGE_FULL)
                desk.shard.no_room = full if step == "no room" else None
        told.append(desk.take_late())
        events = desk.events()
        desk.crash()
        return told, events


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=12))
def test_a_shard_says_and_writes_the_same_without_the_quick_way(steps):
    quick = played(steps)
    with patch("engine.channels.shard.plain_claim", lambda *_: None):
        assert played(steps) == quick


@pytest.mark.parametrize(
    "steps",
    [
        [[("a", 1, 0, True)], "no room", [("a", 2, 0, True), ("a", 1, 0, True)], "room"],
        [[("a", 2, 0, True), ("a", 1, 0, True)], [("a", 3, 0, True)]],
        [[("a", 2, 0, True), ("a", 1, 0, False)], "time", "time", "time", [("a", 2, 0, True)]],
        ["close", [("a", 1, 0, True), ("b", 1, 0, True)]],
    ],
    ids=["no room", "early", "early and too late", "closed"],
)
def test_what_holds_a_claim_up_holds_up_a_plain_one(steps):
    quick = played(steps)
    with patch("engine.channels.shard.plain_claim", lambda *_: None):
        assert played(steps) == quick
