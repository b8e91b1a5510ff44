"""The bytes a payer signs and the digest that names a claim."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.claim import NO_CLAIM_DIGEST, claim_digest, signing_message
from engine.core.types import AMOUNT_MAX, SEQUENCE_MAX

ids = st.binary(min_size=32, max_size=32)
amounts = st.integers(0, AMOUNT_MAX)
sequences = st.integers(1, SEQUENCE_MAX)
links = st.none() | ids


def test_the_signed_bytes_are_those_of_the_ledger():
    message = signing_message(bytes.fromhex("AB" * 32), 1_000_000)
    assert message == b"CLM\x00" + bytes.fromhex("AB" * 32 + "00000000000F4240")


@given(ids, amounts)
def test_the_signed_bytes_are_44_and_say_channel_and_amount(channel_id, amount):
    message = signing_message(channel_id, amount)
    assert len(message) == 44
    assert message[4:36] == channel_id
    assert int.from_bytes(message[36:], "big") == amount


@pytest.mark.parametrize("amount", [-1, AMOUNT_MAX + 1])
def test_an_amount_outside_64_bits_cannot_be_signed(amount):
    with pytest.raises(struct.error):
        signing_message(bytes(32), amount)


def test_the_digest_is_a_plain_hash_anybody_can_compute():
    content = b"CLD\0" + b"\x07" * 32 + (3).to_bytes(8, "big") + (500).to_bytes(8, "big")
    assert claim_digest(b"\x07" * 32, 3, 500, None) == hashlib.sha256(content).digest()
    linked = hashlib.sha256(content + NO_CLAIM_DIGEST).digest()
    assert claim_digest(b"\x07" * 32, 3, 500, NO_CLAIM_DIGEST) == linked


@given(st.lists(st.tuples(ids, sequences, amounts, links), min_size=2, max_size=8, unique=True))
def test_no_two_claims_share_a_digest(claims):
    assert len({claim_digest(*claim) for claim in claims}) == len(claims)
