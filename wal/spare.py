"""Prepare the next segment ahead of need: zero-filled and synced, under a name that says nothing.

The one rule: a failure here is never silent; it is kept for the statistics and met again, by the
writer itself, when the segment is needed.
"""

import threading
from pathlib import Path

from wal.files import Files, How, write_all
from wal.format import SPARE_NAME

_PIECE = bytes(1 << 20)
_SYNC_EVERY_BYTES = 4 << 20  # a longer queue of dirty pages would make the live sync wait for it


class Spare:
    """The spare segment of one log. Only the thread it starts, or `take`, touches the file.

    Attributes:
        failures: how often preparing ahead failed.
        error: why it failed last, in words; empty when it never did.
    """

    def __init__(self, files: Files, directory: Path, size: int) -> None:
        self._files = files
        self._path = directory / SPARE_NAME
        self._size = size
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._ready = False
        self.failures = 0
        self.error = ""

    def begin(self) -> None:
        """Start preparing in a thread, once per spare."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wal-spare", daemon=True)
            self._thread.start()

    def take(self) -> Path:
        """Return the path of a spare that is ready, preparing it here if need be.

        Raises:
            OSError: the disk has no room for it, or refuses.
        """
        self._wait()
        if not self._ready:
            self._discard()
            self._prepare()
        self._ready = False
        return self._path

    def close(self) -> None:
        """Stop preparing and remove the file."""
        self._stop.set()
        self._wait()
        self._discard()

    def abandon(self) -> None:
        """Stop preparing and leave the file as a crash would."""
        self._stop.set()
        self._wait()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            self._discard()
            self._prepare()
        except OSError as error:
            self.failures += 1
            self.error = str(error)

    def _prepare(self) -> None:
        handle = self._files.open(self._path, How.CREATE)
        try:
            self._files.resize(handle, self._size)
            for offset in range(0, self._size, len(_PIECE)):
                if self._stop.is_set():
                    return
                write_all(self._files, handle, _PIECE[: self._size - offset], offset)
                if (offset + len(_PIECE)) % _SYNC_EVERY_BYTES == 0:
                    self._files.sync(handle, data_only=True)
            self._files.sync(handle)
        finally:
            self._files.close(handle)
        self._ready = True

    def _discard(self) -> None:
        if self._path.name in self._files.scan(self._path.parent):
            self._files.unlink(self._path)
        self._ready = False
