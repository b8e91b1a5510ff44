"""The process around a shard: a step that cannot finish ends it, and nobody is answered."""

import shutil
import subprocess
import sys
import threading
from typing import get_type_hints

import pytest
from msgspec.structs import replace

from engine.channels.host import EXIT_STEP_FAILED, ShardHost, ShardSettings, shard_directory
from engine.channels.journal import LogOptions, ShardJournal
from engine.channels.machine import THIS_MACHINE
from engine.channels.messages import (
    Refused,
    decode_hello,
    decode_late,
    decode_outcomes,
    decode_reply,
    decode_statistics,
    decode_views,
    encode,
)
from engine.channels.options import ShardOptions
from engine.channels.timers import SystemClock, Ticker
from engine.core import transition
from engine.core.invariants import InvariantBroken
from engine.core.rejections import RejectCode
from engine.validation.options import RiskOptions, ValidationOptions
from engine.verify.seal import load_or_create_seal_key
from engine.verify.worker import VerifierWorker
from tests.channels.world import GATEWAY, blob_of, channel_id, item, opening, spoiled, words_of
from wal import LogFailedError

TICK_MS_NEVER = 1_000_000_000


class ProcessEnded(BaseException):
    """What stands for the end of the process in these tests."""


class Harness:
    """A host whose process ends by an exception, so that the test can look on."""

    machine = THIS_MACHINE

    def __init__(self, directory, tick_ms=TICK_MS_NEVER, **settings):
        self.ended = []
        self.settings = ShardSettings(
            number=3,
            datadir=str(directory),
            shard=ShardOptions(tick_ms=tick_ms, segment_bytes=65_536, **settings),
            validation=ValidationOptions(),
            risk=RiskOptions(bad_signatures_max=5),
        )
        self.directory = directory
        self.turn = 0
        self.start()

    def start(self):
        self.host = ShardHost(self.settings, on_failure=self.end, machine=self.machine)
        self.verifier = VerifierWorker(load_or_create_seal_key(self.directory / "seal.key"))
        self.hello = decode_hello(self.host.hello(GATEWAY, 0))
        self.turn = 0

    def end(self, error):
        self.ended.append(error)
        raise ProcessEnded(error)

    def open(self, *names):
        return decode_outcomes(self.host.execute(encode([opening(name) for name in names])))

    def submit(self, *items):
        blob = blob_of(items)
        turn, self.turn = self.turn, self.turn + 1
        answer = self.host.commit(GATEWAY, self.hello.epoch, turn, blob, self.verifier.verify(blob))
        return words_of(decode_reply(answer).answers)

    def statistics(self):
        return decode_statistics(self.host.statistics())


@pytest.fixture
def harness(tmp_path):
    harness = Harness(tmp_path)
    harness.open("a", "b")
    yield harness
    harness.host._ticker.stop()
    harness.host._journal._log.abandon()


def fails(error):
    def step(*arguments):
        raise error

    return step


# A step that fails --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["append", "commit"])
@pytest.mark.parametrize("error", [OSError(28, "ENOSPC"), MemoryError()], ids=["disk", "memory"])
def test_a_disk_that_refuses_ends_the_process_and_answers_nobody(harness, monkeypatch, step, error):
    monkeypatch.setattr(ShardJournal, step, fails(error))
    with pytest.raises(ProcessEnded):
        harness.submit(item("a", 10, 1))
    with pytest.raises(ProcessEnded):
        harness.open("c")
    assert harness.ended == [error, error]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("place", ["admit", "weigh"])
def test_whatever_a_layer_raises_ends_the_process(harness, monkeypatch, place, error):
    monkeypatch.setattr(harness.host._shard._pipeline, place, fails(error))
    with pytest.raises(ProcessEnded):
        harness.submit(item("a", 10, 1))
    assert harness.ended == [error]


def test_money_invented_in_a_step_ends_the_process_before_the_disk(harness, monkeypatch):
    state = transition.ACTIVE
    twice = {"claimed": 10, "unredeemed": 10, "sequence": 1}
    monkeypatch.setitem(
        transition.TRANSITIONS,
        (state, transition.ClaimReceived),
        (state, lambda channel, event, after: replace(channel, version=event.version, **twice)),
    )
    position = harness.statistics().position
    with pytest.raises(ProcessEnded):
        harness.submit(item("a", 10, 1))
    assert type(harness.ended[0]) is InvariantBroken
    assert harness.host._journal.last == position


def test_an_answer_that_cannot_be_sent_ends_the_process(harness, monkeypatch):
    monkeypatch.setattr("engine.channels.host.encode", fails(OverflowError("64 bits")))
    with pytest.raises(ProcessEnded):
        harness.submit(item("a", 10, 1))


def test_a_checkpoint_that_fails_ends_the_process(tmp_path, monkeypatch):
    harness = Harness(tmp_path, checkpoint_events=2)
    monkeypatch.setattr(ShardJournal, "checkpoint", fails(OSError(5, "EIO")))
    harness.open("a")
    with pytest.raises(ProcessEnded):
        harness.host._tick()
    harness.host._journal._log.abandon()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_tick_that_fails_ends_the_process(tmp_path, monkeypatch):
    ended = threading.Event()
    harness = Harness(tmp_path, tick_ms=1)
    harness.end = lambda error: ended.set()
    harness.host._on_failure = harness.end
    monkeypatch.setattr(ShardJournal, "idle", fails(OSError(5, "EIO")))
    assert ended.wait(10)
    harness.host._ticker.stop()
    harness.host._journal._log.abandon()


CANNOT_SPEAK = """
import sys
import engine.channels.host as host

class Mute:
    def error(self, *arguments, **fields):
        raise MemoryError

host.structlog.get_logger = Mute
try:
    host.end_process(OSError(5, "EIO"))
finally:
    sys.stdout.write("still alive")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("script", [
    CANNOT_SPEAK,
    "import engine.channels.host as host; host.end_process(OSError(5, 'EIO'))",
], ids=["cannot speak", "says why"])  # fmt: skip
def test_the_end_is_the_end_even_where_nothing_can_be_said(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == EXIT_STEP_FAILED
    assert b"still alive" not in done.stdout


def test_what_was_staged_when_a_step_failed_is_not_there_after_the_start(tmp_path, monkeypatch):
    harness = Harness(tmp_path)
    harness.open("a")
    with monkeypatch.context() as patch:
        patch.setattr(ShardJournal, "commit", fails(OSError(5, "EIO")))
        with pytest.raises(ProcessEnded):
            harness.submit(item("a", 10, 1))
    harness.host._journal._log.abandon()
    harness.start()
    assert harness.submit(item("a", 10, 1)) == ["accepted"]
    harness.host.close()


# Rubbish is not a failure -------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\x91\x63", encode([1])])
def test_commands_that_cannot_be_read_leave_the_shard_as_it_was(harness, data):
    import msgspec

    for step in (harness.host.execute, harness.host.read):
        with pytest.raises(msgspec.MsgspecError):
            step(data)
    assert harness.ended == []
    assert harness.submit(item("a", 10, 1)) == ["accepted"]


def test_a_batch_that_cannot_be_believed_leaves_the_shard_as_it_was(harness):
    reply = decode_reply(harness.host.commit(GATEWAY, harness.hello.epoch, 0, b"rubbish", b"?"))
    assert reply.refused is Refused.FOREIGN_VERDICTS
    assert harness.submit(item("a", 10, 1)) == ["accepted"]


# Life ---------------------------------------------------------------------------------------------


def test_it_says_who_it_is(harness):
    assert (harness.hello.shard, harness.hello.position, harness.hello.channels) == (3, 0, 0)
    hello = decode_hello(harness.host.hello("another", 0))
    assert (hello.position, hello.channels, hello.epoch) == (4, 2, harness.hello.epoch)
    assert shard_directory(harness.directory, 3).is_dir()


def test_it_speaks_bytes_in_every_step(harness):
    assert harness.submit(item("a", 10, 1), spoiled(item("b", 1, 1)), item("b", 9, 2)) == [
        "accepted", "bad_signature", "buffered",
    ]  # fmt: skip
    (view, nothing) = decode_views(harness.host.read(encode([channel_id("a"), bytes(32)])))
    assert (view.channel.claimed, nothing) == (10, None)
    assert len(decode_views(harness.host.page(b"", 10, ""))) == 2
    assert decode_late(harness.host.collect(GATEWAY)) == []
    statistics = harness.statistics()
    assert (statistics.shard, statistics.channels, statistics.held) == (3, 2, 1)
    assert (statistics.commits, sum(statistics.sync_us)) == (2, 2)
    assert statistics.position == 5
    assert statistics.rss_bytes > 1 << 20
    assert harness.ended == []


def checkpointed(harness, number):
    """Accept a claim, and let the checkpoint behind it count."""
    assert harness.submit(item("a", number, number)) == ["accepted"]
    harness.host._tick()
    harness.host._journal._log.settle_snapshot(wait=True)


@pytest.mark.slow
def test_bases_are_made_beside_the_host_and_the_log_is_cut_if_that_is_wanted(tmp_path):
    limits = {"increments_max": 2, "log_kept": "checkpointed", "segment_age_s": 1}
    harness = Harness(tmp_path, checkpoint_events=1, **limits)
    harness.open("a")
    number = 0
    for bases in range(1, 3):
        while harness.host._merger._thread is None:
            number += 1
            checkpointed(harness, number)
            harness.host._tick()
        harness.host._merger._thread.join(60)
        harness.host._tick()
        assert harness.host._merger.bases == bases
    for _ in range(2):
        number += 1
        checkpointed(harness, number)
    harness.host._tick()
    harness.host.close()  # while a process may be at work
    assert harness.host._merger._process.code is not None
    harness.start()
    assert harness.hello.recovered_events == 0
    assert harness.submit(item("a", number + 1, number + 1)) == ["accepted"]
    harness.host.close()


def test_a_checkpoint_that_the_disk_refuses_ends_the_process(tmp_path):
    harness = Harness(tmp_path, checkpoint_events=1)
    shutil.rmtree(tmp_path / "shard-0003" / "snap")
    harness.open("a")
    harness.host._tick()
    harness.host._journal._log._keeper._job.join()
    with pytest.raises(ProcessEnded):
        harness.host._tick()
    assert len(harness.ended) == 1
    assert isinstance(harness.ended[0], LogFailedError)
    harness.host._ticker.stop()
    harness.host._journal._log.abandon()


def test_a_checkpoint_is_due_too_when_so_many_channels_have_changed(tmp_path):
    harness = Harness(tmp_path, checkpoint_channels=3)
    for name in ("a", "b", "a", "b"):
        harness.open(name)
        harness.host._tick()
    harness.submit(item("a", 1, 1), item("a", 2, 2), item("b", 1, 1))
    harness.host._tick()
    assert harness.statistics().checkpoints == 0
    harness.open("c")
    harness.host._tick()
    harness.host._journal._log.settle_snapshot(wait=True)
    assert harness.statistics().checkpoints == 1
    harness.host._tick()  # none has changed since: nothing is due
    harness.host._journal._log.settle_snapshot(wait=True)
    assert harness.statistics().checkpoints == 1
    harness.host.close()


def test_a_checkpoint_is_taken_when_it_is_due(tmp_path):
    harness = Harness(tmp_path, checkpoint_events=6)
    harness.open("a")
    harness.submit(item("a", 1, 1), item("a", 2, 2), item("a", 3, 3))
    harness.host._tick()
    assert harness.statistics().checkpoints == 0
    harness.submit(item("a", 4, 4))
    harness.host._tick()  # never before an answer: it would wait for the checkpoint
    harness.host._journal._log.settle_snapshot(wait=True)
    assert harness.statistics().checkpoints == 1
    harness.host._ticker.stop()
    harness.host._journal._log.abandon()
    harness.start()
    assert harness.hello.recovered_events == 0
    assert harness.submit(item("a", 4, 4), item("a", 5, 5)) == ["duplicate", "accepted"]
    harness.host.close()


def test_a_stop_leaves_nothing_to_replay(tmp_path):
    harness = Harness(tmp_path)
    harness.open("a")
    harness.submit(item("a", 1, 1))
    harness.host.close()
    harness.start()
    assert (harness.hello.recovered_events, harness.hello.position) == (0, 3)
    harness.host.close()
    assert not harness.host._ticker._thread.is_alive()


def test_no_step_follows_a_close(tmp_path):
    harness = Harness(tmp_path)
    harness.open("a")
    harness.host.close()
    with pytest.raises(ProcessEnded):
        harness.submit(item("a", 1, 1))


def test_the_newest_frame_is_proven_durable_without_any_call(tmp_path):
    harness = Harness(tmp_path, tick_ms=1)
    harness.open("a")
    idled = threading.Event()
    idle = harness.host._journal.idle
    harness.host._journal.idle = lambda: (idle() and idled.set()) or True
    harness.submit(item("a", 1, 1))
    assert idled.wait(10)
    harness.host.close()


def test_one_step_at_a_time_whoever_calls(harness):
    """A tick and a step never overlap: the shard has no locks of its own."""
    inside, overlaps = [], []
    execute = harness.host._shard.execute

    def watched(commands):
        overlaps.append(len(inside))
        inside.append(1)
        outcome = execute(commands)
        inside.pop()
        return outcome

    harness.host._shard.execute = watched
    callers = [
        threading.Thread(target=harness.open, args=[f"channel {number}"]) for number in range(16)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert overlaps == [0] * 16
    assert harness.statistics().channels == 18


# Clock and ticker ---------------------------------------------------------------------------------


def test_the_clock_tells_whole_microseconds():
    now = SystemClock().now_ns()
    assert now % 1_000 == 0
    assert now > 1_700_000_000 * 10**9


def test_a_ticker_ticks_until_it_is_stopped_and_not_after():
    ticked = threading.Event()
    ticker = Ticker(ticked.set, 0.001)
    assert ticked.wait(10)
    ticker.stop()
    assert not ticker._thread.is_alive()


def test_a_shard_waits_a_moment_for_the_log_of_a_process_that_was_just_killed(tmp_path):
    directory = shard_directory(tmp_path, 3)
    directory.mkdir()
    holder = ShardJournal(directory, LogOptions(shard_id=3))
    letting_go = threading.Timer(0.2, holder.close)
    letting_go.start()
    harness = Harness(tmp_path)
    letting_go.join()
    harness.open("a")
    assert harness.ended == []
    harness.host.close()


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["segment_bytes", "segment_age_s"])
def test_the_log_takes_every_setting_that_a_shard_may_have(name):
    (bounds,) = get_type_hints(ShardOptions, include_extras=True)[name].__metadata__
    for value in (bounds.ge, bounds.le):
        assert LogOptions(**{name: value})


# The ticker ---------------------------------------------------------------------------------------


def test_whether_there_is_room_does_not_change_within_a_step(harness):
    looked = threading.Event()
    harness.host._packer.look = looked.set  # the last that a tick does without the turn
    harness.host._space.is_short = True
    harness.host._space._look_at = float("inf")
    with harness.host._turn:  # a step is under way
        ticker = threading.Thread(target=harness.host._tick)
        ticker.start()
        looked.wait()
        assert harness.host._shard.no_room is None
    ticker.join()
    assert harness.host._shard.no_room.code is RejectCode.STORAGE_FULL
    assert harness.ended == []


@pytest.mark.parametrize("part", ["_space", "_packer"])
def test_a_shard_does_not_go_on_without_its_ticker(harness, monkeypatch, part):
    error = RuntimeError("nobody thought of this")
    monkeypatch.setattr(getattr(harness.host, part), "look", fails(error))
    with pytest.raises(ProcessEnded):
        harness.host._tick()
    assert harness.ended == [error]
