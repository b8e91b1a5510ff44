"""`/v1/payments…`: each handler reads its call, has it done in a thread, and answers.

The answer is made in the thread too: a page of payments takes longer to write down than to find.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from engine.channels.timers import SystemClock
from engine.gateway.forms import JSON
from engine.gateway.handlers import Handler, json_body, json_response
from engine.gateway.payments import answers
from engine.gateway.payments.bodies import (
    AttemptBody,
    Body,
    FailAttemptBody,
    FailBody,
    InitBody,
    NoBody,
    SettleBody,
    attempt_of,
    creation_of,
    decoded,
    failure_of,
    reason_of,
    settle_of,
)
from engine.gateway.payments.pages import in_flight, page_of
from engine.gateway.payments.queries import FILTERS, Asked, query_of
from engine.gateway.payments.refusals import payments_off
from engine.gateway.payments.texts import number_in, octets_in
from engine.gateway.problems import stopping
from engine.gateway.state import GatewayState
from engine.payments import DuplicatePayment, Payment
from engine.payments.rules import check_delete_choice
from engine.payments.tower import ControlTower

PATH: Final = "/v1/payments"
DELETE_FLAGS: Final = ("all_payments", "failed_only", "failed_attempts_only")
LIMIT_DEFAULT: Final = 100
Work = Callable[[ControlTower], answers.Answer]


class PaymentRoutes:
    """The handlers."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._clock = SystemClock()

    def table(self) -> list[tuple[str, str, Handler]]:
        """Return method, path and handler of every call; fixed paths come before ids."""
        one = f"{PATH}/{{identifier}}"
        attempt = f"{one}/attempts/{{attempt_index}}"
        table: list[tuple[str, str, Handler]] = [
            ("POST", PATH, self.init),
            ("GET", PATH, self.list),
            ("DELETE", PATH, self.delete_many),
            ("GET", f"{PATH}/in-flight", self.in_flight),
            ("POST", f"{PATH}/next-attempt-index", self.next_attempt_index),
            ("GET", one, self.show),
            ("DELETE", one, self.delete),
            ("POST", f"{one}/fail", self.fail),
            ("POST", f"{one}/attempts", self.attempt),
            ("POST", f"{attempt}/settle", self.settle_attempt),
            ("POST", f"{attempt}/fail", self.fail_attempt),
        ]
        return [(verb, path, self._if_on(handler)) for verb, path, handler in table]

    def _if_on(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if self._state.payments is None:
                raise payments_off()
            return await handler(request)

        return guarded

    # Looking ------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """GET /v1/payments."""
        asked = Asked(request, *FILTERS)
        query = query_of(asked, self._state.options.page_max)
        return await self._answer(
            lambda tower: answers.page(page_of(tower, query), with_total=query.count_total)
        )

    async def show(self, request: Request) -> Response:
        """GET /v1/payments/{identifier}."""
        asked = Asked(request, "sequence_number")
        identifier, number = _identifier_of(request), asked.number("sequence_number")
        if number:
            return await self._answer(
                lambda tower: _either(tower.fetch_by_number(identifier, number))
            )
        return await self._answer(lambda tower: answers.payment(tower.fetch_payment(identifier)))

    async def in_flight(self, request: Request) -> Response:
        """GET /v1/payments/in-flight."""
        asked = Asked(request, "limit", "starting_after")
        limit = asked.limit("limit", LIMIT_DEFAULT, self._state.options.page_max) or LIMIT_DEFAULT
        after = asked.number("starting_after")

        def look(tower: ControlTower) -> answers.Answer:
            found, has_more = in_flight(tower, after, limit)
            return {"payments": [*map(answers.payment, found)], "has_more": has_more}

        return await self._answer(look)

    # The life of a payment ----------------------------------------------------------------------

    async def init(self, request: Request) -> Response:
        """POST /v1/payments."""
        info = creation_of(await self._body(request, InitBody), self._clock.now_ns())

        def begin(tower: ControlTower) -> answers.Answer:
            tower.init_payment(info.identifier, info)
            return answers.payment(tower.fetch_payment(info.identifier))

        location = {"location": f"{PATH}/{info.identifier.hex().upper()}"}
        return await self._write(begin, 201, location)

    async def attempt(self, request: Request) -> Response:
        """POST /v1/payments/{identifier}/attempts."""
        identifier = _identifier_of(request)
        body = await self._body(request, AttemptBody)
        made = attempt_of(body, 0, self._clock.now_ns())

        def register(tower: ControlTower) -> answers.Answer:
            index = body.attempt_index
            index = tower.next_attempt_index() if index is None else index
            payment = tower.register_attempt(identifier, replace(made, attempt_index=index))
            return {"attempt_index": index, **answers.payment(payment)}

        return await self._write(register, 201)

    async def settle_attempt(self, request: Request) -> Response:
        """POST /v1/payments/{identifier}/attempts/{attempt_index}/settle."""
        identifier, index = _identifier_of(request), _index_of(request)
        settle = settle_of(await self._body(request, SettleBody), self._clock.now_ns())
        return await self._write(
            lambda tower: answers.payment(tower.settle_attempt(identifier, index, settle))
        )

    async def fail_attempt(self, request: Request) -> Response:
        """POST /v1/payments/{identifier}/attempts/{attempt_index}/fail."""
        identifier, index = _identifier_of(request), _index_of(request)
        failure = failure_of(await self._body(request, FailAttemptBody), self._clock.now_ns())
        return await self._write(
            lambda tower: answers.payment(tower.fail_attempt(identifier, index, failure))
        )

    async def fail(self, request: Request) -> Response:
        """POST /v1/payments/{identifier}/fail."""
        identifier = _identifier_of(request)
        reason = reason_of(await self._body(request, FailBody))
        return await self._write(
            lambda tower: answers.payment(tower.fail_payment(identifier, reason))
        )

    async def next_attempt_index(self, request: Request) -> Response:
        """POST /v1/payments/next-attempt-index."""
        await self._body(request, NoBody)
        return await self._write(lambda tower: {"attempt_index": tower.next_attempt_index()})

    # Deletion -----------------------------------------------------------------------------------

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/payments/{identifier}."""
        identifier = _identifier_of(request)
        attempts_only = Asked(request, "failed_attempts_only").flag("failed_attempts_only")

        def remove(tower: ControlTower) -> answers.Answer:
            tower.delete_payment(identifier, attempts_only)
            return {"deleted": 0 if attempts_only else 1}

        return await self._write(remove)

    async def delete_many(self, request: Request) -> Response:
        """DELETE /v1/payments."""
        asked = Asked(request, *DELETE_FLAGS)
        everything, failed_only, attempts_only = map(asked.flag, DELETE_FLAGS)

        def remove(tower: ControlTower) -> answers.Answer:
            check_delete_choice(
                all_payments=everything,
                failed_only=failed_only,
                failed_attempts_only=attempts_only,
            )
            return {"deleted": tower.delete_payments(failed_only, attempts_only)}

        return await self._write(remove)

    # How it is done -----------------------------------------------------------------------------

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        data = await json_body(request, self._state.options)
        return decoded(b"{}" if not data and kind is NoBody else data, kind)

    async def _write(
        self, work: Work, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        if self._state.draining:
            raise stopping()
        return await self._answer(work, status, headers)

    async def _answer(
        self, work: Work, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        desk = self._state.payments
        assert desk is not None
        octets = await desk.call(lambda tower: JSON.encode(work(tower)))
        return json_response(octets, status, headers)


def _either(found: Payment | DuplicatePayment) -> dict[str, Any]:
    return answers.payment(found) if isinstance(found, Payment) else answers.duplicate(found)


def _identifier_of(request: Request) -> bytes:
    return octets_in("identifier", request.path_params["identifier"])


def _index_of(request: Request) -> int:
    return number_in("attempt_index", request.path_params["attempt_index"])
