"""Turn the events of a frame into its payload and back: claims in columns, the rest whole.

A frame of the log is the batch of events that was committed together. Nearly all of them are claims
that continue a channel in the plainest way, so `EventCodec` writes those as three columns (channel
number, increment, signature) and everything else as whole events beside them. Channels are numbered
by first appearance in the segment, so each segment can be read alone.

Covered claims (`ClaimCovered`) are in the columns as well, with the distance to the claim that
covers them; their signatures, which nobody looked at, stand apart. A reader that does not know of
them finds too few signatures and refuses the frame.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from engine.channels.columns import ColumnCodec, Index
from engine.channels.covered import cover
from engine.core.events import AnyEvent, ClaimCovered, ClaimReceived
from engine.core.types import AMOUNT_MAX, ChannelId, Checks, Position, TimeNs

EVENT_SCHEMA_VERSION: Final = 1
CLAIM_TAGS: Final = frozenset(kind.__struct_config__.tag for kind in (ClaimReceived, ClaimCovered))
_ALL: Final = Checks.ALL
_COVERED: Final = Checks.COVERED


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The events of one frame.

    `others` are whole events with their index in the frame, lowest first; the columns fill the
    remaining places in order. A claim fits the columns when its channel appeared in this segment
    before, its version and sequence are one more than there, its time is `at`, and it says nothing
    optional.
    """

    first: int
    at: int
    channels: list[int]
    increments: list[int]
    signatures: list[bytes]
    others: list[tuple[int, AnyEvent]]


class CoveredPayload(Payload, frozen=True, array_like=True, gc=False):
    """The events of a frame with covered claims in its columns.

    `distances` has a number for each claim of the columns: how far its sequence is below that of
    the claim that covers it, 0 where its own signature was checked. `unseen` are the signatures of
    the covered ones, in order; `signatures` holds the others'.
    """

    distances: list[Index] = []
    unseen: list[bytes] = []


class PassedEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The head of any event; of a claim also what later ones build on, of others anything."""

    tag: int
    channel_id: ChannelId
    version: int
    at: int
    sequence: Any = 0
    amount: Any = 0


class PassedPayload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The same, read by somebody who does not want the signatures."""

    first: int
    at: int
    channels: list[int]
    increments: list[int]
    signatures: msgspec.Raw
    others: list[tuple[int, PassedEvent]]


class EventCodec:
    """Turns the events of a frame into its payload and back; one instance per segment.

    For each channel of the segment it keeps what the last event left behind, in one row a field:
    deltas start from there.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._ids: list[ChannelId] = []
        # Lists, for their numbers are those of the channel itself: an array would make each anew.
        self._versions: list[int] = []
        self._sequences: list[int] = []
        self._amounts: list[int] = []
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(CoveredPayload).decode
        self._decode_passed = msgspec.msgpack.Decoder(PassedPayload).decode

    def packed(self) -> ColumnCodec:
        """Return the codec of a segment that was packed."""
        return ColumnCodec()

    def encode(self, first: int, records: Sequence[AnyEvent]) -> bytes:
        """Return the payload of a frame whose first event has position `first`."""
        at = records[0].at
        number_of, versions, sequences = self._numbers.get, self._versions, self._sequences
        amounts = self._amounts
        channels: list[int] = []
        increments: list[int] = []
        signatures: list[bytes] = []
        others: list[tuple[int, AnyEvent]] = []
        covered: list[tuple[int, ClaimCovered]] = []
        for index, event in enumerate(records):
            number = number_of(event.channel_id)
            if (
                number is not None
                and type(event) is ClaimReceived
                and (version := event.version) == versions[number] + 1
                and (sequence := event.sequence) == sequences[number] + 1
                and event.at == at
                and event.previous is None
                and event.sent_at is None
                and event.checks is _ALL
                and sequence > 1
            ):
                amount = event.amount
                channels.append(number)
                increments.append(amount - amounts[number])
                signatures.append(event.signature)
                versions[number], sequences[number], amounts[number] = version, sequence, amount
            elif (
                number is not None and type(event) is ClaimCovered and self._fits(event, number, at)
            ):
                covered.append((len(channels), event))
                channels.append(number)
                increments.append(event.amount - amounts[number])
                self._note(event)
            else:
                others.append((index, event))
                self._note(event)
        if covered:
            return self._encode(
                CoveredPayload(
                    first, at, channels, increments, signatures, others,
                    _distances(covered, len(channels)), [event.signature for _, event in covered],
                )
            )  # fmt: skip
        return self._encode(Payload(first, at, channels, increments, signatures, others))

    def _fits(self, event: ClaimCovered, number: int, at: int) -> bool:
        """Say whether a covered claim continues its channel in the plainest way."""
        return (
            event.version == self._versions[number] + 1
            and event.sequence == self._sequences[number] + 1
            and event.at == at
            and event.previous is None
            and event.sent_at is None
            and event.checks is _COVERED
            and event.covered_by > event.sequence > 1
        )

    def first_of(self, payload: bytes) -> Position:
        """Return the position of the first event of a payload."""
        return Position(self._decode(payload).first)

    def decode(self, first: int, count: int, payload: bytes) -> list[AnyEvent]:
        """Return the `count` events of a payload.

        Raises:
            ValueError: the bytes are not the payload of this place in the log.
        """
        frame = self._decode(payload)
        plain = len(frame.channels)
        if frame.first != first or plain + len(frame.others) != count:
            raise ValueError(f"payload of {plain + len(frame.others)} events at {frame.first}")
        signatures = _woven(frame) if frame.distances or frame.unseen else frame.signatures
        if not plain == len(frame.increments) == len(signatures):
            raise ValueError("columns of different lengths")
        claims = zip(frame.channels, frame.increments, signatures, strict=True)
        events: list[AnyEvent] = []
        for index, other in frame.others:
            if index > len(events):
                events += self._claims(islice(claims, index - len(events)), frame.at)
            if index != len(events):
                raise ValueError(f"an event at place {index}, where {len(events)} is next")
            self._note(other)
            events.append(other)
        events += self._claims(claims, frame.at)
        cover(events, frame.others, frame.distances)
        return events

    def skip(self, first: int, count: int, payload: bytes) -> None:
        """Remember of a payload what later ones build on, without making its events.

        Raises:
            ValueError: the bytes are not the payload of this place in the log.
        """
        frame = self._decode_passed(payload)
        if frame.first != first or len(frame.channels) + len(frame.others) != count:
            raise ValueError(f"payload of another place than {first}")
        claims = zip(frame.channels, frame.increments, strict=True)
        passed = 0
        for index, other in frame.others:
            if index < passed:
                raise ValueError(f"an event at place {index}, where {passed} is next")
            if index > passed:
                self._pass(islice(claims, index - passed))
            number = self._number_of(other.channel_id)
            self._versions[number] = other.version
            if other.tag in CLAIM_TAGS:
                self._sequences[number] = other.sequence
                self._amounts[number] = other.amount
            passed = index + 1
        self._pass(claims)

    def _pass(self, rows: Iterable[tuple[int, int]]) -> None:
        versions, sequences, amounts = self._versions, self._sequences, self._amounts
        for number, increment in rows:
            versions[number] += 1
            sequences[number] += 1
            amounts[number] += increment

    def _claims(self, rows: Iterable[tuple[int, int, bytes]], at: int) -> list[AnyEvent]:
        """Return the claims of some rows of the columns.

        Raises:
            ValueError: no writer leaves such rows.
        """
        # Every claim of a replay comes through here, so what the loop needs is at hand.
        ids, time_ns = self._ids, TimeNs(at)
        versions, sequences, amounts = self._versions, self._sequences, self._amounts
        claims: list[AnyEvent] = []
        add = claims.append
        try:
            for number, increment, signature in rows:
                if number < 0:
                    raise IndexError(number)
                version = versions[number] = versions[number] + 1
                sequence = sequences[number] = sequences[number] + 1
                amount = amounts[number] = amounts[number] + increment
                if not 0 <= amount <= AMOUNT_MAX:
                    raise ValueError(f"an amount of {amount} drops")
                add(
                    ClaimReceived(
                        channel_id=ids[number],
                        version=version,
                        at=time_ns,
                        sequence=sequence,  # type: ignore[arg-type]  # a NewType costs a call
                        amount=amount,  # type: ignore[arg-type]
                        signature=signature,
                    )
                )
        except IndexError as error:
            raise ValueError(f"channel number {number} was never given in this segment") from error
        return claims

    def _note(self, event: AnyEvent) -> None:
        """Keep what an event that was written whole leaves behind."""
        number = self._number_of(event.channel_id)
        self._versions[number] = event.version
        if isinstance(event, ClaimReceived):
            self._sequences[number] = event.sequence
            self._amounts[number] = event.amount

    def _number_of(self, channel_id: ChannelId) -> int:
        """Return the number of a channel, the next one where it appears for the first time."""
        number = self._numbers.get(channel_id)
        if number is None:
            number = self._numbers[channel_id] = len(self._ids)
            self._ids.append(channel_id)
            self._versions.append(0)
            self._sequences.append(0)
            self._amounts.append(0)
        return number


def _distances(covered: list[tuple[int, ClaimCovered]], rows: int) -> list[int]:
    """Return a number for each claim of the columns, 0 where it is not one of `covered`."""
    distances = [0] * rows
    for row, event in covered:
        distances[row] = event.covered_by - event.sequence
    return distances


def _woven(frame: CoveredPayload) -> list[bytes]:
    """Return the signatures of all claims of the columns, in order.

    Raises:
        ValueError: there are more or fewer than the distances say.
    """
    seen, unseen = iter(frame.signatures), iter(frame.unseen)
    signatures = [next(unseen if away else seen, None) for away in frame.distances]
    if None in signatures or next(seen, None) is not None or next(unseen, None) is not None:
        raise ValueError("signatures that no claim of the columns has")
    return signatures  # type: ignore[return-value]
