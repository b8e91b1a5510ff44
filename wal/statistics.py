"""Count what a log does, at the price of an addition."""

import msgspec


class LogStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a log did since it was opened.

    Attributes:
        frames: written, of every kind.
        records: in them.
        watermarks: frames that only prove the one before.
        syncs: of frames, one each.
        bytes: of frames.
        raw_bytes: of payloads before compression.
        rotations: segments sealed and followed by another.
        snapshots: written and verified.
        snapshot_bytes: in them.
        segments_cut: removed because snapshots stand for them.
        sync_ns: all syncs of frames together.
        sync_ns_last: the newest of them.
        sync_ns_max: the slowest of them.
        clock_steps_back: how often the wall clock fell and was held.
        spare_failures: how often preparing a segment ahead failed.
        spare_error: why it failed last, in words.
    """

    frames: int = 0
    records: int = 0
    watermarks: int = 0
    syncs: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    rotations: int = 0
    snapshots: int = 0
    snapshot_bytes: int = 0
    segments_cut: int = 0
    sync_ns: int = 0
    sync_ns_last: int = 0
    sync_ns_max: int = 0
    clock_steps_back: int = 0
    spare_failures: int = 0
    spare_error: str = ""


class Counters:
    """The same, while they are counted. Names as in `LogStatistics`."""

    def __init__(self) -> None:
        self.frames = self.records = self.watermarks = self.bytes = self.raw_bytes = 0
        self.rotations = self.snapshots = self.clock_steps_back = 0
        self.snapshot_bytes = self.segments_cut = 0
        self.sync_ns = self.sync_ns_last = self.sync_ns_max = 0

    def add_frame(self, size: int, raw_size: int, records: int, sync_ns: int) -> None:
        """Count one frame that was written and synced."""
        self.frames += 1
        self.records += records
        self.bytes += size
        self.raw_bytes += raw_size
        self.sync_ns += sync_ns
        self.sync_ns_last = sync_ns
        self.sync_ns_max = max(self.sync_ns_max, sync_ns)

    def freeze(self, spare_failures: int, spare_error: str) -> LogStatistics:
        """Return the counts as they are now."""
        return LogStatistics(
            **vars(self),
            syncs=self.frames,
            spare_failures=spare_failures,
            spare_error=spare_error,
        )
