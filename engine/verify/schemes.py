"""Keys and signatures exactly as the ledger checks them.

The one rule: never accept what the ledger refuses, for such a claim could not be redeemed. Being
stricter is allowed. XRPL: PublicKey.cpp (key types, canonical signatures), SHA-512Half.

    secp256k1   02|03 + x (32)   ECDSA over SHA-512Half(message), strict DER, low S
    Ed25519     ED + point (32)  the message itself, 64 bytes R + S with S < L
"""

from collections.abc import Callable
from typing import Final

from coincurve import PublicKey
from coincurve._libsecp256k1 import ffi, lib
from nacl._sodium import ffi as sodium_ffi
from nacl._sodium import lib as sodium
from nacl.bindings import crypto_core_ed25519_is_valid_point

from engine.core.types import PUBLIC_KEY_BYTES
from engine.verify.cache import KeyCache

try:  # of Python itself: OpenSSL, behind `hashlib`, takes twice as long for 44 bytes
    from _sha2 import sha512
except ImportError:
    try:
        from _sha512 import sha512  # before Python 3.12
    except ImportError:  # built without it
        from hashlib import sha512

KEY_CACHE_MAX: Final = 65_536
"""Parsed keys kept unless told otherwise; some 0.5 KB each."""

SECP256K1_PREFIXES: Final = b"\x02\x03"
ED25519_PREFIX: Final = 0xED
ED25519_SIGNATURE_BYTES: Final = 64

Check = Callable[[bytes, bytes], bool]
"""(message, signature) → good; a public key that is ready to be asked."""

_SIGNATURE: Final = ffi.typeof("secp256k1_ecdsa_signature *")
_new_signature: Final = ffi.new_allocator(should_clear_after_alloc=False)
_parse_der: Final = lib.secp256k1_ecdsa_signature_parse_der
_ecdsa_verify: Final = lib.secp256k1_ecdsa_verify
_open_signed: Final = sodium.crypto_sign_open
_NULL: Final = sodium_ffi.NULL


def _secp256k1_check(public_key: bytes) -> Check | None:
    try:
        key = PublicKey(public_key)
    except ValueError:
        return None
    context, point = key.context.ctx, key.public_key

    def check(message: bytes, signature: bytes) -> bool:
        # What `PublicKey.verify` does, without its detours (ADR 0032). libsecp256k1 parses strict
        # DER only, calls high S a bad signature, and reads 32 bytes of the digest. The parsed
        # signature is made anew for each call: the library lets go of the GIL in between.
        parsed = _new_signature(_SIGNATURE)
        good: bool = (
            _parse_der(context, parsed, signature, len(signature)) == 1
            and _ecdsa_verify(context, parsed, sha512(message).digest(), point) == 1
        )
        return good

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
        # What `crypto_sign_open` of PyNaCl does, but for the copy of the message (ADR 0032).
        signed = signature + message
        good: bool = _open_signed(_NULL, _NULL, signed, len(signed), point) == 0
        return good

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
    """`verify` with a cache of parsed keys of its own; for one thread.

    Attributes:
        check_of: What `parse_public_key` returns for a key, from the cache where it is there.
    """

    def __init__(self, keys_max: int = KEY_CACHE_MAX) -> None:
        self.check_of = KeyCache(parse_public_key, keys_max).get

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Say whether the ledger would accept `signature`; see `verify` below."""
        check = self.check_of(public_key)
        return check is not None and check(message, signature)


_checker = SignatureChecker()
known_check: Final = _checker.check_of
"""`SignatureChecker.check_of` of this process."""


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
