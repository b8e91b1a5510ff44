"""What an OpenAPI document is built of: schemas that recur, calls and their parameters."""

from typing import Any, Final

HEX32: Final = {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"}
TIME: Final = {"type": "string", "format": "date-time"}
SEQUENCE: Final = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
LIMIT: Final = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}}

Schema = dict[str, Any]


def object_of(required: tuple[str, ...], properties: Schema) -> Schema:
    """Return the schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def query(name: str, schema: Schema) -> Schema:
    """Return a parameter behind the `?`."""
    return {"name": name, "in": "query", "schema": schema}


def call(answers: dict[str, str], body: Schema | None = None, *parameters: Schema) -> Schema:
    """Return a call by its answers, as status to words; any other answer is a problem."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    said: Schema = {
        "parameters": list(parameters),
        "responses": {
            status: {"description": text, "content": {"application/json": {}}}
            for status, text in answers.items()
        }
        | {"default": {"description": "A problem, RFC 9457.", "content": problem}},
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        said["requestBody"] = {"required": bool(body["required"]), "content": content}
    return said
