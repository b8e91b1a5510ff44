"""A disk that fills up: what is refused, what goes on, and that it serves again by itself."""

import subprocess

import pytest

from engine.channels.machine import Machine
from engine.channels.messages import decode_pulse
from engine.channels.options import ShardOptions
from engine.channels.space import LOOK_EVERY_S, Room, SpaceWatch, room_at
from engine.core.commands import FundChannel, OpenDispute, RequestClose, SettleChannel
from engine.core.events import ClaimReceived
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import State
from tests.channels.test_host import Harness
from tests.channels.world import Desk, item, opening, spoiled

MIB = 1 << 20
DISK = 100 << 30
NO_ROOM = Rejected(RejectCode.STORAGE_FULL, 512 * MIB, 7)


class Disk:
    """A disk whose free bytes the test says, and a clock that it moves."""

    def __init__(self, free, size=DISK):
        self.free, self.size, self.now, self.looks = free, size, 0.0, 0

    def room(self, directory):
        self.looks += 1
        return Room(self.free, self.size)

    def watch(self, **options):
        return SpaceWatch("/nowhere", ShardOptions(**options), self.room, lambda: self.now)

    def next_look(self, watch):
        self.now += LOOK_EVERY_S
        return watch.look()


# The watch ----------------------------------------------------------------------------------------


def test_below_the_limit_there_is_no_room_and_above_it_with_a_margin_there_is_again():
    disk = Disk(512 * MIB)
    watch = disk.watch()
    assert not watch.look()
    disk.free -= 1
    assert disk.next_look(watch)
    assert (watch.free_bytes, watch.limit_bytes) == (512 * MIB - 1, 512 * MIB)
    disk.free = 512 * MIB
    assert disk.next_look(watch)
    disk.free = 512 * MIB * 110 // 100
    assert not disk.next_look(watch)


def test_the_disk_is_looked_at_once_a_second_however_often_it_is_asked():
    disk = Disk(DISK)
    watch = disk.watch()
    for _ in range(100):
        watch.look()
    assert disk.looks == 1
    disk.next_look(watch)
    assert disk.looks == 2


@pytest.mark.parametrize(
    ("size", "limit"),
    [(DISK, 512 * MIB), (10 << 30, (10 << 30) // 50), (300 * MIB, 128 * MIB)],
    ids=["large", "small", "tiny"],
)
def test_a_small_disk_has_a_smaller_limit_but_never_below_two_segments(size, limit):
    watch = Disk(limit, size).watch()
    assert not watch.look()
    assert watch.limit_bytes == limit
    assert Disk(limit - 1, size).watch().look()


def test_a_limit_of_zero_is_none():
    assert not Disk(0).watch(space_soft_bytes=0).look()


def test_a_disk_that_does_not_say_its_room_refuses_nobody(tmp_path):
    watch = SpaceWatch(tmp_path / "nowhere", ShardOptions())
    assert not watch.look()


def test_the_room_of_a_real_disk_is_what_df_says(tmp_path):
    said = subprocess.run(
        ["df", "--output=avail,size", "-B1", tmp_path], capture_output=True, text=True, check=True
    )
    free, size = map(int, said.stdout.split("\n")[1].split())
    room = room_at(tmp_path)
    assert room.size_bytes == size
    assert abs(room.free_bytes - free) < 2 << 30  # others write there meanwhile


# The shard ----------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a", "b")
    assert desk.words(item("a", 10, 1), item("a", 20, 2)) == ["accepted"] * 2
    desk.shard.no_room = NO_ROOM
    return desk


def test_without_room_new_claims_and_channels_are_refused_with_the_numbers(desk):
    (answer,) = desk.submit(item("a", 30, 3))
    assert answer.code is RejectCode.STORAGE_FULL
    assert (answer.expected, answer.actual, answer.claimed) == (512 * MIB, 7, 20)
    (outcome,) = desk.open("c")
    assert outcome.rejected == NO_ROOM


def test_without_room_no_claim_whatever_it_is_writes_anything(desk):
    position, size = desk.shard.position, desk.log.bytes_written
    words = desk.words(
        item("a", 30, 3), item("a", 30, 4), item("a", 11, 1), item("a", 9, 3), spoiled(item("b", 5))
    )
    assert words == ["storage_full"] * 4 + ["bad_signature"]
    assert (desk.shard.position, desk.log.bytes_written) == (position, size)
    assert desk.shard.held == 0


def test_without_room_a_claim_that_was_accepted_is_still_a_duplicate(desk):
    first, second = desk.submit(item("a", 10, 1), item("a", 20, 2))
    assert [first.status.name, second.status.name] == ["DUPLICATE"] * 2
    assert (first.position, second.position) == (5, 6)


def test_without_room_channels_are_read_opened_again_funded_closed_and_settled(desk):
    assert desk.view("a").channel.claimed == 20
    (outcome,) = desk.shard.execute([opening("a")])
    assert outcome.rejected is None
    assert desk.do(FundChannel, "b", amount=5).rejected is None
    assert desk.do(OpenDispute, "b", reason="x").rejected is None
    assert desk.do(RequestClose, "a").rejected is None
    assert desk.do(SettleChannel, "a", redeemed=None).view.channel.state is State.SETTLED
    desk.shard.checkpoint()


def test_with_room_again_it_goes_on_where_it_was(desk):
    assert desk.words(item("a", 30, 3)) == ["storage_full"]
    desk.shard.no_room = None
    assert desk.words(item("a", 30, 3)) == ["accepted"]
    amounts = [event.amount for event in desk.events() if type(event) is ClaimReceived]
    assert amounts == [10, 20, 30]


# The process around it ----------------------------------------------------------------------------


class FullHarness(Harness):
    """A host on a disk whose room the test says."""

    def __init__(self, directory, disk):
        self.disk = disk
        self.machine = Machine(room=disk.room)
        super().__init__(directory)

    def tick(self):
        self.host._space._look_at = 0
        self.host._tick()

    @property
    def pulse(self):
        return decode_pulse(self.host.pulse())


@pytest.fixture
def harness(tmp_path):
    harness = FullHarness(tmp_path, Disk(DISK))
    yield harness
    harness.host._ticker.stop()
    harness.host._journal._log.abandon()


def test_a_tick_finds_the_disk_full_and_another_that_it_is_not(harness):
    harness.open("a", "b")
    assert harness.pulse.free_bytes == DISK
    harness.disk.free = 3
    assert harness.submit(item("a", 10, 1)) == ["accepted"]
    harness.tick()
    assert harness.submit(item("a", 20, 2)) == ["storage_full"]
    assert harness.pulse.storage_full
    harness.disk.free = DISK
    harness.tick()
    assert harness.submit(item("a", 20, 2)) == ["accepted"]
    assert not harness.pulse.storage_full


def test_a_shard_that_starts_on_a_full_disk_refuses_from_its_first_answer_on(harness):
    harness.open("a")
    harness.disk.free = 3
    harness.host.close()
    harness.start()
    assert harness.submit(item("a", 10, 1)) == ["storage_full"]
