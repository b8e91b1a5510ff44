"""Bytes that are no message at all are refused at every door, cost nothing and change nothing."""

import gc
import gzip
import json
import tracemalloc
from contextlib import suppress

import msgspec
import pytest

from tests.gateway.wire.world import JSON, MSGPACK

DEEP = 200_000
MIB = 1 << 20

JSON_BYTES = {
    "nothing": b"",
    "a blank": b" ",
    "half": b'{"claims": [{"amount": "5"',
    "two": b'{"claims": []}{"claims": []}',
    "a list": b"[]",
    "a number": b"5",
    "NaN": b'{"claims": NaN}',
    "no list": b'{"claims": {}}',
    "no claims": b"{}",
    "an unknown field": b'{"claims": [], "x": 1}',
    "byte order mark": b'\xef\xbb\xbf{"claims": []}',
    "NUL": b'{"claims": []}\0',
    "UTF-16": '{"claims": []}'.encode("utf-16"),
    "overlong UTF-8": b'{"claims": ["\xc0\xaf"], "\xc0\xaf": 1}',
    "half a surrogate": b'{"\\ud800": []}',
    "invalid UTF-8": b'{"claims\xff": []}',
    "comment": b'{"claims": [] /* none */}',
    "a comma too many": b'{"claims": [],}',
    "deep lists": b"[" * DEEP,
    "deep lists, closed": b'{"claims": [' + b"[" * DEEP + b"]" * DEEP + b"]}",
    "deep maps": b'{"claims": [' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"]}",
    "deep unknown field": b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "4,097 claims": b'{"claims": [' + b",".join([b"1"] * 4_097) + b"]}",
    "a long number": b'{"claims": ' + b"9" * MIB + b"}",
    "msgpack": msgspec.msgpack.encode({"claims": []}),
}
CLAIMS = b"\x81\xa6claims"
MSGPACK_BYTES = {
    "nothing": b"",
    "half": msgspec.msgpack.encode({"claims": [{"amount": 5}]})[:-1],
    "two": CLAIMS + b"\x90" + CLAIMS + b"\x90",
    "a reserved byte": b"\xc1",
    "a list": b"\x90",
    "no list": CLAIMS + b"\x80",
    "an unknown field": b"\x82\xa6claims\x90\xa1x\x01",
    "a key of bytes": b"\x81\xc4\x06claims\x90",
    "invalid UTF-8": b"\x81\xa6claim\xff\x90",
    "4 G claims": CLAIMS + b"\xdd\xff\xff\xff\xff",
    "a claim of 4 G fields": CLAIMS + b"\x91\xdf\xff\xff\xff\xff",
    "4 G bytes": CLAIMS + b"\xc6\xff\xff\xff\xff",
    "4 G text": CLAIMS + b"\xdb\xff\xff\xff\xff",
    "4 G extension": CLAIMS + b"\xc9\xff\xff\xff\xff\x01",
    "4 G keys": b"\xdf\xff\xff\xff\xff",
    "4,097 claims": CLAIMS + b"\xdc\x10\x01" + b"\x01" * 4_097,
    "deep lists": b"\x91" * DEEP,
    "deep lists, closed": CLAIMS + b"\x91" * DEEP + b"\x90",
    "deep maps": CLAIMS + b"\x91" + b"\x81\xa1a" * DEEP + b"\x01",
    "deep unknown field": b"\x81\xa1x" + b"\x91" * DEEP + b"\x90",
    "JSON": b'{"claims": []}',
}
FRAMES = {
    **{name: body for name, body in MSGPACK_BYTES.items() if name != "a list"},
    "no number": msgspec.msgpack.encode(["1", []]),
    "a negative number": msgspec.msgpack.encode([-1, []]),
    "number of 64 bits": msgspec.msgpack.encode([2**63, []]),
    "an empty list": b"\x90",
    "a list of three": msgspec.msgpack.encode([1, [], []]),
    "a map of two": msgspec.msgpack.encode({0: 1, 1: []}),
    "4 G in the frame": b"\x92\x01\xdd\xff\xff\xff\xff",
    "4 G in a claim": b"\x92\x01\x91\xdd\xff\xff\xff\xff",
    "4 G of id": b"\x92\x01\x91\x94\xc6\xff\xff\xff\xff",
    "deep claim": b"\x92\x01\x91" + b"\x91" * DEEP + b"\x90",
}
TEXTS = {
    "nothing": "",
    "half": '{"command": "ping"',
    "no command": "{}",
    "a list": "[]",
    "NUL": '{"command": "ping"}\0',
    "byte order mark": '\ufeff{"command": "ping"}',
    "half a surrogate": '{"command": "\\ud800"}',
    "a command that is none": '{"command": 5}',
    "an endless command": json.dumps({"command": "p" * 10_000}),
    "an endless id": json.dumps({"command": "ping", "id": "i" * 10_000}),
    "an id with a fraction": '{"command": "ping", "id": 1.5}',
    "a list for an id": '{"command": "ping", "id": []}',
    "an unknown field": '{"command": "ping", "x": 1}',
    "deep lists": "[" * DEEP,
    "deep id": '{"command": "ping", "id": ' + "[" * DEEP + "]" * DEEP + "}",
    "deep claims": '{"command": "submit", "claims": [' + "[" * DEEP + "]" * DEEP + "]}",
    "4,097 claims": json.dumps({"command": "submit", "claims": [1] * 4_097}),
    "4,097 channels": json.dumps({"command": "subscribe", "channels": ["x"] * 4_097}),
}


@pytest.mark.parametrize("name", JSON_BYTES)
def test_json_that_is_none(client, name):
    payer = client.payer()
    with payer.unchanged():
        for path in ("/v1/claims", f"{payer.path}/claims", "/v1/channels"):
            assert client.post(path, JSON_BYTES[name], JSON).problem["code"] == "malformed"
        if JSON_BYTES[name]:
            reply = client.post(f"{payer.path}/fund", JSON_BYTES[name], JSON)
            assert reply.problem["code"] == "malformed"
    assert client.connections == 1


@pytest.mark.parametrize("name", MSGPACK_BYTES)
def test_msgpack_that_is_none(client, name):
    payer = client.payer()
    with payer.unchanged():
        for path in ("/v1/claims", f"{payer.path}/claims"):
            assert client.post(path, MSGPACK_BYTES[name], MSGPACK).problem["code"] == "malformed"
    assert client.connections == 1


def test_frames_that_are_none_are_refused_and_the_connection_goes_on(client):
    payer = client.payer()
    with client.websocket() as speaker:
        for name, frame in FRAMES.items():
            speaker.raw.send(frame)
            message = speaker.raw.recv(20)
            if isinstance(message, str):
                told = json.loads(message)
                assert told["error"] == "malformed", name
                assert told["status"] == "error", name
            else:  # the claim is none, the frame is one
                assert [code for _, code, _, _ in msgspec.msgpack.decode(message)[1]] == [
                    "malformed"
                ], name
        speaker.frame(7, payer.wire(1, 5))
        assert speaker.answer()[1][0][0] == 0


def test_texts_that_are_no_command_are_refused_and_the_connection_goes_on(client):
    with client.websocket() as speaker:
        for name, text in TEXTS.items():
            speaker.raw.send(text)
            told = speaker.told()
            assert told["type"] == "response", name
            if told["status"] == "success":
                told = {"error": told["result"]["results"][0]["code"]}
            assert told["error"] == "malformed", name
        assert speaker.ask("ping")["status"] == "success"


def test_a_repeated_key_counts_as_it_came_last_and_the_signature_decides(client):
    payer = client.payer()
    claim = payer.claim(1, 5)
    text = json.dumps(claim)[:-1] + ', "amount": "6"}'
    with payer.unchanged():
        assert client.post(f"{payer.path}/claims", text.encode()).problem["code"] == "bad_signature"
    text = json.dumps(claim | {"amount": "6"})[:-1] + ', "amount": "5"}'
    assert client.post(f"{payer.path}/claims", text.encode()).json["status"] == "accepted"


@pytest.mark.parametrize("length", ["content-length: 2097153", "transfer-encoding: chunked"])
@pytest.mark.parametrize("path", ["/v1/claims", "/v1/channels", f"/v1/channels/{'0' * 64}/claims"])
def test_a_body_that_is_too_large_is_413_however_it_comes(client, path, length):
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\n{length}\r\n\r\n".encode()
    with client.raw(head) as bare:
        if "chunked" in length:
            with suppress(ConnectionError):  # it may have been closed before all was sent
                for _ in range(34):
                    bare.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        assert bare.recv(4_096).startswith(b"HTTP/1.1 413")
    assert client.get("/readyz").status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"])
def test_what_is_compressed_is_not_unpacked(client, coding):
    payer = client.payer()
    bomb = gzip.compress(b" " * MIB + json.dumps({"claims": [payer.claim(1, 5)]}).encode())
    with payer.unchanged():
        for path in ("/v1/claims", f"{payer.path}/claims", f"{payer.path}/fund", "/v1/channels"):
            headers = {"content-type": JSON, "content-encoding": coding}
            problem = client.call("POST", path, bomb, headers).problem
            assert (problem["status"], problem["code"]) == (415, "malformed")


def test_hostile_bytes_take_no_memory(client):
    """A header that claims 4 G elements, or 200,000 levels, allocates nothing of the kind."""
    bodies = [(body, JSON) for body in JSON_BYTES.values()]
    bodies += [(body, MSGPACK) for body in MSGPACK_BYTES.values()]
    client.get("/livez")
    gc.collect()
    tracemalloc.start()
    for body, kind in bodies:
        client.post("/v1/claims", body, kind)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * MIB
    assert now < 4 * MIB
