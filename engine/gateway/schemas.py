"""② What may come in, with its types and bounds; decoded by msgspec, refused with the field's name.

The wire has structs of its own, so it can change apart from the log. Unknown fields are refused;
where JSON repeats a key the last one counts, as msgspec has it, and the signature decides anyway.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from engine.core.claim import Claim
from engine.core.types import (
    AMOUNT_MAX,
    CHANNEL_ID_BYTES,
    DIGEST_BYTES,
    SEQUENCE_MAX,
    SIGNATURE_BYTES_MAX,
)
from engine.gateway.forms import Malformed, integer_of, octets_of, time_of

T = TypeVar("T")
Text = TypeVar("Text", str, bytes)

Octets32 = Annotated[bytes, Meta(min_length=CHANNEL_ID_BYTES, max_length=CHANNEL_ID_BYTES)]
SignatureOctets = Annotated[bytes, Meta(min_length=1, max_length=SIGNATURE_BYTES_MAX)]
SequenceNumber = Annotated[int, Meta(ge=1, le=SEQUENCE_MAX)]
INT64_MAX: Final = 2**63 - 1
"""msgspec checks bounds of 64-bit signed integers only; the few amounts above go the slow way."""


class WireClaim(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """A claim in a binary frame: `[channel_id, sequence | nil, amount, signature]` and two more."""

    channel_id: Octets32
    sequence: SequenceNumber | None
    amount: Annotated[int, Meta(ge=1, le=INT64_MAX)]
    signature: SignatureOctets
    previous: Octets32 | Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    sent_at: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None


class JsonClaim(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A claim in JSON; in the path of a single claim its channel may be left out."""

    amount: str
    signature: str
    channel_id: str | None = None
    sequence: SequenceNumber | None = None
    previous: str | None = None
    sent_at: str | None = None


class PackedClaim(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A claim as a msgpack map."""

    amount: int
    signature: SignatureOctets
    channel_id: Octets32 | None = None
    sequence: SequenceNumber | None = None
    previous: Octets32 | int | None = None
    sent_at: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None


class LooseWireClaim(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A claim in a binary frame whose amount may need the 64th bit."""

    channel_id: Octets32
    sequence: SequenceNumber | None
    amount: int
    signature: SignatureOctets
    previous: Octets32 | int | None = None
    sent_at: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None


FrameId = Annotated[int, Meta(ge=0, le=INT64_MAX)]
CLAIMS_MAX: Final = 4_096
COMMAS_MAX: Final = CLAIMS_MAX * 6
"""A claim in JSON has up to six fields, none of which may hold a comma."""

_fast: Final = msgspec.msgpack.Decoder(
    tuple[FrameId, Annotated[list[WireClaim], Meta(max_length=CLAIMS_MAX)]]
).decode
_slow: Final = msgspec.msgpack.Decoder(
    tuple[FrameId, Annotated[list[msgspec.Raw], Meta(max_length=CLAIMS_MAX)]]
).decode
_numbered: Final = msgspec.msgpack.Decoder(tuple[FrameId, msgspec.Raw]).decode
_loose: Final = msgspec.msgpack.Decoder(LooseWireClaim).decode

UNDECODABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)
"""All that msgspec raises on hostile bytes; two of them are not its own."""


_field: Final = re.compile(r"`\$\.(\w+)|(?:required|unknown) field `(\w+)`").search


def checked(decode: Callable[[Any], T], data: Any) -> T:
    """Decode; whatever is wrong with the bytes becomes `Malformed`, with the field if it is one."""
    try:
        return decode(data)
    except UNDECODABLE as error:
        detail = str(error)[:200] or type(error).__name__
        field = _field(detail)
        raise Malformed(field[1] or field[2] if field else "body", detail) from error


def decode_frame(frame: bytes) -> tuple[int, list[WireClaim] | list[Claim | Malformed]]:
    """Return a binary frame's number and claims; a bad claim is a `Malformed` in its place.

    Raises:
        Malformed: the frame as a whole is none.
    """
    try:
        return _fast(frame)
    except UNDECODABLE:
        number, claims = checked(_slow, frame)
    return number, [_loose_claim(claim) for claim in claims]


def number_of(frame: bytes) -> int | None:
    """Return the number of a frame that is none otherwise, so that its sender can tell which."""
    try:
        return checked(_numbered, frame)[0]
    except Malformed:
        return None


def _loose_claim(raw: msgspec.Raw) -> Claim | Malformed:
    try:
        claim = checked(_loose, raw)
        amount, previous = _bounded(claim.amount, claim.previous)
    except Malformed as malformed:
        return malformed
    return Claim(claim.channel_id, amount, claim.signature, claim.sequence, previous, claim.sent_at)


def _bounded(amount: int, previous: bytes | int | None) -> tuple[int, bytes | int | None]:
    if not 1 <= amount <= AMOUNT_MAX:
        raise Malformed("amount", f"1 to {AMOUNT_MAX} drops")
    if isinstance(previous, int) and not 0 <= previous <= AMOUNT_MAX:
        raise Malformed("previous", f"0 to {AMOUNT_MAX} drops, or 32 bytes")
    return amount, previous


# Claims of a call ---------------------------------------------------------------------------------


class RawBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{"claims": [...]}` whose claims are looked at one by one."""

    claims: Annotated[list[msgspec.Raw], Meta(max_length=CLAIMS_MAX)]


class Reader(msgspec.Struct, frozen=True):
    """How claims are read from one content type."""

    batch: Callable[[bytes], RawBatch]
    claim: Callable[[Any], JsonClaim | PackedClaim]

    def claims(self, body: bytes) -> list[Claim | Malformed]:
        """Return the claims of a batch; a bad one is a `Malformed` in its place.

        Raises:
            Malformed: the body as a whole is no batch.
        """
        return [self.one_or_why(raw) for raw in checked(self.batch, body).claims]

    def one(self, body: Any, channel_id: bytes | None = None) -> Claim:
        """Return the claim of a body; `channel_id` is the one in the path.

        Raises:
            Malformed: it is none, or another channel's.
        """
        claim = checked(self.claim, body)
        if isinstance(claim, JsonClaim):
            return _from_json(claim, channel_id)
        amount, previous = _bounded(claim.amount, claim.previous)
        channel = _channel_of(claim.channel_id, channel_id)
        return Claim(channel, amount, claim.signature, claim.sequence, previous, claim.sent_at)

    def one_or_why(self, raw: msgspec.Raw) -> Claim | Malformed:
        """Return the claim of an entry of a batch, or what is wrong with it."""
        try:
            return self.one(raw)
        except Malformed as malformed:
            return malformed


_json_batch: Final = msgspec.json.Decoder(RawBatch).decode


def sparse(text: Text, comma: Text) -> Text:
    """Return `text` unless it has more values than any call; the decoder counts too late.

    Raises:
        Malformed: decoding it might cost fifty times its size.
    """
    if text.count(comma) > COMMAS_MAX:
        raise Malformed("claims", f"at most {CLAIMS_MAX}")
    return text


JSON_READER: Final = Reader(
    lambda body: _json_batch(sparse(body, b",")), msgspec.json.Decoder(JsonClaim).decode
)
MSGPACK_READER: Final = Reader(
    msgspec.msgpack.Decoder(RawBatch).decode, msgspec.msgpack.Decoder(PackedClaim).decode
)


def _from_json(claim: JsonClaim, channel_id: bytes | None) -> Claim:
    given = None
    if claim.channel_id is not None:
        given = octets_of("channel_id", claim.channel_id, CHANNEL_ID_BYTES, CHANNEL_ID_BYTES)
    return Claim(
        _channel_of(given, channel_id),
        integer_of("amount", claim.amount, 1),
        octets_of("signature", claim.signature, 1, SIGNATURE_BYTES_MAX),
        claim.sequence,
        None if claim.previous is None else _previous(claim.previous),
        None if claim.sent_at is None else time_of("sent_at", claim.sent_at),
    )


def _previous(text: str) -> bytes | int:
    """An amount has at most 20 digits and a digest 64, so the length tells them apart."""
    if len(text) == 2 * DIGEST_BYTES:
        return octets_of("previous", text, DIGEST_BYTES, DIGEST_BYTES)
    return integer_of("previous", text)


def _channel_of(given: bytes | None, in_path: bytes | None) -> bytes:
    if given is None and in_path is None:
        raise Malformed("channel_id", "missing")
    if given is not None and in_path is not None and given != in_path:
        raise Malformed("channel_id", "not the channel of the path")
    return given or in_path or b""


# Commands -----------------------------------------------------------------------------------------

Seconds32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class OpenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/channels`."""

    channel_id: str
    source: Annotated[str, Meta(max_length=64)]
    destination: Annotated[str, Meta(max_length=64)]
    public_key: str
    capacity: str
    settle_delay: Seconds32
    expiration: str | None = None
    cancel_after: str | None = None
    sequencing: Literal["strict", "amount"] = "strict"
    funded: bool = False


class EmptyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a command that needs nothing said."""


class FundBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `fund`: drops to add, and the capacity the sender believes in."""

    amount: str
    previous: str | None = None


class SettleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `settle`: drops the ledger paid in all; all that is claimed where left out."""

    redeemed: str | None = None


class DisputeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `dispute`."""

    reason: Annotated[str, Meta(max_length=256)] = ""


class ResolveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `resolve`: Active, Settling or Settled; `redeemed` with the last."""

    outcome: Annotated[str, Meta(max_length=16)]
    redeemed: str | None = None


# WebSocket text -----------------------------------------------------------------------------------


class TextCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text frame. `id` is the sender's own and comes back with the answer."""

    command: Annotated[str, Meta(max_length=64)]
    id: int | Annotated[str, Meta(max_length=128)] | None = None
    claims: Annotated[list[msgspec.Raw], Meta(max_length=CLAIMS_MAX)] | None = None
    channels: Annotated[list[str], Meta(max_length=CLAIMS_MAX)] | None = None
    payments: Annotated[list[str], Meta(max_length=CLAIMS_MAX)] | Literal["all"] | None = None
    channel_id: str | None = None
    amount: str | None = None
    public_key: str | None = None
    signature: str | None = None
    consistency: str | None = None


_text: Final = msgspec.json.Decoder(TextCommand).decode


def decode_text(text: str) -> TextCommand:
    """Return a text frame's command; raises as msgspec does, and `Malformed`."""
    return _text(sparse(text, ","))
