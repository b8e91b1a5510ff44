"""Put evidence aside: whole files, under names that nothing has yet. Nothing here deletes any.

The one rule: what is to be moved, and under which MANIFEST, is written down before that MANIFEST
is; so a move that was broken off is completed later, and one that never came to pass is forgotten.
"""

from hashlib import sha256
from pathlib import Path

import msgspec

from wal.errors import CorruptLogError
from wal.files import Files, How, read_whole, sync_directory, write_new
from wal.format import MANIFEST_BYTES_MAX, MANIFEST_NAME, QUARANTINE, SEGMENTS, SNAPSHOTS
from wal.manifest import Manifest, encode_manifest, read_manifest
from wal.recovery import free_name

PENDING = "repair.pending"
"""In quarantine while files are moved there."""


class Quarantine:
    """The quarantine of one log. Its lock must be held."""

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._root = directory
        self._directory = directory / QUARANTINE

    def keep(self, name: str, data: bytes) -> str:
        """Write `data` to a file of its own; return its path, relative to the log."""
        path = free_name(self._files, self._directory, name)
        write_new(self._files, path, data)
        sync_directory(self._files, self._directory)
        return f"{QUARANTINE}/{path.name}"

    def keep_manifest(self) -> None:
        """Copy the MANIFEST, whatever state it is in."""
        if MANIFEST_NAME in self._files.scan(self._root):
            path = self._root / MANIFEST_NAME
            self.keep(MANIFEST_NAME, read_whole(self._files, path, How.READ, MANIFEST_BYTES_MAX))

    def announce(self, paths: tuple[str, ...], manifest: Manifest) -> None:
        """Write down what is to be moved once `manifest` is on the disk."""
        self._forget()
        digest = sha256(encode_manifest(manifest)).hexdigest()
        path = self._directory / PENDING
        write_new(self._files, path, msgspec.json.encode((digest, paths)))
        sync_directory(self._files, self._directory)

    def move(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Move files here, as announced; return where they are now."""
        moved = []
        for path in paths:
            source = self._root / path
            if source.name in self._files.scan(source.parent):
                target = free_name(self._files, self._directory, source.name)
                self._files.rename(source, target)
                moved.append(f"{QUARANTINE}/{target.name}")
        for part in (QUARANTINE, SEGMENTS, SNAPSHOTS):
            sync_directory(self._files, self._root / part)
        self._forget()
        return tuple(moved)

    def complete(self) -> tuple[str, ...]:
        """Go on with moves that were broken off; return where the files are now."""
        try:
            if PENDING not in self._files.scan(self._directory):
                return ()
        except FileNotFoundError:
            return ()
        told = read_whole(self._files, self._directory / PENDING, How.READ, MANIFEST_BYTES_MAX)
        try:
            digest, paths = msgspec.json.decode(told, type=tuple[str, tuple[str, ...]])
            now = encode_manifest(read_manifest(self._files, self._root))
        except (msgspec.MsgspecError, FileNotFoundError, CorruptLogError):
            self._forget()
            return ()
        if sha256(now).hexdigest() == digest:
            return self.move(paths)
        self._forget()  # it never came to that MANIFEST
        return ()

    def _forget(self) -> None:
        if PENDING in self._files.scan(self._directory):
            self._files.unlink(self._directory / PENDING)
            sync_directory(self._files, self._directory)
