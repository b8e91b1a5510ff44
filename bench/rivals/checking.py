"""Signatures checked by coincurve with parsed keys, the fastest way there is in Python."""

import hashlib

import coincurve

from engine.core.claim import signing_message


class Checker:
    """Checks signatures on secp256k1; remembers every key it parsed."""

    def __init__(self) -> None:
        self._keys: dict[bytes, coincurve.PublicKey] = {}

    def is_good(self, key: bytes, channel_id: bytes, amount: int, signature: bytes) -> bool:
        """Say whether the signature is the key's."""
        parsed = self._keys.get(key)
        if parsed is None:
            parsed = self._keys[key] = coincurve.PublicKey(key)
        digest = hashlib.sha512(signing_message(channel_id, amount)).digest()[:32]
        return bool(parsed.verify(signature, digest, hasher=None))
