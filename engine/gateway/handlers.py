"""What every handler over HTTP does: reads its body, answers in JSON, and never ends in a 500."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from engine.channels.feed import HistoryUnreadable, ScansFull
from engine.channels.intake.calls import CallsFull
from engine.gateway.asgi import ClientGone, header, read_body
from engine.gateway.forms import JSON, Malformed
from engine.gateway.options import GatewayOptions
from engine.gateway.problems import Problem, malformed, not_ready
from engine.ports import ShardDown

Handler = Callable[[Request], Awaitable[Response]]


def answered(handler: Handler) -> Handler:
    """Turn what a handler raises into a problem; nothing a client sends ends in a 500."""

    @wraps(handler)
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except Malformed as error:
            problem = malformed(error.param, error.detail)
        except Problem as raised:
            problem = raised
        except (ShardDown, CallsFull, ScansFull) as error:
            problem = not_ready(f"not to be had at the moment ({type(error).__name__}); try again")
        except HistoryUnreadable as error:
            detail = f"no history: the log of shard {error.shard} is damaged or not to be had here"
            problem = not_ready(f"{detail}; claims are not affected, the engine's log says more")
        return problem_response(problem)

    return guarded


def problem_response(problem: Problem) -> Response:
    """Return the answer that a problem is."""
    headers = {name.decode(): value.decode() for name, value in problem.headers()}
    return Response(problem.body(), problem.status, headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer; what is bytes already is JSON already."""
    octets = body if isinstance(body, bytes) else JSON.encode(body)
    return Response(octets, status, headers, JSON.content_type)


async def json_body(request: Request, options: GatewayOptions) -> bytes:
    """Return the body of a call, which must be JSON if it says what it is.

    Raises:
        Problem: of another type, too large, too slow, or cut short.
    """
    content_type = header(request.scope, b"content-type").partition(";")[0].strip()
    if content_type not in ("", "application/json"):
        raise Problem(415, "malformed", f"application/json; got {content_type[:64]!r}")
    try:
        return await read_body(request.scope, request.receive, options)
    except ClientGone as error:
        raise Problem(400, "malformed", "the body ended early") from error
