"""Channels over HTTP: opening, commands, lists, balances, history."""

import asyncio

import pytest

from engine.channels.journal import CorruptLogError
from engine.core.types import DROPS_MAX
from tests.builders import DESTINATION, SOURCE
from tests.gateway.world import Payer


async def test_a_channel_is_opened_with_all_its_fields(door):
    payer = Payer(door)
    opening = payer.opening(
        expiration="2099-01-02T03:04:05+01:00",
        cancel_after="2100-01-01T00:00:00.000001Z",
        sequencing="amount",
    )
    answer = await door.post("/v1/channels", opening)
    assert (answer.status, answer.headers["location"]) == (201, payer.path)
    shown = answer.json
    assert shown["position"].partition("-")[0] in ("0", "1")
    assert {name: shown[name] for name in opening if name != "funded"} == {
        "channel_id": payer.id,
        "source": SOURCE,
        "destination": DESTINATION,
        "public_key": payer.key.public_key.hex().upper(),
        "capacity": "1000",
        "settle_delay": 3_600,
        "expiration": "2099-01-02T02:04:05Z",
        "cancel_after": "2100-01-01T00:00:00.000001Z",
        "sequencing": "amount",
    }
    assert shown.items() >= {
        "state": "Active",
        "sequence": 0,
        "claimed": "0",
        "available": "1000",
        "redeemed": "0",
    }.items()  # fmt: skip
    assert (await door.get(payer.path)).json == shown
    assert (await door.get(payer.path.replace(payer.id, payer.id.lower()))).json == shown


async def test_opening_again_is_no_error_and_on_other_terms_a_conflict(door):
    payer = await door.payer()
    again = await door.post("/v1/channels", payer.opening())
    assert again.status == 200
    other = await door.post("/v1/channels", payer.opening(capacity="1001"))
    assert (other.status, other.code) == (409, "conflict")
    assert (await door.get(payer.path)).json == again.json


BAD_OPENINGS = [
    ("channel_id", "00"),
    ("source", "rDx69ebzbowuqztksVDmZXjizTd12BVr4y"),
    ("source", ""),
    ("destination", "\u00e9" * 34),
    ("destination", "XVYRdEocC28DRx94ZFGP3qNJ1D5Ln7ecXFMd3vREB5Pesju"),
    ("destination", "r" * 10_000),
    ("public_key", "02" + "FF" * 32),
    ("public_key", "04" + "11" * 32),
    ("public_key", "06" + "11" * 32),
    ("public_key", "ED" + "00" * 32),
    ("public_key", "ED01" + "00" * 31),
    ("public_key", "02" * 32),
    ("capacity", "0"),
    ("capacity", "-1"),
    ("capacity", "1.5"),
    ("capacity", 1_000),
    ("capacity", str(DROPS_MAX + 1)),
    ("settle_delay", -1),
    ("settle_delay", 2**32),
    ("settle_delay", "1"),
    ("settle_delay", 1.0),
    ("expiration", "soon"),
    ("expiration", "2030-01-01T00:00:00"),
    ("expiration", "9999-12-31T23:59:59Z"),
    ("cancel_after", "9999-12-31T23:59:59-23:59"),
    ("cancel_after", "0001-01-01T00:00:00+23:59"),
    ("sequencing", "random"),
    ("funded", "yes"),
    ("owner", "me"),
]


@pytest.mark.parametrize(("name", "value"), BAD_OPENINGS)
async def test_a_bad_opening_names_its_field_and_opens_nothing(door, name, value):
    payer = Payer(door)
    answer = await door.post("/v1/channels", payer.opening() | {name: value})
    assert (answer.status, answer.code) == (400, "malformed")
    assert name in answer.json["param"] + answer.json["detail"]
    assert (await door.get(payer.path)).status == 404
    assert (await door.post("/v1/channels", payer.opening())).status == 201


async def test_a_channel_goes_through_its_life(door):
    payer = await door.payer(funded=False)
    seen = [(await door.get(payer.path)).json["state"]]
    for command, body in [
        ("confirm-funding", None),
        ("fund", {"amount": "500", "previous": "1000"}),
        ("dispute", {"reason": "goods never came"}),
        ("resolve", {"outcome": "active"}),
        ("request-close", {}),
        ("settle", {"redeemed": "300"}),
    ]:
        answer = await door.post(f"{payer.path}/{command}", body)
        assert answer.status == 200, answer.body
        seen.append(answer.json["state"])
    assert seen == ["Pending", "Active", "Active", "Disputed", "Active", "Settling", "Settled"]
    assert answer.json.items() >= {"capacity": "1500", "redeemed": "300"}.items()


async def test_money_added_once_is_added_once(door):
    payer = await door.payer()
    body = {"amount": "500", "previous": "1000"}
    assert (await door.post(f"{payer.path}/fund", body)).json["capacity"] == "1500"
    answer = await door.post(f"{payer.path}/fund", body)
    assert (answer.status, answer.code) == (409, "conflict")


async def test_a_command_in_the_wrong_state_is_409_and_says_the_state(door):
    payer = await door.payer()
    answer = await door.post(f"{payer.path}/settle")
    assert (answer.status, answer.code) == (409, "wrong_state")
    assert "Active" in answer.json["detail"]


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("fund", {}),
        ("fund", {"amount": 5}),
        ("fund", {"amount": "0"}),
        ("fund", {"amount": str(DROPS_MAX)}),
        ("fund", {"amount": "5", "previous": "-1"}),
        ("dispute", {"reason": "x" * 257}),
        ("request-close", {"now": True}),
        ("confirm-funding", []),
        ("settle", {"redeemed": "1e3"}),
    ],
)
async def test_a_command_with_a_bad_body_is_malformed(door, command, body):
    payer = await door.payer()
    answer = await door.post(f"{payer.path}/{command}", body)
    assert (answer.status, answer.code) == (400, "malformed")
    assert (await door.get(payer.path)).json["version"] == 2


@pytest.mark.parametrize("outcome", ["Pending", "Disputed", "", "nonsense", 1])
async def test_a_dispute_ends_in_one_of_three_states(door, outcome):
    payer = await door.payer()
    await door.post(f"{payer.path}/dispute")
    answer = await door.post(f"{payer.path}/resolve", {"outcome": outcome})
    assert (answer.status, answer.code) == (400, "malformed")


async def test_a_channel_nobody_opened_is_404_to_every_call(door):
    payer = Payer(door)
    for path in ("", "/balance", "/best-claim", "/claims"):
        answer = await door.get(payer.path + path)
        assert (answer.status, answer.code) == (404, "unknown_channel")
    for command, body in [("fund", {"amount": "1"}), ("request-close", {}), ("settle", {})]:
        answer = await door.post(f"{payer.path}/{command}", body)
        assert (answer.status, answer.code) == (404, "unknown_channel")


@pytest.mark.parametrize("text", ["00", "zz" * 32, "00" * 33, "%20" * 64, "%00", "..%2f"])
async def test_an_id_that_is_none_is_refused(door, text):
    answer = await door.get(f"/v1/channels/{text}/balance")
    assert answer.status in (400, 404)
    assert answer.code in ("malformed", "not_found")


# Lists --------------------------------------------------------------------------------------------


async def test_pages_hold_every_channel_once_in_order(door):
    for _ in range(5):
        await door.payer()
    whole = [
        c["channel_id"] for c in (await door.get("/v1/channels", limit=1_000)).json["channels"]
    ]
    assert whole == sorted(set(whole))
    found, after = [], {}
    while True:
        page = (await door.get("/v1/channels", limit=7, **after)).json
        found += [channel["channel_id"] for channel in page["channels"]]
        if not page["has_more"]:
            break
        after = {"starting_after": found[-1]}
    assert found == whole


@pytest.mark.parametrize("word", ["Disputed", "disputed", "DISPUTED"])
async def test_a_list_can_be_narrowed_to_a_state(door, word):
    payer = await door.payer()
    await door.post(f"{payer.path}/dispute")
    page = (await door.get("/v1/channels", state=word, limit=1_000)).json["channels"]
    assert payer.id in [channel["channel_id"] for channel in page]
    assert {channel["state"] for channel in page} == {"Disputed"}


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "1001"},
        {"limit": "many"},
        {"limit": "9" * 5_000},
        {"starting_after": "00"},
        {"starting_after": "x" * 64},
        {"state": "Open"},
    ],
    ids=lambda query: repr(query)[:40],
)
async def test_a_bad_query_names_its_parameter(door, query):
    answer = await door.get("/v1/channels", **query)
    assert (answer.status, answer.code) == (400, "malformed")
    assert answer.json["param"] in query


# Balances and claims ------------------------------------------------------------------------------


async def test_a_balance_says_what_is_owed_at_every_consistency(door):
    payer = await door.payer()
    (result,) = await door.results(payer.claim(1, 400))
    for query in (
        {},
        {"consistency": "strong"},
        {"consistency": "eventual"},
        {"consistency": "session"},
        {"consistency": "session", "at_least": result["position"]},
    ):
        answer = await door.get(f"{payer.path}/balance", **query)
        assert answer.status == 200, answer.body
        assert (
            answer.json.items()
            >= {
                "claimed": "400",
                "available": "600",
                "redeemed": "0",
                "capacity": "1000",
                "sequence": 1,
                "position": result["position"],
                "consistency": query.get("consistency", "strong"),
            }.items()
        )
        assert isinstance(answer.json["age_ms"], int)


@pytest.mark.parametrize(
    "query",
    [
        {"consistency": "total"},
        {"consistency": "session", "at_least": "7"},
        {"consistency": "session", "at_least": "9-7"},
        {"consistency": "session", "at_least": "0--7"},
        {"consistency": "session", "at_least": "0-" + "9" * 5_000},
        {"consistency": "session", "at_least": "9" * 5_000 + "-1"},
    ],
    ids=lambda query: repr(query)[:60],
)
async def test_a_balance_asked_for_wrongly_is_malformed(door, query):
    payer = await door.payer()
    answer = await door.get(f"{payer.path}/balance", **query)
    assert (answer.status, answer.code) == (400, "malformed")


async def test_the_best_claim_is_the_one_to_redeem(door):
    payer = await door.payer()
    answer = await door.get(f"{payer.path}/best-claim")
    assert answer.status == 404
    results = await door.results(payer.claim(1, 400), payer.claim(2, 500))
    best = (await door.get(f"{payer.path}/best-claim")).json
    assert (
        best.items()
        >= {
            "amount": "500",
            "signature": payer.sign(500).hex().upper(),
            "sequence": 2,
            "position": results[1]["position"],
        }.items()
    )


async def until_proven(door, payer, count):
    """Return once a moment after the newest claims has proved them durable, and shown them."""
    async with asyncio.timeout(60):
        while len((await door.get(f"{payer.path}/claims")).json["claims"]) < count:
            pass


async def test_the_history_has_every_accepted_claim_in_pages(door):
    payer = await door.payer()
    claims = [payer.claim(n, n * 10) for n in range(1, 6)]
    results = await door.results(*claims, payer.claim(3, 31))
    await until_proven(door, payer, len(claims))
    page = (await door.get(f"{payer.path}/claims", limit=3)).json
    rest = (await door.get(f"{payer.path}/claims", limit=3, starting_after=3)).json
    assert (page["has_more"], rest["has_more"]) == (True, False)
    found = page["claims"] + rest["claims"]
    assert [(c["sequence"], c["amount"], c["signature"], c["position"]) for c in found] == [
        (c["sequence"], c["amount"], c["signature"], r["position"])
        for c, r in zip(claims, results, strict=False)
    ]
    for text in ("-1", "0-3", "x", "9" * 5_000):
        answer = await door.get(f"{payer.path}/claims", starting_after=text)
        assert (answer.status, answer.code) == (400, "malformed")


async def test_a_history_says_where_it_begins(door, monkeypatch):
    payer = await door.payer()
    assert (await door.get(f"{payer.path}/claims")).json["history_from"].endswith("-1")

    async def begins_at(shard):
        return 77

    monkeypatch.setattr(door.state.feed, "begins_at", begins_at)
    assert (await door.get(f"{payer.path}/claims")).json["history_from"].endswith("-77")


async def test_a_history_that_cannot_be_read_is_unavailable_and_no_fault(door, monkeypatch):
    def damaged(*_):
        raise CorruptLogError("wal/7", 4_096, "bytes")

    payer = await door.payer()
    await door.results(payer.claim(1, 10))
    monkeypatch.setattr("engine.channels.feed.read_committed", damaged)
    answer = await door.get(f"{payer.path}/claims")
    assert (answer.status, answer.code) == (503, "unavailable")
    assert "damaged" in answer.json["detail"]
    assert (await door.results(payer.claim(2, 20)))[0]["status"] == "accepted"
    assert (await door.get(f"{payer.path}/claims", starting_after=2)).json["claims"] == []


async def test_many_may_open_and_read_at_once(door):
    payers = await asyncio.gather(*(door.payer() for _ in range(50)))
    balances = await asyncio.gather(*(payer.balance() for payer in payers))
    assert {balance["claimed"] for balance in balances} == {"0"}


# The rest of HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/claims", "/v1/channels/", "/v1/claims/x"])
async def test_a_path_that_is_none_is_404(door, path):
    answer = await door.get(path)
    assert (answer.status, answer.code) in ((404, "not_found"), (400, "malformed"))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/channels", {"GET", "HEAD", "POST"}),
        ("GET", "/v1/claims", {"POST"}),
        ("PUT", "/v1/claims", {"POST"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("PATCH", f"/v1/channels/{'0' * 64}/claims", {"GET", "HEAD", "POST"}),
        ("GET", f"/v1/channels/{'0' * 64}/fund", {"POST"}),
    ],
)
async def test_another_method_is_405_and_says_which_there_are(door, method, path, allowed):
    answer = await door.call(method, path)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert {word.strip() for word in answer.headers["allow"].split(",")} == allowed


async def test_a_head_is_a_get_without_its_body(door):
    answer = await door.call("HEAD", "/livez")
    assert (answer.status, answer.body) == (200, b"")


async def test_commands_are_json_only(door):
    payer = await door.payer()
    for path in ("/v1/channels", f"{payer.path}/fund"):
        assert (await door.pack(path, {"amount": 5})).status == 415
