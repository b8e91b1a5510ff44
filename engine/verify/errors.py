"""What can go wrong while signatures are checked. A bad signature is none of it: that is `False`.

Arguments are kept as they came, so that each error survives the way out of a worker process.
"""

from enum import StrEnum
from pathlib import Path


class VerifyError(Exception):
    """Base of every error of this package."""


class MalformedBatchError(VerifyError):
    """A batch of claims breaks its format or its bounds; whoever built it is wrong."""


class SealRefusal(StrEnum):
    """Why a sealed answer was not believed."""

    FOREIGN = "foreign"
    """Not sealed with our key, or not for exactly this batch."""
    UNPROBED = "unprobed"
    """The batch does not end with probes, so nothing shows that the worker could tell."""
    PROBE = "probe"
    """A true seal over nonsense: wrong count, wrong bytes, or the probes were judged wrongly."""


class SealRefusedError(VerifyError):
    """An answer of a verifier must not be believed. No claim of its batch was checked."""

    def __init__(self, reason: SealRefusal) -> None:
        super().__init__(reason)
        self.reason = reason


class SealKeyError(VerifyError):
    """The file of the seal key cannot be trusted as it is."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"seal key {self.path}: {self.reason}"


class SelfTestFailedError(VerifyError):
    """The installed libraries judge a known signature wrongly; this process must not serve."""

    def __init__(self, vector: str, expected: bool) -> None:
        super().__init__(vector, expected)
        self.vector = vector
        self.expected = expected

    def __str__(self) -> str:
        return f"self-test: {self.vector!r} must be {'good' if self.expected else 'bad'} and is not"


class VerifierUnavailableError(VerifyError):
    """No verifier gave a usable answer. The batch is unchecked, and nothing was decided."""

    def __init__(self, attempts: int, reason: str) -> None:
        super().__init__(attempts, reason)
        self.attempts = attempts
        self.reason = reason

    def __str__(self) -> str:
        return f"batch not checked after {self.attempts} attempts: {self.reason}"
