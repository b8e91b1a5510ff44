"""Keep a log of records: stage, commit, and what was committed is never lost.

The one rule: a position is returned by `commit` only after its frame was synced. Any fault on the
way ends the log; nothing is tried twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from time import perf_counter_ns
from types import TracebackType
from typing import Generic, Self

import msgspec

from wal.codec import FIRST, Codec, LengthPrefixed, Position, R
from wal.errors import LogFailedError, WalError
from wal.files import Files, OsFiles, failure
from wal.format import SEGMENTS
from wal.live import Live
from wal.lock import sign_lock, take_lock
from wal.manifest import SealedSegment, SnapshotEntry
from wal.options import LogOptions
from wal.pack import Packed, other_form
from wal.recovery import RecoveryReport, let_go, prepare_directories, recover
from wal.replay import Cursor, Extent, Place
from wal.snapshots.keeper import SnapshotKeeper
from wal.statistics import LogStatistics

_NS_PER_S = 1e9


class Log(Generic[R]):
    """The log of one shard, open for writing. Made by `Log.open`.

    One thread writes; `read`, `read_batches` and `follow` may run in others. After an error that is
    a `LogFailedError`, or after any exception out of `commit`, every call raises `LogFailedError`
    and the process should end: what was not answered is decided by the next start.

    Attributes:
        recovery: what opening found and did.
    """

    def __init__(
        self, live: Live[R], place: Place, codec: Callable[[], Codec[R]], keeper: SnapshotKeeper[R],
        lock: int,
    ) -> None:  # fmt: skip
        self._live = live
        self._place = place
        self._codec = codec
        self._keeper = keeper
        self._lock = lock
        self._staged: list[R] = []
        self._alive = True
        self._closed = False
        self._changed = Condition()
        self._readable = live.extents()
        self.recovery = RecoveryReport(fresh=True, clean=True, epoch=live.manifest.epoch)

    @classmethod
    def open(
        cls,
        directory: Path,
        options: LogOptions = LogOptions(),  # noqa: B008 - frozen
        codec: Callable[[], Codec[R]] = LengthPrefixed,  # type: ignore[assignment]
        files: Files = OsFiles(),  # noqa: B008 - has no state
    ) -> Self:
        """Open the log in `directory`, making it if there is none, and begin a new epoch.

        Raises:
            LogInUseError: somebody else holds it.
            CorruptLogError: acknowledged bytes are damaged; nothing was changed.
            LogFailedError: the disk refused.
        """
        started = perf_counter_ns()
        directory = Path(directory)
        lock = take_lock(files, directory)
        try:
            prepare_directories(files, directory)
            recovered = recover(files, directory, options)
            sign_lock(files, lock, recovered.manifest.epoch)
            live = Live(files, directory, options, codec, recovered.manifest)
        except OSError as error:
            files.close(lock)
            raise failure(error) from error
        except BaseException:
            files.close(lock)
            raise
        place = Place(files, directory, options.shard_id, options.codec_id)
        keeper = SnapshotKeeper(
            live, place, recovered.lineage, in_background=options.spare_in_background
        )
        log = cls(live, place, codec, keeper, lock)
        try:
            let_go(files, directory, recovered.retire)
        except OSError as error:
            log.abandon()
            raise failure(error) from error
        seconds = (perf_counter_ns() - started) / _NS_PER_S
        log.recovery = msgspec.structs.replace(recovered.report, seconds=seconds)
        return log

    @property
    def last(self) -> Position:
        """The newest durable record; 0 when there is none."""
        return self._live.last

    @property
    def epoch(self) -> int:
        """Which incarnation of the log this is; written into every frame."""
        return self._live.manifest.epoch

    def statistics(self) -> LogStatistics:
        """Return what this log did since it was opened."""
        return self._live.statistics()

    def append(self, records: Sequence[R]) -> Position:
        """Stage `records` for the next commit; return the position of the first."""
        self._check()
        first = self._live.last + len(self._staged) + 1
        self._staged.extend(records)
        return Position(first)

    def commit(self) -> Position:
        """Return once all that is staged is durable, with the position of the last record.

        One frame and one sync; more only above 4,096 records or 1 MiB.

        Raises:
            LogFailedError: the disk refused; nothing that was staged may be answered.
        """
        self._check()
        if self._staged:
            staged, self._staged = self._staged, []
            with self._ending_on_error():
                self._live.write(staged)
            self._publish()
        return self._live.last

    def idle(self) -> bool:
        """Prove the newest records durable by a frame of its own; return whether one was needed.

        To be called while no commit comes, first at most 50 ms after the last one; after a second
        the MANIFEST says it too.
        """
        self._check()
        if not self._live.unproven:
            with self._ending_on_error():
                self._live.tell_manifest_in_time()
            return False
        self._watermark()
        return True

    def read(self, start: Position = FIRST) -> Iterator[tuple[Position, R]]:
        """Yield the durable records from position `start` on, up to the newest at this moment."""
        for first, records in self.read_batches(start):
            for position, record in enumerate(records, first):
                yield Position(position), record

    def read_batches(self, start: Position = FIRST) -> Iterator[tuple[Position, list[R]]]:
        """Yield the same as `read`, frame by frame, each with the position of its first record.

        Raises:
            CorruptLogError: a durable frame does not check out.
            ValueError: `start` lies below 1, or beyond the record that comes next.
        """
        self._check()
        cursor = self._cursor(start)
        try:
            yield from self._news(cursor)
        except OSError as error:
            raise failure(error) from error
        finally:
            cursor.close()

    def follow(self, start: Position = FIRST) -> Iterator[tuple[Position, R]]:
        """Yield records from `start` on, waiting for more at the end, until the log is closed.

        Raises:
            LogFailedError: the log failed; all that was durable has been yielded.
        """
        self._check()
        cursor = self._cursor(start)
        try:
            while True:
                seen = self._readable
                ended = self._closed or not self._alive
                for first, records in self._news(cursor):
                    for position, record in enumerate(records, first):
                        yield Position(position), record
                if ended:
                    break
                self._wait_for_more(seen)
        finally:
            cursor.close()
        if not self._closed:
            self._check()

    def snapshot(self, position: Position, chunks: Iterable[bytes]) -> None:
        """Keep `chunks` as the state after record `position`, which must be the newest.

        Each chunk has 1 byte to 1 MiB; `checkpoint` gives back the same ones.

        Raises:
            ValueError: not the newest position, or a chunk of a wrong size; the log goes on.
            LogFailedError: the disk refused, or gave back other bytes than it was given.
        """
        self._check()
        if position != self._live.last:
            raise ValueError(f"a snapshot at {position}, but the log is at {self._live.last}")
        self.begin_snapshot(chunks)
        self.settle_snapshot(wait=True)

    def begin_snapshot(self, chunks: Iterable[bytes], *, increment: bool = False) -> None:
        """Begin to keep a snapshot of the state after `last`, beside the commits that follow.

        An `increment` says only what changed since the snapshot before. Another thread takes the
        chunks, if the options allow one.

        Raises:
            WalError: a snapshot is under way, or an increment has none to build on.
            ValueError, LogFailedError: as `snapshot`, where there is no other thread.
        """
        self._check()
        snapshots = self._live.manifest.snapshots
        if snapshots and snapshots[-1].lsn == self._live.last_lsn:
            self._watermark()  # so that no snapshot ever takes the place of another
        with self._ending_on_error(ValueError, WalError):
            self._keeper.begin(chunks, increment=increment)

    def settle_snapshot(self, *, wait: bool = False) -> bool:
        """Let the snapshot that was begun count, once it is on the disk and was read back.

        Returns:
            Whether none is under way any more.

        Raises:
            ValueError, LogFailedError: what its writing met, as `snapshot`.
        """
        self._check()
        with self._ending_on_error(ValueError):
            return self._keeper.settle(wait=wait)

    def checkpoint(self) -> list[tuple[Position, Iterator[bytes]]]:
        """Return the newest snapshots that verify, each with the position it was taken at.

        They are a base, then the increments upon it; none when none verify.

        Raises:
            LogFailedError: the disk refused.
        """
        self._check()
        try:
            return self._keeper.newest()
        except OSError as error:
            raise failure(error) from error

    @property
    def snapshots(self) -> tuple[SnapshotEntry, ...]:
        """The snapshots that are kept, oldest first."""
        return self._live.manifest.snapshots

    def adopt_base(self, base: SnapshotEntry, older: SnapshotEntry | None) -> int:
        """Let a base (`wal.snapshots.base`) count, and cut the log if it may be cut.

        `base` is on the disk, read back, and has its name. `older` is the base before it, verified
        just now, and the log goes below it; None cuts nothing. Returns how many segments went.

        Raises:
            LogFailedError: the disk refused.
        """
        self._check()
        with self._ending_on_error():
            self._live.add_snapshot(base)
            segments = self._live.cut(older) if older is not None else 0
        if segments:
            self._publish()
        return segments

    @property
    def sealed(self) -> tuple[SealedSegment, ...]:
        """The segments that never change again, oldest first."""
        return self._live.manifest.sealed

    def adopt(self, packed: Packed) -> bool:
        """Let a packed segment (`wal.pack`) take the place of the original, and remove that.

        Returns:
            Whether it did; not when the log has changed so that it is of no use.

        Raises:
            LogFailedError: the disk refused.
        """
        self._check()
        with self._ending_on_error():
            if not self._live.adopt(packed):
                return False
            self._publish()
            name = other_form(packed.entry.name)
            self._place.files.unlink(self._place.directory / SEGMENTS / name)
        return True

    def close(self) -> None:
        """Seal the log. What is staged and not committed was never answered, and is dropped."""
        if self._closed or not self._alive:
            self.abandon()
            return
        try:
            self.settle_snapshot(wait=True)
            with self._ending_on_error():
                self._live.close()
        finally:
            self._end()

    def abandon(self) -> None:
        """Let go of the files as a crash would: nothing is sealed, the next open recovers."""
        if not self._closed:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _check(self) -> None:
        if self._closed:
            raise WalError("this log is closed")
        if not self._alive:
            raise LogFailedError("this log has failed before; only a new start may go on")

    def _watermark(self) -> None:
        with self._ending_on_error():
            self._live.watermark()
        self._publish()

    def _cursor(self, start: Position) -> Cursor[R]:
        if not 1 <= start <= self._live.last + 1:
            raise ValueError(f"the log holds 1 to {self._live.last}; {start} is neither nor next")
        return Cursor(self._place, self._codec, start)

    def _news(self, cursor: Cursor[R]) -> Iterator[tuple[Position, list[R]]]:
        while True:
            seen = self._readable
            try:
                yield from cursor.batches(self._extents())
                return
            except FileNotFoundError:
                # A packed segment took the place of this one. The cursor stands where it stood.
                if self._readable is seen:
                    raise

    def _extents(self) -> list[Extent]:
        sealed, live = self._readable
        return [*(Extent(entry, entry.last_lsn) for entry in sealed), live]

    def _publish(self) -> None:
        with self._changed:
            self._readable = self._live.extents()
            self._changed.notify_all()

    def _wait_for_more(self, seen: object) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._readable is not seen or self._closed or not self._alive
            )

    @contextmanager
    def _ending_on_error(self, *harmless: type[Exception]) -> Iterator[None]:
        """Let whatever is raised inside be the end of this log, unless it is `harmless`."""
        try:
            yield
        except OSError as error:
            self._fail()
            raise failure(error) from error
        except BaseException as error:
            if not isinstance(error, harmless) or isinstance(error, LogFailedError):
                self._fail()
            raise

    def _fail(self) -> None:
        self._alive = False
        self._publish()

    def _end(self) -> None:
        self._keeper.abandon()
        self._live.abandon()
        self._place.files.close(self._lock)
        self._closed = True
        self._publish()
