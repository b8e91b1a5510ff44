"""Everything over HTTP but claims: channels, commands, balances, history, health, payments."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.channels.feed import HistoryEntry
from engine.channels.messages import Outcome
from engine.core.accounts import is_account
from engine.core.commands import (
    AnyCommand,
    ConfirmFunding,
    FundChannel,
    OpenChannel,
    OpenDispute,
    RequestClose,
    ResolveDispute,
    SettleChannel,
)
from engine.core.events import ClaimCovered
from engine.core.types import (
    CHANNEL_ID_BYTES,
    DROPS_MAX,
    PUBLIC_KEY_BYTES,
    ChannelId,
    Drops,
    Sequencing,
    State,
)
from engine.gateway.answers import balance, best_claim, channel, position_of
from engine.gateway.forms import JSON, Malformed, integer_of, octets_of, time_of
from engine.gateway.handlers import Handler, answered, json_body, json_response, problem_response
from engine.gateway.health import MetricsPage, not_ready_because, server_info
from engine.gateway.openapi import document
from engine.gateway.payments.routes import PaymentRoutes
from engine.gateway.problems import Problem, malformed, not_allowed, not_ready, refused, stopping
from engine.gateway.reads import balance_of, channel_of
from engine.gateway.schemas import (
    DisputeBody,
    EmptyBody,
    FundBody,
    OpenBody,
    ResolveBody,
    SettleBody,
    checked,
)
from engine.gateway.state import GatewayState
from engine.verify.schemes import is_valid_public_key

Body = TypeVar("Body")
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LIMIT_DEFAULT: Final = 100


def channel_id_of(request: Request) -> ChannelId:
    """Return the channel id of the path."""
    text = request.path_params["channel_id"]
    return ChannelId(octets_of("channel_id", text, CHANNEL_ID_BYTES, CHANNEL_ID_BYTES))


class Routes:
    """The handlers; each reads its request, asks the router, and answers."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._metrics = MetricsPage(state)

    # Channels -----------------------------------------------------------------------------------

    @staticmethod
    async def _body(state: GatewayState, request: Request, kind: type[Body]) -> Body:
        data = await json_body(request, state.options)
        if not data and kind is not OpenBody:
            data = b"{}"
        return checked(msgspec.json.Decoder(kind).decode, data)

    async def open(self, request: Request) -> Response:
        """POST /v1/channels."""
        body = await self._body(self._state, request, OpenBody)
        command = _opening(body)
        outcome = await self._execute(command)
        assert outcome.view is not None
        channel_id = command.channel_id
        shown = channel(self._state.router.shard_of(channel_id), outcome.view, JSON)
        location = {"location": f"/v1/channels/{shown['channel_id']}"}
        return json_response(shown, 201 if outcome.created else 200, location)

    async def list(self, request: Request) -> Response:
        """GET /v1/channels."""
        query = request.query_params
        limit = self._limit(request)
        after = query.get("starting_after")
        start = b"" if after is None else octets_of("starting_after", after, 32, 32)
        state = query.get("state", "").capitalize()
        if state and state not in set(State):
            raise malformed("state", f"one of {', '.join(State)}")
        found = await self._state.router.page(start, limit + 1, state)
        shown = [channel(shard, view, JSON) for shard, view in found[:limit]]
        return json_response({"channels": shown, "has_more": len(found) > limit})

    async def show(self, request: Request) -> Response:
        """GET /v1/channels/{id}."""
        return json_response(channel(*await channel_of(self._state, channel_id_of(request)), JSON))

    async def command(self, request: Request) -> Response:
        """POST /v1/channels/{id}/<command>."""
        kind, make = COMMANDS[request.url.path.rpartition("/")[2]]
        channel_id = channel_id_of(request)
        body = await self._body(self._state, request, kind)
        outcome = await self._execute(make(channel_id, body))
        assert outcome.view is not None
        return json_response(channel(self._state.router.shard_of(channel_id), outcome.view, JSON))

    async def _execute(self, command: AnyCommand) -> Outcome:
        if self._state.draining:
            raise stopping()
        outcome = await self._state.router.execute(command)
        if outcome.rejected is None:
            return outcome
        extra: dict[str, Any] = {}
        if outcome.rejected.expected or outcome.rejected.actual:
            extra = {"expected": outcome.rejected.expected, "actual": outcome.rejected.actual}
        if outcome.view is not None:
            extra["state"] = outcome.view.channel.state.value
        raise refused(outcome.rejected, **extra)

    # Balances and claims ------------------------------------------------------------------------

    async def balance(self, request: Request) -> Response:
        """GET /v1/channels/{id}/balance."""
        query = request.query_params
        consistency = query.get("consistency", "strong")
        at_least = query.get("at_least")
        seen = await balance_of(self._state, channel_id_of(request), consistency, at_least)
        return json_response(balance(seen, consistency, JSON))

    async def best_claim(self, request: Request) -> Response:
        """GET /v1/channels/{id}/best-claim."""
        shard, view = await channel_of(self._state, channel_id_of(request))
        if not view.channel.sequence:
            raise Problem(404, "no_claim", "no claim has been accepted on this channel yet")
        return json_response(best_claim(shard, view, JSON))

    async def history(self, request: Request) -> Response:
        """GET /v1/channels/{id}/claims."""
        channel_id, limit = channel_id_of(request), self._limit(request)
        after = request.query_params.get("starting_after", "0")
        shard, view = await channel_of(self._state, channel_id)
        start = integer_of("starting_after", after)
        found: list[HistoryEntry] = []
        if start < view.channel.sequence:
            found = await self._state.feed.claims(
                shard, channel_id, start, limit + 1, view.claim_position
            )
        begins_at = await self._state.feed.begins_at(shard)  # asked last: a cut is never hidden
        page = {
            "claims": [_past(shard, entry) for entry in found[:limit]],
            "has_more": len(found) > limit,
            "history_from": position_of(shard, begins_at),
        }
        return json_response(page)

    def _limit(self, request: Request) -> int:
        most = self._state.options.page_max
        text = request.query_params.get("limit", str(min(LIMIT_DEFAULT, most)))
        return integer_of("limit", text, 1, most)

    # Health -------------------------------------------------------------------------------------

    async def livez(self, request: Request) -> Response:
        """GET /livez."""
        return json_response({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """GET /readyz."""
        reasons = not_ready_because(self._state)
        if reasons:
            raise not_ready("; ".join(reasons))
        return json_response({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(await self._metrics.text(), media_type=METRICS_TYPE)

    async def server(self, request: Request) -> Response:
        """GET /v1/server."""
        return json_response(await server_info(self._state))

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return json_response(document())


def _opening(body: OpenBody) -> OpenChannel:
    for param, address in (("source", body.source), ("destination", body.destination)):
        if not is_account(address):
            raise Malformed(param, "a classic address of the XRP Ledger")
    key = octets_of("public_key", body.public_key, PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
    if not is_valid_public_key(key):
        raise Malformed("public_key", "a key the ledger takes: 02, 03 or ED first, on its curve")
    return OpenChannel(
        channel_id=ChannelId(octets_of("channel_id", body.channel_id, 32, 32)),
        source=body.source,
        destination=body.destination,
        public_key=key,
        capacity=Drops(integer_of("capacity", body.capacity, 1, DROPS_MAX)),
        settle_delay_s=body.settle_delay,
        expiration=None if body.expiration is None else time_of("expiration", body.expiration),
        cancel_after=None
        if body.cancel_after is None
        else time_of("cancel_after", body.cancel_after),
        sequencing=Sequencing(body.sequencing),
        funded=body.funded,
    )


def _fund(channel_id: ChannelId, body: FundBody) -> FundChannel:
    previous = None
    if body.previous is not None:
        previous = Drops(integer_of("previous", body.previous, 0, DROPS_MAX))
    amount = Drops(integer_of("amount", body.amount, 1, DROPS_MAX))
    return FundChannel(channel_id=channel_id, amount=amount, previous=previous)


def _redeemed(text: str | None) -> Drops | None:
    return None if text is None else Drops(integer_of("redeemed", text, 0, DROPS_MAX))


def _settle(channel_id: ChannelId, body: SettleBody) -> SettleChannel:
    return SettleChannel(channel_id=channel_id, redeemed=_redeemed(body.redeemed))


def _resolve(channel_id: ChannelId, body: ResolveBody) -> ResolveDispute:
    outcome = body.outcome.capitalize()
    if outcome not in (State.ACTIVE, State.SETTLING, State.SETTLED):
        raise Malformed("outcome", "Active, Settling or Settled")
    return ResolveDispute(
        channel_id=channel_id, outcome=State(outcome), redeemed=_redeemed(body.redeemed)
    )


COMMANDS: Final[dict[str, tuple[type[Any], Callable[[ChannelId, Any], AnyCommand]]]] = {
    "confirm-funding": (EmptyBody, lambda channel_id, _: ConfirmFunding(channel_id=channel_id)),
    "fund": (FundBody, _fund),
    "request-close": (EmptyBody, lambda channel_id, _: RequestClose(channel_id=channel_id)),
    "settle": (SettleBody, _settle),
    "dispute": (
        DisputeBody,
        lambda channel_id, body: OpenDispute(channel_id=channel_id, reason=body.reason),
    ),
    "resolve": (ResolveBody, _resolve),
}


def _past(shard: int, entry: HistoryEntry) -> dict[str, Any]:
    claim = entry.claim
    covered = {"covered_by": claim.covered_by} if isinstance(claim, ClaimCovered) else {}
    return {
        "sequence": claim.sequence,
        "amount": JSON.drops(claim.amount),
        "signature": JSON.octets(claim.signature),
        "position": position_of(shard, entry.position),
        "at": JSON.time(entry.at),
        **covered,
    }


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    if error.status_code != 405:
        return problem_response(Problem(404, "not_found", f"nothing at {path[:128]}"))
    routes = (route for route in request.app.routes if route.path_regex.match(path))
    allowed = {verb for route in routes for verb in route.methods}
    if path.endswith("/claims"):  # posting a claim does not come by here
        allowed.add("POST")
    return problem_response(not_allowed(request.method, allowed))


def build_routes(state: GatewayState) -> Starlette:
    """Return the application of everything but claims."""
    routes = Routes(state)
    one = "/v1/channels/{channel_id}"
    table: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/channels", routes.open),
        ("GET", "/v1/channels", routes.list),
        ("GET", one, routes.show),
        ("GET", f"{one}/balance", routes.balance),
        ("GET", f"{one}/best-claim", routes.best_claim),
        ("GET", f"{one}/claims", routes.history),
        ("GET", "/livez", routes.livez),
        ("GET", "/readyz", routes.readyz),
        ("GET", "/metrics", routes.metrics),
        ("GET", "/v1/server", routes.server),
        ("GET", "/openapi.json", routes.openapi),
    ]
    table += [("POST", f"{one}/{name}", routes.command) for name in COMMANDS]
    table += PaymentRoutes(state).table()
    application = Starlette(
        routes=[Route(path, answered(handler), methods=[verb]) for verb, path, handler in table],
        exception_handlers={HTTPException: _http_error},
    )
    application.router.redirect_slashes = False  # a path has one spelling
    return application
