"""Channels asleep: nobody can tell, but for the memory; and only so many fall asleep at a time."""

import tempfile
from collections import deque
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.channels import actors
from engine.channels.background.merge import MergeOptions, Merger
from engine.channels.checkpoint import checkpoint_chunks, load
from engine.channels.messages import encode
from engine.channels.record import from_octets, to_octets
from engine.channels.recovery import state_hash
from engine.core import commands
from engine.core.types import Sequencing, State
from engine.verify.options import VerifyOptions
from tests.channels.test_recovery import LIMITS, any_claims, any_command
from tests.channels.world import Desk, channel_id, item, spoiled
from tests.wal.disk import QUICK

NAMES = ["a", "b", "c", "d", "e"]


def asleep(desk):
    """Return the channels that sleep, by id."""
    kept = desk.shard._actors._kept
    return {one: octets for one, octets in kept.items() if isinstance(octets, bytes)}


def names_asleep(desk):
    found = asleep(desk)
    return "".join(name for name in NAMES if channel_id(name) in found)


def night(desk, ticks=2):
    """Let a checkpoint be made, and time pass."""
    desk.shard.checkpoint()
    for _ in range(ticks):
        desk.shard.tick()


def keeping_awake(count):
    """Return a kind of desk that keeps so many channels awake."""
    return type(f"Desk{count}", (Desk,), {"awake_max": count})


def sleeper(folder, awake_max=0, **options):
    desk = keeping_awake(awake_max)(folder / "log", files=QUICK, **options)
    desk.open(*NAMES, capacity=1_000_000)
    return desk


# Who sleeps ---------------------------------------------------------------------------------------


def test_what_is_not_used_sleeps_and_the_next_claim_wakes_it(tmp_path):
    desk = sleeper(tmp_path)
    night(desk)
    assert names_asleep(desk) == "abcde"
    assert desk.words(item("a", 1, 1), spoiled(item("b", 1, 1))) == ["accepted", "bad_signature"]
    assert (names_asleep(desk), desk.shard.awake) == ("cde", 2)
    desk.do(commands.FundChannel, "c", amount=5)
    assert names_asleep(desk) == "de"
    night(desk)
    assert names_asleep(desk) == "abcde"


def test_who_only_looks_wakes_nobody(tmp_path):
    desk = sleeper(tmp_path)
    night(desk)
    before = desk.live_hash()
    assert [view.channel.capacity for view in desk.shard.page(b"", 9, "")] == [1_000_000] * 5
    assert desk.shard.read([channel_id("a"), channel_id("new")])[1] is None
    assert [one.channel.state for one in desk.shard._actors.values()] == [State.ACTIVE] * 5
    assert (desk.live_hash(), desk.shard.awake) == (before, 0)


def test_what_changed_since_the_checkpoint_stays_awake_for_the_next_one(tmp_path):
    desk = sleeper(tmp_path)
    for _ in range(3):
        desk.shard.tick()
    assert desk.shard.awake == 5
    night(desk)
    desk.submit(item("a", 1, 1))
    for _ in range(3):
        desk.shard.tick()
    assert names_asleep(desk) == "bcde"


def test_enough_are_kept_awake_and_they_are_those_used_last(tmp_path):
    desk = sleeper(tmp_path, awake_max=2)
    night(desk, 1)
    desk.submit(item("a", 1, 1), item("c", 1, 1))
    night(desk, 1)
    assert names_asleep(desk) == "bde"


def test_what_is_used_all_the_time_is_left_awake(tmp_path):
    desk = sleeper(tmp_path)
    for number in range(1, 9):
        desk.submit(item("a", number, number))
        night(desk, 1)
        assert "a" not in names_asleep(desk)
    assert names_asleep(desk) == "bcde"


def test_a_tick_looks_at_so_many_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(actors, "LOOKS_MAX", 2)
    desk = sleeper(tmp_path)
    desk.shard.checkpoint()
    counts = []
    while desk.shard.awake:
        desk.shard.tick()
        counts.append(len(asleep(desk)))
    assert counts == [0, 0, 1, 3, 5]


class Looked(deque):
    """The channels that are awake, and how often one was looked at."""

    looks = 0

    def popleft(self):
        self.looks += 1
        return super().popleft()


def test_when_none_may_sleep_all_are_left_alone_until_a_checkpoint_or_many_wake(tmp_path):
    desk = sleeper(tmp_path)
    night(desk)
    desk.submit(*(item(name, 1, 1) for name in "abcd"))
    order = desk.shard._actors._awake = Looked(desk.shard._actors._awake)
    for _ in range(9):
        desk.shard.tick()
    assert (order.looks, names_asleep(desk)) == (4, "e")
    desk.submit(item("a", 2, 2), spoiled(item("e", 1, 1)))  # a fourth more are awake: no reason yet
    desk.shard.tick()
    assert (order.looks, names_asleep(desk)) == (4, "")
    night(desk)
    assert names_asleep(desk) == "abcde"


def test_channels_that_are_woken_for_nothing_sleep_again_without_a_checkpoint(tmp_path):
    desk = sleeper(tmp_path)
    night(desk)
    desk.submit(item("a", 1, 1))
    for _ in range(3):
        desk.shard.tick()
    desk.submit(*(spoiled(item(name, 1, 1)) for name in "bcde"))
    assert names_asleep(desk) == ""
    desk.shard.tick()
    assert names_asleep(desk) == "bcde"


def test_a_claim_that_is_held_finds_its_channel_though_that_sleeps(tmp_path):
    desk = sleeper(tmp_path)
    night(desk)
    assert desk.words(item("a", 2, 2)) == ["buffered"]
    night(desk)
    assert "a" in names_asleep(desk)
    desk.clock.forward(10_000)
    desk.shard.tick()
    assert [word for *_, word in desk.take_late()] == ["sequence_gap"]


def test_a_page_of_one_state_finds_those_asleep_and_no_others(tmp_path):
    desk = sleeper(tmp_path)
    desk.do(commands.OpenDispute, "b")
    desk.do(commands.OpenDispute, "d", reason="Settled")  # a word of another state is no state
    night(desk)
    desk.do(commands.RequestClose, "e")
    for state in State:
        found = {view.channel.terms.channel_id for view in desk.shard.page(b"", 9, state)}
        there = {one for one, actor in desk.shard._actors.items() if actor.channel.state == state}
        assert found == there, state
    assert names_asleep(desk) == "abcd"


# What is kept of it -------------------------------------------------------------------------------


def test_a_channel_comes_out_of_its_bytes_as_it_was(tmp_path):
    desk = sleeper(tmp_path)
    desk.submit(item("a", 1, 1), item("a", 7, 2))
    desk.do(commands.RequestClose, "b")
    for actor in desk.shard._actors.values():
        again = from_octets(to_octets(actor))
        assert (again.channel, again.position, again.claim_position) == (
            actor.channel,
            actor.position,
            actor.claim_position,
        )
        answers = [one.window and bytes(one.window) for one in (actor, again)]
        assert answers[0] == answers[1]
    assert desk.shard._actors[channel_id("a")].window is not None


@pytest.mark.parametrize("awake_max", [0, 2, 9])
def test_a_start_wakes_no_more_than_enough(tmp_path, awake_max):
    desk = sleeper(tmp_path, awake_max)
    desk.shard.checkpoint()
    desk.open("new")
    desk.submit(item("a", 3, 1), item("b", 4, 1), item("new", 5, 1))
    desk.shard.checkpoint()  # an increment: of channels that sleep, where a base is loaded
    before = desk.live_hash()
    desk.restart()
    assert desk.shard.awake == min(awake_max, 6)
    assert desk.live_hash() == before
    for octets in asleep(desk).values():
        assert to_octets(from_octets(octets)) == octets  # as a base has it, not an increment
    assert desk.words(item("a", 3, 1), item("b", 5, 2)) == ["duplicate", "accepted"]


def test_a_base_of_channels_asleep_is_that_of_channels_awake(tmp_path):
    desk = sleeper(tmp_path)
    desk.submit(item("a", 1, 1), item("c", 7, 1))
    place = (desk.shard.position, desk.clock.now)
    before = list(checkpoint_chunks(desk.shard._actors, *place))
    night(desk)
    assert names_asleep(desk) == "abcde"
    assert list(checkpoint_chunks(desk.shard._actors, *place)) == before
    again = load([(place[0], iter(before))], actors.Actors(0))
    assert (again.actors.awake, state_hash(again.actors)) == (0, desk.live_hash())


# Any life -----------------------------------------------------------------------------------------


class Twins(RuleBasedStateMachine):
    """Two shards live the same life; in one of them every channel sleeps that may."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.slept = 0

    @initialize(mode=st.sampled_from(["every", "newest"]))
    def begin(self, mode):
        place, verify = Path(self.folder.name), VerifyOptions(verification=mode)
        self.desks = [
            keeping_awake(awake_max)(place / str(awake_max), LIMITS, files=QUICK, verify=verify)
            for awake_max in (0, 1_000)
        ]
        self.merge()
        self.both(lambda desk: desk.open("a", "b", "d", capacity=1_000))
        self.both(lambda desk: desk.open("c", sequencing=Sequencing.AMOUNT))

    def teardown(self):
        for desk in self.desks:
            desk.crash()
        self.folder.cleanup()

    def both(self, do):
        """Have both do the same, and compare what they say; then let the one fall asleep."""
        said = [do(desk) for desk in self.desks]
        assert encode(said[0]) == encode(said[1])
        for _ in range(3):
            assert len({encode((desk.shard.tick(), desk.take_late())) for desk in self.desks}) == 1
        self.slept += len(asleep(self.desks[0]))
        return said[0]

    def merge(self):
        options = MergeOptions(increments_max=2)
        self.mergers = [
            Merger(desk.log, desk.directory, options, QUICK, in_background=False)
            for desk in self.desks
        ]

    @rule(claims=any_claims)
    def claim(self, claims):
        batch = []
        for name, ahead, more in claims:
            channel = self.desks[1].view(name).channel
            amount = max(1, channel.claimed + more)
            batch.append(item(name, amount, max(1, channel.sequence + ahead)))
        self.both(lambda desk: desk.submit(*batch))

    @rule(name=st.sampled_from(["a", "b", "c"]), command=any_command)
    def command(self, name, command):
        kind, fields = command
        self.both(lambda desk: desk.do(kind, name, **fields))

    @rule(name=st.sampled_from("abcdefgh"), funded=st.booleans())
    def open(self, name, funded):
        self.both(lambda desk: desk.open(name, funded=funded))

    @rule(ms=st.sampled_from([1, 50, 400_000]))
    def wait(self, ms):
        self.both(lambda desk: desk.clock.forward(ms))

    @rule()
    def checkpoint(self):
        self.both(lambda desk: desk.shard.checkpoint())
        for merger in self.mergers:
            merger.look()
        self.both(lambda desk: [(at, list(chunks)) for at, chunks in desk.log._log.checkpoint()])

    @rule(clean=st.booleans())
    def restart(self, clean):
        self.both(lambda desk: desk.restart(clean=clean))
        self.merge()

    @rule(state=st.sampled_from(["", *State]), limit=st.integers(1, 9))
    def page(self, state, limit):
        self.both(lambda desk: desk.shard.page(b"", limit, state))

    @invariant()
    def they_hold_the_same(self):
        if hasattr(self, "desks"):
            self.both(lambda desk: (desk.live_hash(), desk.shard.position, desk.shard.channels))
            self.both(lambda desk: desk.events())

    @invariant()
    def what_sleeps_is_in_the_checkpoint_and_what_is_awake_is_not(self):
        if hasattr(self, "desks"):
            shard = self.desks[0].shard
            for octets in asleep(self.desks[0]).values():
                actor = from_octets(octets)
                assert actor.position <= shard._kept_position
                assert to_octets(actor) == octets  # with all its answers, as a base has it
            awake = shard._actors._awake
            assert len(awake) + len(asleep(self.desks[0])) == shard.channels
            for actor in awake:
                assert shard._actors._kept[actor.channel.terms.channel_id] is actor


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
