"""Write the events of a shard's log for other tools: JSON lines, or Parquet in row groups.

Memory stays flat however long the log is. Names and values are those of `event_fields`; Parquet has
numbers and times where JSON has texts, and a column for every field any event can have.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from engine.channels.journal import read_committed
from engine.channels.offline.event_fields import event_row
from engine.core.events import AnyEvent

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP: Final = 32_768
"""Rows that are held at once; a row group of Parquet."""

WHOLE: Final = ("version", "sequence", "settle_delay_s", "checks")
DROPS: Final = ("amount", "capacity", "redeemed")
TIMES: Final = ("at", "expiration", "cancel_after", "sent_at")
TEXTS: Final = (
    *("event", "channel_id", "source", "destination", "public_key", "sequencing"),
    *("signature", "previous", "code", "reason"),
)


class PyarrowMissing(Exception):  # noqa: N818
    """Parquet needs a library that is not installed."""


class Span(NamedTuple):
    """Which events of a shard: positions, both counted, and a channel or all of them."""

    first: int
    last: int | None
    channel_id: bytes | None


class Sink(Protocol):
    """Takes rows and writes them."""

    def write(self, shard: int, position: int, event: AnyEvent) -> None:
        """Take one event."""

    def close(self) -> None:
        """Write what is left and finish the file."""


def events_in(
    directory: Path, span: Span, progress: Callable[[int], None] = lambda position: None
) -> Iterator[tuple[int, AnyEvent]]:
    """Yield the events of a shard that lie in `span`, with their positions.

    `progress` is told the position that was reached, frame by frame.

    Raises:
        CorruptLogError: the log is damaged.
        ValueError: the span begins before the oldest event that is kept.
    """
    for first, events in read_committed(directory, span.first):
        progress(first)
        if span.last is not None and first > span.last:
            return
        for position, event in enumerate(events, first):
            if span.last is not None and position > span.last:
                return
            if span.channel_id in (None, event.channel_id):
                yield position, event


class JsonLines:
    """One JSON object a line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode

    def write(self, shard: int, position: int, event: AnyEvent) -> None:
        """See `Sink`."""
        self._file.write(self._encode(event_row(shard, position, event)) + b"\n")

    def close(self) -> None:
        """See `Sink`."""
        self._file.flush()


class Parquet:
    """A Parquet file, compressed with zstd."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin the file.

        Raises:
            PyarrowMissing: the library is not installed.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise PyarrowMissing from error
        self._arrow = pyarrow
        self._schema = _schema(pyarrow)
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, shard: int, position: int, event: AnyEvent) -> None:
        """See `Sink`."""
        row: dict[str, Any] = {"shard": shard, "position": position, "event": type(event).__name__}
        for name in event.__struct_fields__:
            row[name] = _cell(name, getattr(event, name))
        self._rows.append(row)
        if len(self._rows) >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """See `Sink`."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def write_all(sink: Sink, shard: int, events: Iterable[tuple[int, AnyEvent]]) -> int:
    """Give every event to `sink`; return how many there were."""
    count = 0
    for position, event in events:
        sink.write(shard, position, event)
        count += 1
    return count


def _schema(arrow: Any) -> "pa.Schema":
    """Return the columns; all but the first few may be empty."""
    fields = [("shard", arrow.int32()), ("position", arrow.int64())]
    fields += [(name, arrow.string()) for name in TEXTS]
    fields += [(name, arrow.int64()) for name in WHOLE]
    fields += [(name, arrow.uint64()) for name in DROPS]
    fields += [(name, arrow.timestamp("us", tz="UTC")) for name in TIMES]
    return arrow.schema(fields)


def _cell(name: str, value: Any) -> Any:
    kind = type(value)
    if kind is bytes:
        return value.hex().upper()
    if kind is int:
        if name in TIMES:
            return value // 1_000
        return str(value) if name == "previous" else value
    if isinstance(value, Enum):
        return value.value
    return value
