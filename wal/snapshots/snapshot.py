"""Write and read snapshots: the state at one place of the log, in blocks the caller chose.

The one rule: a snapshot is named in the MANIFEST only after it was read back from the disk and was
what had been written. It speeds up a start; it is never the truth.
"""

import errno
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import google_crc32c
import msgspec

from wal.errors import CorruptLogError, LogFailedError
from wal.files import Files, How, failure, read_whole, sync_directory, write_all
from wal.format import (
    CHAIN_BYTES,
    CRC,
    FORMAT_VERSION,
    INCREMENT_SUFFIX,
    SNAPSHOT_BLOCK,
    SNAPSHOT_CHUNK_BYTES_MAX,
    SNAPSHOT_HEADER,
    SNAPSHOT_MAGIC,
    SNAPSHOT_SUFFIX,
    TEMPORARY,
    SnapshotKind,
    file_name,
)
from wal.manifest import SnapshotEntry

_HEADER_BYTES = SNAPSHOT_HEADER.size + CRC.size
_READ_BYTES = 1 << 20
_SYNC_EVERY_BYTES = 4 << 20  # a longer queue of dirty pages would make the live sync wait for it


class SnapshotPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where in the log a snapshot stands, and what it is.

    `base_lsn` is the place of the snapshot that an increment builds on; 0 for a base.
    """

    shard_id: int
    epoch: int
    lsn: int
    position: int
    chain: bytes
    kind: SnapshotKind = SnapshotKind.BASE
    base_lsn: int = 0

    @property
    def name(self) -> str:
        """The name of its file. A base and an increment may stand at one place."""
        suffix = INCREMENT_SUFFIX if self.kind == SnapshotKind.INCREMENT else SNAPSHOT_SUFFIX
        return file_name(self.lsn, self.epoch, suffix)


def write_snapshot(
    files: Files, directory: Path, place: SnapshotPlace, chunks: Iterable[bytes]
) -> SnapshotEntry:
    """Write and sync a snapshot under a temporary name; `name_snapshot` gives it its own.

    Args:
        files: The disk.
        directory: Where snapshots lie.
        place: Where in the log it stands.
        chunks: 1 byte to 1 MiB each.

    Raises:
        ValueError: a chunk is empty or above 1 MiB; nothing is left behind.
    """
    temporary = directory / (place.name + TEMPORARY)
    if temporary.name in files.scan(directory):
        files.unlink(temporary)  # of a process that was stopped
    handle = files.open(temporary, How.CREATE)
    written = False
    try:
        size, digest = _write(files, handle, place, chunks)
        files.sync(handle)
        written = True
    finally:
        files.close(handle)
        if not written:
            files.unlink(temporary)
    return SnapshotEntry(
        name=place.name,
        lsn=place.lsn,
        position=place.position,
        size=size,
        sha256=digest,
        kind=place.kind,
        base_lsn=place.base_lsn,
    )


def name_snapshot(files: Files, directory: Path, entry: SnapshotEntry) -> None:
    """Read a snapshot back from the disk and give it its name. The MANIFEST is the caller's.

    Raises:
        LogFailedError: the disk gave back other bytes than it was given.
    """
    temporary = directory / (entry.name + TEMPORARY)
    if _digest(files, temporary) != (entry.size, entry.sha256):
        raise LogFailedError(f"{entry.name}: the disk gave back other bytes than it was given")
    files.rename(temporary, directory / entry.name)
    sync_directory(files, directory)


def place_of(files: Files, root: Path, entry: SnapshotEntry, shard_id: int) -> SnapshotPlace:
    """Return where a snapshot stands, by its own header.

    Raises:
        CorruptLogError: the header is damaged, or another than the MANIFEST says.
    """
    header = read_whole(files, root / entry.path, How.READ, _HEADER_BYTES)[:_HEADER_BYTES]
    _check_header(header, entry, shard_id)
    *_, epoch, _, lsn, position, base_lsn, chain, _, _ = SNAPSHOT_HEADER.unpack_from(header)
    return SnapshotPlace(
        shard_id=shard_id,
        epoch=epoch,
        lsn=lsn,
        position=position,
        chain=chain,
        kind=SnapshotKind(entry.kind),
        base_lsn=base_lsn,
    )


def verify_snapshot(files: Files, root: Path, entry: SnapshotEntry) -> str:
    """Return what is wrong with a snapshot, or an empty string.

    Raises:
        OSError: it could not be told; too many open files, say, are no fault of the snapshot.
    """
    try:
        found = _digest(files, root / entry.path)
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "the disk cannot read it"
    return "" if found == (entry.size, entry.sha256) else "length or hash"


def read_snapshot(files: Files, root: Path, entry: SnapshotEntry, shard_id: int) -> Iterator[bytes]:
    """Yield the chunks of a snapshot that verified, each checked again.

    Raises:
        CorruptLogError: it changed since, or belongs elsewhere.
        LogFailedError: the disk refused.
    """
    try:
        yield from _blocks(files, root, entry, shard_id)
    except OSError as error:
        raise failure(error) from error


def _blocks(files: Files, root: Path, entry: SnapshotEntry, shard_id: int) -> Iterator[bytes]:
    handle = files.open(root / entry.path, How.READ)
    try:
        header = files.read(handle, _HEADER_BYTES, 0)
        _check_header(header, entry, shard_id)
        offset = _HEADER_BYTES
        count = 0
        while True:
            head = files.read(handle, SNAPSHOT_BLOCK.size, offset)
            size, crc = SNAPSHOT_BLOCK.unpack(head.ljust(SNAPSHOT_BLOCK.size, b"\0"))
            if size == 0:
                break
            block = files.read(handle, min(size, SNAPSHOT_CHUNK_BYTES_MAX), offset + len(head))
            if len(block) != size or google_crc32c.value(block) != crc:
                raise CorruptLogError(entry.path, offset, "block checksum")
            yield block
            count += 1
            offset += len(head) + size
        if crc != count:
            raise CorruptLogError(entry.path, offset, f"{count} blocks instead of {crc}")
    finally:
        files.close(handle)


def _write(
    files: Files, handle: int, place: SnapshotPlace, chunks: Iterable[bytes]
) -> tuple[int, bytes]:
    fixed = SNAPSHOT_HEADER.pack(
        SNAPSHOT_MAGIC, FORMAT_VERSION, place.kind, place.shard_id, place.epoch, 0, place.lsn,
        place.position, place.base_lsn, place.chain, 0, bytes(CHAIN_BYTES),
    )  # fmt: skip
    digest = sha256()
    offset = synced = 0
    for part in _parts(fixed + CRC.pack(google_crc32c.value(fixed)), chunks):
        digest.update(part)
        write_all(files, handle, part, offset)
        offset += len(part)
        if offset - synced >= _SYNC_EVERY_BYTES:
            files.sync(handle, data_only=True)
            synced = offset
    write_all(files, handle, digest.digest(), offset)
    whole = digest.copy()
    whole.update(digest.digest())
    return offset + CHAIN_BYTES, whole.digest()


def _parts(header: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield header
    count = 0
    for chunk in chunks:
        if not 0 < len(chunk) <= SNAPSHOT_CHUNK_BYTES_MAX:
            raise ValueError(f"a snapshot chunk of {len(chunk)} bytes; 1 to 1,048,576 are allowed")
        yield SNAPSHOT_BLOCK.pack(len(chunk), google_crc32c.value(chunk)) + chunk
        count += 1
    yield SNAPSHOT_BLOCK.pack(0, count)


def _digest(files: Files, path: Path) -> tuple[int, bytes]:
    handle = files.open(path, How.DISK)
    try:
        digest = sha256()
        offset = 0
        while piece := files.read(handle, _READ_BYTES, offset):
            digest.update(piece)
            offset += len(piece)
        return offset, digest.digest()
    finally:
        files.close(handle)


def _check_header(block: bytes, entry: SnapshotEntry, shard_id: int) -> None:
    fixed = block[: SNAPSHOT_HEADER.size]
    if len(block) != _HEADER_BYTES or CRC.pack(google_crc32c.value(fixed)) != block[-CRC.size :]:
        raise CorruptLogError(entry.path, 0, "snapshot header checksum")
    magic, version, kind, shard, epoch, _, lsn, position, base_lsn, *_ = SNAPSHOT_HEADER.unpack(
        fixed
    )
    if magic != SNAPSHOT_MAGIC or version != FORMAT_VERSION:
        raise CorruptLogError(entry.path, 0, f"unknown magic or version {version}")
    told = (shard_id, entry.kind, entry.lsn, entry.position, entry.base_lsn)
    if (shard, kind, lsn, position, base_lsn) != told or f"-{epoch:08x}." not in entry.name:
        said = f"snapshot of shard {shard}, epoch {epoch} at frame {lsn}"
        raise CorruptLogError(entry.path, 0, said)
