"""Errors of a call itself, as RFC 9457 problem details; never a 500 for what a client can send."""

import secrets
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from engine.core.rejections import RETRYABLE, RejectCode, Rejected, message_for

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_MS: Final = 250

STATUS_OF: Final = {
    RejectCode.MALFORMED: 400,
    RejectCode.UNKNOWN_CHANNEL: 404,
    RejectCode.CONFLICT: 409,
    RejectCode.SEQUENCE_CONFLICT: 409,
    RejectCode.SEQUENCE_USED: 409,
    RejectCode.WRONG_STATE: 409,
    RejectCode.OVERLOADED: 503,
    RejectCode.UNAVAILABLE: 503,
    RejectCode.STORAGE_FULL: 503,
}
"""HTTP status of a refusal; 422 for every other code."""


class Problem(Exception):  # noqa: N818  (RFC 9457 calls it that)
    """A call that is answered with a problem instead of a result."""

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra
        self.allowed: Iterable[str] = ()
        super().__init__(detail)

    def body(self) -> bytes:
        """Return the problem document; each has a request id of its own to quote to an operator."""
        document: dict[str, Any] = {
            "type": f"urn:paychan:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.status in (408, 429, 503),
            "request_id": secrets.token_hex(8),
        }
        if self.status in (429, 503):
            document["retry_after_ms"] = RETRY_AFTER_MS
        return msgspec.json.encode(document | self.extra)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go with the document."""
        headers = [(b"content-type", CONTENT_TYPE.encode())]
        if self.status in (429, 503):
            headers.append((b"retry-after", b"1"))
        if self.allowed:
            headers.append((b"allow", ", ".join(sorted(self.allowed)).encode()))
        if self.status in (408, 413):
            headers.append((b"connection", b"close"))
        return headers


def refused(rejected: Rejected, **extra: Any) -> Problem:
    """Return the problem that says a refusal."""
    retryable = rejected.code in RETRYABLE
    status = STATUS_OF.get(rejected.code, 422)
    return Problem(
        status, rejected.code.value, message_for(rejected), **{"retryable": retryable, **extra}
    )


def malformed(param: str, detail: str) -> Problem:
    """Return the problem of a field that cannot be what it should."""
    return Problem(400, RejectCode.MALFORMED.value, f"{param}: {detail}", param=param)


def not_allowed(method: str, allowed: Iterable[str]) -> Problem:
    """Return the problem of a method that its path does not have."""
    problem = Problem(405, "method_not_allowed", f"not {method} here")
    problem.allowed = allowed
    return problem


def stopping() -> Problem:
    """Return the problem of an engine that finishes what is under way: nothing was done."""
    detail = "the engine is stopping; send the same again elsewhere or later"
    return Problem(503, RejectCode.OVERLOADED.value, detail)


def not_ready(detail: str) -> Problem:
    """Return the problem of an engine that takes nothing new at the moment."""
    return Problem(503, RejectCode.UNAVAILABLE.value, detail)
