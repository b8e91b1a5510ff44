"""`POST /v1/claims` and `POST /v1/channels/{id}/claims`: every answer a claim can get."""

from datetime import UTC, datetime, timedelta

import pytest

from engine.core.claim import NO_CLAIM_DIGEST
from engine.gateway.schemas import CLAIMS_MAX
from tests.builders import text_table
from tests.gateway.world import JSON, MSGPACK, Payer, encoded

OF_A_RESULT = {
    "channel_id",
    "sequence",
    "amount",
    "status",
    "retryable",
    "claimed",
    "available",
}


@pytest.mark.parametrize("curve", ["secp256k1", "ed25519"])
async def test_a_claim_is_accepted_with_all_that_a_result_says(door, curve):
    payer = await door.payer(curve)
    (result,) = await door.results(payer.claim(1, 400))
    assert result == {
        "channel_id": payer.id,
        "sequence": 1,
        "amount": "400",
        "status": "accepted",
        "retryable": False,
        "position": result["position"],
        "claimed": "400",
        "available": "600",
    }
    assert result["position"].partition("-")[0] in ("0", "1")


async def test_the_same_claim_again_gets_the_first_position(door):
    payer = await door.payer()
    (first,) = await door.results(payer.claim(1, 400))
    (again,) = await door.results(payer.claim(1, 400))
    assert again == first | {"status": "duplicate"}


CLAIMS = """
    sequence amount  status   code                  expected actual claimed
    1        100     accepted -                     -        -      100
    1        200     rejected sequence_conflict     100      200    100
    2        100     rejected amount_not_increasing 100      100    100
    2        1001    rejected amount_over_capacity  1000     1001   100
    2        300     accepted -                     -        -      300
    2        300     duplicate -                    -        -      300
    900      400     buffered -                     3        900    300
"""


async def test_each_claim_of_a_table_gets_its_answer(door):
    payer = await door.payer()
    for row in text_table(CLAIMS):
        (result,) = await door.results(payer.claim(int(row["sequence"]), int(row["amount"])))
        seen = {name: str(result.get(name, "-")) for name in row}
        assert seen == row
        assert ("message" in result) == (row["status"] == "rejected")
        assert result.keys() >= OF_A_RESULT


async def test_results_stand_in_the_order_of_the_claims(door):
    payers = [await door.payer() for _ in range(4)]
    claims = [payer.claim(n, n * 10) for n in (1, 2, 3) for payer in payers]
    results = await door.results(*claims)
    assert [(r["channel_id"], r["sequence"], r["status"]) for r in results] == [
        (c["channel_id"], c["sequence"], "accepted") for c in claims
    ]


async def test_a_bad_claim_is_refused_in_its_place_and_its_neighbours_are_not(door):
    payer = await door.payer()
    results = await door.results(
        payer.claim(1, 10),
        payer.claim(2, 20) | {"amount": 20},
        {"nothing": "of a claim"},
        [],
        payer.claim(2, 20) | {"signature": "30"},
        payer.claim(2, 20),
    )
    assert [(r["status"], r.get("code")) for r in results] == [
        ("accepted", None),
        ("rejected", "malformed"),
        ("rejected", "malformed"),
        ("rejected", "malformed"),
        ("rejected", "bad_signature"),
        ("accepted", None),
    ]
    assert (await payer.balance())["claimed"] == "20"


async def test_a_claim_of_another_channel_is_a_bad_signature_here(door):
    here, there = await door.payer(), await door.payer()
    (result,) = await door.results(there.claim(1, 10) | {"channel_id": here.id})
    assert result["code"] == "bad_signature"
    assert result["retryable"] is False


async def test_a_claim_for_a_channel_nobody_opened_is_unknown(door):
    payer = Payer(door)
    (result,) = await door.results(payer.claim(1, 10))
    assert (result["status"], result["code"]) == ("rejected", "unknown_channel")
    answer = await door.post(f"{payer.path}/claims", payer.claim(1, 10))
    assert (answer.status, answer.code) == (404, "unknown_channel")


async def test_an_early_claim_names_what_is_missing_and_is_decided_when_it_comes(door):
    payer = await door.payer()
    (early,) = await door.results(payer.claim(3, 30))
    assert (early["status"], early["missing"], early["claimed"]) == ("buffered", [1, 2], "0")
    assert "position" not in early
    results = await door.results(payer.claim(1, 10), payer.claim(2, 20))
    assert [result["status"] for result in results] == ["accepted", "accepted"]
    assert (await payer.balance())["sequence"] == 3
    (again,) = await door.results(payer.claim(3, 30))
    assert again["status"] == "duplicate"


async def test_one_claim_alone_is_answered_by_its_status(door):
    payer = await door.payer()
    path = f"{payer.path}/claims"
    answers = [
        await door.post(path, payer.claim(1, 10)),
        await door.post(path, payer.claim(1, 10)),
        await door.post(path, payer.claim(5, 50)),
    ]
    assert [(a.status, a.json["status"]) for a in answers] == [
        (200, "accepted"),
        (200, "duplicate"),
        (202, "buffered"),
    ]
    without = payer.claim(2, 20, channel_id=None)
    assert (await door.post(path, without)).json["status"] == "accepted"


REFUSALS = """
    sequence amount http code
    1        10     200  -
    1        20     409  sequence_conflict
    2        10     422  amount_not_increasing
    2        1001   422  amount_over_capacity
"""


async def test_a_claim_refused_alone_is_a_problem_with_its_numbers(door):
    payer = await door.payer()
    for row in text_table(REFUSALS):
        claim = payer.claim(int(row["sequence"]), int(row["amount"]))
        answer = await door.post(f"{payer.path}/claims", claim)
        assert answer.status == int(row["http"])
        if row["code"] != "-":
            problem = answer.json
            assert answer.code == row["code"]
            assert problem.keys() >= {"type", "title", "detail", "retryable", "request_id"}
            assert problem.keys() >= {"expected", "actual", "claimed", "available"}


async def test_a_claim_must_be_for_the_channel_of_its_path(door):
    here, there = await door.payer(), await door.payer()
    answer = await door.post(f"{here.path}/claims", there.claim(1, 10))
    assert (answer.status, answer.code, answer.json["param"]) == (400, "malformed", "channel_id")


async def test_a_claim_with_the_wrong_mark_is_a_conflict_that_says_the_state(door):
    payer = await door.payer()
    results = await door.results(
        payer.claim(1, 10, previous="0"),
        payer.claim(2, 20, previous="11"),
        payer.claim(2, 20, previous=NO_CLAIM_DIGEST.hex()),
        payer.claim(2, 20, previous="10"),
    )
    assert [r.get("code", r["status"]) for r in results] == [
        "accepted",
        "conflict",
        "conflict",
        "accepted",
    ]
    assert (results[1]["expected"], results[1]["claimed"]) == ("10", "10")


async def test_a_clock_that_is_far_off_is_refused_and_one_that_is_not_is_taken(door):
    payer = await door.payer()
    now = datetime.now(UTC)  # noqa: TID251  (the sender's own clock is what is tested)
    far = (now - timedelta(hours=2)).isoformat()
    results = await door.results(
        payer.claim(1, 10, sent_at=far), payer.claim(1, 10, sent_at=now.isoformat())
    )
    assert [r.get("code", r["status"]) for r in results] == ["clock_skew", "accepted"]


async def test_amounts_give_the_order_where_the_channel_says_so(door):
    payer = await door.payer(sequencing="amount")
    results = await door.results(
        payer.claim(None, 10), payer.claim(None, 30), payer.claim(None, 20), payer.claim(None, 30)
    )
    assert [(r.get("code", r["status"]), r["sequence"]) for r in results][:2] == [
        ("accepted", 1),
        ("accepted", 2),
    ]
    assert [r.get("code", r["status"]) for r in results][2:] == [
        "amount_not_increasing",
        "duplicate",
    ]


async def test_a_strict_channel_needs_a_sequence(door):
    payer = await door.payer()
    (result,) = await door.results(payer.claim(None, 10))
    assert result["code"] == "malformed"
    assert "sequence" in result["message"]


async def test_hex_of_either_case_is_taken_and_upper_case_is_given(door):
    payer = await door.payer()
    claim = payer.claim(1, 10)
    lower = claim | {name: claim[name].lower() for name in ("channel_id", "signature")}
    (result,) = await door.results(lower)
    assert (result["status"], result["channel_id"]) == ("accepted", payer.id)


STATES = """
    commands                          code
    -                                 not_active
    confirm-funding                   -
    confirm-funding,dispute           not_active
    confirm-funding,request-close     not_active
    confirm-funding,request-close,settle not_active
"""


@pytest.mark.parametrize("row", text_table(STATES), ids=lambda row: row["commands"])
async def test_only_an_active_channel_takes_claims(door, row):
    payer = await door.payer(funded=False)
    for command in row["commands"].split(","):
        if command != "-":
            assert (await door.post(f"{payer.path}/{command}")).status == 200
    (result,) = await door.results(payer.claim(1, 10))
    assert result.get("code", "-") == row["code"]
    if row["code"] != "-":
        assert (await payer.balance())["claimed"] == "0"
        state = (await door.get(payer.path)).json["state"]
        assert state in result["message"]


# msgpack ------------------------------------------------------------------------------------------


async def test_msgpack_has_bytes_and_numbers_both_ways(door):
    payer = await door.payer()
    claim = {
        "channel_id": payer.channel_id,
        "amount": 10,
        "signature": payer.sign(10),
        "sequence": 1,
        "previous": 0,
    }
    answer = await door.pack("/v1/claims", {"claims": [claim, claim | {"amount": -1}]})
    assert (answer.status, answer.headers["content-type"]) == (200, MSGPACK)
    good, bad = answer.msgpack["results"]
    assert good["channel_id"] == payer.channel_id
    assert (good["status"], good["amount"], good["claimed"]) == ("accepted", 10, 10)
    assert (bad["status"], bad["code"]) == ("rejected", "malformed")


# Bad input ----------------------------------------------------------------------------------------

BAD_AMOUNTS = [
    0, -1, 10, 10.0, 1e2, True, None, "0", "-1", "+1", " 1", "1 ", "1_0", "1e2", "1.0", "0x1",
    "NaN", "007", "", "\u0661", "1\n", str(2**64), "9" * 5_000, [1], {"amount": "1"},
]  # fmt: skip


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=lambda amount: repr(amount)[:20])
async def test_an_amount_that_is_none_is_malformed(door, amount):
    payer = await door.payer()
    claim = payer.claim(1, 10) | {"amount": amount}
    (result,) = await door.results(claim)
    assert (result["status"], result["code"]) == ("rejected", "malformed")
    answer = await door.post(f"{payer.path}/claims", claim)
    assert (answer.status, answer.code) == (400, "malformed")


@pytest.mark.parametrize("amount", [2**63 - 1, 2**63, 2**64 - 1])
async def test_an_amount_of_64_bits_is_over_the_capacity_and_nothing_else(door, amount):
    payer = await door.payer()
    (result,) = await door.results(payer.claim(1, amount))
    assert (result["code"], result["actual"]) == ("amount_over_capacity", str(amount))


BAD_FIELDS = [
    ("channel_id", "00" * 31),
    ("channel_id", "00" * 33),
    ("channel_id", "zz" * 32),
    ("channel_id", " " * 64),
    ("channel_id", "0 " * 32),
    ("channel_id", "00 " * 32),
    ("channel_id", 7),
    ("signature", ""),
    ("signature", "3"),
    ("signature", "30 44"),
    ("signature", "00" * 73),
    ("signature", None),
    ("sequence", 0),
    ("sequence", -1),
    ("sequence", 2**63),
    ("sequence", 2**64),
    ("sequence", "1"),
    ("sequence", 1.0),
    ("sequence", True),
    ("previous", "00" * 31),
    ("previous", "-1"),
    ("previous", str(2**64)),
    ("previous", 5),
    ("sent_at", "yesterday"),
    ("sent_at", "2026-01-01T00:00:00"),
    ("sent_at", "9999-12-31T23:59:59Z"),
    ("sent_at", "1969-12-31T23:59:59Z"),
    ("sent_at", "0001-01-01T00:00:00+23:59"),
    ("sent_at", 5),
    ("extra", 1),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS)
async def test_a_field_that_is_none_of_a_claim_is_malformed_and_harms_nobody_else(
    door, name, value
):
    payer = await door.payer()
    bad, good = await door.results(payer.claim(1, 10) | {name: value}, payer.claim(1, 5))
    assert (bad["status"], bad["code"]) == ("rejected", "malformed")
    assert (good["status"], good["claimed"]) == ("accepted", "5")


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"claims":[]',
    b'{"claims":{}}',
    b'{"claims":[],"more":1}',
    b"\xef\xbb\xbf" + b'{"claims":[]}',
    b'{"claims":[\xff\xfe]}',
    b'{"clai\xc0\xafms":[]}',
    b'{"claims":' + b"[" * 200_000,
    b'{"claims":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b'{"claims":' + b'{"a":' * 100_000,
    b"\0" * 1_000,
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:20]))
async def test_a_body_that_is_no_batch_is_a_malformed_call(door, body):
    answer = await door.post("/v1/claims", body)
    assert (answer.status, answer.code) == (400, "malformed")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        b"\x81\xa6claims\x80",
        b"\x81\xa6claims\xdd\xff\xff\xff\xff",
        b"\x81\xa6claims\x91\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 200_000,
        b"\x81\xa6claims" + b"\x91" * 200_000,
        b"\x81\xa6claims\x90trailing",
    ],
    ids=lambda body: repr(body[:14]),
)
async def test_msgpack_that_is_no_batch_is_a_malformed_call(door, body):
    answer = await door.pack("/v1/claims", body)
    assert (answer.status, answer.code) == (400, "malformed")


async def test_where_a_key_is_repeated_the_last_one_counts_and_the_signature_decides(door):
    payer = await door.payer()
    claim = encoded(payer.claim(1, 10))
    twice = claim.replace(b'"amount":"10"', b'"amount":"999","amount":"10"')
    answer = await door.post("/v1/claims", b'{"claims":[' + twice + b"]}")
    assert answer.json["results"][0]["claimed"] == "10"


async def test_too_many_claims_for_one_call_are_refused(door):
    answer = await door.post("/v1/claims", b'{"claims":[' + b"0," * CLAIMS_MAX + b"0]}")
    assert (answer.status, answer.code) == (400, "malformed")
    answer = await door.post("/v1/claims", b'{"claims":[' + b"0," * (CLAIMS_MAX - 1) + b"0]}")
    assert len(answer.json["results"]) == CLAIMS_MAX


async def test_no_claims_get_no_results(door):
    assert await door.results() == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/jsonp"])
async def test_another_media_type_is_415(door, content_type):
    answer = await door.call(
        "POST", "/v1/claims", data=b'{"claims":[]}', headers={"content-type": content_type}
    )
    assert answer.status == 415


async def test_a_compressed_body_is_415(door):
    headers = {"content-type": JSON, "content-encoding": "gzip"}
    answer = await door.call("POST", "/v1/claims", data=b"\x1f\x8b" + bytes(64), headers=headers)
    assert answer.status == 415


async def test_a_media_type_may_have_parameters(door):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    answer = await door.call("POST", "/v1/claims", data=b'{"claims":[]}', headers=headers)
    assert answer.json == {"results": []}
