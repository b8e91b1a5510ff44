"""The receiver is never worse off than where every signature is checked, whatever comes.

Random histories of good and bad claims in any order, with crashes, against a shard that checks the
newest claim only. At every frame of its log the largest accepted amount of each channel must be
proved by a signature of that log which the ledger takes; and a shard that checks every signature,
told that the covered ones are good, must accept the very same claims.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.channels.messages import Answer, Status
from engine.channels.recovery import recover_committed, state_hash
from engine.core import commands
from engine.core.claim import claim_digest, signing_message
from engine.core.events import ClaimCovered, ClaimReceived, ClaimRejected
from engine.core.types import Sequencing
from engine.verify.batch import Item
from engine.verify.options import VerifyOptions
from engine.verify.schemes import verify
from engine.verify.seal import seal
from engine.verify.signed import is_signed
from tests.channels.world import SEAL_KEY, Desk, blob_of, channel_id, item, payer_of, spoiled

NAMES = ("a", "e", "by amount")
"""Two curves and both kinds of order."""

mostly_good = st.sampled_from(["good"] * 6 + ["bad", "bad", "wrong key", "long"])
steps = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "ahead": st.sampled_from([1] * 12 + [0, 2, -1]),
        "more": st.sampled_from([1, 2, 3] * 5 + [0, -2, 40]),
        "signature": mostly_good,
        "previous": st.sampled_from([None] * 8 + ["digest", "amount", "wrong"]),
    }
)
batches = st.tuples(
    st.sampled_from(["send"] * 8 + ["shuffled", "again", "crash", "stop", "tick", "fund", "close"]),
    st.lists(steps, max_size=9),
    st.randoms(use_true_random=False),
)


class Drawing:
    """What a payer would send next, on each channel, if all went well."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._marks: dict[str, tuple[int, int]] = {}

    def claim(self, step: dict[str, Any]) -> Item:
        name = step["name"]
        channel = self._desk.view(name).channel
        sequence, amount = self._marks.get(name, (channel.sequence, channel.claimed))
        number, owed = sequence + step["ahead"], max(1, amount + step["more"])
        if step["ahead"] == 1 and step["more"] > 0:
            self._marks[name] = number, owed
        previous: Any = {"amount": amount, "wrong": bytes(32)}.get(step["previous"])
        if step["previous"] == "digest":
            previous = claim_digest(channel_id(name), sequence, amount, None)
        by_amount = name == "by amount"
        made = item(name, owed, None if by_amount else number, previous=previous)
        match step["signature"]:
            case "bad":
                return spoiled(item(name, owed + 1, made.sequence, previous=previous), -1)
            case "wrong key":
                return replace(made, public_key=payer_of("a").public_key)
            case "long":
                return replace(made, signature=made.signature + bytes(80))
        return made


class Twin:
    """A shard that checks every signature, told of each claim what its twin believed of it."""

    def __init__(self, directory: Path) -> None:
        self.desk = Desk(directory)
        open_all(self.desk)

    def follow(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        believed = [
            is_signed(one) or answer.covered_by != 0 or answer.status is Status.DUPLICATE
            for one, answer in zip(items, answers, strict=True)
        ]
        blob = blob_of(items)
        reply = self.desk.send(items, sealed=seal(SEAL_KEY, blob, bytes(believed) + b"\0\1"))
        assert reply.refused is None


def open_all(desk: Desk) -> None:
    for name in NAMES:
        by_amount = name == "by amount"
        sequencing = Sequencing.AMOUNT if by_amount else Sequencing.STRICT
        desk.open(name, capacity=45, sequencing=sequencing)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(batches, min_size=1, max_size=10))
def test_no_history_leaves_more_accepted_than_can_be_redeemed(tmp_path_factory, history):
    directory = tmp_path_factory.mktemp("newest")
    desk = Desk(directory / "one", verify=VerifyOptions(verification="newest"))
    open_all(desk)
    twin = Twin(directory / "other")
    sent: list[Item] = []
    for what, claims, random in history:
        do_to_both(what, desk, twin.desk)
        if what != "again" or not sent:
            drawing = Drawing(desk)
            sent = [drawing.claim(step) for step in claims]
        if what == "shuffled":
            random.shuffle(sent)
        twin.follow(sent, desk.submit(*sent))
        for name in NAMES:
            ours, theirs = desk.view(name).channel, twin.desk.view(name).channel
            assert (ours.claimed, ours.sequence) == (theirs.claimed, theirs.sequence)
            assert ours.proven is None
    look_at_the_log(desk)
    desk.shard.close()
    twin.desk.shard.close()
    look_at_every_position(desk)


def do_to_both(what: str, *desks: Desk) -> None:
    for desk in desks:
        match what:
            case "crash" | "stop":
                desk.restart(clean=what == "stop")
            case "tick":
                desk.clock.forward(1_999)
                desk.shard.tick()
            case "fund":
                desk.do(commands.FundChannel, "a", amount=20)
            case "close":
                desk.do(commands.RequestClose, "e")


def look_at_the_log(desk: Desk) -> None:
    """At every frame what was accepted is proved, and what was refused was signed."""
    accepted = dict.fromkeys(map(channel_id, NAMES), 0)
    proved = dict(accepted)
    for _, frame in desk.log.read_batches(1):
        for event in frame:
            if isinstance(event, ClaimReceived):
                accepted[event.channel_id] = max(accepted[event.channel_id], event.amount)
            if type(event) is ClaimReceived or type(event) is ClaimRejected:
                assert signed(event)
            if type(event) is ClaimReceived:
                proved[event.channel_id] = max(proved[event.channel_id], event.amount)
        assert accepted == proved


def look_at_every_position(desk: Desk) -> None:
    """Back to any place in the log: the best claim there is one that the ledger takes."""
    limits = desk.validation.retries
    events = desk.events_on_disk()
    for position in count(1):
        then = recover_committed(desk.directory, limits, position, from_genesis=True)
        for actor in then.actors.values():
            amount, sequence = actor.channel.best
            if amount:
                event = events[actor.claim_position - 1]
                assert (event.amount, event.sequence) == (amount, sequence)
                assert event.signature == actor.channel.signature
                assert signed(event)
        if position == len(events):
            break
    again = recover_committed(desk.directory, limits)
    assert state_hash(again.actors) == state_hash(then.actors) == desk.live_hash()


def signed(event: ClaimReceived | ClaimRejected) -> bool:
    (key,) = {payer_of(name).public_key for name in NAMES if channel_id(name) == event.channel_id}
    return verify(key, signing_message(event.channel_id, event.amount), event.signature)


def test_the_histories_hold_runs_and_claims_that_fall_back(tmp_path):
    """A property that nothing tries would hold as well."""
    desk = Desk(tmp_path, verify=VerifyOptions(verification="newest"))
    open_all(desk)
    good = {"name": "a", "ahead": 1, "more": 2, "signature": "good", "previous": None}
    drawing = Drawing(desk)
    claims = [drawing.claim(good | {"signature": word}) for word in ("good", "bad", "good")]
    assert [one.covered_by for one in desk.submit(*claims)] == [3, 3, 0]
    drawing = Drawing(desk)
    claims = [drawing.claim(good), drawing.claim(good | {"more": 40})]
    assert [one.covered_by for one in desk.submit(*claims)] == [0, 0]
    assert (desk.shard.covering.covered, desk.shard.covering.checked) == (2, 1)
    assert [type(event) for event in desk.events()].count(ClaimCovered) == 2
