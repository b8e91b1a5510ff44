"""Find the payments in a file of lnd: which schema it has, its counters, the index, the buckets.

::

    metadata / dbp                          schema version u32
    payments-root-bucket / <hash>           a bucket per payment; its own counter: numbers reserved
    payments-index-bucket / <number u64>    the hash that has this number; of duplicates too
    next-payment-id-key                     its counter: the next attempt index to be given
"""

import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import msgspec

from engine.payments.checking import HASH_BYTES
from engine.payments.lnd.bbolt import BboltReader, Bucket
from engine.payments.lnd.errors import DamagedPaymentError, UnknownLayoutError
from engine.payments.lnd.fields import U64_BYTES, MalformedError
from engine.payments.lnd.payment import FLAT_VERSION, PaymentBucket
from engine.payments.lnd.records import read_index_entry
from engine.payments.lnd.routes import Warn
from engine.payments.lnd.work import Work
from engine.payments.records import PaymentRecord
from engine.payments.values import NUMBER_MAX

VERSION_MIN: Final = 16
"""The schema version that brought the index of payments."""

_METADATA: Final = b"metadata"
_VERSION: Final = b"dbp"
_PAYMENTS: Final = b"payments-root-bucket"
_INDEX: Final = b"payments-index-bucket"
_ATTEMPT_COUNTER: Final = b"next-payment-id-key"

_U32: Final = struct.Struct(">I")


class LndCounters(msgspec.Struct, frozen=True):
    """The counters of a file.

    Attributes:
        sequence_number: no payment got a number above this.
        next_attempt_index: what lnd would give next after a start; 0 counts as 1.
    """

    sequence_number: int
    next_attempt_index: int


class LndPayments:
    """The payments of a file of lnd, open for reading. Close it, or use it in a `with`.

    Attributes:
        path: of the file.
        schema_version: of lnd's database, 16 or higher.
        counters: as the file has them.
        record_bytes: how much of the file the payments took that were read so far.

    Raises:
        UnreadableFileError: there is no such file.
        FileLockedError: a running lnd holds it.
        DamagedFileError: it is not a sound bbolt file.
        UnknownLayoutError: it is not a file of lnd, or one of a version that is not known.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.record_bytes = 0
        self._reader = BboltReader(path)
        try:
            root = self._reader.root
            self.schema_version = self._schema_version(root)
            self._payments = root.bucket(_PAYMENTS)
            self._index = root.bucket(_INDEX)
            if self._payments is not None and self._index is None:
                raise UnknownLayoutError(
                    self.path, "it has payments and no index of them; let lnd open it once"
                )
            self.counters = self._counters(root)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file and its lock back; closing twice is fine."""
        self._reader.file.close()

    def fingerprint(self) -> bytes:
        """Return 32 bytes that are others when anything was written to the file; a copy has them.

        Every commit of bbolt changes the meta page. First and last entry of the index tell two
        young files apart.
        """
        meta = self._reader.file.meta
        words = [repr(meta), str(self.schema_version), repr(self.counters)]
        ends = [next(self._entries(None), None), *self._last_entry()]
        return sha256("\n".join([*words, *map(repr, ends)]).encode()).digest()

    def check_unchanged(self) -> None:
        """Look whether somebody wrote to the file since it was opened.

        Raises:
            DamagedFileError: somebody did.
        """
        self._reader.file.check_unchanged()

    @property
    def work(self) -> Work:
        """What reading the file took so far."""
        return self._reader.file.work

    def count(self) -> int:
        """Count the payments, without their duplicates; reads the outer pages only."""
        return 0 if self._payments is None else self._payments.count()

    def begins_at_zero(self) -> bool:
        """Say whether the index gives out the number 0, which lnd itself never does."""
        first = next(self._entries(None), None)
        return first is not None and first[0] == bytes(U64_BYTES)

    def records(self, warn: Warn, after: int | None = None) -> Iterator[PaymentRecord]:
        """Yield payments with their duplicates in the order of the index.

        Numbers are those of the file; an attempt of unknown index has index 0.

        Args:
            warn: takes what was left out or put right.
            after: the number of the last payment that is not wanted.
        """
        key = None if after is None else after.to_bytes(U64_BYTES)
        for number, identifier in self._entries(key):
            payment = self._payment(identifier, warn)
            if payment is None:
                warn(f"number {int.from_bytes(number)}: payment {identifier.hex()} is not there")
            elif payment.number() == int.from_bytes(number):
                record = payment.record(self._checked(number, identifier))
                self.record_bytes += payment.size
                yield record
            elif not payment.has_duplicate(number):
                warn(
                    f"number {int.from_bytes(number)}: payment {identifier.hex()} has another "
                    "number, and no duplicate of this one"
                )

    def highest_attempt_index(self) -> int:
        """Return the highest attempt index of all payments; reads every payment, no attempt."""
        if self._payments is None:
            return 0
        found = (
            self._opened(key, value, _ignore)
            for key, value in self._payments.items()
            if len(key) == HASH_BYTES and isinstance(value, Bucket)
        )
        return max((each.highest_attempt() for each in found), default=0)

    # The index -----------------------------------------------------------------------------------

    def _entries(self, after: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        if self._payments is None or self._index is None:
            return
        for key, value in self._index.items(after):
            yield key, self._identifier(key, value)

    def _last_entry(self) -> Iterator[tuple[bytes, bytes]]:
        if self._payments is None or self._index is None:
            return
        last = self._index.last()
        if last is not None:
            yield last[0], self._identifier(*last)

    def _identifier(self, key: bytes, value: bytes | Bucket) -> bytes:
        assert self._index is not None
        if len(key) != U64_BYTES or isinstance(value, Bucket):
            self._index.refuse(f"the index of payments has a key {key[:16].hex()}")
        try:
            return read_index_entry(value)
        except MalformedError as error:
            self._index.refuse(f"number {int.from_bytes(key)} of the index: {error}")

    def _checked(self, number: bytes, identifier: bytes) -> int:
        found = int.from_bytes(number)
        if found >= NUMBER_MAX:
            assert self._index is not None
            raise DamagedPaymentError(
                self.path, self._index.page, identifier, f"no store takes the number {found}"
            )
        return found

    def _payment(self, identifier: bytes, warn: Warn) -> PaymentBucket | None:
        assert self._payments is not None
        bucket = self._payments.bucket(identifier)
        return None if bucket is None else self._opened(identifier, bucket, warn)

    def _opened(self, identifier: bytes, bucket: Bucket, warn: Warn) -> PaymentBucket:
        is_flat = self.schema_version >= FLAT_VERSION
        return PaymentBucket(self.path, identifier, bucket, is_flat, warn)

    # What is beside the payments -----------------------------------------------------------------

    def _schema_version(self, root: Bucket) -> int:
        metadata = root.bucket(_METADATA)
        value = None if metadata is None else metadata.get(_VERSION)
        if value is None or len(value) != _U32.size:
            raise UnknownLayoutError(
                self.path, "it is a bbolt file, but has no schema version of lnd: is it channel.db?"
            )
        (version,) = _U32.unpack(value)
        if version < VERSION_MIN:
            raise UnknownLayoutError(
                self.path,
                f"its schema version is {version}, and payments can be read from {VERSION_MIN} on: "
                "start lnd 0.12 or later on a copy once, which brings it up to date",
            )
        return int(version)

    def _counters(self, root: Bucket) -> LndCounters:
        attempts = root.bucket(_ATTEMPT_COUNTER)
        counters = LndCounters(
            0 if self._payments is None else self._payments.sequence,
            0 if attempts is None else attempts.sequence,
        )
        if max(counters.sequence_number, counters.next_attempt_index) >= NUMBER_MAX:
            raise UnknownLayoutError(self.path, "its counters are higher than any store counts")
        return counters


def _ignore(text: str) -> None:
    """Take a warning that is given again when the payment is read."""
