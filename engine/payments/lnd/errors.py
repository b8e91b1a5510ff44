"""Name what can go wrong with a file of lnd. All of it is a `StoreError`; the file is untouched."""

from pathlib import Path
from typing import Self

from engine.payments.errors import (
    PaymentDBCode,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
)


class UnreadableFileError(StoreNotFoundError):
    """There is no file at this path that may be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}")


class FileLockedError(StoreLockedError):
    """A running lnd holds the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is in use: stop lnd, or make a copy of the file and read that")


class UnknownLayoutError(StoreError):
    """It is a sound bbolt file, and what lnd keeps in it is not what this reader knows."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class DamagedFileError(StoreDamagedError):
    """A page of the file is not as bbolt writes it.

    Attributes:
        path: of the file.
        page: the number of the page.
        offset: where that page begins, in bytes.
        reason: what is wrong with it, in words.
    """

    def __init__(self, path: Path, page: int, offset: int, reason: str) -> None:
        super().__init__(f"{path} is damaged: page {page}, at byte {offset}: {reason}")
        self.path = path
        self.page = page
        self.offset = offset
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Travel between processes whole."""
        return type(self), (self.path, self.page, self.offset, self.reason)


class DamagedPaymentError(StoreDamagedError):
    """A payment of the file is not as lnd writes it, or is none that a store takes.

    Attributes:
        path: of the file.
        page: where the payment is kept.
        identifier: of the payment.
        reason: what is wrong, in words; it names attempt and hop, where it is one.
        code: the refusal of a store, where there is one for it.
    """

    def __init__(
        self,
        path: Path,
        page: int,
        identifier: bytes,
        reason: str,
        code: PaymentDBCode | None = None,
    ) -> None:
        super().__init__(f"{path}: payment {identifier.hex()}, on page {page}: {reason}")
        self.path = path
        self.page = page
        self.identifier = identifier
        self.reason = reason
        self.code = code

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Travel between processes whole."""
        return type(self), (self.path, self.page, self.identifier, self.reason, self.code)
