"""The HTTP surface as an OpenAPI 3.1 document: for client generators, and for fuzzing ourselves."""

from typing import Final

from engine.core.types import State
from engine.gateway.openapi_parts import (
    HEX32,
    LIMIT,
    SEQUENCE,
    TIME,
    Schema,
    call,
    object_of,
    query,
)
from engine.gateway.payments.openapi import payment_paths

POSITION: Final = {"type": "string", "pattern": "^[0-9]+-[0-9]+$"}
KEY: Final = {"type": "string", "pattern": "^(02|03|[Ee][Dd])[0-9A-Fa-f]{64}$"}
SIGNATURE: Final = {"type": "string", "pattern": "^([0-9A-Fa-f]{2}){1,72}$"}
DROPS: Final = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,19})$"}
CLAIM_FIELDS: Final = {
    "channel_id": HEX32,
    "amount": DROPS,
    "signature": SIGNATURE,
    "sequence": SEQUENCE,
    "previous": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,19}|[0-9A-Fa-f]{64})$"},
    "sent_at": TIME,
}
CLAIMS: Final = object_of(
    ("claims",),
    {
        "claims": {
            "type": "array",
            "maxItems": 4_096,
            "items": object_of(("channel_id", "amount", "signature"), CLAIM_FIELDS),
        }
    },
)
OPENING: Final = object_of(
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
    "confirm-funding": object_of((), {}),
    "fund": object_of(("amount",), {"amount": DROPS, "previous": DROPS}),
    "request-close": object_of((), {}),
    "settle": object_of((), {"redeemed": DROPS}),
    "dispute": object_of((), {"reason": {"type": "string", "maxLength": 256}}),
    "resolve": object_of(
        ("outcome",),
        {"outcome": {"enum": ["Active", "Settling", "Settled"]}, "redeemed": DROPS},
    ),
    "claims": object_of(("amount", "signature"), CLAIM_FIELDS),
}
HISTORY: Final = object_of(
    ("claims", "has_more", "history_from"),
    {
        "claims": {
            "type": "array",
            "items": object_of(
                ("sequence", "amount", "signature", "position", "at"),
                {
                    "sequence": SEQUENCE,
                    "amount": DROPS,
                    "signature": SIGNATURE,
                    "position": POSITION,
                    "at": TIME,
                    "covered_by": SEQUENCE,
                },
            ),
        },
        "has_more": {"type": "boolean"},
        "history_from": POSITION,
    },
)
"""A page of accepted claims; `history_from` is the oldest event of the shard that is kept."""
CHANNEL: Final = {"name": "channel_id", "in": "path", "required": True, "schema": HEX32}


def document() -> Schema:
    """Return the document."""
    one = "/v1/channels/{channel_id}"
    ok = {"200": "What was asked for."}
    states = {"enum": [state.value for state in State]}
    levels = {"enum": ["strong", "session", "eventual"]}
    paths: Schema = {
        "/v1/channels": {
            "post": call({"200": "Open already.", "201": "Opened."}, OPENING),
            "get": call(ok, None, LIMIT, query("starting_after", HEX32), query("state", states)),
        },
        "/v1/claims": {"post": call({"200": "A result per claim, in order."}, CLAIMS)},
        one: {"get": call(ok, None, CHANNEL)},
        f"{one}/balance": {
            "get": call(
                ok,
                None,
                CHANNEL,
                query("consistency", levels),
                query("at_least", POSITION),
            )
        },
        f"{one}/best-claim": {"get": call(ok, None, CHANNEL)},
    }
    for name, body in BODIES.items():
        paths[f"{one}/{name}"] = {"post": call(ok, body, CHANNEL)}
    paths[f"{one}/claims"]["get"] = call(
        ok, None, CHANNEL, LIMIT, query("starting_after", {"type": "integer", "minimum": 0})
    )
    shown = paths[f"{one}/claims"]["get"]["responses"]["200"]["content"]["application/json"]
    shown["schema"] = HISTORY
    paths[f"{one}/claims"]["post"]["responses"]["202"] = {"description": "Held for its turn."}
    paths |= payment_paths()
    for path in ("/livez", "/readyz", "/metrics", "/v1/server", "/openapi.json"):
        paths[path] = {"get": call(ok)}
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
