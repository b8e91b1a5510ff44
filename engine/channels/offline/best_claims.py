"""The best claim of every channel in one file: the least that is needed to recover the money.

A text file of JSON lines. The first says what it is, then one line a channel in the order of their
ids, and the last holds the SHA-256 of all bytes before it. Keys are sorted and nothing is padded,
so the same claims always make the same bytes. Ids, keys and signatures are upper-case hex, drops
decimal strings. A channel without a claim has nothing to redeem and no line.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.core.channel import Channel
from engine.core.claim import signing_message
from engine.core.types import AMOUNT_MAX
from engine.verify.schemes import verify

FORMAT: Final = "paychan-best-claims"
VERSION: Final = 1
LINE_BYTES_MAX: Final = 4_096


class BestClaimsBroken(Exception):  # noqa: N818
    """A file is not what it says. `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class Redeemable(msgspec.Struct, frozen=True, kw_only=True):
    """One channel: what the ledger asks for, and where it stood.

    Attributes:
        channel_id: 32 bytes, hex.
        public_key: 33 bytes, hex; the ledger checks the signature with it.
        amount: the running total the claim is over, drops.
        signature: of that amount on that channel, hex.
        sequence: number of the claim in its channel.
        position: place of the claim in the log, `"<shard>-<number>"`; None where it is not known.
        destination: the account that may redeem.
        source: the account that pays.
        capacity: drops locked up in the channel.
        redeemed: drops the ledger paid already, as far as is known.
        state: where the channel was in its life.
    """

    channel_id: str
    public_key: str
    amount: str
    signature: str
    sequence: int
    position: str | None = None
    destination: str = ""
    source: str = ""
    capacity: str = "0"
    redeemed: str = "0"
    state: str = ""

    @property
    def drops(self) -> int:
        """The amount as a number."""
        return int(self.amount)

    def is_signed(self) -> bool:
        """Say whether the ledger would accept the signature; False where a field is no hex."""
        try:
            message = signing_message(bytes.fromhex(self.channel_id), self.drops)
            key, signature = bytes.fromhex(self.public_key), bytes.fromhex(self.signature)
        except (ValueError, struct.error):
            return False
        return verify(key, message, signature)


class Contents(msgspec.Struct, kw_only=True):
    """What a file holds, all of it checked.

    Attributes:
        claims: by channel id (hex).
        unsigned: ids of the channels whose signature the ledger would refuse.
        total: drops of all claims together.
        redeemed: of those, drops the ledger paid already.
        sha256: of all lines before the last, hex.
        head: what the first line says.
    """

    claims: dict[str, Redeemable]
    unsigned: tuple[str, ...]
    total: int
    redeemed: int
    sha256: str
    head: dict[str, Any]


_encode = msgspec.json.Encoder(order="sorted").encode


def redeemable(channel: Channel, position: str | None) -> Redeemable:
    """Return the line of a channel that has taken a claim: the newest that was checked."""
    terms = channel.terms
    amount, sequence = channel.best
    return Redeemable(
        channel_id=terms.channel_id.hex().upper(),
        public_key=terms.public_key.hex().upper(),
        amount=str(amount),
        signature=channel.signature.hex().upper(),
        sequence=sequence,
        position=position,
        destination=terms.destination,
        source=terms.source,
        capacity=str(channel.capacity),
        redeemed=str(channel.redeemed),
        state=channel.state.value,
    )


def best_claims_lines(
    claims: Iterable[Redeemable], positions: Mapping[str, int]
) -> Iterator[bytes]:
    """Yield the lines of a file of best claims; see `write_best_claims`."""
    ordered = sorted(claims, key=lambda claim: claim.channel_id)
    head = {
        "channels": len(ordered),
        "format": FORMAT,
        "positions": dict(positions),
        "total": str(sum(claim.drops for claim in ordered)),
        "version": VERSION,
    }
    digest = hashlib.sha256()
    for line in (head, *ordered):
        data = _encode(line) + b"\n"
        digest.update(data)
        yield data
    yield _encode({"sha256": digest.hexdigest()}) + b"\n"


def write_best_claims(
    path: Path, claims: Iterable[Redeemable], positions: Mapping[str, int]
) -> str:
    """Write the file, whole or not at all; return its SHA-256 (hex).

    Args:
        path: Replaced in one step when all is on disk.
        claims: In any order; at most one a channel.
        positions: Newest position of each shard that was looked at, by shard name.

    Raises:
        OSError: the disk refused.
    """
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        for line in best_claims_lines(claims, positions):
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_directory(path.parent)
    return _told_hash(0, line)


def unsigned_of(
    claims: Iterable[Redeemable], progress: Callable[[int], None] = lambda done: None
) -> tuple[str, ...]:
    """Return the ids of the channels whose signature the ledger would refuse; 50 µs each.

    `progress` is told how many were looked at.
    """
    found = []
    for done, claim in enumerate(claims, 1):
        if not claim.is_signed():
            found.append(claim.channel_id)
        progress(done)
    return tuple(found)


def read_best_claims(path: Path, progress: Callable[[int], None] = lambda done: None) -> Contents:
    """Read a file and check all of it: its hash, its order, its sums and every signature.

    `progress` is told how many signatures were checked.

    Raises:
        BestClaimsBroken: it is damaged, cut short or none of ours.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    claims: dict[str, Redeemable] = {}
    head: dict[str, Any] | None = None
    told = ""
    for number, line in _lines(path):
        if told:
            raise BestClaimsBroken(number, "something follows the hash, which is the last line")
        if line.startswith(b'{"sha256":'):
            told = _told_hash(number, line)
            continue
        digest.update(line)
        if head is None:
            head = _head(number, line)
        else:
            _take(claims, number, line)
    if not told or head is None:
        raise BestClaimsBroken(len(claims) + 2, "the file ends before its hash; it was cut short")
    if told != digest.hexdigest():
        raise BestClaimsBroken(len(claims) + 2, "the hash says that a line was changed")
    return _checked(head, claims, told, progress)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines with their numbers; each of bounded length."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX):
            number += 1
            if not line.endswith(b"\n"):
                raise BestClaimsBroken(number, "the line is too long, or the file was cut short")
            yield number, line


def _told_hash(number: int, line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=dict[str, str])["sha256"]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BestClaimsBroken(number, f"no hash: {error}") from error


def _head(number: int, line: bytes) -> dict[str, Any]:
    try:
        head = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BestClaimsBroken(number, f"not a file of best claims: {error}") from error
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise BestClaimsBroken(number, f"not a file of best claims, version {VERSION}")
    return head


def _take(claims: dict[str, Redeemable], number: int, line: bytes) -> None:
    try:
        claim = msgspec.json.decode(line, type=Redeemable)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BestClaimsBroken(number, str(error)) from error
    if not (claim.amount.isascii() and claim.amount.isdecimal() and claim.drops <= AMOUNT_MAX):
        raise BestClaimsBroken(number, f"{claim.amount!r} is no amount in drops")
    if claims and claim.channel_id <= next(reversed(claims)):
        raise BestClaimsBroken(number, "channels are not in the order of their ids")
    claims[claim.channel_id] = claim


def _checked(
    head: dict[str, Any],
    claims: dict[str, Redeemable],
    sha256: str,
    progress: Callable[[int], None],
) -> Contents:
    total = sum(claim.drops for claim in claims.values())
    if (head.get("channels"), head.get("total")) != (len(claims), str(total)):
        raise BestClaimsBroken(1, "the first line counts other channels or drops than follow")
    return Contents(
        claims=claims,
        unsigned=unsigned_of(claims.values(), progress),
        total=total,
        redeemed=sum(
            int(claim.redeemed) for claim in claims.values() if claim.redeemed.isdecimal()
        ),
        sha256=sha256,
        head=head,
    )


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
