"""Read the bucket of one payment, in each of the layouts lnd used since schema version 16.

::

    <hash> / payment-sequence-key, payment-creation-info, payment-fail-info (optional)
    <hash> / payment-htlcs-bucket (optional) /
        from version 23: ai, si, fi + attempt index u64          info, settlement, failure
        before: <index u64> / htlc-attempt-info, htlc-settle-info, htlc-fail-info
    <hash> / payment-duplicate-bucket (optional) / <number u64> /
        payment-creation-info, payment-attempt-info, payment-settle-info, payment-fail-info
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import msgspec

from engine.payments.errors import PaymentDBCode
from engine.payments.lnd.bbolt import Bucket
from engine.payments.lnd.errors import DamagedPaymentError
from engine.payments.lnd.fields import U64_BYTES, MalformedError
from engine.payments.lnd.pages import ELEMENT_SIZE
from engine.payments.lnd.records import (
    read_attempt,
    read_creation,
    read_failure,
    read_number,
    read_old_attempt,
    read_old_creation,
    read_old_settle,
    read_reason,
    read_settle,
)
from engine.payments.lnd.routes import Warn
from engine.payments.records import PaymentRecord
from engine.payments.values import (
    NUMBER_MAX,
    Attempt,
    CreationInfo,
    DuplicatePayment,
    FailureReason,
)

FLAT_VERSION: Final = 23
"""From this schema version on all attempts of a payment lie in one bucket."""

_NUMBER: Final = b"payment-sequence-key"
_CREATION: Final = b"payment-creation-info"
_REASON: Final = b"payment-fail-info"
_ATTEMPTS: Final = b"payment-htlcs-bucket"
_DUPLICATES: Final = b"payment-duplicate-bucket"
_OLD_ATTEMPT: Final = b"payment-attempt-info"
_OLD_SETTLE: Final = b"payment-settle-info"

_FLAT_KEYS: Final = (b"ai", b"si", b"fi")
_NESTED_KEYS: Final = (b"htlc-attempt-info", b"htlc-settle-info", b"htlc-fail-info")
_FLAT_KEY_BYTES: Final = 2 + U64_BYTES

RECORD_BYTES_MAX: Final = 16 << 20
"""How much of the file one payment may take with all attempts and duplicates, for all of that is
in memory at once. It is 50,000 attempts over one hop, or 20,000 over five that came back with a
message. lnd gives a payment up after a minute unless it is told otherwise, sends at most 16 parts
at once, and reads all attempts again for each new one: it would have to go on for hours."""

T = TypeVar("T")


class _Parts(msgspec.Struct):
    """What the file has of one attempt."""

    info: bytes | None = None
    settle: bytes | None = None
    failure: bytes | None = None


class PaymentBucket:
    """One payment of a file.

    Every method may raise `DamagedPaymentError` or `DamagedFileError`.

    Attributes:
        size: how many bytes of the file were taken into memory so far.

    Args:
        path: of the file, for errors.
        identifier: the key the bucket lies under.
        bucket: where it lies.
        is_flat: whether attempts are laid out as from `FLAT_VERSION` on.
        warn: takes what was left out or put right.
    """

    def __init__(
        self, path: Path, identifier: bytes, bucket: Bucket, is_flat: bool, warn: Warn
    ) -> None:
        self.size = 0
        self._path = path
        self._identifier = identifier
        self._bucket = bucket
        self._is_flat = is_flat
        self._warn: Warn = partial(_warn_of_payment, warn, identifier)

    def number(self) -> int:
        """Return the payment's own sequence number.

        Raises:
            DamagedPaymentError: no_sequence_number.
        """
        value = self._bucket.get(_NUMBER)
        if value is None:
            self._refuse("it has no sequence number", PaymentDBCode.NO_SEQUENCE_NUMBER)
        return self._read("its sequence number", read_number, value)

    def has_duplicate(self, key: bytes) -> bool:
        """Say whether one of its duplicates lies under `key`, a sequence number of 8 bytes."""
        duplicates = self._bucket.bucket(_DUPLICATES)
        return duplicates is not None and duplicates.has_bucket(key)

    def record(self, number: int) -> PaymentRecord:
        """Return all of it under its number; an attempt of unknown index has index 0."""
        value = self._bucket.get(_CREATION)
        if value is None:
            self._refuse("it has no creation info")
        self._take(_CREATION, value)
        info = self._read("its creation info", read_creation, value)
        if info.identifier != self._identifier:
            self._refuse(f"its creation info is of payment {info.identifier.hex()}")
        return PaymentRecord(
            number,
            info,
            tuple(self._attempts()),
            self._reason(self._bucket, ""),
            tuple(self._duplicates()),
        )

    def highest_attempt(self) -> int:
        """Return the highest attempt index in its bucket, 0 without any; reads no attempt."""
        return max(self._parts(), default=0)

    # Attempts ------------------------------------------------------------------------------------

    def _attempts(self) -> Iterator[Attempt]:
        for index, parts in sorted(self._parts().items()):
            if index > NUMBER_MAX:
                reason = f"attempt {index}: no store takes an index above {NUMBER_MAX}"
                self._refuse(reason, PaymentDBCode.OUT_OF_RANGE)
            yield self._attempt(index, parts)

    def _attempt(self, index: int, parts: _Parts) -> Attempt:
        place = f"attempt {index}"
        if parts.info is None:
            self._refuse(f"{place}: it was resolved, and is not there itself")
        read = partial(read_attempt, index, warn=self._warn_of(place))
        attempt = self._read(place, read, parts.info)
        settle = failure = None
        if parts.settle is not None:
            settle = self._read(f"{place}: its settlement", read_settle, parts.settle)
        if parts.failure is not None:
            failure = self._read(f"{place}: its failure", read_failure, parts.failure)
        if settle is not None and failure is not None:
            self._warn(f"{place}: it has settled, and a failure beside that was left out")
            failure = None
        return msgspec.structs.replace(
            attempt,
            # Before AMP an attempt had no hash of its own.
            payment_hash=attempt.payment_hash or self._identifier,
            settle=settle,
            failure=failure,
        )

    def _parts(self) -> dict[int, _Parts]:
        bucket = self._bucket.bucket(_ATTEMPTS)
        if bucket is None:
            return {}
        return self._flat_parts(bucket) if self._is_flat else self._nested_parts(bucket)

    def _flat_parts(self, bucket: Bucket) -> dict[int, _Parts]:
        found: dict[int, _Parts] = {}
        for key, value in bucket.items():
            if len(key) != _FLAT_KEY_BYTES or key[:2] not in _FLAT_KEYS:
                self._refuse(f"its attempts have a key {key[:16].hex()} that lnd does not write")
            if isinstance(value, Bucket):
                self._refuse("a bucket lies where an attempt should be")
            self._take(key, value)
            parts = found.setdefault(int.from_bytes(key[2:]), _Parts())
            if key[:2] == b"ai":
                parts.info = value
            elif key[:2] == b"si":
                parts.settle = value
            else:
                parts.failure = value
        return found

    def _nested_parts(self, bucket: Bucket) -> dict[int, _Parts]:
        found: dict[int, _Parts] = {}
        for key, value in bucket.items():
            if len(key) != U64_BYTES or not isinstance(value, Bucket):
                self._refuse(f"its attempts have a key {key[:16].hex()} that lnd does not write")
            parts = [value.get(name) for name in _NESTED_KEYS]
            self._take(key, *parts)
            found[int.from_bytes(key)] = _Parts(*parts)
        return found

    # Duplicates ----------------------------------------------------------------------------------

    def _duplicates(self) -> Iterator[DuplicatePayment]:
        bucket = self._bucket.bucket(_DUPLICATES)
        if bucket is None:
            return
        for key, value in bucket.items():
            if len(key) == U64_BYTES and isinstance(value, Bucket):
                yield self._duplicate(key, value)
            else:
                self._warn(f"a key {key[:16].hex()} among its duplicates is none and was skipped")

    def _duplicate(self, key: bytes, bucket: Bucket) -> DuplicatePayment:
        number = int.from_bytes(key)
        place = f"duplicate {number}"
        value, settled, old = map(bucket.get, (_CREATION, _OLD_SETTLE, _OLD_ATTEMPT))
        self._take(key, value, settled, old)
        if value is None:
            self._refuse(f"{place}: it has no creation info")
        info: CreationInfo = self._read(f"{place}: its creation info", read_old_creation, value)
        reason = self._reason(bucket, f"{place}: ")
        if settled is not None and reason is not None:
            self._refuse(f"{place}: it has both settled and failed")
        if settled is None and reason is None:
            self._warn(f"{place}: nothing says how it ended; it counts as failed")
            reason = FailureReason.ERROR
        settle = None
        if settled is not None:
            settle = self._read(f"{place}: its settlement", read_old_settle, settled)
        return DuplicatePayment(
            sequence_number=number,
            identifier=self._identifier,
            value_msat=info.value_msat,
            created_at_ns=info.created_at_ns,
            payment_request=info.payment_request,
            failure_reason=reason,
            settle=settle,
            attempt=self._old_attempt(place, old),
        )

    def _old_attempt(self, place: str, value: bytes | None) -> Attempt | None:
        if value is None:
            return None
        try:
            return read_old_attempt(value, self._warn_of(place))
        except MalformedError as error:
            # lnd itself leaves the attempts of duplicates out; what it would not miss stops nobody.
            self._warn(f"{place}: its attempt was left out: {error}")
            return None

    def _warn_of(self, place: str) -> Warn:
        return lambda text: self._warn(f"{place}: {text}")

    # Both ----------------------------------------------------------------------------------------

    def _take(self, key: bytes, *values: bytes | None) -> None:
        """Count what becomes a part of the record, and refuse what no memory is made for."""
        self.size += ELEMENT_SIZE + len(key) + sum(len(value) for value in values if value)
        if self.size > RECORD_BYTES_MAX:
            self._refuse(
                f"it has {self.size:,} bytes in the file, or more, and lnd never comes near the "
                f"{RECORD_BYTES_MAX:,} that are allowed: delete its failed attempts in lnd (lncli "
                "deletepayments --payment_hash=... --failed_htlcs_only) and import again"
            )

    def _reason(self, bucket: Bucket, place: str) -> FailureReason | None:
        value = bucket.get(_REASON)
        return None if value is None else self._read(f"{place}its failure", read_reason, value)

    def _read(self, place: str, read: Callable[[bytes], T], value: bytes) -> T:
        try:
            return read(value)
        except MalformedError as error:
            raise self._error(f"{place}: {error}") from error

    def _refuse(self, reason: str, code: PaymentDBCode | None = None) -> NoReturn:
        raise self._error(reason, code)

    def _error(self, reason: str, code: PaymentDBCode | None = None) -> DamagedPaymentError:
        return DamagedPaymentError(self._path, self._bucket.page, self._identifier, reason, code)


def _warn_of_payment(warn: Warn, identifier: bytes, text: str) -> None:
    warn(f"payment {identifier.hex()}: {text}")
