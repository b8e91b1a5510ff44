"""A disk in memory that can be put back to what it was in microseconds, so that every bit of a log
can be flipped in turn. It loses nothing by itself: the damage is done by who holds it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from wal.files import How


class _Node:
    """The bytes of one file, under whatever names; a handle stays good after a rename."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self.locked = False

    def writable(self) -> bytearray:
        if isinstance(self.data, bytes):
            self.data = bytearray(self.data)
        return self.data


class MemoryFiles:
    """See `wal.files.Files`. Paths are kept as text, because hashing `Path` costs more."""

    def __init__(self, image: Mapping[str, bytes] | None = None) -> None:
        self._folders: dict[str, dict[str, _Node]] = {}
        self._handles: dict[int, tuple[_Node, bool]] = {}
        self._next = 3
        self._now = 1_700_000_000_000_000_000
        for path, data in (image or {}).items():
            self.put(path, data)

    def put(self, path: str, data: bytes) -> None:
        """Let `path` hold `data`, whatever it was before."""
        folder, _, name = path.rpartition("/")
        self._folders.setdefault(folder, {})[name] = _Node(data)

    def take(self, path: str) -> bytes:
        """Return what `path` holds."""
        return bytes(self._node(Path(path)).data)

    def image(self) -> dict[str, bytes]:
        """Return all files by their paths."""
        return {
            f"{folder}/{name}": bytes(node.data)
            for folder, nodes in self._folders.items()
            for name, node in nodes.items()
        }

    def make_folders(self, folders: Iterable[str]) -> None:
        """Create empty directories."""
        for folder in folders:
            self._folders.setdefault(folder, {})

    def open(self, path: Path, how: How) -> int:
        node = _Node(b"") if how is How.DIRECTORY else self._opened(path, how)
        if how is How.LOCK:
            if node.locked:
                raise BlockingIOError(11, "locked")
            node.locked = True
        self._next += 1
        self._handles[self._next] = (node, how is How.LOCK)
        return self._next

    def close(self, handle: int) -> None:
        node, is_lock = self._handles.pop(handle)
        if is_lock:
            node.locked = False

    def read(self, handle: int, size: int, offset: int) -> bytes:
        return bytes(self._handles[handle][0].data[offset : offset + size])

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        target = self._handles[handle][0].writable()
        if offset > len(target):
            target.extend(bytes(offset - len(target)))
        target[offset : offset + len(data)] = data
        return len(data)

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        """Return at once: this disk forgets nothing."""

    def resize(self, handle: int, size: int) -> None:
        target = self._handles[handle][0].writable()
        if size < len(target):
            del target[size:]
        else:
            target.extend(bytes(size - len(target)))

    def scan(self, directory: Path) -> dict[str, int]:
        return {name: len(node.data) for name, node in self._folder(str(directory)).items()}

    def rename(self, source: Path, target: Path) -> None:
        node = self._node(source)
        del self._folders[str(source.parent)][source.name]
        self._folder(str(target.parent))[target.name] = node

    def unlink(self, path: Path) -> None:
        self._node(path)
        del self._folders[str(path.parent)][path.name]

    def make_directory(self, path: Path) -> None:
        self._folders.setdefault(str(path), {})

    def now_ns(self) -> int:
        self._now += 1_000
        return self._now

    def random_bytes(self, size: int) -> bytes:
        return self._next.to_bytes(8, "little").ljust(size, b"\x5a")[:size]

    def _opened(self, path: Path, how: How) -> _Node:
        folder = self._folder(str(path.parent))
        node = folder.get(path.name)
        if node is None and how in (How.LOCK, How.CREATE):
            node = folder[path.name] = _Node(b"")
        elif node is None:
            raise FileNotFoundError(2, "no such file", str(path))
        elif how is How.CREATE:
            raise FileExistsError(17, "file exists", str(path))
        return node

    def _node(self, path: Path) -> _Node:
        try:
            return self._folders[str(path.parent)][path.name]
        except KeyError:
            raise FileNotFoundError(2, "no such file", str(path)) from None

    def _folder(self, folder: str) -> dict[str, _Node]:
        try:
            return self._folders[folder]
        except KeyError:
            raise FileNotFoundError(2, "no such directory", folder) from None
