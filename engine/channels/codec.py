"""Turn the events of a frame into its payload and back: claims in columns, the rest whole.

A frame of the log is the batch of events that was committed together. Nearly all of them are claims
that continue a channel in the plainest way, so `EventCodec` writes those as three columns (channel
number, increment, signature) and everything else as whole events beside them. Channels are numbered
by first appearance in the segment, so each segment can be read alone.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from engine.channels.columns import ColumnCodec
from engine.core.events import AnyEvent, ClaimReceived
from engine.core.types import ChannelId, Checks, TimeNs

EVENT_SCHEMA_VERSION: Final = 1
_ALL: Final = Checks.ALL


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


class EventCodec:
    """Turns the events of a frame into its payload and back; one instance per segment.

    For each channel of the segment it keeps what the last event left behind, in rows of plain
    integers: deltas start from there.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._ids: list[ChannelId] = []
        self._versions = array("Q")
        self._sequences = array("Q")
        self._amounts = array("Q")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Payload).decode

    def packed(self) -> ColumnCodec:
        """Return the codec of a segment that was packed."""
        return ColumnCodec()

    def encode(self, first: int, records: Sequence[AnyEvent]) -> bytes:
        """Return the payload of a frame whose first event has position `first`."""
        at = records[0].at
        channels: list[int] = []
        increments: list[int] = []
        signatures: list[bytes] = []
        others: list[tuple[int, AnyEvent]] = []
        for index, event in enumerate(records):
            number = self._numbers.get(event.channel_id, -1)
            if number >= 0 and type(event) is ClaimReceived and self._follows(event, number, at):
                channels.append(number)
                increments.append(event.amount - self._amounts[number])
                signatures.append(event.signature)
                self._keep(number, event)
            else:
                others.append((index, event))
                self._note(event)
        return self._encode(Payload(first, at, channels, increments, signatures, others))

    def decode(self, first: int, count: int, payload: bytes) -> list[AnyEvent]:
        """Return the `count` events of a payload.

        Raises:
            ValueError: the bytes are not the payload of this place in the log.
        """
        frame = self._decode(payload)
        plain = len(frame.channels)
        if frame.first != first or plain + len(frame.others) != count:
            raise ValueError(f"payload of {plain + len(frame.others)} events at {frame.first}")
        if not plain == len(frame.increments) == len(frame.signatures):
            raise ValueError("columns of different lengths")
        claims = zip(frame.channels, frame.increments, frame.signatures, strict=True)
        events: list[AnyEvent] = []
        for index, other in frame.others:
            if index > len(events):
                events += self._claims(islice(claims, index - len(events)), frame.at)
            if index != len(events):
                raise ValueError(f"an event at place {index}, where {len(events)} is next")
            self._note(other)
            events.append(other)
        events += self._claims(claims, frame.at)
        return events

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
        except OverflowError as error:
            raise ValueError(f"a claim of channel number {number} leaves 64 bits") from error
        return claims

    def _follows(self, claim: ClaimReceived, number: int, at: TimeNs) -> bool:
        """Say whether a claim continues its channel in the plainest way."""
        return (
            claim.at == at
            and claim.version == self._versions[number] + 1
            and claim.sequence == self._sequences[number] + 1
            and claim.previous is None
            and claim.sent_at is None
            and claim.checks is _ALL
            and claim.sequence > 1
        )

    def _note(self, event: AnyEvent) -> None:
        """Keep what an event that was written whole leaves behind."""
        number = self._numbers.get(event.channel_id)
        if number is None:
            number = self._numbers[event.channel_id] = len(self._ids)
            self._ids.append(event.channel_id)
            for row in (self._versions, self._sequences, self._amounts):
                row.append(0)
        if type(event) is ClaimReceived:
            self._keep(number, event)
        else:
            self._versions[number] = event.version

    def _keep(self, number: int, claim: ClaimReceived) -> None:
        self._versions[number] = claim.version
        self._sequences[number] = claim.sequence
        self._amounts[number] = claim.amount
