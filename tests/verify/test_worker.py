"""The verifier: one verdict a claim, in order, whatever one of them holds."""

import msgspec
import pytest

from engine.verify import selftest
from engine.verify.batch import Item, encode_batch, with_probes
from engine.verify.errors import MalformedBatchError, SelfTestFailedError
from engine.verify.seal import open_sealed
from engine.verify.worker import VerifierWorker
from tests.verify.payers import CHANNEL_ID, make_item, make_payer

KEY = bytes(range(32))
WORKER = VerifierWorker(KEY)
PAYERS = [make_payer("secp256k1"), make_payer("ed25519")]


def verdicts_on(items: list[Item]) -> list[int]:
    blob = encode_batch(with_probes(items))
    return list(open_sealed(KEY, blob, WORKER.verify(blob)))


def test_verdicts_come_in_the_order_of_the_claims():
    wanted = [(number % 3 > 0, PAYERS[number % 2]) for number in range(40)]
    items = [make_item(payer, amount, good) for amount, (good, payer) in enumerate(wanted, start=1)]
    assert verdicts_on(items) == [int(good) for good, _ in wanted]


@pytest.mark.parametrize("payer", PAYERS, ids=lambda payer: payer.curve)
@pytest.mark.parametrize("field", ["channel_id", "amount", "public_key", "signature"])
def test_a_verdict_counts_for_one_channel_amount_key_and_signature(payer, field: str):
    item = make_item(payer)
    other = make_item(make_payer(payer.curve, 2), amount=1_001)
    value = bytes(32) if field == "channel_id" else getattr(other, field)
    changed = msgspec.structs.replace(item, **{field: value})
    assert verdicts_on([item, changed, item]) == [1, 0, 1]


UNSIGNABLE = {
    "short channel": {"channel_id": CHANNEL_ID[:31]},
    "long channel": {"channel_id": CHANNEL_ID + b"\0"},
    "no channel": {"channel_id": b""},
    "negative amount": {"amount": -1},
    "no key": {"public_key": b""},
    "a long key": {"public_key": bytes(5_000)},
    "no signature": {"signature": b""},
    "a long signature": {"signature": bytes(5_000)},
}


@pytest.mark.parametrize("name", UNSIGNABLE)
def test_an_impossible_claim_is_bad_and_costs_the_others_nothing(name: str):
    good = make_item(PAYERS[0])
    spoilt = msgspec.structs.replace(good, **UNSIGNABLE[name])
    assert verdicts_on([good, spoilt, good]) == [1, 0, 1]


def test_a_claim_over_a_channel_id_of_other_length_is_bad_even_when_signed():
    payer = PAYERS[0]
    longer = CHANNEL_ID + b"\0"
    signature = payer.sign(b"CLM\0" + longer + (1_000).to_bytes(8, "big"))
    assert verdicts_on([Item(longer, payer.public_key, 1_000, signature)]) == [0]


def test_what_is_not_signed_has_no_part_in_the_verdict():
    plain = make_item(PAYERS[0])
    told = msgspec.structs.replace(plain, sequence=9, previous=b"x" * 32, sent_at=1)
    assert verdicts_on([plain, told]) == [1, 1]


def test_what_is_no_batch_is_refused_by_name():
    with pytest.raises(MalformedBatchError):
        WORKER.verify(b"no batch")


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_worker_without_a_whole_seal_key_does_not_start(size: int):
    with pytest.raises(ValueError, match="32 bytes"):
        VerifierWorker(bytes(size))


def test_a_worker_whose_library_judges_wrongly_does_not_start(monkeypatch):
    lies = [vector._replace(good=not vector.good) for vector in selftest.VECTORS[:1]]
    monkeypatch.setattr(selftest, "VECTORS", lies)
    with pytest.raises(SelfTestFailedError):
        VerifierWorker(KEY)
