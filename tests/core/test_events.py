"""Events are bytes in a log that is kept for ever: what they look like is a promise."""

from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import events
from engine.core.events import EVENT_TYPES, AnyEvent, decode_event, encode_event
from engine.core.rejections import RejectCode
from engine.core.types import AMOUNT_MAX, DROPS_MAX, SEQUENCE_MAX, Checks, Sequencing
from tests.builders import NOON, descendants, make_event, text_table

GOLDEN = Path(__file__).parent / "golden" / "events.txt"

TAGS = text_table("""
    tag  event
    1    ChannelOpened
    2    FundingConfirmed
    3    ClaimReceived
    4    ClaimRejected
    5    ChannelFunded
    6    CloseRequested
    7    ChannelSettled
    8    DisputeOpened
    9    ChannelReinstated
    10   SettlingResumed
    11   ClaimCovered
""")

times = st.integers(0, 2**63 - 1)
drops = st.integers(0, DROPS_MAX)
digests = st.binary(min_size=32, max_size=32)
signatures = st.binary(max_size=72)
sequences = st.integers(0, SEQUENCE_MAX)
checks = st.integers(0, 31).map(Checks)
HEAD = {"channel_id": digests, "version": st.integers(1, 2**63), "at": times}
CLAIM = {
    "sequence": sequences,
    "amount": drops,
    "signature": signatures,
    "previous": st.none() | digests | st.integers(0, AMOUNT_MAX),
    "sent_at": st.none() | times,
    "checks": checks,
}
BODIES = {
    events.ChannelOpened: {
        "source": st.text(max_size=40),
        "destination": st.text(max_size=40),
        "public_key": st.binary(min_size=33, max_size=33),
        "capacity": drops,
        "settle_delay_s": st.integers(0, 2**32 - 1),
        "expiration": st.none() | times,
        "cancel_after": st.none() | times,
        "sequencing": st.sampled_from(Sequencing),
    },
    events.ClaimReceived: CLAIM,
    events.ClaimCovered: CLAIM | {"covered_by": sequences},
    events.ClaimRejected: {
        "sequence": sequences,
        "amount": st.integers(0, AMOUNT_MAX),
        "signature": signatures,
        "code": st.sampled_from(RejectCode),
    },
    events.ChannelFunded: {"amount": drops},
    events.CloseRequested: {"expiration": times},
    events.ChannelSettled: {"redeemed": drops},
    events.DisputeOpened: {"reason": st.text(max_size=200)},
    events.SettlingResumed: {"expiration": times},
}
any_event = st.one_of([st.builds(kind, **HEAD, **BODIES.get(kind, {})) for kind in EVENT_TYPES])


@given(any_event)
def test_an_event_read_back_is_the_event_written(event):
    again = decode_event(encode_event(event))
    assert again == event
    assert type(again) is type(event)


@given(checks)
def test_the_layers_passed_are_read_back_as_layers(passed):
    event = msgspec.structs.replace(make_event(events.ClaimReceived), checks=passed)
    assert isinstance(decode_event(encode_event(event)).checks, Checks)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_event_are_refused_and_nothing_worse(data):
    try:
        event = decode_event(data)
    except msgspec.DecodeError:
        return
    assert isinstance(event, EVENT_TYPES)


@given(any_event, st.data())
def test_a_cut_event_is_refused(event, data):
    encoded = encode_event(event)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(msgspec.DecodeError):
        decode_event(encoded[:cut])


def test_an_event_with_fields_of_a_later_version_is_still_read():
    fields = msgspec.msgpack.decode(encode_event(make_event(events.ClaimReceived)))
    longer = msgspec.msgpack.encode([*fields, "added later"])
    assert decode_event(longer) == make_event(events.ClaimReceived)


@pytest.mark.parametrize("row", TAGS, ids=lambda row: row["event"])
def test_a_tag_belongs_to_one_event_for_ever(row):
    kind = getattr(events, row["event"])
    assert msgspec.msgpack.decode(encode_event(make_event(kind)))[0] == int(row["tag"])


def test_every_event_is_in_the_union_the_list_and_the_table():
    assert get_args(AnyEvent) == EVENT_TYPES
    assert [kind.__name__ for kind in EVENT_TYPES] == [row["event"] for row in TAGS]
    assert set(descendants(events.Event)) == set(EVENT_TYPES)


def test_every_event_looks_as_it_did_when_the_first_log_was_written(golden):
    lines = [f"{kind.__name__} {encode_event(make_event(kind)).hex()}" for kind in EVENT_TYPES]
    golden(GOLDEN, "".join(f"{line}\n" for line in lines).encode())


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_the_bytes_of_the_first_logs_are_still_read(kind):
    written = dict(line.split() for line in GOLDEN.read_text().splitlines())
    event = decode_event(bytes.fromhex(written[kind.__name__]))
    assert event == make_event(kind)
    assert event.at == NOON


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_an_event_cannot_be_changed(kind):
    event = make_event(kind)
    with pytest.raises(AttributeError):
        event.version = 7
