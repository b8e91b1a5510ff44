"""Packed segments of a shard: every event comes back, in fewer bytes than a claim may take."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.channels.columns import ColumnCodec
from engine.core.events import AnyEvent
from tests.channels.test_journal import IDS, any_event, claim, plain_claims

GOLDEN = Path(__file__).parent / "golden" / "packed.txt"

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


@settings(max_examples=300, deadline=None)
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


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2**250), st.binary(min_size=32, max_size=32))
def test_a_der_signature_takes_64_bytes(key: int, digest: bytes) -> None:
    signature = PrivateKey.from_int(key).sign(digest, hasher=None)
    batch = [claim(IDS[0], 2, 2, 10, signature=signature)]
    assert there_and_back([batch]) == [batch]
    payload = ColumnCodec().encode(1, batch)
    assert signature not in payload
    assert msgspec.msgpack.decode(payload)[10] == []
