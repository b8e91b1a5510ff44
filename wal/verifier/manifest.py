"""Read the MANIFEST for the verifier.

Part of `verification`; shares only the format's constants with the code that writes.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec

from wal.errors import WalError
from wal.files import Files, How, read_whole
from wal.format import (
    CHAIN_BYTES,
    FORMAT_VERSION,
    MANIFEST_BYTES_MAX,
    MANIFEST_HEAD,
    MANIFEST_MAGIC,
    MANIFEST_NAME,
    SEGMENTS,
)
from wal.verifier.segment import Broken, Expected

MANIFEST_FIELDS = frozenset(
    ("shard_id", "epoch", "sealed", "live", "snapshots", "durable_lsn", "wall_ns", "archived_lsn",
     "audit_size", "retained_lsn")
)  # fmt: skip
"""What the MANIFEST of this version says, no more and no less."""


def manifest_bytes(files: Files, directory: Path) -> bytes:
    """Return what the MANIFEST holds.

    Raises:
        WalError: there is none.
    """
    try:
        return read_whole(files, directory / MANIFEST_NAME, How.READ, MANIFEST_BYTES_MAX)
    except FileNotFoundError as error:
        raise WalError(f"no log in {directory}: there is no MANIFEST") from error


def decode_manifest(data: bytes) -> dict[str, Any]:
    """Return what the MANIFEST says.

    Raises:
        Broken: a byte of it is wrong, or it is of another version.
    """
    if len(data) < MANIFEST_HEAD.size + CHAIN_BYTES:
        raise Broken(0, "the MANIFEST is too short")
    if sha256(data[:-CHAIN_BYTES]).digest() != data[-CHAIN_BYTES:]:
        raise Broken(0, "hash of the MANIFEST")
    magic, version, zero, size, crc = MANIFEST_HEAD.unpack_from(data)
    body = data[MANIFEST_HEAD.size : -CHAIN_BYTES]
    if (magic, version, zero, size) != (MANIFEST_MAGIC, FORMAT_VERSION, 0, len(body)):
        raise Broken(0, f"unknown magic or version {version} of the MANIFEST")
    if google_crc32c.value(body) != crc:
        raise Broken(MANIFEST_HEAD.size, "checksum of the MANIFEST's body")
    try:
        manifest = msgspec.msgpack.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Broken(MANIFEST_HEAD.size, str(error)) from error
    if set(manifest) != MANIFEST_FIELDS:
        odd = ", ".join(sorted(MANIFEST_FIELDS ^ set(manifest)))
        raise Broken(MANIFEST_HEAD.size, f"fields of the MANIFEST unknown or missing: {odd}")
    return manifest


def expected_of(manifest: dict[str, Any], entry: dict[str, Any]) -> Expected:
    """Return what the segment of `entry` must be."""
    return Expected(
        manifest["shard_id"], entry["number"], entry["epoch"], entry["first_lsn"],
        entry["first_position"], entry["before"], bool(entry.get("packed_chain")),
    )  # fmt: skip


def segments_of(manifest: dict[str, Any]) -> dict[str, Expected]:
    """Return what each segment must be, by its path, oldest first; the live one is the last."""
    entries = [*manifest["sealed"], *([manifest["live"]] if manifest["live"] else [])]
    return {f"{SEGMENTS}/{entry['name']}": expected_of(manifest, entry) for entry in entries}
