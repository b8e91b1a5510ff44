"""Keep the MANIFEST: the only truth about which files are the log, replaced in one step.

The one rule: it is written before anything relies on what it says, and a file that it does not
name holds no acknowledged record.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import google_crc32c
import msgspec

from wal.errors import CorruptLogError
from wal.files import Files, How, read_whole, sync_directory, write_new
from wal.format import (
    CHAIN_BYTES,
    FORMAT_VERSION,
    MANIFEST_BYTES_MAX,
    MANIFEST_HEAD,
    MANIFEST_MAGIC,
    MANIFEST_NAME,
    SEGMENTS,
    SNAPSHOTS,
    TEMPORARY,
)
from wal.segment import Link


class SegmentEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A segment and how it joins the log. `before` is the chain value its first frame continues."""

    name: str
    number: int
    epoch: int
    first_lsn: int
    first_position: int
    before: bytes

    @property
    def path(self) -> str:
        """The file, relative to the directory of the log."""
        return f"{SEGMENTS}/{self.name}"

    def link(self, shard_id: int) -> Link:
        """Return what the segment's own header must say."""
        return Link(
            self.path, shard_id, self.number, self.epoch, self.first_lsn,
            self.first_position, self.before,
        )  # fmt: skip


class SealedSegment(SegmentEntry, frozen=True, kw_only=True):
    """A segment that never changes again. `after` is the chain value behind its last frame.

    `wall_ns` is when that was written; 0 in a MANIFEST from before it was kept.
    Once it is packed, its records are in a file of other frames: `size`, `sha256` and
    `packed_chain` (the chain value behind the last of them) are that file's, `plain_bytes` is how
    long it was before. All else says what it said.
    """

    last_lsn: int
    last_position: int
    size: int
    sha256: bytes
    after: bytes
    audit_size: int = 0
    audit_root: bytes = b""
    wall_ns: int = 0
    packed_chain: bytes = b""
    plain_bytes: int = 0

    @property
    def packed(self) -> bool:
        """Whether the file holds packed frames."""
        return bool(self.packed_chain)

    def link(self, shard_id: int) -> Link:
        """See `SegmentEntry.link`."""
        return SegmentEntry.link(self, shard_id)._replace(packed=self.packed)


class SnapshotEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot: the state after frame `lsn`, that is after record `position`."""

    name: str
    lsn: int
    position: int
    size: int
    sha256: bytes
    kind: int = 0
    base_lsn: int = 0

    @property
    def path(self) -> str:
        """The file, relative to the directory of the log."""
        return f"{SNAPSHOTS}/{self.name}"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All files of a shard. Frames up to `durable_lsn` were on disk when it was written."""

    shard_id: int
    epoch: int
    sealed: tuple[SealedSegment, ...] = ()
    live: SegmentEntry | None = None
    snapshots: tuple[SnapshotEntry, ...] = ()
    durable_lsn: int = 0
    wall_ns: int = 0
    archived_lsn: int = 0
    audit_size: int = 0
    retained_lsn: int = 1

    @property
    def first_position(self) -> int:
        """The oldest record that is kept, or the first that will be."""
        entries = (*self.sealed, self.live)
        return next((entry.first_position for entry in entries if entry is not None), 1)

    @property
    def known_durable_lsn(self) -> int:
        """The newest frame that was on disk for sure, by all that is written here."""
        return max(
            self.durable_lsn,
            self.archived_lsn,
            self.sealed[-1].last_lsn if self.sealed else 0,
            max((snapshot.lsn for snapshot in self.snapshots), default=0),
        )


_decode = msgspec.msgpack.Decoder(Manifest).decode
_encode = msgspec.msgpack.Encoder().encode


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of the file."""
    body = _encode(manifest)
    crc = google_crc32c.value(body)
    data = MANIFEST_HEAD.pack(MANIFEST_MAGIC, FORMAT_VERSION, 0, len(body), crc) + body
    return data + sha256(data).digest()


def decode_manifest(data: bytes) -> Manifest:
    """Read the bytes of the file.

    Raises:
        CorruptLogError: a byte of it is wrong, or it contradicts itself.
    """
    checked, digest = data[:-CHAIN_BYTES], data[-CHAIN_BYTES:]
    if len(checked) < MANIFEST_HEAD.size or sha256(checked).digest() != digest:
        raise _damaged("checksum")
    magic, version, zero, size, crc = MANIFEST_HEAD.unpack_from(checked)
    body = checked[MANIFEST_HEAD.size :]
    if magic != MANIFEST_MAGIC or version != FORMAT_VERSION or zero:
        raise _damaged(f"unknown magic or version {version}")
    if len(body) != size or google_crc32c.value(body) != crc:
        raise _damaged("length or checksum of the body")
    try:
        manifest = _decode(body)
    except msgspec.MsgspecError as error:
        raise _damaged(str(error)) from error
    _check_joints(manifest)
    return manifest


def read_manifest(files: Files, directory: Path, how: How = How.READ) -> Manifest:
    """Read the MANIFEST of `directory`.

    Raises:
        FileNotFoundError: there is none.
        CorruptLogError: it is damaged.
    """
    return decode_manifest(read_whole(files, directory / MANIFEST_NAME, how, MANIFEST_BYTES_MAX))


def write_manifest(
    files: Files,
    directory: Path,
    manifest: Manifest,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Replace the MANIFEST; when this returns, the new one is durable.

    `check` is called before anything is touched, and again right before the new one takes its
    place; what it raises leaves the old one.
    """
    check()
    temporary = directory / (MANIFEST_NAME + TEMPORARY)
    if temporary.name in files.scan(directory):
        files.unlink(temporary)
    write_new(files, temporary, encode_manifest(manifest))
    check()
    files.rename(temporary, directory / MANIFEST_NAME)
    sync_directory(files, directory)


def _check_joints(manifest: Manifest) -> None:
    entries: list[SegmentEntry] = [*manifest.sealed]
    if manifest.live is not None:
        entries.append(manifest.live)
    if entries and entries[0].first_lsn != manifest.retained_lsn:
        raise _damaged(f"the log begins at {entries[0].name}, not at {manifest.retained_lsn}")
    for before, after in zip(manifest.sealed, entries[1:], strict=False):
        joined = (
            after.first_lsn == before.last_lsn + 1
            and after.first_position == before.last_position + 1
            and after.before == before.after
            and after.number > before.number
            and after.epoch >= before.epoch
        )
        if not joined:
            raise _damaged(f"segments {before.name} and {after.name} do not join")


def _damaged(reason: str) -> CorruptLogError:
    return CorruptLogError(MANIFEST_NAME, 0, reason)
