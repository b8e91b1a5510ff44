"""xrpld's envelope: how text frames of a WebSocket say what was asked and what came of it."""

from typing import Any, Final

import msgspec

from engine.gateway.asgi import Message
from engine.gateway.problems import Problem
from engine.gateway.schemas import TextCommand

_encode: Final = msgspec.json.Encoder().encode


def success(asked: TextCommand, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a command."""
    return _tied(asked, {"status": "success", "type": "response", "result": answer})


def failure(asked: TextCommand, problem: Problem) -> dict[str, Any]:
    """Return the answer to a command that is refused."""
    return _tied(
        asked,
        {
            "status": "error",
            "type": "response",
            "error": problem.code,
            "error_code": problem.status,
            "error_message": problem.detail,
        },
    )


def _tied(asked: TextCommand, envelope: dict[str, Any]) -> dict[str, Any]:
    return envelope if asked.id is None else {"id": asked.id, **envelope}


def text(answer: dict[str, Any]) -> Message:
    """Return a text frame."""
    return {"type": "websocket.send", "text": _encode(answer).decode()}
