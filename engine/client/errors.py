"""What can go wrong between a program and an engine. One base, attributes instead of texts."""

import aiohttp
import msgspec


class Problem(msgspec.Struct, frozen=True):
    """Why an engine refused a call; RFC 9457 with the fields paychan adds.

    `expected` and `actual` are the two numbers that disagreed, in the unit of the code.
    """

    status: int = 0
    title: str = ""
    detail: str = ""
    code: str = ""
    param: str | None = None
    expected: int | None = None
    actual: int | None = None
    claimed: int | None = None
    available: int | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    request_id: str | None = None


class ClientError(Exception):
    """Anything a client raises; its message says what was seen."""


class ServerUnreachable(ClientError):  # noqa: N818  (it reads as the sentence it is)
    """Nobody answers at `server`; after a call that was sent its outcome is unknown."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"{server} cannot be reached: {reason}")
        self.server = server
        self.reason = reason


class Refused(ClientError):  # noqa: N818  (as above)
    """The engine answered, and said no."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code or problem.status}: {problem.detail or problem.title}")
        self.problem = problem


class ProtocolViolated(ClientError):  # noqa: N818  (as above)
    """What answers at the address does not speak as an engine does."""


def reason_of(error: BaseException) -> str:
    """Return why a connection failed, without the library's own wording around it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__
