"""The blob of a batch: what goes in comes out, within bounds, with probes at the end."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.claim import signing_message
from engine.verify import batch
from engine.verify.batch import Item, are_plausible, decode_batch, encode_batch, with_probes
from engine.verify.errors import MalformedBatchError
from engine.verify.schemes import verify
from tests.verify.payers import make_item, make_payer

ITEMS = [make_item(make_payer("secp256k1")), make_item(make_payer("ed25519"), sequence=7)]

numbers = st.integers(0, 2**64 - 1)
items = st.builds(
    Item,
    channel_id=st.binary(max_size=40),
    public_key=st.binary(max_size=40),
    amount=numbers,
    signature=st.binary(max_size=80),
    sequence=st.none() | numbers,
    previous=st.none() | numbers | st.binary(max_size=32),
    sent_at=st.none() | numbers,
)


def longest_item() -> Item:
    """Every field as long as a well-formed claim allows."""
    most = 2**64 - 1
    return Item(bytes(32), bytes(33), most, bytes(72), most, bytes(32), most)


@given(st.lists(items, max_size=20))
def test_a_batch_comes_back_as_it_went_in(given_items: list[Item]):
    probed = with_probes(given_items)
    blob = encode_batch(probed)
    assert decode_batch(blob) == probed
    assert batch.item_count(blob) == len(given_items) + 2


@pytest.mark.parametrize("count", [0, 1, 13, 14, 15, 253, 254, 512])
def test_items_are_counted_without_decoding(count: int):
    assert batch.item_count(encode_batch(with_probes(ITEMS[:1] * count))) == count + 2


def test_a_full_batch_of_the_longest_claims_fits():
    probed = with_probes([longest_item()] * batch.CLAIMS_PER_BATCH_MAX)
    assert len(encode_batch(probed)) <= batch.BATCH_BYTES_MAX


def test_a_full_batch_of_ordinary_claims_stays_below_100_kb():
    ordinary = make_item(make_payer("secp256k1"), sequence=1_000_000)
    blob = encode_batch(with_probes([ordinary] * batch.CLAIMS_PER_BATCH_MAX))
    assert len(blob) < 100_000


@pytest.mark.parametrize(
    "bad",
    [
        with_probes(ITEMS[:1] * (batch.CLAIMS_PER_BATCH_MAX + 1)),
        with_probes([Item(bytes(32), bytes(33), 1, bytes(batch.BATCH_BYTES_MAX))]),
        with_probes([Item(bytes(32), bytes(33), 2**64, bytes(72))]),
        ITEMS,
        [],
        with_probes(ITEMS)[::-1],
        [*with_probes(ITEMS), ITEMS[0]],
    ],
    ids=["too many", "too long", "beyond 64 bits", "no probes", "empty", "reversed", "behind"],
)
def test_a_batch_out_of_bounds_or_without_probes_is_not_made(bad: list[Item]):
    with pytest.raises(MalformedBatchError):
        encode_batch(bad)


BLOB = encode_batch(with_probes(ITEMS))
ROW = [bytes(32), bytes(33), 1, bytes(64), None, None, None]
MALFORMED = {
    "empty": b"",
    "nothing": msgspec.msgpack.encode(None),
    "a map": msgspec.msgpack.encode({}),
    "cut": BLOB[:-1],
    "longer": BLOB + b"\0",
    "too few fields": msgspec.msgpack.encode([ROW[:3]]),
    "too many fields": msgspec.msgpack.encode([[*ROW, 1]]),
    "text for bytes": msgspec.msgpack.encode([["id", *ROW[1:]]]),
    "a float amount": msgspec.msgpack.encode([[*ROW[:2], 1.5, *ROW[3:]]]),
    "4 G items": b"\xdd\xff\xff\xff\xff",
    "4 GB of bytes": b"\x91\x97\xc6\xff\xff\xff\xff",
    "deep": b"\x91" * 100_000,
    "deep in a field": b"\x91\x97" + b"\x91" * 100_000,
    "too many": msgspec.msgpack.encode([[b"", b"", 1, b""]] * 515),
    "too long": bytes(batch.BATCH_BYTES_MAX + 1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_blob_is_refused_by_name(name: str):
    with pytest.raises(MalformedBatchError):
        decode_batch(MALFORMED[name])


@given(st.binary(max_size=300))
def test_random_bytes_are_items_or_refused(blob: bytes):
    for read in (decode_batch, batch.item_count):
        try:
            read(blob)
        except MalformedBatchError:
            continue


@pytest.mark.parametrize("pair", [batch.SECP256K1_PROBES, batch.ED25519_PROBES])
def test_probes_are_one_bad_claim_and_one_good(pair: tuple[Item, Item]):
    verdicts = bytes(
        verify(probe.public_key, signing_message(probe.channel_id, probe.amount), probe.signature)
        for probe in pair
    )
    assert verdicts == batch.PROBE_VERDICTS == b"\0\1"


def test_probes_are_on_the_curve_of_the_first_claim():
    assert with_probes(ITEMS)[-2:] == list(batch.SECP256K1_PROBES)
    assert with_probes(ITEMS[::-1])[-2:] == list(batch.ED25519_PROBES)
    assert with_probes([])[-2:] == list(batch.SECP256K1_PROBES)


def test_two_good_claims_at_the_end_are_no_probes():
    assert batch.ends_with_probes(BLOB)
    assert not batch.ends_with_probes(msgspec.msgpack.encode(ITEMS))
    assert not batch.ends_with_probes(BLOB[:-1])


VERDICTS = """
    verdicts     count  plausible
    0001         0      yes
    010001       1      yes
    000001       1      yes
    01010001     2      yes
    0001         1      no
    01010001     1      no
    010101       1      no
    000000       1      no
    010000       1      no
    010100       1      no
    020001       1      no
    ff0001       1      no
"""


@pytest.mark.parametrize("row", VERDICTS.strip().splitlines()[1:])
def test_verdicts_are_plausible_in_number_in_kind_and_on_the_probes(row: str):
    verdicts, count, plausible = row.split()
    assert are_plausible(bytes.fromhex(verdicts), int(count)) is (plausible == "yes")


def test_no_verdicts_are_plausible_for_nothing():
    assert not are_plausible(b"", 0)
    assert not are_plausible(b"", -2)
