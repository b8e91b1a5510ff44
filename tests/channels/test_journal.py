"""How events become bytes of the log: any sequence comes back, and nothing else is taken."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.channels.journal import EventCodec, LogOptions, ShardJournal, read_committed
from engine.core import events
from engine.core.events import EVENT_TYPES
from engine.core.rejections import RejectCode
from engine.core.types import Checks, Sequencing
from tests.builders import DESTINATION, NOON, SOURCE, make_event
from wal import CorruptLogError

GOLDEN = Path(__file__).parent / "golden" / "payloads.txt"
IDS = [bytes([number]) * 32 for number in range(3)]
U64 = 2**64 - 1

numbers = st.integers(0, 5) | st.integers(0, U64)
signatures = st.binary(max_size=72)
heads = {
    "channel_id": st.sampled_from(IDS),
    "version": st.integers(1, 4) | numbers,
    "at": st.sampled_from([NOON, NOON + 1_000, 0]),
}
bodies = {
    events.ChannelOpened: {
        "source": st.just(SOURCE),
        "destination": st.just(DESTINATION),
        "public_key": st.binary(min_size=33, max_size=33),
        "capacity": numbers,
        "settle_delay_s": numbers,
        "expiration": st.none() | numbers,
        "cancel_after": st.none() | numbers,
        "sequencing": st.sampled_from(Sequencing),
    },
    events.ClaimReceived: {
        "sequence": st.integers(1, 4) | numbers,
        "amount": numbers,
        "signature": signatures,
        "previous": st.none() | signatures | numbers,
        "sent_at": st.none() | numbers,
        "checks": st.sampled_from([Checks.ALL, Checks.NONE, Checks.SIGNATURE]),
    },
    events.ClaimRejected: {
        "sequence": numbers,
        "amount": numbers,
        "signature": signatures,
        "code": st.sampled_from(RejectCode),
    },
    events.ChannelFunded: {"amount": numbers},
    events.CloseRequested: {"expiration": numbers},
    events.SettlingResumed: {"expiration": numbers},
    events.ChannelSettled: {"redeemed": numbers},
    events.DisputeOpened: {"reason": st.text(max_size=5)},
}
KINDS = [kind for kind in EVENT_TYPES if kind is not events.ClaimCovered]
"""What may stand alone; of covered claims see `test_covered.py`."""

any_event = st.one_of(*(st.builds(kind, **heads, **bodies.get(kind, {})) for kind in KINDS))


@st.composite
def plain_claims(draw):
    """Claims that continue their channels as nearly all do, with something else now and then."""
    marks, made = dict.fromkeys(IDS, (1, 0, 0)), []
    for channel, increment, signature in draw(
        st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 2**40), signatures), max_size=12)
    ):
        version, sequence, amount = marks[channel]
        marks[channel] = version + 1, sequence + 1, amount + increment
        made.append(claim(channel, *marks[channel], signature=signature))
    return made


def claim(channel, version, sequence, amount, **fields):
    body = {"at": NOON, "signature": b"signature"} | fields
    return events.ClaimReceived(
        channel_id=channel, version=version, sequence=sequence, amount=amount, **body
    )


frames = st.lists(st.one_of(plain_claims(), st.lists(any_event, max_size=6)), max_size=6)


def encoded(codec, frames):
    """Return (first, count, payload) of each frame that holds anything."""
    made, first = [], 1
    for frame in filter(None, frames):
        made.append((first, len(frame), codec.encode(first, frame)))
        first += len(frame)
    return made


@settings(deadline=None)
@given(frames)
def test_what_is_written_is_read(frames):
    codec = EventCodec()
    read = [codec.decode(*payload) for payload in encoded(EventCodec(), frames)]
    assert read == list(filter(None, frames))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.lists(any_event, min_size=1, max_size=6), max_size=8), st.data())
def test_a_log_gives_back_its_events_over_segments_and_from_anywhere(
    tmp_path_factory, frames, data
):
    directory = tmp_path_factory.mktemp("log")
    journal = ShardJournal(directory, LogOptions(segment_bytes=8_192, spare_in_background=False))
    for frame in frames:
        journal.append(frame)
        journal.commit()
    journal.close()
    written = [event for frame in frames for event in frame]
    start = data.draw(st.integers(1, len(written) + 1))
    read = [event for _, batch in read_committed(directory, start) for event in batch]
    assert read == written[start - 1 :]


def test_a_segment_can_be_read_alone(tmp_path):
    """Numbers of channels begin again in each, so losing one would not shift the others'."""
    journal = ShardJournal(tmp_path, LogOptions(segment_bytes=8_192, spare_in_background=False))
    written = [make_event(events.ChannelOpened), make_event(events.FundingConfirmed)]
    journal.append(written)
    for number in range(1, 600):
        one = claim(written[0].channel_id, number + 2, number, number, signature=bytes(64))
        written.append(one)
        journal.append([one])
        journal.commit()
    assert len(list((tmp_path / "wal").glob("*.wal"))) > 3
    assert [event for _, batch in journal.read_batches(500) for event in batch] == written[499:]
    journal.close()


def test_a_log_is_proven_by_itself_only_once_nothing_comes(tmp_path):
    journal = ShardJournal(tmp_path, LogOptions())
    for _ in range(3):  # while claims come the next frame proves the one before it
        journal.append([make_event(events.FundingConfirmed)])
        journal.commit()
        assert not journal.idle()
    assert [journal.idle() for _ in range(3)] == [True, False, False]
    journal.close()


# Density ------------------------------------------------------------------------------------------


def test_a_plain_claim_costs_little_beyond_its_signature():
    codec, channel = EventCodec(), IDS[0]
    codec.encode(1, [claim(channel, 2, 1, 5)])
    batch = [claim(channel, n + 1, n, n * 5, signature=bytes(64)) for n in range(2, 102)]
    assert len(codec.encode(2, batch)) < 100 * (64 + 2 + 4) + 100


@pytest.mark.parametrize(
    "change",
    [
        {"at": NOON + 1_000},
        {"sent_at": NOON},
        {"previous": 5},
        {"checks": Checks.SIGNATURE},
        {"version": 9},
        {"sequence": 9},
    ],
    ids=str,
)
def test_a_claim_that_says_more_is_kept_whole(change):
    written = [claim(IDS[0], 2, 1, 5), claim(IDS[0], 3, 2, 6)]
    odd = msgspec.structs.replace(claim(IDS[0], 4, 3, 7), **change)
    payload = EventCodec().encode(1, [*written, odd])
    assert EventCodec().decode(1, 3, payload) == [*written, odd]


# Nothing else is taken ----------------------------------------------------------------------------

FIRST = claim(IDS[0], 2, 1, 5)
PLAIN = [7, NOON, [0], [5], [b"signature"], [[0, msgspec.to_builtins(FIRST)]]]
"""Two events from position 7 on: a whole claim, and one that continues it."""


def payload(**changes):
    fields = ["first", "at", "channels", "increments", "signatures", "others"]
    made = list(msgspec.msgpack.decode(EventCodec().encode(7, [FIRST, claim(IDS[0], 3, 2, 10)])))
    for name, value in changes.items():
        made[fields.index(name)] = value
    return msgspec.msgpack.encode(made)


def test_the_payload_that_the_following_spoil_is_well():
    assert EventCodec().decode(7, 2, payload()) == [FIRST, claim(IDS[0], 3, 2, 10)]


@pytest.mark.parametrize(
    "changes",
    [
        {"first": 8},
        {"first": 7.0},
        {"at": float(NOON)},
        {"at": str(NOON)},
        {"channels": [1]},
        {"channels": [-1]},
        {"channels": ["0"]},
        {"channels": []},
        {"channels": [0, 0]},
        {"increments": [5.0]},
        {"increments": [True]},
        {"increments": []},
        {"increments": [5, 5]},
        {"signatures": ["signature"]},
        {"signatures": []},
        {"others": []},
        {"others": [[0, [99, IDS[0], 2, NOON]]]},
        {"others": [[0, [5, IDS[0], 2, NOON, "5"]]]},
        {"others": [[0, [5, IDS[0], 2, NOON, 5.0]]]},
        {"others": [[1, [5, IDS[0], 2, NOON, 5]]]},
        {"others": [[2, [5, IDS[0], 2, NOON, 5]]]},
    ],
    ids=str,
)
def test_a_payload_of_other_shape_or_types_is_no_payload(changes):
    codec = EventCodec()
    with pytest.raises((ValueError, msgspec.MsgspecError, StopIteration)):
        codec.decode(7, 2, payload(**changes))


def test_whole_events_lie_in_their_places_and_no_others():
    whole = msgspec.to_builtins(FIRST, builtin_types=(bytes,)), [5, IDS[0], 3, NOON, 5]
    for places in [(0, 1), (0, 2), (0, 3), (0, 0), (1, 0), (2, 1)]:
        told = payload(others=[list(pair) for pair in zip(places, whole, strict=True)])
        if places in [(0, 1), (0, 2)]:
            assert len(EventCodec().decode(7, 3, told)) == 3
        else:
            with pytest.raises(ValueError, match=r"channel number 0 was never|an event at place"):
                EventCodec().decode(7, 3, told)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_payload(data):
    with pytest.raises((ValueError, msgspec.MsgspecError, RecursionError, StopIteration)):
        EventCodec().decode(1, 3, data)


class Scribbler(EventCodec):
    """Writes what no engine would, under true checksums."""

    def encode(self, first, records):
        return payload(first=first, others=[[0, [5, IDS[0], 2, NOON, 5.0]]])


def test_a_true_checksum_over_nonsense_is_corruption_and_the_place_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("engine.channels.journal.EventCodec", Scribbler)
        journal = ShardJournal(tmp_path, LogOptions(spare_in_background=False))
        journal.append([FIRST, claim(IDS[0], 3, 2, 10)])
        journal.commit()
        journal.close()
    with pytest.raises(CorruptLogError) as caught:
        list(read_committed(tmp_path))
    assert caught.value.segment.endswith(".wal")
    assert caught.value.offset > 0


# Golden -------------------------------------------------------------------------------------------


def test_payloads_look_as_they_did_when_the_first_log_was_written(golden):
    opened = make_event(events.ChannelOpened)
    channel = opened.channel_id
    story = [
        [opened, msgspec.structs.replace(make_event(events.FundingConfirmed), version=2)],
        [claim(channel, 3, 1, 100)],
        [claim(channel, 4, 2, 150), claim(channel, 5, 3, 1_000)],
        [claim(channel, 6, 4, 1_001, previous=1_000), claim(channel, 7, 5, 1_002, sent_at=NOON)],
        [msgspec.structs.replace(make_event(kind), version=8) for kind in KINDS],
    ]
    lines = [f"{first} {count} {raw.hex()}" for first, count, raw in encoded(EventCodec(), story)]
    golden(GOLDEN, "".join(f"{line}\n" for line in lines).encode())
    codec = EventCodec()
    read = [line.split() for line in GOLDEN.read_text().splitlines()]
    assert [
        codec.decode(int(first), int(count), bytes.fromhex(raw)) for first, count, raw in read
    ] == story
