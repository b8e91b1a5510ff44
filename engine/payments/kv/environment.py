"""One LMDB environment of this process: opened, read, written, grown.

LMDB maps the file into memory, at a fixed size. When a writer fills the map it is made twice as
large and the writer begins anew; another process notices when it next begins (`MapResizedError`).
While the map changes no transaction of this process may be open: the gate sees to that.
"""

import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, cast

import lmdb

from engine.payments.errors import StoreDamagedError, StoreError, StoreUnavailableError
from engine.payments.kv.faults import fault_of, map_fault_of, unknown_outcome_of
from engine.payments.kv.gate import Gate
from engine.payments.kv.transaction import Transaction
from engine.payments.kv.turn import Turn

T = TypeVar("T")

MAP_BYTES_FIRST: Final = 64 << 20
"""Address space, not disk: the file is as long as what was written."""

READERS_MAX: Final = 1_022
SPARE_PAGES: Final = 256
"""The file is kept this much longer than what is used, see `Environment._lengthen`."""

PROBE_BYTES: Final = 1 << 20
"""What is asked of a disk that failed, to hear its reason."""

STAT_BLOCK_BYTES: Final = 512

NO_MEMORY: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
"""Address space without memory behind it (the number is MAP_NORESERVE)."""

DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
LOCK_BYTES: Final = 65_536
"""How long LMDB makes the table of so many readers."""

TURN_FILE: Final = "writer.lock"


class Environment:
    """The environment of a directory, shared by all handles of this process.

    Args:
        place: the directory.
        read_only: whether nothing may be written.
        map_bytes: how large the map of a new store is.
    """

    def __init__(self, place: Path, *, read_only: bool, map_bytes: int = MAP_BYTES_FIRST) -> None:
        self.place = place
        self.read_only = read_only
        self.is_inherited = False
        self._gate = Gate()
        self._pages = 0
        self._turn: Turn | None = None
        self._map_bytes = map_bytes
        self._open()

    # Opening and closing --------------------------------------------------------------------------

    def _open(self) -> None:
        data = self.place / DATA_FILE
        is_new = not data.exists() or not data.stat().st_size
        self._lmdb = self._open_map(self._map_bytes if is_new else 0)
        try:
            self._begin(is_new)
        except BaseException:
            self._let_go()
            raise

    def _begin(self, is_new: bool) -> None:
        self._check_length()
        try:
            self._lmdb.reader_check()
            if not self.read_only:
                self._turn = Turn(self.place / TURN_FILE)
            if is_new:
                sync_folder(self.place)
        except (lmdb.Error, OSError) as error:
            raise fault_of(error, self.place) from error

    def _open_map(self, size: int) -> lmdb.Environment:
        """Open with a map of `size` bytes; 0 takes the size that the file says."""
        try:
            if not self.read_only:
                self._keep_room_for_readers()
            return lmdb.open(
                str(self.place),
                map_size=size,
                readonly=self.read_only,
                create=not self.read_only,
                max_readers=READERS_MAX,
            )
        except (lmdb.Error, OSError) as error:
            raise fault_of(error, self.place) from error

    def _keep_room_for_readers(self) -> None:
        """Give the table of readers its blocks: on a full disk a page without one kills us.

        Before LMDB opens the file: to close it later would let go of LMDB's locks.
        """
        handle = os.open(self.place / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(handle).st_blocks * STAT_BLOCK_BYTES < LOCK_BYTES:
                os.posix_fallocate(handle, 0, LOCK_BYTES)
        finally:
            os.close(handle)

    def _check_length(self) -> None:
        """Refuse a file that is cut off: reading beyond its end would kill the process."""
        wanted = (self._lmdb.info()["last_pgno"] + 1) * self._lmdb.stat()["psize"]
        size = (self.place / DATA_FILE).stat().st_size
        if size < wanted:
            raise StoreDamagedError(
                f"{self.place / DATA_FILE} is cut off: it has {size} of {wanted} bytes; restore a "
                "backup"
            )

    def allow_writing(self) -> None:
        """Open again for writing what this process has open for reading only.

        Raises:
            StoreError: it cannot be written; those who read go on reading.
        """
        with self._gate.alone():
            if not self.read_only:
                return
            self._lmdb.close()
            self.read_only = False
            try:
                self._open()
            except BaseException:
                self.read_only = True
                self._open()
                raise

    def close(self) -> None:
        """Wait until nobody reads, and let go."""
        with self._gate.alone():
            self._let_go()

    def _let_go(self) -> None:
        self._lmdb.close()
        if self._turn is not None:
            self._turn.close()
            self._turn = None

    # Transactions ---------------------------------------------------------------------------------

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Return what `work` makes of one consistent view.

        Raises:
            StoreError: the store is at fault.
        """
        while True:
            try:
                with self._gate, self._lmdb.begin() as transaction:
                    return work(cast(Transaction, transaction))
            except lmdb.MapResizedError:
                self._set_map(0)
            except lmdb.Error as error:
                raise fault_of(error, self.place) from error

    def write(self, work: Callable[..., None], *arguments: object) -> None:
        """Let `work(transaction, *arguments)` change the store; it is durable afterwards.

        One thread at a time. `work` may be called more than once; what it raises leaves no trace.

        Raises:
            StoreError: the store is at fault, and nothing was changed; but see
                `StoreOutcomeUnknownError`.
        """
        turn = self._turn
        if turn is None:
            raise StoreUnavailableError(f"{self.place} is closed")
        turn.take()
        try:
            while not self._try_to_write(work, arguments):
                pass
        finally:
            turn.let_go()

    def _try_to_write(self, work: Callable[..., None], arguments: tuple[object, ...]) -> bool:
        """Return whether it was done; if not, the map is larger now."""
        try:
            with self._gate:
                transaction = self._lmdb.begin(write=True)
                try:
                    work(transaction, *arguments)
                except BaseException:
                    transaction.abort()
                    raise
                self._commit(transaction)
        except lmdb.MapResizedError:
            self._set_map(0)
        except lmdb.MapFullError:
            self._grow()
        except lmdb.Error as error:
            raise fault_of(error, self.place) from error
        else:
            return True
        return False

    def _commit(self, transaction: lmdb.Transaction) -> None:
        try:
            transaction.commit()
        except (lmdb.MapFullError, lmdb.MapResizedError):
            raise
        except lmdb.Error as error:
            raise self._commit_fault(error) from error
        self._lengthen()

    def _commit_fault(self, error: lmdb.Error) -> StoreError:
        """Say what became of a commit that failed.

        When LMDB cannot tell, it lets nobody begin again. Else nothing was changed; where a disk
        took only a part of a write it says EIO, and a write of our own says why.
        """
        try:
            self._lmdb.begin().abort()
        except lmdb.Error:
            return unknown_outcome_of(error, self.place)
        try:
            with (self.place / DATA_FILE).open("r+b") as file:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, PROBE_BYTES)
        except OSError as reason:
            return fault_of(reason, self.place)
        return fault_of(error, self.place)

    def _lengthen(self) -> None:
        """Keep the file longer than its last page.

        LMDB does not write a page at the end that was used and freed by one transaction; without
        this a sound file could be as short as one that was cut off. And a commit that writes where
        the file has its blocks already is synced without the journal of the file system.
        """
        pages = self._lmdb.info()["last_pgno"] + 1
        if pages + SPARE_PAGES // 2 <= self._pages:
            return
        transaction = self._lmdb.begin(write=True)  # nobody else writes meanwhile
        try:
            # The call is durable already. Without room for this the next commit tries again.
            with suppress(OSError):
                self._append(pages, pages + SPARE_PAGES)
                self._pages = pages + SPARE_PAGES
        finally:
            transaction.abort()

    def _append(self, used: int, pages: int) -> None:
        """Make the file so many pages long, if it is shorter; `used` of them are.

        With zeros; but one who came past the end writes in bulk, and gets a hole. Durable, or a
        power cut could leave a file that looks cut off.
        """
        page_bytes = self._lmdb.stat()["psize"]
        length = pages * page_bytes
        with (self.place / DATA_FILE).open("r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end >= length:
                return
            if used * page_bytes <= end:
                file.write(bytes(length - end))
            else:
                file.seek(length - 1)
                file.write(b"\0")
            os.fdatasync(file.fileno())

    # The map --------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Make the map larger, or find that readers who died kept pages from being used again."""
        if self._lmdb.reader_check():
            return
        self._set_map(2 * self._lmdb.info()["map_size"])

    def _set_map(self, size: int) -> None:
        with self._gate.alone():
            try:
                # LMDB gives up the old map before it asks for the new one, and cannot go back.
                mmap.mmap(-1, size or mmap.PAGESIZE, flags=NO_MEMORY, prot=0).close()
                self._lmdb.set_mapsize(size)
            except (lmdb.Error, OSError, OverflowError) as error:
                raise map_fault_of(error, self.place) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
