"""Payers that sign, and signatures taken apart so that tests can spoil them."""

from hashlib import sha512
from typing import NamedTuple

from coincurve import PrivateKey
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from engine.core.claim import signing_message
from engine.verify.batch import Item
from tests.verify import reference

CHANNEL_ID = bytes(range(100, 132))


class Payer(NamedTuple):
    curve: str
    seed: bytes
    public_key: bytes

    def sign(self, message: bytes) -> bytes:
        if self.curve == "ed25519":
            return crypto_sign(message, crypto_sign_seed_keypair(self.seed)[1])[:64]
        return PrivateKey(self.seed).sign(sha512(message).digest()[:32], hasher=None)


def make_payer(curve: str, number: int = 1) -> Payer:
    seed = sha512(b"payer %d" % number).digest()[:32]
    if curve == "ed25519":
        return Payer(curve, seed, b"\xed" + crypto_sign_seed_keypair(seed)[0])
    return Payer(curve, seed, PrivateKey(seed).public_key.format())


def make_item(payer: Payer, amount: int = 1_000, good: bool = True, **fields: object) -> Item:
    signed = signing_message(CHANNEL_ID, amount if good else amount + 1)
    return Item(CHANNEL_ID, payer.public_key, amount, payer.sign(signed), **fields)


def positive(number: int) -> bytes:
    """The shortest signed big-endian form."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def der(r: bytes, s: bytes) -> bytes:
    body = b"".join(bytes((2, len(one))) + one for one in (r, s))
    return bytes((0x30, len(body))) + body


def split(signature: bytes) -> tuple[int, int]:
    numbers = reference.read_der(signature)
    assert numbers is not None
    return numbers
