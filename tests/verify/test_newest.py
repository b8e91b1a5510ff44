"""Of the claims on a channel in one batch the newest good one covers the others."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.types import SIGNATURE_BYTES_MAX
from engine.verify.batch import SECP256K1_PROBES, Item, are_plausible, encode_batch, with_probes
from engine.verify.errors import SealRefusedError
from engine.verify.newest import COVERED, NEWEST_VERDICTS, judge_newest
from engine.verify.options import VerifyOptions
from engine.verify.seal import open_sealed
from engine.verify.signed import is_signed
from engine.verify.worker import VerifierWorker
from tests.verify.payers import make_item, make_payer

KEY = bytes(range(32))
WORKER = VerifierWorker(KEY, newest=True)
PAYERS = [make_payer("secp256k1"), make_payer("ed25519")]


def verdicts_on(items: list[Item]) -> list[int]:
    blob = encode_batch(with_probes(items))
    return list(open_sealed(KEY, blob, WORKER.verify(blob), NEWEST_VERDICTS))


BATCHES = {
    "in order": ("1+ 2+ 3+", [2, 2, 1]),
    "out of order": ("3+ 1+ 2+", [1, 2, 2]),
    "the newest is bad": ("1+ 2+ 3-", [2, 1, 0]),
    "an older one is bad and nobody looks": ("1- 2- 3+", [2, 2, 1]),
    "two are tried in vain": ("1+ 4- 3-", [1, 0, 0]),
    "all are bad": ("1- 2- 3-", [0, 0, 0]),
    "equal amounts": ("2+ 2+", [2, 1]),
    "the later of two equals is bad": ("2+ 2-", [1, 0]),
    "one": ("1+", [1]),
}


@pytest.mark.parametrize("payer", PAYERS, ids=lambda payer: payer.curve)
@pytest.mark.parametrize("name", BATCHES)
def test_the_largest_good_claim_covers_the_smaller_ones(payer, name: str):
    words, wanted = BATCHES[name]
    items = [make_item(payer, int(word[0]), word[1] == "+") for word in words.split()]
    assert verdicts_on(items) == wanted


def test_nothing_is_covered_across_channels_or_across_keys():
    one, other = PAYERS
    elsewhere = msgspec.structs.replace(make_item(one, 1, good=False), channel_id=bytes(32))
    foreign = msgspec.structs.replace(make_item(one, 2, good=False), public_key=other.public_key)
    assert verdicts_on([elsewhere, foreign, make_item(one, 9)]) == [0, 0, 1]


def test_probes_are_checked_whatever_the_batch_holds():
    bad, good = SECP256K1_PROBES
    larger = msgspec.structs.replace(good, amount=10**15)
    assert verdicts_on([good, larger]) == [1, 0]
    assert judge_newest([good, bad, good], is_signed)[-2:] == b"\0\1"


def test_a_signature_that_cannot_be_one_is_covered_by_none():
    long = msgspec.structs.replace(make_item(PAYERS[0], 1), signature=bytes(73))
    assert len(long.signature) > SIGNATURE_BYTES_MAX
    assert verdicts_on([long, make_item(PAYERS[0], 2)]) == [0, 1]


def test_an_impossible_amount_is_bad_when_somebody_looks():
    negative = msgspec.structs.replace(make_item(PAYERS[0], 1), amount=-1)
    assert verdicts_on([negative]) == [0]
    assert not is_signed(negative)
    assert not is_signed(msgspec.structs.replace(make_item(PAYERS[0], 1), channel_id=b"short"))
    assert is_signed(make_item(PAYERS[0], 1))


amounts = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5), st.booleans()), max_size=12)


@settings(deadline=None)
@given(amounts)
def test_what_is_covered_has_a_good_claim_over_as_much_with_the_same_key(wanted):
    items = [make_item(PAYERS[who], amount, good) for who, amount, good in wanted]
    verdicts = verdicts_on(items)
    for item, verdict in zip(items, verdicts, strict=True):
        covering = [
            other
            for other, found in zip(items, verdicts, strict=True)
            if found == 1 and other.public_key == item.public_key and other.amount >= item.amount
        ]
        assert (verdict == 1) <= is_signed(item)
        assert (verdict == 0) <= (not is_signed(item))
        assert (verdict == COVERED) <= bool(covering)


def test_an_engine_that_checks_every_signature_believes_no_covered_verdict():
    items = [make_item(PAYERS[0], 1), make_item(PAYERS[0], 2)]
    blob = encode_batch(with_probes(items))
    with pytest.raises(SealRefusedError):
        open_sealed(KEY, blob, WORKER.verify(blob))
    assert not are_plausible(b"\2\1\0\1", 2, VerifyOptions().known_verdicts)
    assert are_plausible(b"\2\1\0\1", 2, VerifyOptions(verification="newest").known_verdicts)
    assert not are_plausible(b"\3\1\0\1", 2, NEWEST_VERDICTS)
    assert not are_plausible(b"\2\1\0\2", 2, NEWEST_VERDICTS)
    assert not are_plausible(b"\2\1\2\1", 2, NEWEST_VERDICTS)
