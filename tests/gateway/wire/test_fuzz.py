"""Whatever the surface's own description can be turned into, and whatever a frame can become."""

import json
from typing import Any, Final

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from engine.gateway.openapi import document
from tests.gateway.wire.world import MSGPACK, PROBLEM, Client, Payer, Reply, Server, Speaker
from tests.lengths import often

# The server's thread draws the payload of its pings from `random`, now and then while an example
# is drawn here.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

SCHEMA: Final = schemathesis.openapi.from_dict(document())
OPERATIONS: Final = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
MODES: Final = {"right": GenerationMode.POSITIVE, "wrong": GenerationMode.NEGATIVE}
CALLS: Final = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in MODES
    # A call without parameters cannot be made wrongly.
    if mode == "right" or operation.body or operation.query or operation.path_parameters
]
FEW_CALLS: Final = [(label, mode) for label, mode in CALLS if "/v1/payments" not in label]
"""Those of payments take half the time of all, so that the quick part leaves them out."""

CHECKS: Final = [not_a_server_error, content_type_conformance, status_code_conformance]
CODES: Final = {"malformed", "bad_signature", "unknown_channel", "amount_over_capacity"}
CODES_IN_ORDER: Final = CODES | {"sequence_gap", "sequence_used", "sequence_conflict", "conflict"}


def setting(examples: int) -> settings:
    """Return settings with which a run is the same every time, and leaves nothing behind."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# The surface ----------------------------------------------------------------------------------


def fuzz(server: Server, payer: Payer, label: str, mode: str, examples: int) -> None:
    """Call one operation in `examples` ways, half of them for a channel and payment there is."""
    theirs = {"channel_id": payer.id, "identifier": payer.id, "attempt_index": payer.pays()}
    operation = OPERATIONS[label]
    url = f"http://127.0.0.1:{server.port}"
    with requests.Session() as session:

        @setting(examples)
        @given(operation.as_strategy(MODES[mode]), st.booleans())
        def call(case: Any, of_payer: bool) -> None:
            for name in theirs.keys() & case.path_parameters.keys() if of_payer else ():
                case.path_parameters[name] = theirs[name]
            response = case.call(base_url=url, session=session)
            reply = Reply(
                response.status_code,
                {name: values[0] for name, values in response.headers.items()},
                response.content,
            )
            if reply.status >= 400 and reply.body:
                assert reply.headers["content-type"] == PROBLEM
                assert reply.problem["code"]
                case.validate_response(response, checks=[not_a_server_error])
            elif reply.status < 400:
                case.validate_response(response, checks=CHECKS)

        call()


@pytest.mark.parametrize(("label", "mode"), FEW_CALLS)
def test_no_call_ends_in_a_server_error(server, client, label, mode):
    fuzz(server, client.payer(), label, mode, 8)
    assert client.get("/readyz").status == 200


@pytest.mark.slow
@pytest.mark.parametrize(("label", "mode"), CALLS)
def test_no_call_of_very_many_ends_in_a_server_error(server, client, label, mode):
    fuzz(server, client.payer(), label, mode, often(25, 100))
    assert client.get("/readyz").status == 200


# Binary frames ----------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.binary(max_size=80),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """Return bytes that once were `valid`."""
    octets = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(octets)))
        match draw(st.sampled_from(["set", "cut", "drop", "put", "repeat"])):
            case "set" if place < len(octets):
                octets[place] = draw(st.integers(0, 255))
            case "cut":
                del octets[place:]
            case "drop":
                del octets[place : place + draw(st.integers(1, 40))]
            case "put":
                octets[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                octets[place:place] = octets[: draw(st.integers(0, 80))]
    return bytes(octets)


def answered(speaker: Speaker, frame: bytes) -> None:
    """Send a frame; whatever it is, it is answered once, by name, and the connection goes on."""
    speaker.raw.send(frame)
    message = speaker.raw.recv(20)
    if isinstance(message, str):
        told = json.loads(message)
        assert told["error"] == "malformed"
        return
    _, answers = msgspec.msgpack.decode(message)
    for status, code, _, _ in answers:
        assert status in (0, 1, 2, 3)
        assert (status == 3) == (code in CODES_IN_ORDER)


def fuzz_frames(client: Client, examples: int) -> None:
    payer = client.payer()
    # A signature over another amount: no mutation of the frame can turn it into a claim.
    claims = [
        [*payer.wire(1, 5)[:3], payer.wire(1, 6)[3]],
        [*payer.wire(2, 7)[:3], payer.wire(1, 8)[3], 5, 1_800_000_000_000_000_000],
    ]
    valid = msgspec.msgpack.encode([7, claims])
    shaped = st.tuples(VALUES, VALUES) | st.tuples(
        st.integers(0, 2**64 - 1),
        st.lists(st.lists(VALUES, max_size=7) | VALUES, max_size=4),
    )
    frames = mutated(valid) | shaped.map(msgspec.msgpack.encode) | st.binary(max_size=200)
    with payer.unchanged(), client.websocket() as speaker:

        @setting(examples)
        @given(frames)
        def send(frame: bytes) -> None:
            answered(speaker, frame)

        send()
        assert speaker.ask("ping")["status"] == "success"
        client.close()  # its connection may have idled for longer than one is kept


@pytest.mark.slow
def test_no_frame_ends_a_connection_or_changes_a_channel(client):
    fuzz_frames(client, often(600, 3_000))


# Bodies -----------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def fuzz_bodies(client: Client, examples: int) -> None:
    """Mutate bodies of both content types on both claim paths and on the opening of channels."""
    payer = client.payer()
    bad = payer.claim(1, 6)["signature"]
    in_json = json.dumps({"claims": [payer.claim(1, 5, signature=bad, previous="0")]}).encode()
    packed = {"claims": [payer.packed(1, 5, signature=bytes.fromhex(bad), previous=0)]}
    in_msgpack = msgspec.msgpack.encode(packed)
    opening = json.dumps(payer.opening()).encode()
    paths = ("/v1/claims", f"{payer.path}/claims", "/v1/channels")
    bodies = st.one_of(
        st.tuples(st.just("application/json"), mutated(in_json)),
        st.tuples(st.just("application/json"), mutated(opening)),
        st.tuples(st.just("application/json"), JSON_VALUES.map(lambda v: json.dumps(v).encode())),
        st.tuples(st.just(MSGPACK), mutated(in_msgpack)),
        st.tuples(st.just(MSGPACK), VALUES.map(msgspec.msgpack.encode)),
    )

    with payer.unchanged():

        @setting(examples)
        @given(st.sampled_from(paths), bodies)
        def post(path: str, body: tuple[str, bytes]) -> None:
            reply = client.post(path, body[1], body[0])
            if reply.status >= 400:
                assert reply.problem["code"] in CODES_IN_ORDER

        post()


@pytest.mark.slow
def test_no_body_ends_in_a_server_error(client):
    fuzz_bodies(client, often(600, 3_000))
