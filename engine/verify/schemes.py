"""Keys and signatures exactly as the ledger checks them.

The one rule: never accept what the ledger refuses, for such a claim could not be redeemed. Being
stricter is allowed. XRPL: PublicKey.cpp (key types, canonical signatures), SHA-512Half.

    secp256k1   02|03 + x (32)   ECDSA over SHA-512Half(message), strict DER, low S
    Ed25519     ED + point (32)  the message itself, 64 bytes R + S with S < L
"""

from collections.abc import Callable
from hashlib import sha512
from typing import Final

from coincurve import PublicKey
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from engine.core.types import PUBLIC_KEY_BYTES
from engine.verify.cache import KeyCache

KEY_CACHE_MAX: Final = 65_536
"""Parsed keys kept unless told otherwise; some 0.5 KB each."""

SECP256K1_PREFIXES: Final = b"\x02\x03"
ED25519_PREFIX: Final = 0xED
ED25519_SIGNATURE_BYTES: Final = 64

Check = Callable[[bytes, bytes], bool]
"""(message, signature) → good; a public key that is ready to be asked."""


def _secp256k1_check(public_key: bytes) -> Check | None:
    try:
        verify = PublicKey(public_key).verify
    except ValueError:
        return None

    def check(message: bytes, signature: bytes) -> bool:
        # libsecp256k1 parses strict DER only and calls high S a bad signature.
        try:
            return verify(signature, sha512(message).digest()[:32], None)
        except ValueError:
            return False

    return check


def _ed25519_check(public_key: bytes) -> Check | None:
    point = public_key[1:]
    # A key outside the prime-order subgroup verifies some messages and not others.
    if not crypto_core_ed25519_is_valid_point(point):
        return None

    def check(message: bytes, signature: bytes) -> bool:
        # The library splits by position: any other length would shift bytes into the message.
        if len(signature) != ED25519_SIGNATURE_BYTES:
            return False
        try:
            crypto_sign_open(signature + message, point)
        except BadSignatureError:
            return False
        return True

    return check


def parse_public_key(public_key: bytes) -> Check | None:
    """Return what checks signatures of `public_key`; None when the ledger knows no such key."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return None
    # The prefix decides before any library looks: coincurve would take other encodings too.
    if public_key[0] in SECP256K1_PREFIXES:
        return _secp256k1_check(public_key)
    if public_key[0] == ED25519_PREFIX:
        return _ed25519_check(public_key)
    return None


class SignatureChecker:
    """`verify` with a cache of parsed keys of its own; for one thread."""

    def __init__(self, keys_max: int = KEY_CACHE_MAX) -> None:
        self._keys = KeyCache(parse_public_key, keys_max)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Say whether the ledger would accept `signature`; see `verify` below."""
        check = self._keys.get(public_key)
        return check is not None and check(message, signature)


_checker = SignatureChecker()


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether the ledger would accept `signature` of `message` by `public_key`.

    Never raises for bad bytes: what cannot be parsed is False. Costs some 30 µs (secp256k1) or
    45 µs (Ed25519) for a key seen before, 5 µs or 37 µs more for a new one.

    Args:
        public_key: 33 bytes, 02, 03 or ED first.
        message: The signed bytes; for a claim `engine.core.claim.signing_message`.
        signature: Strict DER with low S, or 64 bytes.
    """
    return _checker.verify(public_key, message, signature)


def is_valid_public_key(public_key: bytes) -> bool:
    """Say whether a channel may be registered with `public_key`; 5 to 37 µs."""
    return parse_public_key(public_key) is not None
