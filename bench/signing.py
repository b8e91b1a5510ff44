"""Keys and signatures for load: deterministic, the same in every process."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import coincurve
import msgspec
import nacl.bindings

from engine.core.claim import signing_message
from engine.core.commands import OpenChannel
from engine.core.types import ChannelId, Drops

Curve = Literal["secp256k1", "ed25519", "mixed"]
SOURCE = "rf1BiGeXwwQoi8Z2ueFYTEXSwuJYfV2Jpn"
DESTINATION = "ra5nK24KXen9AHvsdFTKHSANinZseWnPcX"
STEP_DROPS = 10


class Payer(msgspec.Struct, frozen=True):
    """A channel and the key its payer signs with."""

    channel_id: bytes
    public_key: bytes
    secret: bytes

    @property
    def on_ed25519(self) -> bool:
        """Say which curve the key is on."""
        return self.public_key[0] == 0xED


def channel_id_of(number: int, series: str = "bench") -> bytes:
    """Return the channel of payer `number` of a series."""
    return hashlib.sha256(f"paychan {series} channel {number}".encode()).digest()


def make_payer(number: int, curve: Curve, series: str = "bench") -> Payer:
    """Return payer `number` of a series; the same every time."""
    secret = hashlib.sha256(f"paychan {series} key {number}".encode()).digest()
    channel_id = channel_id_of(number, series)
    if curve == "ed25519" or (curve == "mixed" and number % 2):
        public, secret = nacl.bindings.crypto_sign_seed_keypair(secret)
        return Payer(channel_id, b"\xed" + public, secret)
    return Payer(channel_id, coincurve.PrivateKey(secret).public_key.format(), secret)


def sign(payer: Payer, amount: int) -> bytes:
    """Return the signature of a claim over `amount` drops, as the ledger wants it."""
    return _signer(payer)(amount)


def signer_of(number: int, curve: Curve) -> Callable[[int], bytes]:
    """Return what signs amounts for payer `number`; twice as fast as `sign`, whose key is new."""
    return _signer(make_payer(number, curve))


def _signer(payer: Payer) -> Callable[[int], bytes]:
    channel_id, secret = payer.channel_id, payer.secret
    if payer.on_ed25519:
        return lambda amount: nacl.bindings.crypto_sign(
            signing_message(channel_id, amount), secret
        )[:64]
    key = coincurve.PrivateKey(secret)

    def on_secp256k1(amount: int) -> bytes:
        message = signing_message(channel_id, amount)
        return key.sign(hashlib.sha512(message).digest()[:32], hasher=None)

    return on_secp256k1


def opening(payer: Payer, capacity: int = 10**15, *, sequencing: str = "strict") -> dict[str, Any]:
    """Return the body of `POST /v1/channels` for a payer's channel."""
    return {
        "channel_id": payer.channel_id.hex().upper(),
        "source": SOURCE,
        "destination": DESTINATION,
        "public_key": payer.public_key.hex().upper(),
        "capacity": str(capacity),
        "settle_delay": 3600,
        "sequencing": sequencing,
        "funded": True,
    }


def opening_command(payer: Payer) -> OpenChannel:
    """Return the same opening as a command, for what goes past the socket."""
    body = opening(payer)
    return OpenChannel(
        channel_id=ChannelId(payer.channel_id),
        source=body["source"],
        destination=body["destination"],
        public_key=payer.public_key,
        capacity=Drops(int(body["capacity"])),
        settle_delay_s=body["settle_delay"],
        funded=True,
    )
