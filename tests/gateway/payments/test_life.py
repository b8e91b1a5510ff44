"""Payments over HTTP, from their beginning to their end; the refusals are those of the store."""

import hashlib

import pytest

from engine.gateway.payments import answers
from engine.payments import MPP
from tests.builders import text_table
from tests.gateway.payments.shop import CREATED, CREATED_NS, INVOICE, PREIMAGE, UNKNOWN, attempt
from tests.gateway.payments.shop import creation as creation_body
from tests.payments.builders import R2, RB, fresh, last_hop, make_record, shard

REFUSED = """
    status    begin                 new_attempt                    resolve                        remove
    Initiated 409:payment_exists    ok                             404:attempt_not_found          ok
    InFlight  409:payment_in_flight ok                             ok                             409:payment_in_flight
    Succeeded 409:already_paid      409:payment_already_succeeded  409:payment_already_succeeded  ok
    Failed    ok                    409:payment_already_failed     409:payment_already_failed     ok
"""  # noqa: E501  (a table)


def told(answer) -> str:
    return "ok" if answer.status in (200, 201) else f"{answer.status}:{answer.code}"


@pytest.mark.parametrize("row", text_table(REFUSED), ids=lambda row: row["status"])
async def test_what_a_status_permits(shop, row):
    one = await shop.made(row["status"])
    index = shop.store.counters().attempt_index
    first = (await shop.get(f"/{one}")).json["attempts"]
    part = last_hop(R2, amount_to_forward_msat=0)
    assert told(await shop.post(f"/{one}/attempts", attempt(part))) == row["new_attempt"]
    resolved = await shop.settle(one, first[0]["attempt_index"] if first else index + 1_000_000)
    assert told(resolved) == row["resolve"]
    again = await shop.made(row["status"])
    begun = await shop.post(body=creation_body(identifier=again))
    assert told(begun) == row["begin"]
    other = await shop.made(row["status"])
    assert told(await shop.delete(f"/{other}")) == row["remove"]
    assert (await shop.get(f"/{other}")).status == (404 if row["remove"] == "ok" else 200)


async def test_a_payment_is_shown_as_it_was_begun(shop):
    body = creation_body()
    answer = await shop.post(body=body)
    assert answer.status == 201
    assert answer.headers["location"] == f"/v1/payments/{body['identifier']}"
    assert answer.json == {
        **body,
        "sequence_number": 1,
        "status": "INITIATED",
        "failure_reason": None,
        "state": {
            "attempts_in_flight": 0,
            "remaining_msat": "555",
            "fees_msat": "0",
            "has_settled": False,
            "has_failure_reason": False,
        },
        "attempts": [],
    }
    assert (await shop.get(f"/{body['identifier'].lower()}")).json == answer.json
    stored = shop.store.fetch_payment(bytes.fromhex(body["identifier"]))
    assert stored.info.created_at_ns == CREATED_NS
    assert stored.info.payment_request == INVOICE.encode()
    assert stored.info.first_hop_custom_records == {65_537: b"\xab\x12", 65_538: b""}


async def test_what_says_no_time_has_the_time_of_the_call(shop):
    one = await shop.begun(created_at=None)
    index = await shop.tried(one)
    await shop.settle(one, index)
    payment = shop.store.fetch_payment(bytes.fromhex(one))
    (made,) = payment.attempts
    assert 0 < payment.info.created_at_ns <= made.attempted_at_ns <= made.settle.settled_at_ns


async def test_a_request_that_is_no_invoice_is_hex(shop):
    one = await shop.begun(payment_request=None, payment_request_hex="00FF1B")
    seen = (await shop.get(f"/{one}")).json
    assert seen["payment_request_hex"] == "00FF1B"
    assert "payment_request" not in seen


@pytest.mark.parametrize("route", [R2, RB, shard()], ids=["mpp", "blinded", "shard"])
async def test_an_attempt_is_kept_exactly_and_its_route_can_be_sent_again(shop, route):
    one = await shop.begun(value_msat=str(route.receiver_msat))
    body = attempt(route, attempted_at="2026-01-02T03:04:05.000000001Z", payment_hash="AB" * 32)
    answer = await shop.post(f"/{one}/attempts", body)
    assert answer.status == 201
    (made,) = answer.json["attempts"]
    assert made["route"] == body["route"]
    assert made["attempt_index"] == answer.json["attempt_index"]
    assert (made["status"], made["attempted_at"]) == ("IN_FLIGHT", body["attempted_at"])
    assert made["fees_msat"] == str(route.fees_msat)
    (stored,) = shop.store.fetch_payment(bytes.fromhex(one)).attempts
    assert stored.route == route
    assert stored.session_key.hex().upper() == body["session_key"]
    assert stored.attempted_at_ns % 1_000_000_000 == 1


async def test_nobody_is_told_a_session_key(shop):
    one = await shop.begun()
    body = attempt()
    answer = await shop.post(f"/{one}/attempts", body)
    for seen in (answer, await shop.get(f"/{one}"), await shop.get(), await shop.get("/in-flight")):
        assert seen.status in (200, 201)
        assert body["session_key"].encode() not in seen.body


async def test_a_settled_attempt_has_its_preimage_and_a_failed_one_its_reason(shop):
    one = await shop.begun(value_msat="370")
    first = await shop.tried(one, route=shard(total=370))
    second = await shop.tried(one, route=shard(total=370))
    seen = await shop.fail(
        one, first, reason="message", failed_at=CREATED, source_index=2, message="1007AA"
    )
    assert seen.json["attempts"][0]["failure"] == {
        "reason": "MESSAGE",
        "failed_at": CREATED,
        "source_index": 2,
        "message": "1007AA",
    }
    seen = await shop.settle(one, second, settled_at=CREATED)
    assert seen.json["attempts"][1]["settle"] == {"preimage": PREIMAGE, "settled_at": CREATED}
    assert [each["status"] for each in seen.json["attempts"]] == ["FAILED", "SETTLED"]
    assert seen.json["status"] == "SUCCEEDED"


async def test_a_preimage_is_not_held_against_the_hash(shop):
    """As in the store: who speaks to an API has checked it, and some hashes are not SHA-256."""
    one = await shop.begun()
    assert hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest().upper() != one
    assert (await shop.settle(one, await shop.tried(one))).status == 200


async def test_an_attempt_has_the_index_that_was_asked_for(shop):
    given = (await shop.post("/next-attempt-index")).json["attempt_index"]
    one = await shop.begun()
    assert await shop.tried(one, attempt_index=given) == given
    again = await shop.post(f"/{one}/attempts", attempt(attempt_index=given))
    assert (again.status, again.code) == (409, "attempt_exists")
    assert (await shop.post("/next-attempt-index")).json["attempt_index"] > given


async def test_the_same_session_key_is_refused_so_an_unknown_outcome_may_be_tried_again(shop):
    one, body = await shop.begun(), attempt(shard())
    assert (await shop.post(f"/{one}/attempts", body)).status == 201
    again = await shop.post(f"/{one}/attempts", body)
    assert (again.status, again.code) == (409, "session_key_exists")


async def test_a_payment_that_is_given_up_takes_no_attempt_and_may_begin_again(shop):
    one = await shop.begun()
    index = await shop.tried(one)
    assert (await shop.give_up(one, "timeout")).json["status"] == "IN_FLIGHT"
    pending = await shop.post(f"/{one}/attempts", attempt())
    assert (pending.status, pending.code) == (409, "payment_pending_failed")
    assert (await shop.fail(one, index)).json["status"] == "FAILED"
    again = await shop.post(body=creation_body(identifier=one))
    assert (again.status, again.json["sequence_number"], again.json["attempts"]) == (201, 2, [])


UNKNOWN_CALLS = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("POST", "/fail", {"reason": "ERROR"}),
    ("POST", "/attempts", attempt()),
    ("POST", "/attempts/1/settle", {"preimage": PREIMAGE}),
    ("POST", "/attempts/1/fail", {"reason": "INTERNAL"}),
]


@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN_CALLS)
async def test_a_payment_that_is_not_there_is_not_found(shop, method, path, body):
    place = f"/v1/payments/{UNKNOWN}{path}"
    answer = await (shop.door.post(place, body) if body else shop.door.call(method, place))
    assert (answer.status, answer.code) == (404, "payment_not_initiated")


async def test_an_attempt_of_another_payment_is_not_found(shop):
    one, other = await shop.begun(), await shop.begun()
    index = await shop.tried(other)
    for answer in (await shop.settle(one, index), await shop.fail(one, index)):
        assert (answer.status, answer.code) == (404, "attempt_not_found")


RULES = [
    (last_hop(R2, mpp=None, amount_to_forward_msat=1), "value_mismatch", {"expected": "555"}),
    (last_hop(R2, amount_to_forward_msat=556), "value_exceeds_amt", {"actual": "556"}),
    (last_hop(R2, mpp=None, encrypted_data=b"1"), "blinded_missing_total_amount", {}),
    (last_hop(RB, mpp=MPP(bytes(32), 5)), "mpp_record_in_blinded_payment", {}),
]


@pytest.mark.parametrize(("route", "code", "numbers"), RULES, ids=[code for _, code, _ in RULES])
async def test_a_route_that_does_not_fit_breaks_a_rule(shop, route, code, numbers):
    one = await shop.begun()
    answer = await shop.post(f"/{one}/attempts", attempt(route))
    assert (answer.status, answer.code) == (422, code)
    assert numbers.items() <= answer.json.items()
    assert not answer.json["retryable"]
    assert (await shop.get(f"/{one}")).json["attempts"] == []


async def test_a_duplicate_is_found_by_its_number(shop):
    record = make_record(1, duplicates=(2, 3))
    shop.store.write_records([record])
    one = record.info.identifier.hex().upper()
    assert (await shop.get(f"/{one}", sequence_number=1)).json["status"] == "INITIATED"
    found = (await shop.get(f"/{one}", sequence_number=3)).json
    assert found == answers.duplicate(record.duplicates[1])
    assert found["settle"]["preimage"] == PREIMAGE
    missing = await shop.get(f"/{one}", sequence_number=9)
    assert (missing.status, missing.code) == (404, "duplicate_not_found")
    other = await shop.begun(identifier=fresh().hex())
    missing = await shop.get(f"/{other}", sequence_number=9)
    assert (missing.status, missing.code) == (404, "no_duplicate_bucket")
