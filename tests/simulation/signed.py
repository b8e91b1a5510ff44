"""Claims that are truly signed and truly checked, each only once in the life of this process.

Thousands of histories use the same few channels and amounts, so a signature made or judged in one
of them is remembered for the others. What is remembered came from the real functions.
"""

from functools import cache, partial
from hashlib import sha256

from engine.core.claim import Claim, signing_message
from engine.verify.schemes import Check, SignatureChecker
from tests.verify.payers import Payer, make_payer

CHANNELS = 8
_REAL = SignatureChecker(1_024)


class RememberingChecker:
    """A `SignatureChecker` that asks the real one about each signature once."""

    def __init__(self, key_cache_max: int) -> None:
        """Keep the size out: one memory serves all."""

    @staticmethod
    @cache
    def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
        return _REAL.verify(public_key, message, signature)

    def check_of(self, public_key: bytes) -> Check:
        return partial(self.verify, public_key)


@cache
def payer_of(number: int) -> Payer:
    """Return the payer of channel `number`: every second one is on the other curve."""
    return make_payer("ed25519" if number % 2 else "secp256k1", number)


@cache
def channel_id_of(number: int) -> bytes:
    return sha256(b"simulated channel %d" % number).digest()


@cache
def signature_of(number: int, amount: int) -> bytes:
    return payer_of(number).sign(signing_message(channel_id_of(number), amount))


def claim_of(number: int, amount: int, sequence: int | None) -> Claim:
    """Return the claim of `amount` on channel `number`, signed by its payer."""
    return Claim(channel_id_of(number), amount, signature_of(number, amount), sequence)
