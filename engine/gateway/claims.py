"""`POST /v1/claims` and `POST /v1/channels/{id}/claims`: the claim path over HTTP, bare ASGI."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from engine.channels.intake.submission import Submission
from engine.channels.messages import Answer, Status
from engine.core.claim import Claim
from engine.core.rejections import Rejected
from engine.core.types import CHANNEL_ID_BYTES
from engine.gateway.answers import result, results
from engine.gateway.asgi import ClientGone, Receive, Scope, Send, header, read_body, respond
from engine.gateway.forms import JSON, MSGPACK, Form, Malformed, octets_of
from engine.gateway.problems import Problem, malformed, not_allowed, refused, stopping
from engine.gateway.schemas import JSON_READER, MSGPACK_READER, Reader
from engine.gateway.state import GatewayState

READERS: Final[dict[str, tuple[Reader, Form]]] = {
    "": (JSON_READER, JSON),
    "application/json": (JSON_READER, JSON),
    "application/msgpack": (MSGPACK_READER, MSGPACK),
    "application/x-msgpack": (MSGPACK_READER, MSGPACK),
}

SAID_BY_PROBLEM: Final = frozenset({"status", "code", "message"})
"""Fields of a result that a problem says in its own way: its `status` is that of HTTP."""


class ClaimsDoor:
    """Takes claims over HTTP; answers once each of them is decided."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def many(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a batch: 200 with one result per claim, in order."""
        try:
            if scope["method"] != "POST":
                raise not_allowed(scope["method"], {"POST"})
            reader, form = _reader_of(scope)
            body = await read_body(scope, receive, self._state.options)
            claims = reader.claims(body)
            if self._state.draining:
                raise stopping()
            submission = await self._decided(claims)
        except Malformed as error:
            await _refuse(send, malformed(error.param, error.detail))
        except Problem as problem:
            await _refuse(send, problem)
        except ClientGone:
            return
        else:
            await _answer(send, 200, form, {"results": results(claims, submission, form)})

    async def one(self, scope: Scope, receive: Receive, send: Send, channel: str) -> None:
        """Answer a single claim: 200 accepted or duplicate, 202 buffered, else a problem."""
        try:
            reader, form = _reader_of(scope)
            channel_id = octets_of("channel_id", channel, CHANNEL_ID_BYTES, CHANNEL_ID_BYTES)
            body = await read_body(scope, receive, self._state.options)
            claim = reader.one(body, channel_id)
            if self._state.draining:
                raise stopping()
            submission = await self._decided([claim])
            answer, shard = submission.answers[0], submission.shards[0]
            if answer.status is Status.REJECTED:
                raise _problem_of(claim, answer, shard)
        except Malformed as error:
            await _refuse(send, malformed(error.param, error.detail))
        except Problem as problem:
            await _refuse(send, problem)
        except ClientGone:
            return
        else:
            status = 202 if answer.status is Status.BUFFERED else 200
            await _answer(send, status, form, result(claim, answer, shard, form))

    async def _decided(self, claims: Sequence[Claim | Malformed]) -> Submission:
        started = time.perf_counter()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finish(_: Submission) -> None:
            if not done.done():
                done.set_result(None)

        submission = Submission(len(claims), finish)
        if claims:
            self._state.submit(claims, submission)
            await done
        self._state.acks.add(time.perf_counter() - started)
        return submission


def _reader_of(scope: Scope) -> tuple[Reader, Form]:
    content_type = header(scope, b"content-type").partition(";")[0].strip()
    try:
        return READERS[content_type]
    except KeyError as error:
        detail = f"application/json or application/msgpack; got {content_type[:64]!r}"
        raise Problem(415, "malformed", detail) from error


def _problem_of(claim: Claim, answer: Answer, shard: int) -> Problem:
    """Return the problem of a refused claim: its result object, and what a problem says."""
    assert answer.code is not None
    rejected = Rejected(answer.code, answer.expected, answer.actual, answer.detail)
    fields = result(claim, answer, shard, JSON)
    extra = {name: value for name, value in fields.items() if name not in SAID_BY_PROBLEM}
    return refused(rejected, **extra)


async def _refuse(send: Send, problem: Problem) -> None:
    await respond(send, problem.status, problem.body(), problem.headers())


async def _answer(send: Send, status: int, form: Form, body: object) -> None:
    headers = [(b"content-type", form.content_type.encode())]
    await respond(send, status, form.encode(body), headers)
