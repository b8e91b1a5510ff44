"""What is wrong with a call is said by name, and nothing is done."""

import copy

import msgspec
import pytest

from engine.gateway.payments import refusals
from engine.payments import PaymentDBCode
from tests.gateway.payments.shop import PREIMAGE, attempt, creation
from tests.gateway.world import JSON, encoded
from tests.payments.builders import R2, last_hop
from tests.payments.model import ModelDB


@pytest.fixture
def store():
    """One store stands for all: what is tried here never gets so far that they could differ."""
    with ModelDB() as store:
        yield store


BAD_CREATIONS = [
    ("identifier", "AB" * 31, "wrong_length"),
    ("identifier", "XY" * 32, "malformed"),
    ("identifier", "AB " + "AB" * 31, "malformed"),
    ("identifier", 7, "malformed"),
    ("identifier", None, "malformed"),
    ("value_msat", "-1", "malformed"),
    ("value_msat", "1.5", "malformed"),
    ("value_msat", "007", "malformed"),
    ("value_msat", "1e3", "malformed"),
    ("value_msat", 555, "malformed"),
    ("value_msat", "18446744073709551616", "out_of_range"),
    ("value_msat", "1" * 400, "malformed"),
    ("created_at", "2026-01-02T03:04:05", "malformed"),
    ("created_at", "yesterday", "malformed"),
    ("created_at", "1969-12-31T23:59:59Z", "malformed"),
    ("created_at", "2262-04-11T23:47:16.854775808Z", "out_of_range"),
    ("created_at", "9999-12-31T23:59:59-23:59", "malformed"),
    ("payment_request", "A" * 65_536, "records_too_large"),
    ("payment_request", 5, "malformed"),
    ("payment_request_hex", "AB", "malformed"),
    ("first_hop_custom_records", {"65535": ""}, "custom_record_type"),
    ("first_hop_custom_records", {"-1": ""}, "malformed"),
    ("first_hop_custom_records", {"x": ""}, "malformed"),
    ("first_hop_custom_records", {"65536": "x"}, "malformed"),
    ("first_hop_custom_records", {"65536": 1}, "malformed"),
    ("first_hop_custom_records", {"18446744073709551616": ""}, "out_of_range"),
    ("first_hop_custom_records", ["65536"], "malformed"),
    ("preimage", PREIMAGE, "malformed"),
    ("status", "SUCCEEDED", "malformed"),
]


@pytest.mark.parametrize(("name", "value", "code"), BAD_CREATIONS)
async def test_a_bad_field_of_a_payment_is_named(shop, name, value, code):
    answer = await shop.post(body=creation(**{name: value}))
    assert answer.status == (400 if code == "malformed" else refusals.status_of(code))
    assert answer.code == code
    if code == "malformed":
        assert answer.json["param"].startswith(name.removesuffix("_hex"))
    assert name.removesuffix("_hex") in answer.json["detail"]
    assert (await shop.get()).json["payments"] == []


AMP = {"root_share": "AB" * 32, "set_id": "AB" * 32, "child_index": 0}
BAD_ATTEMPTS = [
    (["session_key"], "AB", "wrong_length"),
    (["session_key"], None, "malformed"),
    (["attempt_index"], 0, "attempt_index_zero"),
    (["attempt_index"], -1, "out_of_range"),
    (["attempt_index"], 2**63, "malformed"),
    (["attempt_index"], "1", "malformed"),
    (["payment_hash"], "AB", "wrong_length"),
    (["settle"], None, "malformed"),
    (["route"], None, "malformed"),
    (["route"], {}, "malformed"),
    (["route", "hops"], [], "no_route_hops"),
    (["route", "hops"], [{}], "malformed"),
    (["route", "omitted_receiver_msat"], "5", "malformed"),
    (["route", "total_time_lock"], 2**32, "out_of_range"),
    (["route", "total_time_lock"], True, "malformed"),
    (["route", "source_pub_key"], "02", "wrong_length"),
    (["route", "total_amount_msat"], "18446744073709551616", "out_of_range"),
    (["route", "first_hop_wire_records"], {"1": ""}, "custom_record_type"),
    (["route", "hops", 1, "channel_id"], "18446744073709551616", "out_of_range"),
    (["route", "hops", 1, "channel_id"], 5, "malformed"),
    (["route", "hops", 1, "mpp"], {"payment_addr": "AB", "total_msat": "1"}, "wrong_length"),
    (["route", "hops", 1, "mpp"], {"total_msat": "1"}, "malformed"),
    (
        ["route", "hops", 1, "amp"],
        {"root_share": "", "set_id": "", "child_index": 0},
        "wrong_length",
    ),
    (["route", "hops", 1, "blinding_point"], "02" * 33, "blinding_without_data"),
    (["route", "hops", 1, "encrypted_data"], "", "blinding_without_data"),
    (["route", "hops", 1, "metadata"], "AB" * 1_301, "records_too_large"),
    (["route", "hops", 1, "custom_records"], {"65536": "AB" * 1_301}, "records_too_large"),
    (["route", "hops", 1, "legacy_payload"], 1, "malformed"),
    (["route", "hops", 1, "tlv_payload"], True, "malformed"),
]


@pytest.mark.parametrize(("place", "value", "code"), BAD_ATTEMPTS)
async def test_a_bad_field_of_an_attempt_is_named(shop, place, value, code):
    one = await shop.begun()
    body = copy.deepcopy(attempt())
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    if value is None and place[-1] in inner:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    answer = await shop.post(f"/{one}/attempts", body)
    assert answer.code == code, answer.json
    assert answer.status == (400 if code == "malformed" else refusals.status_of(code))
    assert (await shop.get(f"/{one}")).json["attempts"] == []


async def test_a_number_of_thousands_of_digits_is_malformed(shop):
    one = await shop.begun()
    octets = encoded(attempt(attempt_index=77_777)).replace(b"77777", b"7" * 5_000)
    answer = await shop.post(f"/{one}/attempts", octets)
    assert (answer.status, answer.code) == (400, "malformed")


async def test_a_route_of_too_many_hops_is_refused(shop):
    one = await shop.begun()
    hops = last_hop(R2).hops
    route = msgspec.structs.replace(R2, hops=(hops[0],) * 27 + hops[1:])
    answer = await shop.post(f"/{one}/attempts", attempt(route))
    assert (answer.status, answer.code) == (422, "too_many_hops")
    assert (answer.json["expected"], answer.json["actual"]) == (27, 28)


BAD_BODIES = [b"", b"[]", b"{", b"nonsense", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 50_000, b"null"]


@pytest.mark.parametrize("path", ["", "/AB/attempts", "/AB/attempts/1/settle", "/AB/fail"])
@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_a_body_that_is_none_is_malformed(shop, path, body):
    answer = await shop.post(path.replace("AB", "AB" * 32), body)
    assert (answer.status, answer.code) == (400, "malformed")


async def test_a_body_of_very_many_values_is_not_decoded(shop):
    answer = await shop.post(body=b'{"identifier":' + b"[1," * 70_000)
    assert (answer.status, answer.json["detail"]) == (400, "body: more than 65536 values")


async def test_a_body_that_is_too_large_is_not_read(shop):
    answer = await shop.post(body=b" " * (shop.door.state.options.body_bytes_max + 1))
    assert answer.status == 413


async def test_a_body_of_another_type_is_not_taken(shop):
    headers = {"content-type": "application/msgpack"}
    answer = await shop.door.call("POST", "/v1/payments", b"\x80", headers=headers)
    assert answer.status == 415


BAD_PATHS = [
    ("GET", "/XY", 400, "malformed"),
    ("GET", "/AB", 400, "wrong_length"),
    ("GET", "/" + "AB" * 33, 400, "wrong_length"),
    ("POST", "/" + "AB" * 32 + "/attempts/x/settle", 400, "malformed"),
    ("POST", "/" + "AB" * 32 + "/attempts/0/settle", 422, "attempt_index_zero"),
    ("POST", "/" + "AB" * 32 + "/attempts/9223372036854775808/settle", 400, "out_of_range"),
    ("POST", "/" + "AB" * 32 + "/attempts/" + "9" * 5_000 + "/settle", 400, "malformed"),
    ("PUT", "/" + "AB" * 32, 405, "method_not_allowed"),
    ("DELETE", "/" + "AB" * 32 + "/attempts", 405, "method_not_allowed"),
    ("GET", "/" + "AB" * 32 + "/attempts/1/settle/x", 404, "not_found"),
    ("GET", "/?reversed=true", 404, "not_found"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), BAD_PATHS)
async def test_a_path_that_leads_nowhere_is_said_to(shop, method, path, status, code):
    body = b'{"preimage": "%s"}' % PREIMAGE.encode()
    headers = {"content-type": JSON}
    answer = await shop.door.call(method, f"/v1/payments{path}", body, headers=headers)
    assert (answer.status, answer.code) == (status, code)


BAD_QUERIES = [
    ("index_offset=-1", "malformed"),
    ("index_offset=x", "malformed"),
    ("index_offset=", "malformed"),
    ("index_offset=18446744073709551616", "out_of_range"),
    ("index_offset=1&index_offset=2", "malformed"),
    ("reversed=yes", "malformed"),
    ("reversed=", "malformed"),
    ("limit=5", "malformed"),
    ("creation_date_start=9&creation_date_end=8", "dates_reversed"),
    ("creation_date_start=2026-01-01", "malformed"),
    ("%00=1", "malformed"),
]


@pytest.mark.parametrize(("query", "code"), BAD_QUERIES)
async def test_a_bad_query_is_named(shop, query, code):
    answer = await shop.door.call("GET", f"/v1/payments?{query}")
    assert (answer.status, answer.code) == (400, code)


BAD_RESOLUTIONS = [
    ("settle", {"preimage": "AB"}, "wrong_length"),
    ("settle", {"preimage": PREIMAGE, "settled_at": "now"}, "malformed"),
    ("settle", {}, "malformed"),
    ("fail", {"reason": "TIMEOUT"}, "malformed"),
    ("fail", {"reason": 1}, "malformed"),
    ("fail", {"reason": "MESSAGE", "source_index": 2**32}, "out_of_range"),
    ("fail", {"reason": "MESSAGE", "message": "A"}, "malformed"),
    ("fail", {"reason": "MESSAGE", "message": "AB" * 65_536}, "records_too_large"),
]


@pytest.mark.parametrize(("verb", "body", "code"), BAD_RESOLUTIONS)
async def test_a_bad_end_of_an_attempt_changes_nothing(shop, verb, body, code):
    one = await shop.begun()
    index = await shop.tried(one)
    before = (await shop.get(f"/{one}")).json
    answer = await shop.post(f"/{one}/attempts/{index}/{verb}", body)
    assert answer.code == code
    assert answer.status == (400 if code == "malformed" else refusals.status_of(code))
    assert (await shop.get(f"/{one}")).json == before


async def test_a_reason_of_an_attempt_is_none_of_a_payment(shop):
    one = await shop.begun()
    answer = await shop.give_up(one, "UNREADABLE")
    assert (answer.status, answer.code, answer.json["param"]) == (400, "malformed", "reason")


@pytest.mark.parametrize("code", PaymentDBCode)
def test_a_code_has_a_status_of_its_kind(code):
    assert refusals.status_of(code) in (400, 404, 409, 422, 503)
