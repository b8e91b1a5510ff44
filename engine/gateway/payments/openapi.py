"""The calls about payments as parts of the OpenAPI document."""

from typing import Final

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
from engine.payments.values import AttemptFailureReason, FailureReason

HEX: Final = {"type": "string", "pattern": "^([0-9A-Fa-f]{2})*$", "maxLength": 131_070}
KEY: Final = {"type": "string", "pattern": "^0[23][0-9A-Fa-f]{64}$"}
NUMBER_TEXT: Final = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,18})$"}
U32: Final = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
OFFSET: Final = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
FLAG: Final = {"type": "boolean"}
RECORDS: Final = {
    "type": "object",
    "propertyNames": {"pattern": "^[1-9][0-9]{5,18}$"},
    "additionalProperties": {"type": "string", "pattern": "^([0-9A-Fa-f]{2}){0,600}$"},
    "maxProperties": 8,
}

MPP: Final = object_of(
    ("payment_addr", "total_msat"), {"payment_addr": HEX32, "total_msat": NUMBER_TEXT}
)
AMP: Final = object_of(
    ("root_share", "set_id", "child_index"),
    {"root_share": HEX32, "set_id": HEX32, "child_index": U32},
)
HOP: Final = object_of(
    ("pub_key", "channel_id", "outgoing_time_lock", "amount_to_forward_msat"),
    {
        "pub_key": KEY,
        "channel_id": NUMBER_TEXT,
        "outgoing_time_lock": U32,
        "amount_to_forward_msat": NUMBER_TEXT,
        "legacy_payload": FLAG,
        "mpp": {"anyOf": [{"type": "null"}, MPP]},
        "amp": {"anyOf": [{"type": "null"}, AMP]},
        "encrypted_data": {"anyOf": [{"type": "null"}, HEX]},
        "blinding_point": {"anyOf": [{"type": "null"}, KEY]},
        "blinded_total_msat": NUMBER_TEXT,
        "metadata": {"anyOf": [{"type": "null"}, HEX]},
        "custom_records": RECORDS,
    },
)
ROUTE: Final = object_of(
    ("total_time_lock", "total_amount_msat", "source_pub_key", "hops"),
    {
        "total_time_lock": U32,
        "total_amount_msat": NUMBER_TEXT,
        "source_pub_key": KEY,
        "hops": {"type": "array", "minItems": 1, "maxItems": 27, "items": HOP},
        "first_hop_amount_msat": NUMBER_TEXT,
        "first_hop_wire_records": RECORDS,
    },
)
INIT: Final = object_of(
    ("identifier", "value_msat"),
    {
        "identifier": HEX32,
        "value_msat": NUMBER_TEXT,
        "created_at": TIME,
        "payment_request": {"type": "string", "maxLength": 16_383},
        "payment_request_hex": HEX,
        "first_hop_custom_records": RECORDS,
    },
)
ATTEMPT: Final = object_of(
    ("session_key", "route"),
    {
        "session_key": HEX32,
        "route": ROUTE,
        "attempt_index": SEQUENCE,
        "attempted_at": TIME,
        "payment_hash": HEX32,
    },
)
SETTLE: Final = object_of(("preimage",), {"preimage": HEX32, "settled_at": TIME})
FAIL: Final = object_of(("reason",), {"reason": {"enum": [each.name for each in FailureReason]}})
FAIL_ATTEMPT: Final = object_of(
    ("reason",),
    {
        "reason": {"enum": [each.name for each in AttemptFailureReason]},
        "failed_at": TIME,
        "source_index": U32,
        "message": HEX,
    },
)

IDENTIFIER: Final = {"name": "identifier", "in": "path", "required": True, "schema": HEX32}
INDEX: Final = {"name": "attempt_index", "in": "path", "required": True, "schema": SEQUENCE}
FILTERS: Final = (
    query("index_offset", OFFSET),
    query("max_payments", {"type": "integer", "minimum": 0, "maximum": 1_000}),
    query("reversed", FLAG),
    query("include_incomplete", FLAG),
    query("creation_date_start", OFFSET),
    query("creation_date_end", OFFSET),
    query("count_total", FLAG),
    query("omit_hops", FLAG),
)
CHOICES: Final = tuple(
    query(name, FLAG) for name in ("all_payments", "failed_only", "failed_attempts_only")
)


def payment_paths() -> Schema:
    """Return the paths of all calls about payments."""
    one = "/v1/payments/{identifier}"
    attempt = f"{one}/attempts/{{attempt_index}}"
    ok, made = {"200": "What was asked for."}, {"201": "Done; the payment as it is now."}
    changed, deleted = {"200": "The payment as it is now."}, {"200": "How many were deleted."}
    return {
        "/v1/payments": {
            "post": call(made, INIT),
            "get": call(ok, None, *FILTERS),
            "delete": call(deleted, None, *CHOICES),
        },
        "/v1/payments/in-flight": {
            "get": call(ok, None, LIMIT, query("starting_after", OFFSET)),
        },
        "/v1/payments/next-attempt-index": {"post": call(ok, object_of((), {}))},
        one: {
            "get": call(ok, None, IDENTIFIER, query("sequence_number", OFFSET)),
            "delete": call(deleted, None, IDENTIFIER, query("failed_attempts_only", FLAG)),
        },
        f"{one}/fail": {"post": call(changed, FAIL, IDENTIFIER)},
        f"{one}/attempts": {"post": call(made, ATTEMPT, IDENTIFIER)},
        f"{attempt}/settle": {"post": call(changed, SETTLE, IDENTIFIER, INDEX)},
        f"{attempt}/fail": {"post": call(changed, FAIL_ATTEMPT, IDENTIFIER, INDEX)},
    }
