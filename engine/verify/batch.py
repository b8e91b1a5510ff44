"""What travels from gateway to verifier and shard: one blob, the same bytes for both.

    msgpack array of items, the last two of them probes
    item = [channel_id, public_key, amount, signature, sequence, previous, sent_at]
    verdicts = one byte an item in order, 1 good, 0 bad; so the last two must be 0, 1
               where the newest claim of a channel speaks for all (`newest.py`), 2 not looked at

The one rule: a batch without its two probes proves nothing, so it decides nothing.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from engine.verify.errors import MalformedBatchError
from engine.verify.schemes import ED25519_PREFIX

CLAIMS_PER_BATCH_MAX: Final = 512
"""Claims in one batch, probes not counted."""

ITEM_BYTES_MAX: Final = 206
"""One item whose every field is as long as a well-formed claim allows."""

PROBE_VERDICTS: Final = b"\0\1"
PROBE_COUNT: Final = len(PROBE_VERDICTS)

EVERY_VERDICTS: Final = b"\0\1"
"""The verdicts there are where every signature is checked."""

BATCH_BYTES_MAX: Final = 3 + (CLAIMS_PER_BATCH_MAX + PROBE_COUNT) * ITEM_BYTES_MAX
"""Some 103 KiB: a batch of ordinary claims (160 bytes each) still travels inline in a Ray call."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One claim on its way, with the key it is to be checked against.

    Attributes:
        channel_id: 32 bytes.
        public_key: 33 bytes; the shard compares it with the channel's own.
        amount: Drops owed in all.
        signature: As the payer sent it.
        sequence: Number of the claim in its channel.
        previous: The mark the sender believes in: a digest or an amount.
        sent_at: The sender's clock, nanoseconds.
    """

    channel_id: bytes
    public_key: bytes
    amount: int
    signature: bytes
    sequence: int | None = None
    previous: bytes | int | None = None
    sent_at: int | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Item]).decode


def _probes(channel_id: str, public_key: str, signature: str) -> tuple[Item, Item]:
    """Return (bad, good): a published claim over 1,000,000 drops, and one drop added to it."""
    good = Item(
        channel_id=bytes.fromhex(channel_id),
        public_key=bytes.fromhex(public_key),
        amount=1_000_000,
        signature=bytes.fromhex(signature),
    )
    return msgspec.structs.replace(good, amount=good.amount + 1), good


# Published with xrpl.js (authorizeChannel test); the keys guard nothing.
SECP256K1_PROBES: Final = _probes(
    "5DB01B7FFED6B67E6B0414DED11E051D2EE2B7619CE0EAA6286D67A3A4D5BDB3",
    "023D5005A90AE49BEA3BECECCE9B3AB0CA89F60DF3191A54BCCDBF39F47F4AD610",
    "304402204E7052F33DDAFAAA55C9F5B132A5E50EE95B2CF68C0902F61DFE77299BC89374"
    "0220353640B951DCD24371C16868B3F91B78D38B6F3FD1E826413CDF891FA8250AAC",
)
ED25519_PROBES: Final = _probes(
    "5DB01B7FFED6B67E6B0414DED11E051D2EE2B7619CE0EAA6286D67A3A4D5BDB3",
    "ED4139EEFB4A5E0A3B9698A9ECAB5A7C66E4270B49548542D54BFB810784931497",
    "7E1C217A3E4B3C107B7A356E665088B4FBA6464C48C58267BEF64975E3375EA3"
    "38AE22E6714E3F5E734AE33E6B97AAD59058E1E196C1F92346FC1498D0674404",
)

_PROBE_TAILS: Final = tuple(
    b"".join(_encode(probe) for probe in pair) for pair in (SECP256K1_PROBES, ED25519_PROBES)
)


def with_probes(items: Sequence[Item]) -> list[Item]:
    """Return `items` and two probes, bad then good, on the curve of the first item."""
    on_ed25519 = bool(items) and items[0].public_key[:1] == bytes((ED25519_PREFIX,))
    return [*items, *(ED25519_PROBES if on_ed25519 else SECP256K1_PROBES)]


def encode_batch(items: Sequence[Item]) -> bytes:
    """Return the blob of `items`, which end with probes (`with_probes`).

    Any `CLAIMS_PER_BATCH_MAX` well-formed claims and their probes fit.

    Raises:
        MalformedBatchError: too many items, fields too long, a number beyond 64 bits, or no
            probes at the end.
    """
    if len(items) > CLAIMS_PER_BATCH_MAX + PROBE_COUNT:
        raise MalformedBatchError(f"{len(items)} items")
    try:
        blob = _encode(items)
    except OverflowError as error:
        raise MalformedBatchError(str(error)) from error
    if len(blob) > BATCH_BYTES_MAX:
        raise MalformedBatchError(f"{len(blob)} bytes")
    if not ends_with_probes(blob):
        raise MalformedBatchError("no probes at the end")
    return blob


def decode_batch(blob: bytes) -> list[Item]:
    """Return the items of `blob`, probes included.

    Raises:
        MalformedBatchError: not a batch, or one beyond its bounds.
    """
    if len(blob) > BATCH_BYTES_MAX:
        raise MalformedBatchError(f"{len(blob)} bytes")
    try:
        items = _decode(blob)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedBatchError(str(error)) from error
    if len(items) > CLAIMS_PER_BATCH_MAX + PROBE_COUNT:
        raise MalformedBatchError(f"{len(items)} items")
    return items


def item_count(blob: bytes) -> int:
    """Return how many items `blob` says it holds, probes included, without decoding them.

    Raises:
        MalformedBatchError: `blob` does not start as a batch does.
    """
    # msgpack array: 9n, or DC and 16 bits; the bounds leave no room for the 32-bit form.
    if blob and blob[0] & 0xF0 == 0x90:
        return blob[0] & 0x0F
    if len(blob) >= 3 and blob[0] == 0xDC:
        return int.from_bytes(blob[1:3], "big")
    raise MalformedBatchError("no array of items")


def ends_with_probes(blob: bytes) -> bool:
    """Say whether the last two items of `blob` are a pair of probes."""
    return blob.endswith(_PROBE_TAILS)


def are_plausible(verdicts: bytes, count: int, known: bytes = EVERY_VERDICTS) -> bool:
    """Say whether `verdicts` could be a working verifier's on `count` claims and two probes.

    `known` are the verdicts that verifiers of this engine give.
    """
    return (
        len(verdicts) == count + PROBE_COUNT
        and verdicts.endswith(PROBE_VERDICTS)
        and not verdicts.translate(None, known)
    )
