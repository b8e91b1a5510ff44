"""The seal on a verifier's answer, made with a key that gateways do not hold.

    sealed = verdicts, one byte an item | BLAKE2b-256 keyed, person "paychan-verdict", over
             u64 BE length of the blob | blob | verdicts

The blob holds channel, key, amount and signature of each claim, so a verdict counts for exactly
those, in exactly this batch. The one rule: what does not open is not believed in any part.
"""

import os
import secrets
import stat
import struct
import tempfile
from contextlib import suppress
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Final

from engine.verify.batch import (
    EVERY_VERDICTS,
    PROBE_COUNT,
    are_plausible,
    ends_with_probes,
    item_count,
)
from engine.verify.errors import SealKeyError, SealRefusal, SealRefusedError

SEAL_KEY_BYTES: Final = 32
SEAL_BYTES: Final = 32

_PERSON: Final = b"paychan-verdict"
_LENGTH: Final = struct.Struct(">Q")


def seal(key: bytes, blob: bytes, verdicts: bytes) -> bytes:
    """Return `verdicts` on `blob` with their seal behind them."""
    return verdicts + _mac(key, blob, verdicts)


def open_sealed(key: bytes, blob: bytes, sealed: bytes, known: bytes = EVERY_VERDICTS) -> bytes:
    """Return the verdicts on the claims of `blob`, one byte each in order, probes cut off.

    `known` are the verdicts that verifiers of this engine give.

    Raises:
        SealRefusedError: not sealed by a verifier of ours for this very batch, or sealed by one
            that did not know good from bad. `reason` says which.
    """
    verdicts, mac = sealed[:-SEAL_BYTES], sealed[-SEAL_BYTES:]
    if not compare_digest(mac, _mac(key, blob, verdicts)):
        raise SealRefusedError(SealRefusal.FOREIGN)
    if not ends_with_probes(blob):
        raise SealRefusedError(SealRefusal.UNPROBED)
    if not are_plausible(verdicts, item_count(blob) - PROBE_COUNT, known):
        raise SealRefusedError(SealRefusal.PROBE)
    return verdicts[:-PROBE_COUNT]


def load_or_create_seal_key(path: Path) -> bytes:
    """Return the 32 bytes in `path`, which are made first where there are none.

    Processes that start at once agree: the file appears whole or not at all, and only once.

    Raises:
        SealKeyError: wrong size, not a plain file, or open to others than its owner.
        OSError: the disk refused.
    """
    with suppress(FileNotFoundError):
        return _load(path)
    _create(path)
    return _load(path)


def _mac(key: bytes, blob: bytes, verdicts: bytes) -> bytes:
    mac = blake2b(_LENGTH.pack(len(blob)), digest_size=SEAL_BYTES, key=key, person=_PERSON)
    mac.update(blob)
    mac.update(verdicts)
    return mac.digest()


def _load(path: Path) -> bytes:
    # A pipe in the place of the file must not make a reader wait: non-blocking, then looked at.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise SealKeyError(path, "not a plain file")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SealKeyError(path, f"mode {stat.S_IMODE(mode):04o} opens it to others")
        key = file.read(SEAL_KEY_BYTES + 1)
    if len(key) != SEAL_KEY_BYTES:
        raise SealKeyError(path, f"not {SEAL_KEY_BYTES} bytes")
    return key


def _create(path: Path) -> None:
    """Put a fresh key at `path` unless another process was faster."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SEAL_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        # A link never replaces: of many at once one wins, and its bytes are whole already.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
