"""The MANIFEST is whole and agrees with itself, or it is refused."""

import msgspec
import pytest

from wal import CorruptLogError
from wal.manifest import (
    Manifest,
    SealedSegment,
    SegmentEntry,
    SnapshotEntry,
    decode_manifest,
    encode_manifest,
)


def sealed(number: int) -> SealedSegment:
    """Return the segment of frames 10n+1 to 10n+10 and as many records."""
    return SealedSegment(
        name=f"{number}.wal", number=number, epoch=2, first_lsn=10 * number + 1,
        first_position=10 * number + 1, before=bytes([number]), last_lsn=10 * number + 10,
        last_position=10 * number + 10, size=5000, sha256=bytes(32), after=bytes([number + 1]),
    )  # fmt: skip


LIVE = SegmentEntry(
    name="3.wal", number=3, epoch=2, first_lsn=31, first_position=31, before=bytes([3])
)
SNAPSHOT = SnapshotEntry(name="8.snap", lsn=8, position=8, size=99, sha256=bytes(32))
WHOLE = Manifest(
    shard_id=5,
    epoch=2,
    sealed=(sealed(0), sealed(1), sealed(2)),
    live=LIVE,
    snapshots=(SNAPSHOT,),
    durable_lsn=33,
)


def test_it_reads_what_it_wrote() -> None:
    assert decode_manifest(encode_manifest(WHOLE)) == WHOLE


def test_any_flipped_bit_is_noticed() -> None:
    whole = encode_manifest(WHOLE)
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptLogError):
            decode_manifest(bytes(data))


@pytest.mark.parametrize("size", range(0, len(encode_manifest(WHOLE)), 13))
def test_a_part_of_it_is_refused(size: int) -> None:
    with pytest.raises(CorruptLogError):
        decode_manifest(encode_manifest(WHOLE)[:size])


@pytest.mark.parametrize("field", ["number", "epoch", "first_lsn", "first_position", "before"])
@pytest.mark.parametrize("which", ["sealed", "live"])
def test_segments_that_do_not_join_are_refused(field: str, which: str) -> None:
    wrong = {"number": 0, "epoch": 1, "before": b"?"}.get(field, 25)
    broken = (
        msgspec.structs.replace(
            WHOLE, sealed=(sealed(0), msgspec.structs.replace(sealed(1), **{field: wrong}))
        )
        if which == "sealed"
        else msgspec.structs.replace(WHOLE, live=msgspec.structs.replace(LIVE, **{field: wrong}))
    )
    with pytest.raises(CorruptLogError, match="do not join"):
        decode_manifest(encode_manifest(broken))


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, 33),
        ({"durable_lsn": 0}, 30),
        ({"durable_lsn": 0, "archived_lsn": 32}, 32),
        ({"snapshots": (msgspec.structs.replace(SNAPSHOT, lsn=40),)}, 40),
    ],
)
def test_all_that_it_says_counts_as_proof(change: dict[str, object], known: int) -> None:
    assert msgspec.structs.replace(WHOLE, **change).known_durable_lsn == known
