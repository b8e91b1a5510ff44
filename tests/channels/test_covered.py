"""Covered claims in frames: dense, read back as they were, and never without their proof."""

import random
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.channels.codec import CoveredPayload, EventCodec, Payload
from engine.channels.columns import COVERED_VERSION, ColumnCodec, Columns
from engine.channels.journal import (
    LogOptions,
    ShardJournal,
    pack_segment,
    read_committed,
    verify_directory,
)
from engine.core.events import AnyEvent, ClaimCovered, ClaimReceived
from engine.core.types import Checks
from tests.builders import NOON
from tests.channels.test_journal import IDS, any_event, claim, encoded
from tests.channels.test_packing import there_and_back
from wal import CorruptLogError

GOLDEN = Path(__file__).parent / "golden" / "covered.txt"
CODECS = [EventCodec, ColumnCodec]


def run(channel: bytes, first: int, count: int, **fields) -> list[AnyEvent]:
    """Return `count` claims of a channel, of which the last one covers the others."""
    made = [
        claim(channel, first + place + 1, first + place, 10 * (first + place), **fields)
        for place in range(count)
    ]
    last = made[-1].sequence
    return [*(covered(one, last) for one in made[:-1]), made[-1]]


def covered(one, by: int) -> ClaimCovered:
    fields = {name: getattr(one, name) for name in one.__struct_fields__ if name != "checks"}
    return ClaimCovered(**fields, covered_by=by)


OPENED = [claim(channel, 2, 1, 1) for channel in IDS]
"""The first claim of each channel in a segment is written whole."""


no_claim = any_event.filter(lambda event: type(event) is not ClaimReceived)
"""No log holds two claims of one channel and sequence, and one that is drawn might be a second."""


@st.composite
def frames_of_runs(draw):
    """Frames of runs, of claims that stand alone, and now and then of something else."""
    marks, frames = dict.fromkeys(IDS, 1), [OPENED]
    lengths = st.lists(st.tuples(st.sampled_from(IDS), st.integers(1, 5)), min_size=1, max_size=5)
    for runs in draw(st.lists(lengths, max_size=4)):
        frame = []
        for channel, length in runs:
            frame += run(
                channel, marks[channel] + 1, length, signature=draw(st.binary(max_size=72))
            )
            marks[channel] += length
        frame += draw(st.lists(no_claim, max_size=2))
        frames.append(draw(st.permutations(frame)) if draw(st.booleans()) else frame)
    return frames


@settings(deadline=None, max_examples=60)
@given(frames_of_runs())
def test_covered_claims_come_back_as_they_were(frames):
    codec = EventCodec()
    assert [codec.decode(*payload) for payload in encoded(EventCodec(), frames)] == frames
    assert there_and_back(frames) == frames


@settings(deadline=None, max_examples=60)
@given(frames_of_runs())
def test_a_reader_that_passes_covered_claims_reads_on_where_they_end(frames):
    payloads = encoded(EventCodec(), frames)
    codec = EventCodec()
    for payload in payloads[:-1]:
        codec.skip(*payload)
    assert codec.decode(*payloads[-1]) == frames[-1]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.__name__)
@pytest.mark.parametrize(
    "change", [{"previous": 5}, {"sent_at": NOON}, {"at": NOON + 1_000}, {"checks": Checks.NONE}]
)
def test_a_covered_claim_that_says_more_comes_back_too(codec, change):
    frame = run(IDS[0], 2, 3)
    frame[1] = replace(frame[1], **change)
    writer, reader = codec(), codec()
    for first, events in ((1, OPENED), (4, frame)):
        assert reader.decode(first, 3, writer.encode(first, events)) == events


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.__name__)
def test_a_covered_claim_costs_little_beyond_its_signature(codec):
    writer = codec()
    writer.encode(1, [claim(IDS[0], 2, 1, 1)])
    key = bytes(range(64))
    frame = run(IDS[0], 2, 400, signature=key)
    assert len(writer.encode(2, frame)) < 400 * (64 + 2 + 5) + 100
    plain = [claim(IDS[0], 402 + n, 401 + n, 4_010 + 10 * n, signature=key) for n in range(1, 400)]
    assert b"covered" not in writer.encode(402, plain)


def test_a_packed_covered_claim_takes_less_than_74_bytes():
    rng = random.Random(5)
    codec, size, ids = ColumnCodec(), 0, [rng.randbytes(32) for _ in range(100)]
    made = [
        replace(one, signature=rng.randbytes(64))
        for start in range(2, 42, 5)
        for channel in ids
        for one in run(channel, start, 5)
    ]
    for first in range(0, len(made), 500):
        size += 96 + len(zstandard.compress(codec.encode(first + 1, made[first : first + 500]), 9))
    assert size / len(made) < 74


# Never without its proof --------------------------------------------------------------------------

LONE = {
    "nothing else": lambda frame: frame[:1],
    "the covering claim is gone": lambda frame: frame[:-1],
    "it is of another channel": lambda frame: [
        *frame[:-1],
        replace(frame[-1], channel_id=IDS[1], version=3, sequence=4),
    ],
    "it has another number": lambda frame: [*frame[:-1], replace(frame[-1], sequence=9)],
    "it is covered itself": lambda frame: [*frame[:-1], covered(frame[-1], 5)],
    "it is over less": lambda frame: [*frame[:-1], replace(frame[-1], amount=1)],
}


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.__name__)
@pytest.mark.parametrize("name", LONE)
def test_a_frame_whose_covered_claims_nothing_covers_is_not_read(codec, name):
    frame = LONE[name](run(IDS[0], 2, 3))
    writer, reader = codec(), codec()
    reader.decode(1, 3, writer.encode(1, OPENED))
    with pytest.raises(ValueError, match="covered by none"):
        reader.decode(4, len(frame), writer.encode(4, frame))


def test_a_log_with_a_claim_that_nothing_covers_is_damaged(tmp_path):
    journal = ShardJournal(tmp_path, LogOptions(spare_in_background=False))
    for frame in (OPENED, run(IDS[0], 2, 3), run(IDS[0], 5, 3)[:-1]):
        journal.append(frame)
        journal.commit()
    journal.close()
    report = verify_directory(tmp_path)
    assert not report.ok
    assert "covered by none" in report.damages[0].reason
    with pytest.raises(CorruptLogError):
        list(read_committed(tmp_path))


def test_a_log_with_covered_claims_is_the_same_when_it_is_packed(tmp_path):
    journal = ShardJournal(tmp_path, LogOptions(segment_bytes=8_192, spare_in_background=False))
    frames = [OPENED, *(run(IDS[0], start, 3) for start in range(2, 302, 3))]
    for frame in frames:
        journal.append(frame)
        journal.commit()
    while name := journal.oldest_unpacked(4 * 10**18, ()):
        packed = pack_segment(tmp_path, name)
        assert packed is not None
        journal.adopt(packed)
    journal.close()
    read = [event for _, batch in read_committed(tmp_path) for event in batch]
    assert read == [event for frame in frames for event in frame]
    assert verify_directory(tmp_path).ok


# Bytes --------------------------------------------------------------------------------------------


def test_frames_with_covered_claims_look_as_they_did(golden):
    frames = [OPENED, run(IDS[0], 2, 3)]
    lines = [f"{codec.__name__} {payload.hex()}" for codec in CODECS for payload in both(codec())]
    golden(GOLDEN, "".join(f"{line}\n" for line in lines).encode())
    written = [line.split() for line in GOLDEN.read_text().splitlines()]
    for codec in CODECS:
        reader = codec()
        first, second = (bytes.fromhex(raw) for name, raw in written if name == codec.__name__)
        assert [reader.decode(1, 3, first), reader.decode(4, 3, second)] == frames


def both(codec) -> list[bytes]:
    return [codec.encode(1, OPENED), codec.encode(4, run(IDS[0], 2, 3))]


def test_who_does_not_know_covered_claims_must_refuse_them():
    """In columns they look like claims; a reader of before must not take them for checked ones."""
    old = msgspec.msgpack.decode(both(EventCodec())[1], type=Payload)
    assert len(old.channels) == 3
    assert len(old.signatures) == 1
    packed = msgspec.msgpack.decode(both(ColumnCodec())[1], type=Columns)
    assert packed.version == COVERED_VERSION != 1


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("distances", [2, 1]), ("distances", [2, 1, 0, 0]), ("distances", [0, 0, 0]),
        ("distances", [2, -1, 0]), ("distances", [1, 1, 0]), ("distances", []), ("unseen", []),
        ("unseen", [b"", b"", b""]), ("signatures", []), ("distances", [2, 1, 1]),
    ],
)  # fmt: skip
def test_columns_of_covered_claims_that_no_writer_leaves_are_not_read(field, wrong):
    first, second = both(EventCodec())
    told = msgspec.msgpack.decode(second, type=CoveredPayload)
    codec = EventCodec()
    codec.decode(1, 3, first)
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        codec.decode(4, 3, msgspec.msgpack.encode(replace(told, **{field: wrong})))
