"""Packed segments of a shard: every event comes back, in fewer bytes than a claim may take."""

import errno
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zstandard
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from engine.channels.background.packing import AGAIN_AFTER_S, LOOK_EVERY_S, Packer
from engine.channels.columns import ColumnCodec, Columns
from engine.channels.host import shard_directory
from engine.channels.journal import (
    LogOptions,
    ShardJournal,
    pack_segment,
    read_committed,
    verify_directory,
)
from engine.channels.machine import THIS_MACHINE, Machine
from engine.channels.recovery import recover_committed, state_hash
from engine.core.events import AnyEvent
from engine.core.types import Checks, TimeNs
from engine.validation.options import ValidationOptions
from tests.builders import NOON, make_event
from tests.channels.test_host import Harness
from tests.channels.test_journal import IDS, KINDS, any_event, claim, plain_claims
from tests.channels.world import item
from tests.wal.disk import NEVER, QUICK, BreakingFiles, flip
from tests.wal.test_pack import manifest_of
from wal import Files
from wal.codec import DECODE_FAULTS
from wal.format import SEGMENTS

GOLDEN = Path(__file__).parent / "golden" / "packed.txt"
LATER = 4 * 10**18
"""A time when every segment is old."""

frames = st.lists(
    plain_claims() | st.lists(any_event, min_size=1, max_size=8), min_size=1, max_size=5
)


def there_and_back(batches: Sequence[Sequence[AnyEvent]]) -> list[list[AnyEvent]]:
    """Write frames with one codec and read them with another."""
    writer, reader = ColumnCodec(), ColumnCodec()
    first, read = 1, []
    for batch in batches:
        payload = writer.encode(first, batch)
        read.append(reader.decode(first, len(batch), payload))
        first += len(batch)
    return read


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(frames)
def test_any_events_come_back_as_they_were(batches: list[list[AnyEvent]]) -> None:
    batches = [batch for batch in batches if batch]
    read = there_and_back(batches)
    assert read == batches
    assert [[msgspec.msgpack.encode(e) for e in batch] for batch in read] == [
        [msgspec.msgpack.encode(e) for e in batch] for batch in batches
    ]


@given(st.binary(max_size=72) | st.binary(min_size=64, max_size=64))
def test_any_signature_comes_back(signature: bytes) -> None:
    batch = [claim(IDS[0], 2, 2, 10, signature=signature)]
    assert there_and_back([batch]) == [batch]


@pytest.mark.parametrize("step", [-1_000, -1, 0, 1, 999, 1_000, 2**62])
def test_any_time_comes_back(step: int) -> None:
    batch = [claim(IDS[0], n, n, n, at=NOON + step * (n - 2)) for n in (2, 3)]
    assert there_and_back([batch]) == [batch]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2**250), st.binary(min_size=32, max_size=32))
def test_a_der_signature_takes_64_bytes(key: int, digest: bytes) -> None:
    signature = PrivateKey.from_int(key).sign(digest, hasher=None)
    batch = [claim(IDS[0], 2, 2, 10, signature=signature)]
    assert there_and_back([batch]) == [batch]
    payload = ColumnCodec().encode(1, batch)
    assert signature not in payload
    assert msgspec.msgpack.decode(payload)[10] == []


LOG = LogOptions(segment_bytes=8_192, spare_in_background=False)


def journal_of(directory: Path, claims: int, batch: int = 1) -> list[AnyEvent]:
    """Write a log of claims on three channels and close it; return its events."""
    rng = random.Random(batch)
    written: list[AnyEvent] = []
    with closing(ShardJournal(directory, LOG, QUICK)) as journal:
        for number in range(1, claims // 3 + 1):
            at = NOON + number * 7_000
            for channel in IDS:
                signature = rng.randbytes(64)
                written.append(
                    claim(channel, number + 2, number, number * 900, at=at, signature=signature)
                )
        for start in range(0, claims, batch):
            journal.append(written[start : start + batch])
            journal.commit()
    return written


def events_of(directory: Path, start: int = 1) -> list[AnyEvent]:
    return [event for _, batch in read_committed(directory, start) for event in batch]


def pack_all(directory: Path) -> tuple[int, int]:
    """Pack every sealed segment; return their bytes before and after."""
    with closing(ShardJournal(directory, LOG, QUICK)) as journal:
        while name := journal.oldest_unpacked(LATER, ()):
            packed = pack_segment(directory, name, QUICK)
            assert packed is not None
            assert journal.adopt(packed)
    segments = manifest_of(directory).sealed
    return sum(s.plain_bytes for s in segments), sum(s.size for s in segments)


def test_a_packed_log_gives_back_every_event_from_anywhere(tmp_path: Path) -> None:
    written = journal_of(tmp_path, 300)
    before, after = pack_all(tmp_path)
    assert after < before
    for start in (1, 2, 150, 299, 300):
        assert events_of(tmp_path, start) == written[start - 1 :]
    assert verify_directory(tmp_path).ok


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(frames)
def test_a_log_of_any_events_is_the_same_when_it_is_packed(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[AnyEvent]]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    with closing(ShardJournal(directory, LOG, QUICK)) as journal:
        for batch in filter(None, batches):
            journal.append(batch)
            journal.commit()
    written = events_of(directory)
    with closing(ShardJournal(directory, LOG, QUICK)) as journal:
        for entry in manifest_of(directory).sealed:
            packed = pack_segment(directory, entry.name, QUICK)
            assert packed is None or journal.adopt(packed)
    assert events_of(directory) == written
    assert verify_directory(directory).ok


@pytest.mark.parametrize("batch", [1, 8, 512])
def test_a_claim_takes_less_than_74_bytes_however_it_was_committed(batch: int) -> None:
    rng = random.Random(batch)
    ids = [rng.randbytes(32) for _ in range(100)]
    made, marks, at = [], dict.fromkeys(ids, (1, 0, 0)), NOON
    for place in range(4_096):
        if place % batch == 0:
            at += rng.randrange(100_000) * 1_000
        channel = rng.choice(ids)
        version, sequence, amount = marks[channel]
        marks[channel] = version + 1, sequence + 1, amount + rng.randrange(1_000_000)
        made.append(claim(channel, *marks[channel], at=at, signature=rng.randbytes(64)))
    codec, size = ColumnCodec(), 0
    for first in range(0, len(made), 512):
        size += 96 + len(zstandard.compress(codec.encode(first + 1, made[first : first + 512]), 9))
    assert size / len(made) < 74


def test_the_payload_is_what_it_was(golden: Callable[[Path, bytes], None]) -> None:
    """Segments packed by an earlier version must be read: see `COLUMNS_VERSION`."""
    made = [make_event(kind) for kind in KINDS]
    key = PrivateKey.from_int(7)
    for number in range(2, 5):
        signature = key.sign(bytes([number]) * 32, hasher=None)
        made.append(claim(IDS[1], number, number, 300 * number, signature=signature))
    made.append(claim(IDS[1], 9, 9, 2**40, at=NOON + 1_000, sent_at=NOON, previous=b"digest"))
    made.append(claim(IDS[2], 1, 1, 1, at=NOON + 5, signature=bytes(64), checks=Checks.SYNTAX))
    payload = ColumnCodec().encode(41, made)
    golden(GOLDEN, payload.hex(" ", 32).replace(" ", "\n").encode() + b"\n")
    assert ColumnCodec().decode(41, len(made), bytes.fromhex(GOLDEN.read_text())) == made


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("version", 2), ("first", 2), ("pairs", b"short"), ("ids", [IDS[0], IDS[0]]),
        ("channels", b"\1\1\1"), ("channels", b"\xff\xff"), ("channels", bytes(18)),
        ("versions", b"\0"), ("forms", b"\2\2"), ("signatures", [b""]),
        ("extras", [(2, None, None, Checks.ALL)]), ("extras", [(-1, None, None, Checks.ALL)]),
        ("others", [(3, claim(IDS[0], 2, 2, 5))]),
        ("others", [(0, claim(IDS[2], 2, 2, 5))]),
    ],
)  # fmt: skip
def test_what_no_writer_leaves_is_not_read(field: str, wrong: object) -> None:
    made = [claim(channel, 2, 2, 5, signature=bytes(64)) for channel in IDS[:2]]
    payload = msgspec.msgpack.decode(ColumnCodec().encode(1, made), type=Columns)
    bad = msgspec.msgpack.encode(replace(payload, **{field: wrong}))
    with pytest.raises(DECODE_FAULTS):
        ColumnCodec().decode(1, len(made), bad)


def test_an_amount_beyond_64_bits_is_not_read() -> None:
    made = [claim(IDS[0], number, number, 5 * number, signature=bytes(64)) for number in (2, 3)]
    payload = msgspec.msgpack.decode(ColumnCodec().encode(1, made), type=Columns)
    bad = msgspec.msgpack.encode(replace(payload, increments=b"\xff" * 16))
    with pytest.raises(ValueError, match="drops"):
        ColumnCodec().decode(1, len(made), bad)


# Beside a shard ---------------------------------------------------------------------------------


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def now_ns(self) -> TimeNs:
        return TimeNs(LATER + int(self.now * 1e9))


def packer_of(
    directory: Path, journal: ShardJournal, threads: bool, files: Files = QUICK
) -> tuple[Packer, Hands]:
    hands = Hands()
    machine = Machine(files=files, clock=hands, monotonic=hands.monotonic, threads=threads)
    return Packer(journal, directory, 60, machine), hands


def test_segments_are_packed_when_they_are_old_enough_one_at_a_time(tmp_path: Path) -> None:
    written = journal_of(tmp_path, 300)
    with closing(ShardJournal(tmp_path, LOG, QUICK)) as journal:
        packer, hands = packer_of(tmp_path, journal, threads=False)
        segments = len(manifest_of(tmp_path).sealed)
        for turn in range(1, segments + 3):
            packer.look()
            packer.adopt()
            assert packer.packed == min(turn, segments)
            packer.look()
            packer.adopt()
            assert packer.packed == min(turn, segments)
            hands.now += LOOK_EVERY_S
        assert packer.bytes_saved > 0
    assert all(entry.packed for entry in manifest_of(tmp_path).sealed)
    assert events_of(tmp_path) == written


def test_a_young_segment_is_left_alone(tmp_path: Path) -> None:
    journal_of(tmp_path, 90)
    with closing(ShardJournal(tmp_path, LOG, QUICK)) as journal:
        (*_, newest) = manifest_of(tmp_path).sealed
        assert journal.oldest_unpacked(newest.wall_ns - 3_600 * 10**9, ()) is None


def test_what_cannot_be_packed_is_left_and_told_once(tmp_path: Path) -> None:
    written = journal_of(tmp_path, 300)
    with closing(ShardJournal(tmp_path, LOG, QUICK)) as journal:
        bad, *good = manifest_of(tmp_path).sealed
        flip(tmp_path / bad.path, 8 * 5_000)
        packer, hands = packer_of(tmp_path, journal, threads=False)
        with capture_logs() as lines:
            for _ in range(len(good) + 3):
                packer.look()
                packer.adopt()
                hands.now += LOOK_EVERY_S
        (line,) = (line for line in lines if line["event"] == "segment_not_packed")
        assert line["segment"] == bad.name
        assert "CorruptLogError" in line["error"]
        assert (packer.packed, packer.failures) == (len(good), 1)
    flip(tmp_path / bad.path, 8 * 5_000)
    assert events_of(tmp_path) == written


def test_what_may_go_away_by_itself_is_tried_again_later(tmp_path: Path) -> None:
    journal_of(tmp_path, 90)
    files = BreakingFiles(NEVER, OSError(errno.ENOSPC, "full"), {"write"}, once=True)
    with closing(ShardJournal(tmp_path, LOG, QUICK)) as journal:
        packer, hands = packer_of(tmp_path, journal, threads=False, files=files)
        files.break_next()
        for after_s, packed in ((0, 0), (AGAIN_AFTER_S - 1, 0), (1, 1)):
            hands.now += after_s
            packer.look()
            packer.adopt()
            assert packer.packed == packed


def until(packer: Packer, done: Callable[[], bool]) -> None:
    """Let a packer work until something is so; its process takes as long as it takes."""
    for _ in range(6_000):
        packer.look()
        packer.adopt()
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


@pytest.mark.slow
def test_a_process_of_its_own_packs(tmp_path: Path) -> None:
    written = journal_of(tmp_path, 90)
    with closing(ShardJournal(tmp_path, LOG, QUICK)) as journal:
        packer, _ = packer_of(tmp_path, journal, threads=True)
        until(packer, lambda: packer.packed == 1)
        packer.close()
        assert manifest_of(tmp_path).sealed[0].packed
    assert events_of(tmp_path) == written
    assert verify_directory(tmp_path).ok


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_a_process_that_ends_before_its_work_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    written = journal_of(tmp_path, 90)
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 600\n")
    endless.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(endless))
    left = tmp_path / SEGMENTS / "00000000000000000001-00000001.pack.00000002.tmp"
    with closing(ShardJournal(tmp_path, LOG, QUICK)) as journal:
        packer, _ = packer_of(tmp_path, journal, threads=True)
        packer.look()
        process = packer._process
        assert process is not None
        left.write_bytes(b"half of a segment")
        if how == "killed":
            process.kill()
            with capture_logs() as lines:
                until(packer, lambda: bool(lines))
            assert "ended with -9" in lines[0]["error"]
        packer.close()
        assert process.code == -signal.SIGKILL
        assert packer.packed == 0
    ShardJournal(tmp_path, LOG, QUICK).close()
    assert not left.exists()
    assert events_of(tmp_path) == written


RETRIES = ValidationOptions().retries


class PackedShard(Harness):
    """A shard whose clock is far ahead, so that every sealed segment is old, ticked by hand."""

    def __init__(self, directory: Path) -> None:
        self.hands = Hands()
        self.machine = replace(
            THIS_MACHINE,
            files=QUICK,
            clock=self.hands,
            monotonic=self.hands.monotonic,
            ticker=lambda tick, period_s: Stopped(),
            threads=False,
        )
        super().__init__(directory, pack_after_s=1)

    def tick(self) -> None:
        self.hands.now += LOOK_EVERY_S
        self.host._tick()


class Stopped:
    """A ticker that never ticks."""

    def stop(self) -> None:
        return


@pytest.mark.slow
def test_a_shard_packs_its_log_between_steps_and_starts_from_it(tmp_path: Path) -> None:
    shard = PackedShard(tmp_path)
    shard.open("a", "b")
    for name in "ab":
        for start in range(1, 900, 100):
            accepted = shard.submit(*(item(name, n, n) for n in range(start, start + 100)))
            assert set(accepted) == {"accepted"}
            shard.tick()
    directory = shard_directory(tmp_path, 3)
    sealed = manifest_of(directory).sealed
    saved = [entry.plain_bytes - entry.size for entry in sealed if entry.packed]
    seen = shard.statistics()
    assert len(sealed) > 1
    assert saved
    assert (seen.packed_segments, seen.packed_saved_bytes) == (len(saved), sum(saved))
    assert seen.packing_failures == 0
    before = recover_committed(directory, RETRIES, from_genesis=True)
    shard.host.close()
    shard.start()
    assert shard.submit(item("b", 900, 900)) == ["duplicate"]
    assert shard.submit(item("b", 901, 901)) == ["accepted"]
    shard.host.close()
    after = recover_committed(directory, RETRIES, until=before.position, from_genesis=True)
    assert state_hash(before.actors) == state_hash(after.actors)
    assert shard.ended == []
