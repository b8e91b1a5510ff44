"""What travels between gateway and shard, as msgpack in both directions.

Structs that cross a process boundary live here, in an importable module. Positions are numbers in
the shard's log; a gateway writes them as "<shard>-<number>".
"""

from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from engine.core.channel import Channel
from engine.core.commands import AnyCommand
from engine.core.rejections import RejectCode, Rejected


class Status(IntEnum):
    """The first field of an answer, as binary frames carry it."""

    ACCEPTED = 0
    DUPLICATE = 1
    BUFFERED = 2
    REJECTED = 3


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to one claim.

    `sequence` and `position` are those of the claim where it has them, `claimed` and `available`
    the channel's marks in drops when it was answered. `covered_by` is the sequence of the newer
    claim whose signature was checked in place of this one's; 0 where its own was.
    """

    status: Status
    code: RejectCode | None = None
    sequence: int = 0
    position: int = 0
    claimed: int = 0
    available: int = 0
    expected: int = 0
    actual: int = 0
    detail: str = ""
    missing: tuple[int, ...] = ()
    covered_by: int = 0


class Refused(StrEnum):
    """Why a shard would not look at a batch at all; nothing of it was decided."""

    STALE_EPOCH = "stale_epoch"
    OUT_OF_TURN = "out_of_turn"
    FOREIGN_VERDICTS = "foreign_verdicts"
    MALFORMED = "malformed"


LATE_MAX: Final = 8_192
"""Late decisions in one reply: 75 to 150 bytes each, and a reply has to fit a frame (`direct`)."""


class Late(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The decision on a claim that was buffered: entry `index` of batch `number`."""

    number: int
    index: int
    answer: Answer


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a shard says to a batch: an answer per claim, and decisions on earlier ones."""

    refused: Refused | None = None
    answers: list[Answer] = []
    late: list[Late] = []


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who a shard is: its log's epoch says which incarnation."""

    shard: int
    epoch: int
    pid: int
    position: int
    channels: int
    recovered_events: int
    recovery_ms: int


class Pulse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a shard's disk is; `slowest_sync_us` is that of the last `journal.SLOW_KEPT_S`."""

    free_bytes: int
    limit_bytes: int
    storage_full: bool
    slowest_sync_us: int


class ChannelView(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A channel with the positions of its last event and of its best claim (0 for none)."""

    channel: Channel
    position: int
    claim_position: int


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of a command: the channel afterwards, or why not."""

    view: ChannelView | None = None
    rejected: Rejected | None = None
    created: bool = False


class ShardStatistics(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The counters of a shard since its process started; times in microseconds.

    `covered` claims were accepted on the strength of a newer one; of `covered_checked` the shard
    checked the signature itself. `sync_us` counts syncs by the upper bounds of
    `monitor.metrics.SYNC_BUCKETS_US`, one more for what was slower. `spare_failures` are segments
    of the log that could not be prepared ahead. `awake` channels are ready for use, the others
    sleep.
    """

    shard: int
    position: int
    channels: int
    held: int
    commits: int
    sync_us_sum: int
    sync_us: list[int]
    log_bytes: int
    checkpoints: int
    spare_failures: int
    packed_segments: int
    packed_saved_bytes: int
    packing_failures: int
    risk_refused: dict[str, int]
    verdicts_refused: int
    covered: int
    covered_checked: int
    rss_bytes: int
    awake: int


encode: Final = msgspec.msgpack.Encoder().encode
decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode
decode_late: Final = msgspec.msgpack.Decoder(list[Late]).decode
decode_pulse: Final = msgspec.msgpack.Decoder(Pulse).decode
decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode
decode_commands: Final = msgspec.msgpack.Decoder(list[AnyCommand]).decode
decode_outcomes: Final = msgspec.msgpack.Decoder(list[Outcome]).decode
decode_ids: Final = msgspec.msgpack.Decoder(list[bytes]).decode
decode_views: Final = msgspec.msgpack.Decoder(list[ChannelView | None]).decode
decode_statistics: Final = msgspec.msgpack.Decoder(ShardStatistics).decode
