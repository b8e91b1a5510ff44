"""Read one file for the verifier. Part of `verification`; shares only the way to the disk."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from wal.files import Files, How

WINDOW_BYTES = 1 << 20


class Window:
    """The bytes of one file, read ahead and hashed as they come by for the first time."""

    def __init__(self, files: Files, path: Path, progress: Callable[[int], None]) -> None:
        self._files = files
        self._handle = files.open(path, How.READ)
        self._progress = progress
        self._start = 0
        self._data = b""

    def __call__(self, offset: int, size: int) -> bytes:
        """Return the bytes there; fewer only at the end of the file."""
        inside = offset - self._start
        if inside < 0 or inside + size > len(self._data):
            self._data = self._files.read(self._handle, max(size, WINDOW_BYTES), offset)
            self._start = offset
            inside = 0
            self._progress(offset)
        return self._data[inside : inside + size]

    def digest(self, end: int) -> bytes:
        """Return the SHA-256 of the first `end` bytes."""
        whole = sha256()
        for offset in range(0, end, WINDOW_BYTES):
            whole.update(self(offset, min(WINDOW_BYTES, end - offset)))
        return whole.digest()

    def forget(self) -> None:
        """Drop what was read ahead, because the file may have grown."""
        self._data = b""

    def close(self) -> None:
        """Give the file back."""
        self._files.close(self._handle)
