"""Turn the events of a packed frame into its payload and back: every claim in columns.

A packed frame holds hundreds of events, however few were committed together. Each field of the
claims is a column of differences to the last event of the channel, cut to the bytes its largest
number needs, lowest bytes of all first: so zstd finds nothing but what is not random. The rule
of `codec.py` holds here too: what is read is exactly what was written, and nothing else is taken.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from struct import pack, unpack
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from engine.channels.covered import cover
from engine.core.events import AnyEvent, ClaimCovered, ClaimReceived
from engine.core.types import AMOUNT_MAX, ChannelId, Checks, Position, TimeNs

COLUMNS_VERSION: Final = 1
COVERED_VERSION: Final = 2
"""Of a frame that holds covered claims in its columns; who knows version 1 only must refuse it."""

_ALL: Final = Checks.ALL
_COVERED: Final = Checks.COVERED
_US: Final = 1_000
_WORD: Final = 8
_PAIR: Final = 64
_SCALAR: Final = 32

Index = Annotated[int, Meta(ge=0)]
Extra = tuple[Index, bytes | int | None, TimeNs | None, Checks]
Row = tuple[int, int, int, int, int, bytes]
"""A claim: channel number, increment, microseconds, versions and sequences left out, signature."""

_PLAIN: Final = 0
_DER: Final = 1
_OTHER: Final = 2


class Columns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The events of one frame.

    `ids` are the channels that appear here first in the segment; they are numbered on. `others` are
    whole events with their index in the frame, lowest first; claims fill the remaining places in
    order. Of each claim, `pairs` holds 64 bytes: the signature (form 0), its two numbers taken out
    of DER (form 1), or nothing that counts, and the signature is in `signatures` (form 2). The
    other columns say by how much more than the least possible a claim differs from the event
    before: of its channel, and for `times`, in microseconds, of the segment. `extras` are the
    optional fields of claims that have any. `distances` is a column of version 2: how far below the
    sequence of the claim that covers it, 0 where the claim's own signature was checked.
    """

    version: int
    first: int
    pairs: bytes
    ids: list[ChannelId]
    channels: bytes
    increments: bytes
    times: bytes
    versions: bytes
    sequences: bytes
    forms: bytes
    signatures: list[bytes]
    extras: list[Extra]
    others: list[tuple[Index, AnyEvent]]
    distances: bytes = b""


class ColumnCodec:
    """Turns the events of a packed frame into its payload and back; one instance per segment."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._ids: list[ChannelId] = []
        self._versions: list[int] = []
        self._sequences: list[int] = []
        self._amounts: list[int] = []
        self._at = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Columns).decode

    def encode(self, first: int, records: Sequence[AnyEvent]) -> bytes:
        """Return the payload of a frame whose first event has position `first`."""
        known = self._numbers
        ids = [key for key in dict.fromkeys(e.channel_id for e in records) if key not in known]
        self._number(ids)
        rows: list[Row] = []
        extras: list[Extra] = []
        others: list[tuple[int, AnyEvent]] = []
        distances: list[int] = []
        for index, event in enumerate(records):
            number = known[event.channel_id]
            if isinstance(event, ClaimReceived) and self._follows(event, number):
                away = event.covered_by - event.sequence if type(event) is ClaimCovered else 0
                if _says_more(event, _COVERED if away else _ALL):
                    extras.append((len(rows), event.previous, event.sent_at, event.checks))
                rows.append(self._row(event, number))
                distances.append(away)
            else:
                others.append((index, event))
            self._note(event, number)
        channels, increments, times, versions, sequences, signatures = (
            zip(*rows, strict=True) if rows else ((),) * 6
        )
        forms, pairs = _taken_apart(signatures)
        odd = [sig for sig, form in zip(signatures, forms, strict=True) if form == _OTHER]
        columns = (
            pairs, ids, _column(channels), _column(increments), _column(times), _column(versions),
            _column(sequences), _column(forms), odd, extras, others,
        )  # fmt: skip
        if any(distances):
            return self._encode(Columns(COVERED_VERSION, first, *columns, _column(distances)))
        return self._encode((COLUMNS_VERSION, first, *columns))

    def first_of(self, payload: bytes) -> Position:
        """Return the position of the first event of a payload."""
        return Position(self._decode(payload).first)

    def decode(self, first: int, count: int, payload: bytes) -> list[AnyEvent]:
        """Return the `count` events of a payload.

        Raises:
            ValueError: the bytes are not the payload of this place in the log.
        """
        frame = self._decode(payload)
        version = COVERED_VERSION if frame.distances else COLUMNS_VERSION
        if frame.version != version or frame.first != first:
            raise ValueError(f"columns of version {frame.version} at {frame.first}")
        if len(frame.ids) != len(set(frame.ids) - self._numbers.keys()):
            raise ValueError("a channel is numbered twice")
        self._number(frame.ids)
        rows = _rows(frame, count - len(frame.others))
        events: list[AnyEvent] = []
        for index, other in frame.others:
            if index > len(events):
                events += self._claims(islice(rows, index - len(events)))
            if index != len(events):
                raise ValueError(f"an event at place {index}, where {len(events)} is next")
            self._note(other, self._numbers[other.channel_id])
            events.append(other)
        events += self._claims(rows)
        away = _numbers(frame.distances, count - len(frame.others)) if frame.distances else ()
        cover(events, frame.others, away)
        _complete(events, frame)
        return events

    def _number(self, ids: list[ChannelId]) -> None:
        """Give the next numbers to channels that appear for the first time."""
        for channel_id in ids:
            self._numbers[channel_id] = len(self._ids)
            self._ids.append(channel_id)
            for row in (self._versions, self._sequences, self._amounts):
                row.append(0)

    def _follows(self, claim: ClaimReceived, number: int) -> bool:
        """Say whether a claim goes on from the last event of its channel, however far."""
        return (
            claim.version > self._versions[number]
            and (type(claim) is ClaimReceived or claim.covered_by > claim.sequence)  # type: ignore[attr-defined]
            and claim.sequence > self._sequences[number]
            and claim.amount >= self._amounts[number]
            and claim.at >= self._at
            and (claim.at - self._at) % _US == 0
        )

    def _row(self, claim: ClaimReceived, number: int) -> Row:
        return (
            number,
            claim.amount - self._amounts[number],
            (claim.at - self._at) // _US,
            claim.version - self._versions[number] - 1,
            claim.sequence - self._sequences[number] - 1,
            claim.signature,
        )

    def _note(self, event: AnyEvent, number: int) -> None:
        """Keep what an event leaves behind."""
        self._versions[number] = event.version
        self._at = event.at
        if isinstance(event, ClaimReceived):
            self._sequences[number] = event.sequence
            self._amounts[number] = event.amount

    def _claims(self, rows: Iterable[Row]) -> list[AnyEvent]:
        """Return the claims of some rows.

        Raises:
            ValueError: no writer leaves such rows.
        """
        # Every claim of a replay comes through here, so what the loop needs is at hand.
        ids, at = self._ids, TimeNs(self._at)
        versions, sequences, amounts = self._versions, self._sequences, self._amounts
        claims: list[AnyEvent] = []
        add = claims.append
        try:
            for number, increment, later, versions_out, sequences_out, signature in rows:
                version = versions[number] = versions[number] + versions_out + 1
                sequence = sequences[number] = sequences[number] + sequences_out + 1
                amount = amounts[number] = amounts[number] + increment
                if amount > AMOUNT_MAX:
                    raise ValueError(f"an amount of {amount} drops")
                if later:
                    at += later * _US  # type: ignore[assignment]  # a NewType costs a call
                add(
                    ClaimReceived(
                        channel_id=ids[number],
                        version=version,
                        at=at,
                        sequence=sequence,  # type: ignore[arg-type]
                        amount=amount,  # type: ignore[arg-type]
                        signature=signature,
                    )
                )
        except IndexError as error:
            raise ValueError("a channel number that was never given in this segment") from error
        self._at = at
        return claims


def _rows(frame: Columns, claims: int) -> Iterator[Row]:
    """Return the claims of a frame, row by row.

    Raises:
        ValueError: a column has another length.
    """
    if claims < 0 or len(frame.pairs) != _PAIR * claims:
        raise ValueError(f"{len(frame.pairs)} bytes of signatures for {claims} claims")
    return zip(
        _numbers(frame.channels, claims),
        _numbers(frame.increments, claims),
        _numbers(frame.times, claims),
        _numbers(frame.versions, claims),
        _numbers(frame.sequences, claims),
        _put_together(_numbers(frame.forms, claims), frame.pairs, frame.signatures),
        strict=True,
    )


def _says_more(claim: ClaimReceived, plain: Checks) -> bool:
    """Say whether a claim has optional fields, or other checks than are plain for its kind."""
    return claim.previous is not None or claim.sent_at is not None or claim.checks != plain


def _complete(events: list[AnyEvent], frame: Columns) -> None:
    """Give those claims their optional fields that have any."""
    if not frame.extras:
        return
    others = {index for index, _ in frame.others}
    places = [place for place in range(len(events)) if place not in others]
    for index, previous, sent_at, checks in frame.extras:
        place = places[index]
        events[place] = replace(events[place], previous=previous, sent_at=sent_at, checks=checks)


def _column(values: Sequence[int]) -> bytes:
    """Return numbers below 2**64, the lowest byte of each first, then the next; zeros are free."""
    width = (max(values, default=0).bit_length() + 7) // 8
    words = pack(f"<{len(values)}Q", *values)
    return b"".join(words[byte::_WORD] for byte in range(width))


def _numbers(column: bytes, count: int) -> Sequence[int]:
    """Return the `count` numbers of a column."""
    if not column:
        return [0] * count
    width, rest = divmod(len(column), count) if count else (0, 1)
    if rest or width > _WORD:
        raise ValueError(f"a column of {len(column)} bytes for {count} claims")
    words = bytearray(_WORD * count)
    for byte in range(width):
        words[byte::_WORD] = column[byte * count : (byte + 1) * count]
    return unpack(f"<{count}Q", words)


def _taken_apart(signatures: Iterable[bytes]) -> tuple[list[int], bytes]:
    """Return the form of each signature, and 64 bytes for each."""
    forms, pairs = [], []
    for signature in signatures:
        pair = signature if len(signature) == _PAIR else _from_der(signature)
        forms.append(_OTHER if pair is None else _PLAIN if pair is signature else _DER)
        pairs.append(pair or bytes(_PAIR))
    return forms, b"".join(pairs)


def _put_together(forms: Sequence[int], pairs: bytes, others: list[bytes]) -> list[bytes]:
    """Return the signatures again."""
    if forms.count(_OTHER) != len(others):
        raise ValueError(f"{len(others)} signatures written whole")
    signatures = [pairs[at : at + _PAIR] for at in range(0, len(pairs), _PAIR)]
    rest = iter(others)
    if any(forms):
        for place, form in enumerate(forms):
            if form == _DER:
                signatures[place] = _to_der(signatures[place])
            elif form:
                signatures[place] = next(rest)
    return signatures


def _from_der(signature: bytes) -> bytes | None:
    """Return the two numbers of an ECDSA signature, 32 bytes each; None where they are not all."""
    try:
        size = signature[3]
        r = int.from_bytes(signature[4 : 4 + size])
        s = int.from_bytes(signature[6 + size :])
        pair = r.to_bytes(_SCALAR) + s.to_bytes(_SCALAR)
    except (IndexError, OverflowError):
        return None
    return pair if _to_der(pair) == signature else None


def _to_der(pair: bytes) -> bytes:
    """Return a signature of two numbers as X.690 would have it: the shortest form of each."""
    r, s = _der_number(pair[:_SCALAR]), _der_number(pair[_SCALAR:])
    return b"\x30" + bytes([len(r) + len(s)]) + r + s


def _der_number(number: bytes) -> bytes:
    digits = number.lstrip(b"\0") or b"\0"
    if digits[0] >= 0x80:
        digits = b"\0" + digits
    return bytes([2, len(digits)]) + digits
