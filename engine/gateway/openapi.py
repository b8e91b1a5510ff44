"""The HTTP surface as an OpenAPI 3.1 document: for client generators, and for fuzzing ourselves."""

from typing import Any, Final

from engine.core.types import State

HEX32: Final = {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"}
KEY: Final = {"type": "string", "pattern": "^(02|03|[Ee][Dd])[0-9A-Fa-f]{64}$"}
SIGNATURE: Final = {"type": "string", "pattern": "^([0-9A-Fa-f]{2}){1,72}$"}
DROPS: Final = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,19})$"}
TIME: Final = {"type": "string", "format": "date-time"}
SEQUENCE: Final = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
Schema = dict[str, Any]


def _object(required: tuple[str, ...], properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


CLAIM_FIELDS: Final = {
    "channel_id": HEX32,
    "amount": DROPS,
    "signature": SIGNATURE,
    "sequence": SEQUENCE,
    "previous": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,19}|[0-9A-Fa-f]{64})$"},
    "sent_at": TIME,
}
CLAIMS: Final = _object(
    ("claims",),
    {
        "claims": {
            "type": "array",
            "maxItems": 4_096,
            "items": _object(("channel_id", "amount", "signature"), CLAIM_FIELDS),
        }
    },
)
OPENING: Final = _object(
    ("channel_id", "source", "destination", "public_key", "capacity", "settle_delay"),
    {
        "channel_id": HEX32,
        "source": {"type": "string", "maxLength": 64},
        "destination": {"type": "string", "maxLength": 64},
        "public_key": KEY,
        "capacity": DROPS,
        "settle_delay": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        "expiration": TIME,
        "cancel_after": TIME,
        "sequencing": {"enum": ["strict", "amount"]},
        "funded": {"type": "boolean"},
    },
)
BODIES: Final[dict[str, Schema]] = {
    "confirm-funding": _object((), {}),
    "fund": _object(("amount",), {"amount": DROPS, "previous": DROPS}),
    "request-close": _object((), {}),
    "settle": _object((), {"redeemed": DROPS}),
    "dispute": _object((), {"reason": {"type": "string", "maxLength": 256}}),
    "resolve": _object(
        ("outcome",),
        {"outcome": {"enum": ["Active", "Settling", "Settled"]}, "redeemed": DROPS},
    ),
    "claims": _object(("amount", "signature"), CLAIM_FIELDS),
}
CHANNEL: Final = {"name": "channel_id", "in": "path", "required": True, "schema": HEX32}
LIMIT: Final = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _call(answers: dict[str, str], body: Schema | None = None, *parameters: Schema) -> Schema:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    call: Schema = {
        "parameters": list(parameters),
        "responses": {
            status: {"description": text, "content": {"application/json": {}}}
            for status, text in answers.items()
        }
        | {"default": {"description": "A problem, RFC 9457.", "content": problem}},
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        call["requestBody"] = {"required": bool(body["required"]), "content": content}
    return call


def document() -> Schema:
    """Return the document."""
    one = "/v1/channels/{channel_id}"
    ok = {"200": "What was asked for."}
    states = {"enum": [state.value for state in State]}
    levels = {"enum": ["strong", "session", "eventual"]}
    paths: Schema = {
        "/v1/channels": {
            "post": _call({"200": "Open already.", "201": "Opened."}, OPENING),
            "get": _call(ok, None, LIMIT, _query("starting_after", HEX32), _query("state", states)),
        },
        "/v1/claims": {"post": _call({"200": "A result per claim, in order."}, CLAIMS)},
        one: {"get": _call(ok, None, CHANNEL)},
        f"{one}/balance": {
            "get": _call(
                ok,
                None,
                CHANNEL,
                _query("consistency", levels),
                _query("at_least", {"type": "string", "pattern": "^[0-9]+-[0-9]+$"}),
            )
        },
        f"{one}/best-claim": {"get": _call(ok, None, CHANNEL)},
    }
    for name, body in BODIES.items():
        paths[f"{one}/{name}"] = {"post": _call(ok, body, CHANNEL)}
    paths[f"{one}/claims"]["get"] = _call(
        ok, None, CHANNEL, LIMIT, _query("starting_after", {"type": "integer", "minimum": 0})
    )
    paths[f"{one}/claims"]["post"]["responses"]["202"] = {"description": "Held for its turn."}
    for path in ("/livez", "/readyz", "/metrics", "/v1/server", "/openapi.json"):
        paths[path] = {"get": _call(ok)}
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "paychan", "version": "1", "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM}},
    }


_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "param": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after_ms": {"type": "integer"},
        "request_id": {"type": "string"},
    },
}
