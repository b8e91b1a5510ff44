"""Keys and signed claims for load: deterministic, made before the clock starts.

A payer's work is not the engine's: claims are signed ahead of a run, on all cores, and lie in files
of ready-made messages that the load process only sends.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
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


def make_payer(number: int, curve: Curve, series: str = "bench") -> Payer:
    """Return payer `number` of a series; the same every time."""
    secret = hashlib.sha256(f"paychan {series} key {number}".encode()).digest()
    channel_id = hashlib.sha256(f"paychan {series} channel {number}".encode()).digest()
    if curve == "ed25519" or (curve == "mixed" and number % 2):
        public, secret = nacl.bindings.crypto_sign_seed_keypair(secret)
        return Payer(channel_id, b"\xed" + public, secret)
    return Payer(channel_id, coincurve.PrivateKey(secret).public_key.format(), secret)


def sign(payer: Payer, amount: int) -> bytes:
    """Return the signature of a claim over `amount` drops, as the ledger wants it."""
    message = signing_message(payer.channel_id, amount)
    if payer.on_ed25519:
        return nacl.bindings.crypto_sign(message, payer.secret)[:64]
    digest = hashlib.sha512(message).digest()[:32]
    return coincurve.PrivateKey(payer.secret).sign(digest, hasher=None)


def opening(payer: Payer, capacity: int = 10**15) -> dict[str, Any]:
    """Return the body of `POST /v1/channels` for a payer's channel."""
    return {
        "channel_id": payer.channel_id.hex().upper(),
        "source": SOURCE,
        "destination": DESTINATION,
        "public_key": payer.public_key.hex().upper(),
        "capacity": str(capacity),
        "settle_delay": 3600,
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


class Plan(msgspec.Struct, frozen=True):
    """What one connection sends: claims of payers `first` to before `last`, in rounds.

    A round is one claim of each payer, so every channel's claims are in order on one connection.
    """

    path: str
    first: int
    last: int
    curve: Curve
    claims: int
    claims_per_frame: int
    signed: bool = True


def plans(
    folder: Path,
    curve: Curve,
    channels: int,
    connections: int,
    sizes: tuple[int, int],
    *,
    signed: bool = True,
) -> list[Plan]:
    """Split channels over connections; `sizes` are claims in all and claims a frame."""
    claims, per_frame = sizes
    cuts = [channels * part // connections for part in range(connections + 1)]
    return [
        Plan(
            str(folder / f"frames-{number}"),
            first,
            last,
            curve,
            claims * (last - first) // channels,
            per_frame,
            signed,
        )
        for number, (first, last) in enumerate(itertools.pairwise(cuts))
    ]


def write_frames(plan: Plan) -> int:
    """Sign a plan's claims into its file of length-prefixed binary frames; return how many."""
    payers = [make_payer(number, plan.curve) for number in range(plan.first, plan.last)]
    encode = msgspec.msgpack.Encoder().encode
    frames = 0
    with open(plan.path, "wb") as file:
        for claims in _frames(payers, plan):
            frame = encode([frames, claims])
            file.write(len(frame).to_bytes(4, "big") + frame)
            frames += 1
    return frames


def _frames(payers: Sequence[Payer], plan: Plan) -> Iterator[list[tuple[bytes, int, int, bytes]]]:
    frame: list[tuple[bytes, int, int, bytes]] = []
    for number in range(plan.claims):
        payer, sequence = payers[number % len(payers)], number // len(payers) + 1
        amount = sequence * STEP_DROPS
        signature = sign(payer, amount) if plan.signed else _noise(payer, amount)
        frame.append((payer.channel_id, sequence, amount, signature))
        if len(frame) == plan.claims_per_frame:
            yield frame
            frame = []
    if frame:
        yield frame


def _noise(payer: Payer, amount: int) -> bytes:
    """Return what is as long as a signature and compresses as little, where none is checked."""
    return hashlib.shake_128(signing_message(payer.channel_id, amount)).digest(70)


def read_frames(path: str) -> list[bytes]:
    """Return the frames of a file."""
    data = Path(path).read_bytes()
    frames: list[bytes] = []
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "big")
        frames.append(data[offset + 4 : offset + 4 + size])
        offset += 4 + size
    return frames


def write_all(parts: Sequence[Plan], cores: int) -> list[int]:
    """Sign every plan's claims, on all cores; return the number of frames of each."""
    with ProcessPoolExecutor(cores) as pool:
        return list(pool.map(write_frames, parts))
