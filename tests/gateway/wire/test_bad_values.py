"""A value that cannot be what it should gets its code at every door, and changes nothing."""

import json
from typing import Any

import msgspec
import pytest

from tests.gateway.wire.world import MSGPACK, Client, Payer

DELETED = object()
"""Stands for a field that is left out."""


def changed(claim: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (claim | changes).items() if value is not DELETED}


def codes_over_json(client: Client, payer: Payer, text: str) -> set[str]:
    """Return the codes a claim written in JSON gets in a batch, alone and over WebSocket text."""
    batch = client.post("/v1/claims", f'{{"claims": [{text}]}}'.encode())
    alone = client.post(f"{payer.path}/claims", text.encode())
    with client.websocket() as speaker:
        speaker.raw.send(f'{{"id": 1, "command": "submit", "claims": [{text}]}}')
        told = speaker.told()
        assert speaker.ask("ping")["status"] == "success"
    spoken = told["result"]["results"][0]["code"] if "result" in told else told["error"]
    in_batch = batch.problem if batch.status == 400 else batch.json["results"][0]
    return {in_batch["code"], alone.problem["code"], spoken}


def codes_over_msgpack(client: Client, payer: Payer, claim: dict[str, Any]) -> set[str]:
    """Return the codes a claim as a msgpack map gets in a batch and alone."""
    batch = client.post("/v1/claims", {"claims": [claim]}, MSGPACK)
    alone = client.post(f"{payer.path}/claims", claim, MSGPACK)
    return {batch.msgpack["results"][0]["code"], alone.problem["code"]}


def code_over_frame(client: Client, frame: bytes) -> str:
    """Return the code of the only claim in a binary frame, or of the frame."""
    with client.websocket() as speaker:
        speaker.raw.send(frame)
        message = speaker.raw.recv(20)
        if isinstance(message, str):
            code: str = json.loads(message)["error"]
        else:
            (_, ((status, code, _, _),)) = msgspec.msgpack.decode(message)
            assert status == 3
        assert speaker.ask("ping")["status"] == "success"
    return code


HUGE = 10**400
JSON_FIELDS = {
    "amount": [
        '"0"', '"-1"', '"-0"', '"+1"', '" 1"', '"1 "', '"01"', '"00"', '"1_000"', '"1e2"', '"1.0"',
        '"0x10"', '""', '"NaN"', '"Infinity"', '"\\u0000"', '"5\\u0000"', '"²"', '"٣"',
        f'"{2**64}"', f'"{HUGE}"', '"5\\n"', "5", "-1", "0", "1.5", "1e2", "true", "null", "[]",
        "{}", str(2**63), str(2**64), str(HUGE),
    ],
    "signature": [
        '""', '"3"', '"zz"', '"30 0"', '" 30"', '"3 0"', '"30\\n30"', '"é0"', '"0x30"', "null", "1",
        "[48]", f'"{"30" * 73}"', f'"{"30" * 100_000}"',
    ],
    "channel_id": [
        '""', '"00"', f'"{"0" * 63}"', f'"{"0" * 65}"', f'"{"0" * 62}"', f'"{"0 " * 32}"',
        f'"{"g" * 64}"', f'"{"é" * 64}"', f'" {"0" * 62} "', "0", "[]",
    ],
    "sequence": [
        "0", "-1", "1.0", "1.5", "1e2", "true", '"1"', str(2**63), str(2**64), str(HUGE), "[]",
    ],
    "previous": [
        "5", '""', '"-1"', '"05"', f'"{2**64}"', f'"{"0" * 63}"', f'"{"g" * 64}"', str(HUGE),
        "true",
    ],
    "sent_at": [
        '""', '"now"', "0", str(HUGE), '"2026-01-01"', '"2026-01-01T00:00:00"',
        '"9999-12-31T23:59:59Z"', '"1969-12-31T23:59:59Z"', '"0001-01-01T00:00:00+23:59"',
        '"2300-01-01T00:00:00Z"', '"9999-12-31T23:59:59-23:59"', '"2026-13-01T00:00:00Z"',
    ],
    "colour": ['"red"', "null"],
}  # fmt: skip


@pytest.mark.parametrize("field", JSON_FIELDS)
def test_in_json(client, field):
    payer = client.payer()
    with payer.unchanged():
        for value in JSON_FIELDS[field]:
            fields = {name: json.dumps(said) for name, said in payer.claim(1, 5).items()}
            written = ", ".join(
                f'"{name}": {said}' for name, said in (fields | {field: value}).items()
            )
            codes = codes_over_json(client, payer, f"{{{written}}}")
            assert codes == {"malformed"}, value[:40]
    assert client.connections == 1


@pytest.mark.parametrize("field", JSON_FIELDS)
def test_a_problem_names_the_field(client, field):
    payer = client.payer()
    for value in JSON_FIELDS[field]:
        said = ", ".join(
            f'"{name}": {json.dumps(fine)}'
            for name, fine in payer.claim(1, 5).items()
            if name != field
        )
        body = f'{{{said}, "{field}": {value}}}'.encode()
        assert client.post(f"{payer.path}/claims", body).problem["param"] == field, value[:40]


def test_a_problem_names_the_field_that_is_missing(client):
    payer = client.payer()
    for field in ("amount", "signature"):
        claim = changed(payer.claim(1, 5), {field: DELETED})
        assert client.post(f"{payer.path}/claims", claim).problem["param"] == field
    for field in payer.opening():
        body = changed(payer.opening(), {field: 1.5})
        assert client.post("/v1/channels", body).problem["param"] == field


PACKED_FIELDS = {
    "amount": [0, -1, -(2**63), 1.0, 1e2, float("nan"), True, None, "5", b"5", [], {}, DELETED],
    "signature": [b"", bytes(73), bytes(100_000), "30" * 64, None, 5, [], DELETED],
    "channel_id": [b"", bytes(31), bytes(33), "0" * 64, 5, [], {}],
    "sequence": [0, -1, 2**63, 2**64 - 1, 1.0, True, "1", b"1", []],
    "previous": [-1, b"", bytes(31), bytes(33), 1.0, True, "5", []],
    "sent_at": [-1, 2**63, 2**64 - 1, 1.0, True, "2026-01-01T00:00:00Z"],
    "colour": ["red", None],
}
WIRE_PLACES = {
    "channel_id": 0,
    "sequence": 1,
    "amount": 2,
    "signature": 3,
    "previous": 4,
    "sent_at": 5,
}


@pytest.mark.parametrize("field", PACKED_FIELDS)
def test_in_msgpack(client, field):
    payer = client.payer()
    with payer.unchanged():
        for value in PACKED_FIELDS[field]:
            claim = changed(payer.packed(1, 5), {field: value})
            assert codes_over_msgpack(client, payer, claim) == {"malformed"}, value
    assert client.connections == 1


@pytest.mark.parametrize("field", WIRE_PLACES)
def test_in_a_frame(client, field):
    payer = client.payer()
    with payer.unchanged():
        for value in PACKED_FIELDS[field]:
            if value is DELETED:
                continue
            claim = [*payer.wire(1, 5), None, None]
            claim[WIRE_PLACES[field]] = value
            frame = msgspec.msgpack.encode([1, [claim]])
            assert code_over_frame(client, frame) == "malformed", value


@pytest.mark.parametrize("amount", [1001, 2**63 - 1, 2**63, 2**64 - 1])
def test_more_than_there_is_is_over_capacity_at_every_door(client, amount):
    payer = client.payer()
    with payer.unchanged(noted=True):
        codes = codes_over_json(client, payer, json.dumps(payer.claim(1, amount)))
        codes |= codes_over_msgpack(client, payer, payer.packed(1, amount))
        codes.add(code_over_frame(client, msgspec.msgpack.encode([1, [payer.wire(1, amount)]])))
    assert codes == {"amount_over_capacity"}


@pytest.mark.parametrize("amount", [2**64, -(2**63) - 1, 2**70])
def test_a_frame_can_hold_no_larger_number(amount):
    with pytest.raises(OverflowError):
        msgspec.msgpack.encode(amount)


def test_an_extension_or_a_map_is_no_claim(client):
    payer = client.payer()
    with payer.unchanged():
        for claim in (msgspec.msgpack.Ext(5, b"x"), payer.packed(1, 5), [], payer.wire(1, 5)[:3]):
            frame = msgspec.msgpack.encode([1, [claim]])
            assert code_over_frame(client, frame) == "malformed"


def test_a_field_more_than_there_are_is_malformed_in_a_frame(client):
    payer = client.payer()
    with payer.unchanged():
        claim = [*payer.wire(1, 5), None, None, None]
        assert code_over_frame(client, msgspec.msgpack.encode([1, [claim]])) == "malformed"


def test_bad_claims_are_refused_in_their_places(client):
    payer = client.payer()
    claims = [5, payer.claim(1, 5), None, payer.claim(2, 6, signature=""), payer.claim(2, 7), []]
    results = client.results(*claims)
    assert [result["status"] for result in results] == [
        "rejected", "accepted", "rejected", "rejected", "accepted", "rejected",
    ]  # fmt: skip
    assert payer.balance()["claimed"] == "7"


OPENINGS = {
    "channel_id": [None, "", "00", "g" * 64, "0" * 63, "0 " * 32, 5],
    "source": [None, "", "r", "x" * 65, "rf1BiGeXwwQoi8Z2ueFYTEXSwuJYfV2Jpm", "\0", 5],
    "destination": [None, "", " rf1BiGeXwwQoi8Z2ueFYTEXSwuJYfV2Jpn", {}],
    "public_key": [
        None, "", "02", "02" + "0" * 64, "04" + "0" * 64, "06" + "1" * 64, "ED" + "0" * 64,
        "ED01" + "0" * 62, "00" + "1" * 64,
        "EDEC" + "F" * 60 + "7F",
    ],
    "capacity": [
        None, "0", "-1", "1e3", "01", 1000, str(10**17 + 1), str(2**63), str(2**64), str(HUGE),
    ],
    "settle_delay": [None, -1, 2**32, 1.0, True, "3600"],
    "expiration": ["", 5, "2026-01-01", "9999-12-31T23:59:59Z", "2300-01-01T00:00:00Z"],
    "cancel_after": ["", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z", "2262-04-11T23:47:17Z"],
    "sequencing": ["STRICT", "", 1],
    "funded": ["true", 1],
    "colour": ["red"],
}  # fmt: skip


@pytest.mark.parametrize("field", OPENINGS)
def test_a_channel_opened_with_a_bad_field_does_not_exist(client, field):
    payer = Payer(client)
    for value in OPENINGS[field]:
        reply = client.post("/v1/channels", payer.opening(**{field: value}))
        assert reply.status == 400, (value, reply)
        assert reply.problem["code"] == "malformed"
        assert client.get(payer.path).status == 404
    assert client.post("/v1/channels", payer.opening()).status == 201


COMMANDS = [
    ("confirm-funding", ["[]", "1", '{"x": 1}', '"', "null"]),
    ("fund", ["", "{}", '{"amount": 1}', '{"amount": "0"}', f'{{"amount": "{2**64}"}}',
              '{"amount": "1", "previous": "x"}', f'{{"amount": "{10**17}"}}']),
    ("request-close", ["[]", '{"x": 1}']),
    ("settle", ['{"redeemed": 1}', '{"redeemed": "-1"}', f'{{"redeemed": "{2**64}"}}']),
    ("dispute", ['{"reason": 1}', f'{{"reason": "{"x" * 257}"}}', '{"reason": "\\ud800"}']),
    ("resolve", ["", "{}", '{"outcome": "Pending"}', '{"outcome": "Disputed"}', '{"outcome": ""}',
                 '{"outcome": "\\u0000"}', '{"outcome": "Settled", "redeemed": "1.0"}']),
]  # fmt: skip


@pytest.mark.parametrize(("command", "bodies"), COMMANDS)
def test_a_command_said_badly_does_nothing(client, command, bodies):
    payer = client.payer()
    with payer.unchanged():
        for body in bodies:
            reply = client.post(f"{payer.path}/{command}", body.encode())
            assert reply.status == 400, (body, reply)
            assert reply.problem["code"] == "malformed"
    assert client.connections == 1


QUERIES = [
    "?limit=0", "?limit=-1", "?limit=1001", "?limit=x", "?limit=", "?limit=1e2", "?limit=%00",
    f"?limit={'9' * 5_000}", "?limit=%FF", "?starting_after=x", "?starting_after=", "?state=x",
    "?state=%00", "?limit=1&starting_after=" + "0" * 63,
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_bad_query_is_malformed(client, query):
    assert client.get(f"/v1/channels{query}").problem["code"] == "malformed"


HISTORY = ["?limit=0", "?starting_after=-1", "?starting_after=x", f"?starting_after={2**64}"]
BALANCES = ["?consistency=", "?consistency=Strong", "?consistency=session&at_least=0",
            "?consistency=session&at_least=-", "?consistency=session&at_least=0-" + "9" * 5_000,
            "?consistency=session&at_least=²-³"]  # fmt: skip


def test_a_read_asked_for_badly_is_malformed(client):
    payer = client.payer()
    for query in HISTORY:
        assert client.get(f"{payer.path}/claims{query}").problem["code"] == "malformed"
    for query in BALANCES:
        path = f"{payer.path}/balance{query}".replace("²", "%C2%B2").replace("³", "%C2%B3")
        assert client.get(path).problem["code"] == "malformed"
