"""Each command against a real engine: what it prints, and the code it ends with."""

import json
from collections.abc import Callable, Iterator

import pytest

from bench.signing import DESTINATION, SOURCE, Payer, make_payer, sign
from tests.cli.serving import Served, serving, start

CAPACITY = 1_000
MISSING = "AB" * 32


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("engine") / "data") as served:
        yield served


@pytest.fixture
def ask(run, engine, monkeypatch) -> Callable:
    """`run` with the server in the environment."""
    monkeypatch.setenv("PAYCHAN_SERVER", engine.url)
    return run


@pytest.fixture
def opened(ask, request) -> Callable[..., Payer]:
    """Open a channel of its own for this test."""

    def call(*options: str, curve: str = "secp256k1", funded: bool = True) -> Payer:
        payer = make_payer(call.count, curve, series=request.node.name)
        call.count += 1
        funding = ("--funded",) if funded else ()
        seen = ask("channel", "open", id_of(payer), *terms(payer), *funding, *options)
        assert seen.code == 0, seen.err
        return payer

    call.count = 0
    return call


def id_of(payer: Payer) -> str:
    return payer.channel_id.hex().upper()


def terms(payer: Payer) -> tuple[object, ...]:
    return (
        *("--source", SOURCE, "--destination", DESTINATION),
        *("--public-key", payer.public_key.hex(), "--capacity", CAPACITY, "--settle-delay", 60),
    )


def claim(payer: Payer, amount: int, sequence: int | None = None) -> dict[str, object]:
    fields = {
        "channel_id": id_of(payer),
        "amount": str(amount),
        "signature": sign(payer, amount).hex().upper(),
    }
    return fields if sequence is None else fields | {"sequence": sequence}


def options(fields: dict[str, object]) -> list[object]:
    return [
        word for name, value in fields.items() for word in ("--" + name.replace("_", "-"), value)
    ]


def submit(ask, payer: Payer, amount: int, sequence: int | None = None):
    return ask("claim", "submit", *options(claim(payer, amount, sequence)))


# Channels -----------------------------------------------------------------------------------------


def test_getinfo_names_the_shards(ask):
    seen = ask("getinfo")
    assert seen.code == 0
    assert seen.line["version"]
    assert [shard["shard"] for shard in seen.line["shards"]] == [0, 1]


def test_a_channel_is_opened_once_and_shown_as_it_was_opened(ask, opened):
    payer = opened()
    again = ask("channel", "open", id_of(payer), *terms(payer), "--funded")
    shown = ask("channel", "show", id_of(payer))
    assert (again.code, shown.code) == (0, 0)
    assert again.line == shown.line
    assert shown.line["state"] == "Active"
    assert shown.line["capacity"] == str(CAPACITY)
    assert shown.line["public_key"] == payer.public_key.hex().upper()
    assert shown.line["position"].count("-") == 1


def test_the_same_id_with_other_terms_is_refused(ask, opened):
    payer = opened()
    seen = ask("channel", "open", id_of(payer), *terms(payer)[:-1], 61, "--funded")
    assert (seen.code, seen.out) == (4, "")
    assert "conflict" in seen.err


def test_all_that_an_opening_can_say_is_kept(ask, opened):
    payer = opened(
        *("--expiration", "2030-01-01T00:00:00Z", "--cancel-after", "2031-01-01T00:00:00.000001Z"),
        *("--sequencing", "amount"),
        funded=False,
    )
    shown = ask("channel", "show", id_of(payer)).line
    assert shown["expiration"] == "2030-01-01T00:00:00Z"
    assert shown["cancel_after"] == "2031-01-01T00:00:00.000001Z"
    assert (shown["sequencing"], shown["state"]) == ("amount", "Pending")


def test_an_address_that_does_not_check_out_is_named(ask):
    payer = make_payer(0, "secp256k1", "bad address")
    words = list(terms(payer))
    words[1] = SOURCE[:-1] + "q"
    seen = ask("channel", "open", id_of(payer), *words)
    assert seen.code == 4
    assert "malformed (source)" in seen.err


def test_the_life_of_a_channel(ask, opened):
    payer = opened(funded=False)
    for words, state in (
        (("confirm",), "Active"),
        (("fund", "--amount", "500", "--previous", CAPACITY), "Active"),
        (("dispute", "--reason", "nothing came"), "Disputed"),
        (("resolve", "--outcome", "Active"), "Active"),
        (("close",), "Settling"),
        (("settle", "--redeemed", "7"), "Settled"),
    ):
        verb, *rest = words
        seen = ask("channel", verb, id_of(payer), *rest)
        assert (seen.code, seen.line["state"]) == (0, state), words
    assert (seen.line["capacity"], seen.line["redeemed"]) == ("1500", "7")
    late = ask("channel", "close", id_of(payer))
    assert (late.code, late.out) == (4, "")
    assert "wrong_state" in late.err


@pytest.mark.parametrize(
    "words",
    [
        ("channel", "show"),
        ("channel", "confirm"),
        ("channel", "fund", "--amount", "1"),
        ("balance",),
        ("claim", "best"),
        ("claim", "history"),
    ],
)
def test_a_channel_nobody_opened_is_not_found(ask, words):
    seen = ask(*words, MISSING)
    assert (seen.code, seen.out) == (3, "")
    assert "unknown_channel" in seen.err
    assert "paychan channel list" in seen.err


def test_channels_are_listed_by_id_and_state(ask, opened):
    pending = {id_of(opened(funded=False)) for _ in range(3)}
    listed = [row["channel_id"] for row in ask("channel", "list").lines]
    assert listed == sorted(listed)
    assert pending <= set(listed)
    rows = ask("channel", "list", "--state", "pending").lines
    assert pending <= {row["channel_id"] for row in rows}
    assert {row["state"] for row in rows} == {"Pending"}
    assert len(ask("channel", "list", "--limit", 2).lines) == 2


# Claims -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", ["secp256k1", "ed25519"])
def test_a_claim_is_accepted_once(ask, opened, curve):
    payer = opened(curve=curve)
    first, again = submit(ask, payer, 100, 1), submit(ask, payer, 100, 1)
    assert (first.code, first.err) == (0, "")
    assert first.line == {
        "channel_id": id_of(payer),
        "sequence": 1,
        "amount": "100",
        "status": "accepted",
        "missing": [],
        "retryable": False,
        "position": first.line["position"],
        "claimed": "100",
        "available": "900",
    }
    assert (again.code, again.line["status"]) == (0, "duplicate")
    assert again.line["position"] == first.line["position"]


def test_a_refused_claim_has_its_code_and_the_two_numbers(ask, opened):
    seen = submit(ask, opened(), CAPACITY + 1, 1)
    assert seen.code == 4
    assert seen.line["code"] == "amount_over_capacity"
    assert (seen.line["expected"], seen.line["actual"]) == ("1000", "1001")
    assert "amount may be at most 1000 drops; got 1001" in seen.err


def test_an_early_claim_is_not_done(ask, opened):
    seen = submit(ask, opened(), 300, 3)
    assert seen.code == 1
    assert (seen.line["status"], seen.line["missing"]) == ("buffered", [1, 2])
    assert "claim 3 waits for 1, 2" in seen.err


def test_a_claim_of_a_channel_nobody_opened_is_refused(ask):
    payer = make_payer(0, "secp256k1", "nobody")
    seen = submit(ask, payer, 1, 1)
    assert (seen.code, seen.line["code"]) == (4, "unknown_channel")


def test_a_belief_about_the_mark_is_checked(ask, opened):
    payer = opened()
    submit(ask, payer, 100, 1)
    fields = claim(payer, 200, 2)
    wrong = ask("claim", "submit", *options(fields), "--previous", 50)
    assert (wrong.code, wrong.line["code"]) == (4, "conflict")
    assert ask("claim", "submit", *options(fields), "--previous", 100).code == 0


def test_lines_are_submitted_in_order_and_answered_in_order(ask, opened):
    one, two = opened(), opened("--sequencing", "amount")
    claims = [claim(one, 10, 1), claim(two, 5), claim(one, 20, 2), claim(two, 6)]
    seen = ask("claim", "submit", "--stdin", given="\n".join(map(json.dumps, claims)))
    assert seen.code == 0
    assert [(row["channel_id"], row["amount"], row["status"]) for row in seen.lines] == [
        (fields["channel_id"], fields["amount"], "accepted") for fields in claims
    ]
    again = ask("claim", "submit", "--stdin", given="\n".join(map(json.dumps, claims)))
    assert {row["status"] for row in again.lines} == {"duplicate"}


def test_one_refused_line_decides_the_code_and_the_others_are_taken(ask, opened):
    payer = opened()
    bad = claim(payer, 20, 2) | {"signature": claim(payer, 21, 2)["signature"]}
    lines = [json.dumps(fields) for fields in (claim(payer, 10, 1), bad)]
    seen = ask("claim", "submit", "--stdin", given="\n".join(lines))
    assert seen.code == 4
    assert [row.get("code") for row in seen.lines] == [None, "bad_signature"]
    assert "1 on disk, 1 refused, 0 undecided" in seen.err


def test_no_lines_are_no_claims(ask):
    seen = ask("claim", "submit", "--stdin", given="")
    assert (seen.code, seen.out) == (0, "")


def test_what_sign_writes_submit_takes(ask, opened, tmp_path):
    payer = opened()
    key_file = tmp_path / "key"
    key_file.write_text(payer.secret.hex())
    words = ("--channel-id", id_of(payer), "--amount", 42, "--sequence", 1)
    signed = ask("claim", "sign", "--key-file", key_file, *words)
    seen = ask("claim", "submit", "--stdin", given=signed.out)
    assert (seen.code, seen.line["status"]) == (0, "accepted")


# Reads --------------------------------------------------------------------------------------------


def test_a_balance_says_where_and_how_it_was_read(ask, opened):
    payer = opened()
    position = submit(ask, payer, 100, 1).line["position"]
    for consistency in ("strong", "session", "eventual"):
        seen = ask("balance", id_of(payer), "--consistency", consistency).line
        assert (seen["claimed"], seen["available"], seen["sequence"]) == ("100", "900", 1)
        assert (seen["position"], seen["consistency"]) == (position, consistency)


def test_the_best_claim_can_be_checked_offline(ask, opened):
    payer = opened()
    assert ask("claim", "best", id_of(payer)).code == 3
    submit(ask, payer, 100, 1)
    submit(ask, payer, 250, 2)
    best = ask("claim", "best", id_of(payer))
    assert (best.line["amount"], best.line["sequence"]) == ("250", 2)
    assert ask("claim", "verify", "--stdin", given=best.out).line["signature_verified"]


def test_the_history_has_the_accepted_claims_oldest_first(ask, opened):
    payer = opened()
    for number in (1, 2, 3):
        submit(ask, payer, 10 * number, number)
    submit(ask, payer, 15, 2)
    # The newest frame is shown once a later one proves it durable; the next claim does.
    rows = ask("claim", "history", id_of(payer), "--limit", 2).lines
    assert [(row["sequence"], row["amount"]) for row in rows] == [(1, "10"), (2, "20")]
    (row,) = ask("claim", "history", id_of(payer), "--after", 1, "--limit", 1).lines
    assert row["sequence"] == 2


# The process --------------------------------------------------------------------------------------


def test_serve_stops_with_code_0_and_leaves_a_sound_log(run, tmp_path):
    datadir = tmp_path / "data"
    with serving(datadir) as served:
        assert run("getinfo", "--server", served.url).code == 0
        assert served.stop() == 0
    assert run("wal", "verify", datadir).code == 0
    assert run("getinfo", "--server", served.url).code == 5


def test_serve_says_so_when_its_address_is_taken(engine, tmp_path):
    address = f"127.0.0.1:{engine.port}"
    with pytest.raises(AssertionError, match=f"cannot listen on {address}") as seen:
        start(tmp_path / "data", engine.port)
    assert "Traceback" not in str(seen.value)
    assert "--listen" in str(seen.value)


def test_serve_does_not_lay_a_data_directory_out_anew(tmp_path, monkeypatch):
    start(tmp_path / "data").kill()
    monkeypatch.setenv("PAYCHAN_PLACEMENT__SHARDS", "3")
    with pytest.raises(AssertionError, match="give another --datadir") as seen:
        start(tmp_path / "data")
    assert "Traceback" not in str(seen.value)
