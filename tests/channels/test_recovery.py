"""State from the log: any history replays to the live shard, and a checkpoint changes nothing."""

import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.channels.checkpoint import (
    CHUNK_BYTES,
    CheckpointHead,
    checkpoint_chunks,
    load,
)
from engine.channels.journal import ShardJournal
from engine.channels.recovery import RecoveryBroken, begun, recover, replay_into, state_hash
from engine.core import commands, events
from engine.core.types import Checks, Sequencing, State
from engine.validation.dedup import RetryWindow
from engine.validation.options import ValidationOptions
from tests.builders import NOON, make_event
from tests.channels.world import LOG, Desk, channel_id, item, word
from tests.lengths import often
from wal import SNAPSHOT_CHUNK_BYTES_MAX

NAMES = ["a", "b", "c"]
LIMITS = ValidationOptions(
    retry_claims_max=3, hold_ms=50, hold_claims_per_channel_max=3, hold_claims_max=5
)


def replayed(desk, *, from_genesis):
    """Return the state that a fresh start would make of a copy of the log as it is on disk."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(desk.directory, copy)
        journal = ShardJournal(copy, LOG)
        recovered = recover(journal, desk.validation.retries, from_genesis=from_genesis)
        journal.close()
    return recovered


def busy_desk(directory, **limits):
    desk = Desk(directory, ValidationOptions(**limits))
    desk.open("a", "b")
    desk.open("c", sequencing=Sequencing.AMOUNT)
    for number in range(1, 6):
        desk.submit(item("a", number, number), item("c", number * 3), item("b", 9, number))
    return desk


# A checkpoint is an accelerator -------------------------------------------------------------------


@pytest.mark.parametrize("clean", [False, True], ids=["crash", "stop"])
def test_state_is_the_same_from_genesis_and_from_checkpoint_and_tail(tmp_path, clean):
    desk = busy_desk(tmp_path)
    desk.shard.checkpoint()
    at = desk.shard.position
    desk.submit(item("a", 100, 6), item("b", 8, 2))
    desk.do(commands.RequestClose, "c")
    live = desk.live_hash()
    if clean:
        desk.shard.close()
    else:
        desk.crash()
    journal = ShardJournal(tmp_path, LOG)
    tail, whole = (
        recover(journal, ValidationOptions().retries),
        recover(journal, ValidationOptions().retries, from_genesis=True),
    )
    journal.close()
    assert state_hash(tail.actors) == state_hash(whole.actors) == live
    assert (tail.position, whole.position) == (desk.shard.position, desk.shard.position)
    assert tail.checkpoint_position == (desk.shard.position if clean else at)
    assert whole.events == whole.position


def test_many_channels_make_many_chunks_that_come_back(tmp_path):
    desk = Desk(tmp_path)
    names = [f"channel {number}" for number in range(2 * CHUNK_BYTES // 200)]
    for start in range(0, len(names), 600):
        desk.open(*names[start : start + 600], public_key=bytes(33))
    chunks = list(checkpoint_chunks(desk.shard._actors, desk.shard.position, NOON))
    assert len(chunks) == 3
    again = load([(desk.shard.position, iter(chunks))])
    assert state_hash(again.actors) == desk.live_hash()


def test_a_chunk_fits_the_log_however_many_answers_its_channels_repeat(tmp_path):
    desk = Desk(tmp_path)
    names = [f"channel {number}" for number in range(100)]
    desk.open(*names, public_key=bytes(33))
    for actor in desk.shard._actors.values():
        actor.window = RetryWindow(bytes(24) * ValidationOptions().retry_claims_max)
    chunks = list(checkpoint_chunks(desk.shard._actors, desk.shard.position, NOON))
    assert max(len(chunk) for chunk in chunks) <= SNAPSHOT_CHUNK_BYTES_MAX
    assert len(chunks) > 4
    again = load([(desk.shard.position, iter(chunks))])
    assert state_hash(again.actors) == desk.live_hash()


def test_the_state_hash_sees_every_part_of_a_channel(tmp_path):
    desk = busy_desk(tmp_path)
    seen = {desk.live_hash()}
    actor = desk.shard._actors[channel_id("a")]
    changes = {"position": 1, "claim_position": 1, "window": None}
    changes["channel"] = msgspec.structs.replace(actor.channel, claimed=4)
    for name, value in changes.items():
        before = getattr(actor, name)
        setattr(actor, name, value)
        seen.add(desk.live_hash())
        setattr(actor, name, before)
    assert len(seen) == 5


HEAD = CheckpointHead(1, 3, 1, 5, NOON)


def chunks_of(desk, **changes):
    head, *rest = checkpoint_chunks(desk.shard._actors, desk.shard.position, NOON)
    fields = msgspec.msgpack.decode(head, type=CheckpointHead)
    return [msgspec.msgpack.encode(msgspec.structs.replace(fields, **changes)), *rest]


@pytest.mark.parametrize(
    "changes", [{"schema": 2}, {"position": 1}, {"channels": 1}, {"claimed_sum": 1}], ids=str
)
def test_a_checkpoint_that_does_not_hold_what_its_head_says_is_refused(tmp_path, changes):
    desk = busy_desk(tmp_path)
    load([(desk.shard.position, iter(chunks_of(desk)))])
    with pytest.raises(RecoveryBroken, match="checkpoint"):
        load([(desk.shard.position, iter(chunks_of(desk, **changes)))])


@pytest.mark.parametrize("spoil", [lambda chunks: [], lambda chunks: [b"\xc1"],
                                   lambda chunks: [chunks[0], b"\x91\x01"],
                                   lambda chunks: chunks[:1]])  # fmt: skip
def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path, spoil):
    desk = busy_desk(tmp_path)
    with pytest.raises(RecoveryBroken, match="checkpoint"):
        load([(desk.shard.position, iter(spoil(chunks_of(desk))))])


# The log is checked as it is replayed -------------------------------------------------------------

OPENED = make_event(events.ChannelOpened)


@pytest.mark.parametrize(
    "second",
    [
        make_event(events.ClaimReceived),
        OPENED,
        msgspec.structs.replace(make_event(events.FundingConfirmed), version=3),
        msgspec.structs.replace(make_event(events.FundingConfirmed), channel_id=bytes(32)),
    ],
    ids=["a claim while Pending", "opened twice", "a version left out", "another channel"],
)
def test_an_event_that_does_not_fit_refuses_to_serve_and_says_where(second):
    recovered = begun()
    with pytest.raises(RecoveryBroken, match="event 8"):
        replay_into(recovered, 7, [OPENED, second], ValidationOptions().retries)


def test_money_that_does_not_add_up_in_the_log_refuses_to_serve():
    confirmed = msgspec.structs.replace(make_event(events.FundingConfirmed), version=2)
    claim = msgspec.structs.replace(make_event(events.ClaimReceived), version=3, amount=1_001)
    with pytest.raises(RecoveryBroken, match="no account is ever negative"):
        replay_into(begun(), 1, [OPENED, confirmed, claim], ValidationOptions().retries)


@pytest.mark.parametrize(
    ("opening", "claim", "code"),
    [
        ({}, {"checks": Checks.NONE}, "bad_signature"),
        ({"cancel_after": NOON}, {}, "channel_expired"),
        ({"expiration": NOON}, {}, "channel_expired"),
        ({}, {"previous": 1}, "conflict"),
        ({}, {"previous": b"x" * 32}, "conflict"),
    ],
    ids=str,
)
def test_a_claim_in_the_log_that_would_have_been_refused_refuses_to_serve(opening, claim, code):
    story = [
        msgspec.structs.replace(OPENED, **opening),
        msgspec.structs.replace(make_event(events.FundingConfirmed), version=2),
        msgspec.structs.replace(make_event(events.ClaimReceived), version=3, **claim),
    ]
    with pytest.raises(RecoveryBroken, match=f"event 3 .* refused as {code}"):
        replay_into(begun(), 1, story, ValidationOptions().retries)


@pytest.mark.parametrize("sequence", [0, 1, 3])
def test_a_claim_told_again_or_left_out_refuses_to_serve(sequence):
    first = msgspec.structs.replace(make_event(events.ClaimReceived), version=3)
    confirmed = msgspec.structs.replace(make_event(events.FundingConfirmed), version=2)
    second = msgspec.structs.replace(first, version=4, sequence=sequence)
    with pytest.raises(RecoveryBroken, match=r"event 4 .*: sequence rises by one"):
        replay_into(
            begun(),
            1,
            [OPENED, confirmed, first, second],
            ValidationOptions().retries,
        )


# Any history --------------------------------------------------------------------------------------

TO_ANY = {
    commands.ConfirmFunding: {},
    commands.FundChannel: {"amount": st.integers(0, 400)},
    commands.RequestClose: {},
    commands.SettleChannel: {"redeemed": st.none() | st.integers(0, 1_500)},
    commands.OpenDispute: {},
    commands.ResolveDispute: {"outcome": st.sampled_from(State)},
}
any_command = st.sampled_from(sorted(TO_ANY, key=str)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.fixed_dictionaries(TO_ANY[kind]))
)
any_claims = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(-2, 4), st.integers(-30, 300)), max_size=5
)


class Life(RuleBasedStateMachine):
    """A real shard on a real log: claims, commands, time, checkpoints, crashes and stops."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.told = {}

    @initialize()
    def begin(self):
        self.desk = Desk(Path(self.folder.name) / "log", LIMITS)
        self.desk.open("a", "b", funded=True)
        self.desk.open("c", sequencing=Sequencing.AMOUNT)

    def teardown(self):
        self.desk.crash()
        self.folder.cleanup()

    @rule(claims=any_claims)
    def claim(self, claims):
        batch = []
        for name, ahead, more in claims:
            channel = self.desk.view(name).channel
            amount = max(1, channel.claimed + more)
            batch.append(item(name, amount, max(1, channel.sequence + ahead)))
        for one, answer in zip(batch, self.desk.submit(*batch), strict=True):
            if word(answer) == "accepted":
                self.told[one.channel_id, one.amount] = answer.position

    @rule(name=st.sampled_from(NAMES), command=any_command)
    def command(self, name, command):
        kind, fields = command
        self.desk.do(kind, name, **fields)

    @rule(ms=st.sampled_from([1, 50, 400_000]))
    def wait(self, ms):
        self.desk.clock.forward(ms)
        self.desk.shard.tick()

    @rule()
    def checkpoint(self):
        self.desk.shard.checkpoint()

    @rule(clean=st.booleans())
    def restart(self, clean):
        before = self.desk.live_hash(), self.desk.shard.position
        self.desk.restart(clean=clean)
        assert (self.desk.live_hash(), self.desk.shard.position) == before

    @rule()
    def replay_a_copy(self):
        for from_genesis in (False, True):
            recovered = replayed(self.desk, from_genesis=from_genesis)
            assert state_hash(recovered.actors) == self.desk.live_hash()
            assert recovered.position == self.desk.shard.position

    @invariant()
    def what_was_told_is_in_the_log_where_it_was_said(self):
        log = self.desk.events()
        for (channel, amount), position in self.told.items():
            event = log[position - 1]
            assert type(event) is events.ClaimReceived
            assert (event.channel_id, event.amount) == (channel, amount)

    @invariant()
    def nobody_is_held_beyond_the_limits(self):
        assert self.desk.shard.held <= LIMITS.hold_claims_max


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)


@pytest.mark.slow
class TestManyLives(Life.TestCase):
    settings = settings(max_examples=often(25, 60), stateful_step_count=40, deadline=None)
