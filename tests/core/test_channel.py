"""What can be read off a channel without changing it."""

import msgspec
import pytest
from xrpl.core.addresscodec import XRPLAddressCodecException

from engine.core.channel import Balance, Channel, derive_channel_id
from engine.core.claim import NO_CLAIM_DIGEST, claim_digest
from engine.core.types import State
from tests.builders import CHANNEL_ID, DESTINATION, SOURCE, make_channel

BALANCES = [
    # state, claimed, redeemed, the figures a reader gets
    (State.PENDING, 0, None, Balance(0, 1_000, 0, 1_000, 0)),
    (State.ACTIVE, 0, None, Balance(0, 1_000, 0, 1_000, 0)),
    (State.ACTIVE, 400, None, Balance(400, 600, 0, 1_000, 1)),
    (State.SETTLING, 400, None, Balance(400, 600, 0, 1_000, 1)),
    (State.DISPUTED, 400, None, Balance(400, 600, 0, 1_000, 1)),
    (State.SETTLED, 400, None, Balance(400, 0, 400, 1_000, 1)),
    (State.SETTLED, 400, 10, Balance(400, 0, 10, 1_000, 1)),
]


@pytest.mark.parametrize(("state", "claimed", "redeemed", "balance"), BALANCES)
def test_a_balance_says_what_is_owed_and_what_is_left(state, claimed, redeemed, balance):
    assert make_channel(state, claimed=claimed, redeemed=redeemed).balance == balance


def test_the_mark_of_a_channel_without_claims_is_thirty_two_zeros():
    assert make_channel().mark_digest == NO_CLAIM_DIGEST == bytes(32)


def test_the_mark_of_a_channel_is_the_digest_of_its_newest_claim():
    assert make_channel(claimed=400).mark_digest == claim_digest(CHANNEL_ID, 1, 400, None)


@pytest.mark.parametrize("state", State)
def test_a_channel_read_back_from_a_checkpoint_is_the_channel(state):
    channel = make_channel(state, claimed=0 if state is State.PENDING else 400)
    encoded = msgspec.msgpack.encode(channel)
    assert msgspec.msgpack.decode(encoded, type=Channel) == channel


def test_the_two_ends_of_a_channel_are_not_interchangeable():
    assert derive_channel_id(SOURCE, DESTINATION, 82) != derive_channel_id(DESTINATION, SOURCE, 82)
    assert derive_channel_id(SOURCE, DESTINATION, 82) != derive_channel_id(SOURCE, DESTINATION, 83)


@pytest.mark.parametrize("address", ["", "r", SOURCE[:-1] + "w", SOURCE[:-1], SOURCE + "x"])
def test_an_address_that_does_not_check_out_has_no_channel(address):
    with pytest.raises((XRPLAddressCodecException, ValueError)):
        derive_channel_id(address, DESTINATION, 1)


@pytest.mark.parametrize("sequence", [-1, 2**32])
def test_a_sequence_outside_32_bits_has_no_channel(sequence):
    with pytest.raises(OverflowError):
        derive_channel_id(SOURCE, DESTINATION, sequence)
