"""What each connection sends, signed and written down before the clock starts."""

import hashlib
import itertools
import mmap
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal

import msgspec

from bench.signing import STEP_DROPS, Curve, channel_id_of, signer_of
from bench.wire import Transport, WireClaim, message

Spread = Literal["uniform", "zipf"]
NOISES: Final = 8_192
"""Different signatures where none is checked: more than a frame of the log holds, or it would be
compressed as no frame of true signatures is."""

NOT_WORTH_A_PROCESS: Final = 20_000
CHUNK: Final = 4_096
SIZE_BYTES: Final = 4


class Plan(msgspec.Struct, frozen=True):
    """What one connection sends: claims of payers `first`, `first + step` ... to before `last`.

    Spread uniformly, a round is one claim of each payer. Spread by Zipf's law, the payer of rank n,
    counted from 1 over all connections, comes 1/n as often as the first. Either way the claims of a
    channel are in order on one connection.
    """

    path: str
    first: int
    last: int
    step: int
    curve: Curve
    claims: int
    claims_per_frame: int
    transport: Transport = "inprocess"
    signed: bool = True
    sequenced: bool = True
    spread: Spread = "uniform"
    begin: int = 0
    """Number of the payer of rank 1."""


def plans(
    folder: Path, channels: tuple[int, int], connections: int, claims: int, like: Plan
) -> list[Plan]:
    """Split payers `channels[0]` to before `channels[1]`, and claims, over connections.

    `like` says everything else. Uniform claims are split by blocks of payers; by Zipf's law every
    connection has each n-th payer, so that all have much the same to send.
    """
    begin, end = channels
    count = end - begin
    cuts = [begin + count * part // connections for part in range(connections + 1)]
    parts = []
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        place = str(folder / f"frames-{begin}-{number}")
        part = msgspec.structs.replace(like, path=place, begin=begin)
        if like.spread == "zipf":
            span = {"first": begin + number, "last": end, "step": connections}
            parts.append(msgspec.structs.replace(part, claims=claims // connections, **span))
        else:
            share = claims * (last - first) // count
            parts.append(msgspec.structs.replace(part, claims=share, first=first, last=last))
    return parts


def write_frames(plan: Plan) -> int:
    """Sign a plan's claims into its file of length-prefixed messages; return how many messages."""
    frames = 0
    with open(plan.path, "wb") as file:
        claims = _claims(plan)
        while frame := list(itertools.islice(claims, plan.claims_per_frame)):
            ready = message(plan.transport, frames, frame)
            file.write(len(ready).to_bytes(SIZE_BYTES, "big") + ready)
            frames += 1
    return frames


def _claims(plan: Plan) -> Iterator[WireClaim]:
    payers = range(plan.first, plan.last, plan.step)
    ids = [channel_id_of(payer) for payer in payers]
    sign = _true_signatures(plan, payers) if plan.signed else _noise()
    sequences = array("Q", bytes(8 * len(ids)))
    for index in itertools.islice(_turns(plan, payers), plan.claims):
        sequences[index] += 1
        sequence = sequences[index]
        amount = sequence * STEP_DROPS
        yield ids[index], sequence if plan.sequenced else None, amount, sign(index, amount)


def _turns(plan: Plan, payers: Sequence[int]) -> Iterable[int]:
    """Return whose claim comes next, for ever, as an index into `payers`."""
    if plan.spread == "uniform":
        return itertools.cycle(range(len(payers)))
    weights = itertools.accumulate(1 / (payer - plan.begin + 1) for payer in payers)
    return _drawn(list(weights), random.Random(plan.first))


def _drawn(cumulative: list[float], chance: random.Random) -> Iterator[int]:
    everyone = range(len(cumulative))
    while True:
        yield from chance.choices(everyone, cum_weights=cumulative, k=CHUNK)


def _true_signatures(plan: Plan, payers: Sequence[int]) -> Callable[[int, int], bytes]:
    signers: list[Callable[[int], bytes] | None] = [None] * len(payers)

    def sign(index: int, amount: int) -> bytes:
        signer = signers[index]
        if signer is None:
            signer = signers[index] = signer_of(payers[index], plan.curve)
        return signer(amount)

    return sign


def _noise() -> Callable[[int, int], bytes]:
    """Return what gives bytes as long as a signature, that compress as little."""
    noises = [hashlib.shake_128(b"%d" % number).digest(70) for number in range(NOISES)]
    following = itertools.cycle(noises)
    return lambda index, amount: next(following)


def read_frames(path: str) -> Iterator[memoryview]:
    """Yield the messages of a file as they lie in it; nothing is read before it is wanted."""
    if not Path(path).stat().st_size:
        return
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    offset = 0
    while offset < len(data):
        start = offset + SIZE_BYTES
        offset = start + int.from_bytes(data[start - SIZE_BYTES : start], "big")
        yield data[start:offset]


def write_all(parts: Sequence[Plan], cores: int) -> list[int]:
    """Sign every plan's claims, on all cores; return the number of messages of each."""
    if sum(part.claims for part in parts) <= NOT_WORTH_A_PROCESS:
        return [write_frames(part) for part in parts]
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        return list(pool.map(write_frames, parts))


def remove_all(parts: Sequence[Plan]) -> None:
    """Remove the files of plans: a long run's are gigabytes."""
    for part in parts:
        Path(part.path).unlink()
