"""A disk in memory that keeps only what it must: page cache, platter, and what lies between.

A file has what readers see (`cache`), what a power loss leaves (`disk`), and the writes between
them (`dirty`), torn at sectors of 512 bytes. Names are kept apart from contents: creating, renaming
and unlinking is durable only once the directory was synced. All chance comes from one generator.
The one rule: it is as unkind as POSIX allows, and never more.
"""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from wal.files import How

SECTOR = 512
CALLS = ("open", "read", "write", "sync", "resize", "scan", "rename", "unlink", "make_directory")

Write = tuple[int, bytes | None]
"""Offset and data, or the new size of the file and None."""


class Killed(BaseException):
    """The process is gone. Nothing of the log may catch this."""


class Inode:
    """A file without its name.

    `last` and `last_synced` are where the newest write, and the newest durable one, begin and end.
    """

    __slots__ = ("cache", "dirty", "disk", "last", "last_synced", "owner")

    def __init__(self) -> None:
        self.disk = bytearray()
        self.cache = bytearray()
        self.dirty: list[Write] = []
        self.last = self.last_synced = (0, 0)
        self.owner: SimFiles | None = None

    def put(self, write: Write) -> None:
        self.dirty.append(write)
        _apply(self.cache, write)

    def sync(self) -> None:
        for write in self.dirty:
            _apply(self.disk, write)
        self.dirty.clear()
        self.last_synced = self.last

    def drop_cache(self) -> None:
        """Let the next reader see the platter, and over it what is still to be written."""
        self.cache = bytearray(self.disk)
        for write in self.dirty:
            _apply(self.cache, write)

    def flip(self, bit: int) -> None:
        for image in (self.disk, self.cache):
            image[bit // 8] ^= 1 << bit % 8


class Folder:
    """A directory: the names that readers see, and those that a power loss leaves."""

    __slots__ = ("disk", "names", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: dict[str, Inode | Folder] = {}
        self.disk: dict[str, Inode | Folder] = {}


class Change:
    """One change of names, all or nothing: (folder, name, what had it, what gets it)."""

    __slots__ = ("steps",)

    def __init__(self, *steps: "tuple[Folder, str, Inode | Folder | None, Inode | Folder | None]"):
        self.steps = steps

    def make(self) -> None:
        for folder, name, _, new in self.steps:
            if new is None:
                del folder.names[name]
            else:
                folder.names[name] = new

    def make_durable(self) -> None:
        for folder, name, old, new in self.steps:
            if new is not None:
                folder.disk[name] = new
            elif folder.disk.get(name) is old:
                del folder.disk[name]


class Disk:
    """The disk of one machine; each of its processes looks at it through `SimFiles`."""

    def __init__(self, root: str, chance: Random) -> None:
        self.chance = chance
        self.root = root
        self.folders = {root: Folder(root)}
        self.changes: list[Change] = []
        self.full = False

    def change(
        self, *steps: "tuple[Folder, str, Inode | Folder | None, Inode | Folder | None]"
    ) -> None:
        change = Change(*steps)
        change.make()
        self.changes.append(change)

    def sync_folder(self, folder: Folder) -> None:
        """Make every change that touches `folder` durable, whatever else it touches."""
        left = []
        for change in self.changes:
            if any(step[0] is folder for step in change.steps):
                change.make_durable()
            else:
                left.append(change)
        self.changes = left

    def lose_power(self) -> str:
        """Forget what was not synced, as chance has it; return in words what became of it."""
        names, writes = len(self.changes), 0
        kept = self._survivors(self.changes)
        for change in kept:
            change.make_durable()
        self.changes = []
        mood = self.chance.choice(("lost", "kept", "some", "torn", "torn"))
        for inode in self.inodes():
            writes += len(inode.dirty)
            self.settle(inode, mood)
            inode.drop_cache()
        self.folders = {self.root: self.folders[self.root]}
        for folder in self._reachable(self.folders[self.root]):
            self.folders[folder.path] = folder
            folder.names = dict(folder.disk)
        return f"{len(kept)} of {names} names and of {writes} writes {mood}"

    def settle(self, inode: Inode, mood: str) -> None:
        """Let the unsynced writes of a file reach the platter, or not, and forget them."""
        chance = self.chance
        for write in inode.dirty:
            if mood == "kept" or (mood == "some" and chance.random() < 0.5):
                _apply(inode.disk, write)
            elif mood == "torn":
                for piece in self._torn(write):
                    _apply(inode.disk, piece)
        inode.dirty.clear()

    def inodes(self) -> list[Inode]:
        """Return every file that has a name, now or on the platter, in a stable order."""
        found: dict[int, Inode] = {}
        for folder in self.folders.values():
            for names in (folder.names, folder.disk):
                for node in names.values():
                    if isinstance(node, Inode):
                        found[id(node)] = node
        return list(found.values())

    def files_under(self, path: str) -> list[tuple[str, Inode]]:
        """Return the files below a folder, by path, in a stable order."""
        return [
            (f"{folder.path}/{name}", node)
            for folder in self.folders.values()
            if folder.path == path or folder.path.startswith(path + "/")
            for name, node in sorted(folder.names.items())
            if isinstance(node, Inode)
        ]

    def _survivors(self, changes: list[Change]) -> list[Change]:
        """Choose which changes of names were durable already: a prefix, or any of them."""
        chance = self.chance
        if chance.random() < 0.5:
            return changes[: chance.randint(0, len(changes))]
        return [change for change in changes if chance.random() < 0.5]

    def _torn(self, write: Write) -> Iterator[Write]:
        """Yield what is left of a write, sector by sector: the new, the old, zeros or rubbish."""
        offset, data = write
        if data is None:
            if self.chance.random() < 0.5:
                yield write
            return
        end = offset + len(data)
        while offset < end:
            stop = min(end, (offset // SECTOR + 1) * SECTOR)
            fate = self.chance.choice(("new", "new", "old", "zero", "rubbish"))
            if fate == "new":
                yield offset, data[len(data) - (end - offset) : len(data) - (end - stop)]
            elif fate == "zero":
                yield offset, bytes(stop - offset)
            elif fate == "rubbish":
                # Of a generator of its own: how much is drawn must not depend on a length.
                yield offset, Random(self.chance.getrandbits(32)).randbytes(stop - offset)
            offset = stop

    def _reachable(self, folder: Folder) -> Iterator[Folder]:
        yield folder
        for node in folder.disk.values():
            if isinstance(node, Folder):
                yield from self._reachable(node)


Trouble = Callable[[str, str], str]
"""(call, path) → what befalls it: "" for nothing, `kill` or `killed` before or after it is done,
`eio`, `enospc`, `short`, or a number of seconds that it takes.
"""


class SimFiles:
    """The disk as one process has it. See `wal.files.Files`.

    `trouble` is asked before each call; `taken_s` adds up how long the disk took, in virtual time.
    """

    def __init__(self, disk: Disk, now_ns: Callable[[], int], trouble: Trouble) -> None:
        self.disk = disk
        self.now_ns = now_ns
        self.trouble = trouble
        self.dead = False
        self.taken_s = 0.0
        self._handles: dict[int, tuple[str, Inode | Folder, bool]] = {}
        self._next = 3

    def die(self) -> None:
        """End as a process does: what it had open is closed, what it held is free."""
        self.dead = True
        for _, node, is_lock in self._handles.values():
            if is_lock and isinstance(node, Inode):
                node.owner = None
        self._handles.clear()

    def open(self, path: Path, how: How) -> int:
        after = self._begin("open", str(path))
        node = self._opened(str(path), how)
        self._next += 1
        self._handles[self._next] = (str(path), node, how is How.LOCK)
        self._end(after)
        return self._next

    def close(self, handle: int) -> None:
        if self.dead:  # closed when the process ended; what it left behind is tidied up later
            return
        _, node, is_lock = self._handles.pop(handle)
        if is_lock and isinstance(node, Inode):
            node.owner = None

    def read(self, handle: int, size: int, offset: int) -> bytes:
        path, node = self._held(handle)
        self._end(self._begin("read", path))
        assert isinstance(node, Inode)
        return bytes(node.cache[offset : offset + size])

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        path, node = self._held(handle)
        after = self._begin("write", path, partly=lambda: self._part(node, data, offset))
        assert isinstance(node, Inode)
        if after == "short" and len(data) > 1:
            data = data[: len(data) // 2]
        self._need_room(offset + len(data) - len(node.cache), path)
        node.put((offset, bytes(data)))
        node.last = (offset, offset + len(data))
        self._end(after)
        return len(data)

    def sync(self, handle: int, *, data_only: bool = False) -> None:
        path, node = self._held(handle)
        after = self._begin("sync", path, partly=lambda: self._refuse_sync(node))
        if isinstance(node, Folder):
            self.disk.sync_folder(node)
        else:
            node.sync()
        self._end(after)

    def resize(self, handle: int, size: int) -> None:
        path, node = self._held(handle)
        after = self._begin("resize", path)
        assert isinstance(node, Inode)
        self._need_room(size - len(node.cache), path)
        node.put((size, None))
        self._end(after)

    def scan(self, directory: Path) -> dict[str, int]:
        self._end(self._begin("scan", str(directory)))
        names = self._folder(str(directory)).names
        return {name: len(node.cache) for name, node in names.items() if isinstance(node, Inode)}

    def rename(self, source: Path, target: Path) -> None:
        after = self._begin("rename", f"{source} to {target}")
        (folder, name), (into, new_name) = self._split(str(source)), self._split(str(target))
        node = self._node(folder, name, str(source))
        old = into.names.get(new_name)
        self.disk.change((folder, name, node, None), (into, new_name, old, node))
        self._end(after)

    def unlink(self, path: Path) -> None:
        after = self._begin("unlink", str(path))
        folder, name = self._split(str(path))
        self.disk.change((folder, name, self._node(folder, name, str(path)), None))
        self._end(after)

    def make_directory(self, path: Path) -> None:
        after = self._begin("make_directory", str(path))
        known = self.disk.folders
        missing = [str(path)]
        while missing[-1] not in known:
            missing.append(missing[-1].rpartition("/")[0])
        for inner in reversed(missing[:-1]):
            self._need_room(1, inner)
            parent, _, name = inner.rpartition("/")
            known[inner] = Folder(inner)
            self.disk.change((known[parent], name, None, known[inner]))
        self._end(after)

    def random_bytes(self, size: int) -> bytes:
        return self.disk.chance.randbytes(size)

    def _held(self, handle: int) -> tuple[str, Inode | Folder]:
        if self.dead:
            raise Killed
        path, node, _ = self._handles[handle]
        return path, node

    def _begin(self, call: str, path: str, partly: Callable[[], None] | None = None) -> str:
        """Let trouble befall a call; return what should befall it afterwards."""
        if self.dead:
            raise Killed
        fate = self.trouble(call, path)
        if not fate or fate in ("killed", "short"):
            return fate
        if fate in ("kill", "eio", "enospc"):
            if partly is not None:
                partly()
            if fate == "kill":
                raise Killed
            raise OSError(getattr(errno, fate.upper()), f"simulated {fate}", path)
        self.taken_s += float(fate)
        return ""

    def _end(self, fate: str) -> None:
        if fate == "killed":
            raise Killed

    def _part(self, node: Inode | Folder, data: bytes | memoryview, offset: int) -> None:
        """Let a write that breaks off have done some of its work."""
        done = int(self.disk.chance.random() * (len(data) + 1))
        if done and isinstance(node, Inode) and not self.disk.full:
            node.put((offset, bytes(data[:done])))

    def _refuse_sync(self, node: Inode | Folder) -> None:
        """Do as Linux does: after a sync that failed the pages count as clean, written or not."""
        if isinstance(node, Inode):
            self.disk.settle(node, self.disk.chance.choice(("lost", "some", "torn")))

    def _need_room(self, bytes_more: int, path: str) -> None:
        if self.disk.full and bytes_more > 0:
            raise OSError(errno.ENOSPC, "simulated full disk", path)

    def _opened(self, path: str, how: How) -> Inode | Folder:
        if how is How.DIRECTORY:
            return self._folder(path)
        folder, name = self._split(path)
        node = folder.names.get(name)
        if how is How.CREATE or (how is How.LOCK and node is None):
            if node is not None:
                raise FileExistsError(errno.EEXIST, "file exists", path)
            self._need_room(1, path)
            node = Inode()
            self.disk.change((folder, name, None, node))
        node = self._node(folder, name, path)
        if how is How.LOCK:
            if node.owner is not None:
                raise BlockingIOError(errno.EAGAIN, "locked", path)
            node.owner = self
        elif how is How.DISK:
            node.drop_cache()
        return node

    def _node(self, folder: Folder, name: str, path: str) -> Inode:
        node = folder.names.get(name)
        if not isinstance(node, Inode):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return node

    def _split(self, path: str) -> tuple[Folder, str]:
        parent, _, name = path.rpartition("/")
        return self._folder(parent), name

    def _folder(self, path: str) -> Folder:
        folder = self.disk.folders.get(path)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        return folder


def _apply(image: bytearray, write: Write) -> None:
    offset, data = write
    if data is None:
        if offset < len(image):
            del image[offset:]
        else:
            image.extend(bytes(offset - len(image)))
        return
    if offset > len(image):
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data
