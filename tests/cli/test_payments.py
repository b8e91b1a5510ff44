"""`paychan payments …` on every kind of store without a server: what it prints, how it ends."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.cli.payments.paying import ROUTE_BYTES_MAX
from engine.gateway.payments import answers
from engine.payments import FailureReason, PaymentDB, open_payment_db
from engine.payments.records import Problem, VerifyReport
from tests.builders import text_table
from tests.payments.builders import R2, RB, begun, last_hop, make_record, mk, shard

KINDS = ("lmdb", "sqlite")
PREIMAGE = sha256(b"preimage").digest()
HASH = sha256(PREIMAGE).hexdigest().upper()
OTHER = "AB" * 32
CREATED = "2026-01-02T03:04:05.123456789Z"
PART = last_hop(shard(), amount_to_forward_msat=185)


@pytest.fixture(params=KINDS)
def url(request, tmp_path, monkeypatch) -> str:
    """The URL of a store that is not there yet; the environment names it."""
    monkeypatch.chdir(tmp_path)
    url = {"lmdb": "lmdb:///pay", "sqlite": "sqlite:///pay.db"}[request.param]
    monkeypatch.setenv("PAYCHAN_PAYMENTS_DB", url)
    return url


@pytest.fixture
def ask(run, url):
    """Run a verb on the store."""

    def call(*words: object, given: str | None = None):
        return run("payments", *words, given=given)

    return call


@pytest.fixture
def store(url) -> PaymentDB:
    """The store, made."""
    with open_payment_db(url) as store:
        yield store


def route_file(folder: Path, route=R2) -> Path:
    (folder / "route.json").write_text(json.dumps(answers.route(route)))
    return folder / "route.json"


def begin(ask, one: str = HASH, *more: object):
    seen = ask("init", one, "--value-msat", 555, *more)
    assert seen.code == 0, seen.err
    return seen.line


# The life of a payment --------------------------------------------------------------------------


def test_a_payment_goes_from_its_beginning_to_its_end(ask, tmp_path):
    begun_ = begin(ask, HASH, "--payment-request", "lnbc1", "--created-at", CREATED)
    assert (begun_["status"], begun_["created_at"]) == ("INITIATED", CREATED)
    tried = ask("attempt", HASH, "--route", route_file(tmp_path)).line
    index = tried["attempt_index"]
    assert tried["attempts"][0]["route"]["hops"][1]["mpp"] == answers.hop(R2.hops[1])["mpp"]
    failed = ask("fail", HASH, "--attempt-index", index, "--reason", "unreadable").line
    assert failed["attempts"][0]["failure"]["reason"] == "UNREADABLE"
    given = route_file(tmp_path).read_text()
    again = ask("attempt", "--payment-hash", HASH, "--route", "-", given=given).line
    assert again["attempt_index"] > index
    assert ask("in-flight").line["identifier"] == HASH
    settled = ask("settle", HASH, "--preimage", PREIMAGE.hex(), "--settled-at", CREATED)
    assert settled.code == 0
    assert settled.line["status"] == "SUCCEEDED"
    assert ask("in-flight").out == ""
    shown = ask("show", HASH.lower()).line
    assert shown == settled.line
    assert shown["attempts"][1]["settle"] == {
        "preimage": PREIMAGE.hex().upper(),
        "settled_at": CREATED,
    }
    assert ask("list").line == shown


def test_a_payment_that_is_given_up_fails_and_may_begin_again(ask):
    begin(ask)
    assert ask("fail", HASH, "--reason", "NO_ROUTE").line["status"] == "FAILED"
    again = begin(ask)
    assert (again["sequence_number"], again["status"]) == (2, "INITIATED")


def test_records_and_hashes_are_kept(ask, tmp_path):
    seen = begin(ask, HASH, "--record", "65537=AB12", "--record", "65538=")
    assert seen["first_hop_custom_records"] == {"65537": "AB12", "65538": ""}
    words = ("--attempt-index", 7, "--attempt-hash", OTHER, "--attempted-at", CREATED)
    tried = ask("attempt", HASH, "--route", route_file(tmp_path), *words).line
    (made,) = tried["attempts"]
    assert (made["attempt_index"], made["payment_hash"]) == (7, OTHER)
    assert made["attempted_at"] == CREATED


def test_a_preimage_is_held_against_the_hash_of_its_attempt(ask, tmp_path):
    begin(ask)
    own = sha256(b"\x01" * 32).hexdigest()
    words = ("--attempt-hash", own, "--attempt-index", 1)
    ask("attempt", HASH, "--route", route_file(tmp_path), *words)
    wrong = ask("settle", HASH, "--preimage", PREIMAGE.hex())
    assert (wrong.code, wrong.out) == (4, "")
    assert f"is not {own.upper()}" in wrong.err
    assert ask("show", HASH).line["status"] == "IN_FLIGHT"
    assert ask("settle", HASH, "--preimage", "01" * 32).line["status"] == "SUCCEEDED"


def test_a_preimage_of_another_kind_is_taken_unchecked(ask, tmp_path):
    begin(ask)
    ask("attempt", HASH, "--route", route_file(tmp_path))
    assert ask("settle", HASH, "--preimage", OTHER, "--unchecked").code == 0


def test_the_attempt_must_be_named_where_more_than_one_is_in_flight(ask, tmp_path):
    begin(ask)
    ids = [
        ask("attempt", HASH, "--route", route_file(tmp_path, PART)).line["attempt_index"]
        for _ in range(2)
    ]
    seen = ask("settle", HASH, "--preimage", PREIMAGE.hex())
    assert seen.code == 2
    assert f"in flight: {ids[0]}, {ids[1]}" in seen.err
    assert ask("settle", HASH, "--preimage", PREIMAGE.hex(), "--attempt-index", ids[1]).code == 0


REFUSALS = """
    verb    words                                            code refusal
    show    UNKNOWN                                          3    payment_not_initiated
    settle  UNKNOWN,--preimage,PREIMAGE                      3    payment_not_initiated
    fail    UNKNOWN,--reason,ERROR                           3    payment_not_initiated
    delete  UNKNOWN                                          3    payment_not_initiated
    attempt UNKNOWN,--route,route.json                       3    payment_not_initiated
    fail    HASH,--reason,INTERNAL,--attempt-index,5         3    attempt_not_found
    settle  HASH,--preimage,PREIMAGE,--attempt-index,5       3    attempt_not_found
    init    HASH,--value-msat,5                              4    payment_in_flight
    delete  HASH                                             4    payment_in_flight
    attempt HASH,--route,route.json                          4    value_exceeds_amt
    attempt HASH,--route,route.json,--attempt-index,1        4    attempt_exists
    attempt HASH,--route,route.json,--attempt-index,0        4    attempt_index_zero
    init    UNKNOWN,--value-msat,5,--record,1=AB             4    custom_record_type
    list    --creation-date-start,9,--creation-date-end,8    2    dates_reversed
    show    HASH,--sequence-number,9                         3    no_duplicate_bucket
    delete  --yes                                            2    delete_flags
    delete  --yes,--all,--failed-only                        2    delete_flags
    delete  --yes,--all,--failed-attempts-only               2    delete_flags
    fail    HASH,--reason,UNREADABLE                         2    reason
    fail    HASH,--reason,TIMEOUT,--attempt-index,1          2    reason
"""


@pytest.mark.parametrize(
    "row", text_table(REFUSALS), ids=lambda row: f"{row['verb']}-{row['words']}"
)
def test_a_refusal_has_its_code_and_changes_nothing(ask, tmp_path, row):
    begin(ask)
    ask("attempt", HASH, "--route", route_file(tmp_path), "--attempt-index", 1)
    before = ask("show", HASH).line
    names = {"UNKNOWN": OTHER, "HASH": HASH, "PREIMAGE": PREIMAGE.hex()}
    seen = ask(row["verb"], *(names.get(word, word) for word in row["words"].split(",")))
    assert (seen.code, seen.out) == (int(row["code"]), "")
    assert seen.err.startswith(f"paychan: {row['refusal']}:")
    assert ask("show", HASH).line == before


# Lists ------------------------------------------------------------------------------------------

# Six payments at the seconds 1 to 6; the second is gone, the sixth has settled (table L).
LISTS = """
    words                                      numbers
    --include-incomplete                       1,3,4,5,6
    -                                          6
    --include-incomplete,--index-offset,4      5,6
    --include_incomplete,--index_offset,4      5,6
    --include-incomplete,--max,2               1,3
    --include-incomplete,--max-payments,2      1,3
    --include-incomplete,--max,0               1,3,4,5,6
    --include-incomplete,--max,18446744073709551615    1,3,4,5,6
    --include-incomplete,--reversed,--max,2    5,6
    --include-incomplete,--reversed,--index-offset,4   1,3
    --include-incomplete,--creation-date-start,6       6
    --include-incomplete,--creation-date-end,4         1,3,4
    --include-incomplete,--creation-date-end,1970-01-01T00:00:04Z  1,3,4
    --include-incomplete,--index-offset,18446744073709551615  -
"""


@pytest.fixture
def six(store) -> PaymentDB:
    ids = [begun(store, created_at_ns=second * 1_000_000_000) for second in range(1, 7)]
    store.delete_payment(ids[1])
    (paid,) = mk(store, ["Succeeded"])
    record = store.fetch_payment(paid)
    store.delete_payment(paid)
    store.register_attempt(ids[5], last_attempt(record))
    store.settle_attempt(ids[5], record.attempts[-1].attempt_index, record.attempts[-1].settle)
    return store


def last_attempt(payment):
    return replace(payment.attempts[-1], settle=None)


@pytest.mark.parametrize("row", text_table(LISTS), ids=lambda row: row["words"])
def test_a_list_is_what_was_asked_for(ask, six, row):
    seen = ask("list", *(row["words"].split(",") if row["words"] != "-" else ()))
    assert seen.code == 0
    numbers = [str(line["sequence_number"]) for line in seen.lines]
    assert (",".join(numbers) or "-") == row["numbers"]


def test_a_long_list_is_asked_for_in_pages(ask, six, monkeypatch):
    monkeypatch.setattr("engine.cli.payments.looking.PAGE", 2)
    seen = ask("list", "--include-incomplete", "--count-total")
    assert [line.get("sequence_number") for line in seen.lines] == [1, 3, 4, 5, 6, None]
    assert seen.lines[-1] == {
        "first_index_offset": 1,
        "last_index_offset": 6,
        "total_count": 5,
    }
    assert len(ask("list", "--include-incomplete", "--max", 3).lines) == 3
    for count in (4, 6, 2**64 - 1):
        older = ask("list", "--include-incomplete", "--reversed", "--max", count).lines
        assert [line["sequence_number"] for line in older] == [1, 3, 4, 5, 6][-count:]
    few = ask("list", "--reversed", "--max", 9, "--creation-date-end", 1, "--count-total").lines
    assert [line["total_count"] for line in few] == [5]
    newest = ask("list", "--include-incomplete", "--reversed", "--max", 3).lines
    assert [line["sequence_number"] for line in newest] == [4, 5, 6]


def test_hops_can_be_left_out(ask, six):
    whole, short = ask("list").line, ask("list", "--omit-hops").line
    assert "hops" not in short["attempts"][0]["route"]
    del whole["attempts"][0]["route"]["hops"]
    assert short == whole


def test_an_empty_list_says_that_something_is_hidden(ask, store):
    assert ask("list").err == ""
    begun(store)
    assert "--include-incomplete shows the others" in ask("list").err
    assert ask("list", "--include-incomplete").err == ""


def test_duplicates_stand_in_their_place(ask, store):
    store.write_records([make_record(1, duplicates=(2, 5)), make_record(3)])
    lines = ask("list", "--include-incomplete").lines
    assert [(line["sequence_number"], line.get("is_duplicate")) for line in lines] == [
        (1, None),
        (2, True),
        (3, None),
        (5, True),
    ]
    one = lines[0]["identifier"]
    found = ask("show", one, "--sequence-number", 5).line
    assert {"is_duplicate": True, **found} == lines[3]


def test_a_blinded_route_is_shown(ask, tmp_path):
    seen = ask("init", HASH, "--value-msat", 1_000)
    seen = ask("attempt", HASH, "--route", route_file(tmp_path, RB))
    assert seen.line["attempts"][0]["route"]["hops"][2]["blinded_total_msat"] == "1000"


# Deletion ---------------------------------------------------------------------------------------

CHOICES = """
    words                                deleted left attempts
    --all                                2       1    2
    --failed-only                        1       2    4
    --failed-attempts-only               0       3    3
    --failed-only,--failed-attempts-only 0       3    4
"""


@pytest.mark.parametrize("row", text_table(CHOICES), ids=lambda row: row["words"])
def test_many_are_deleted_by_what_they_are(ask, store, row):
    mk(store, ["Failed", "Succeeded", "InFlight"])
    seen = ask("delete", *row["words"].split(","), "--yes")
    assert (seen.code, seen.line) == (0, {"deleted": int(row["deleted"])})
    left = ask("list", "--include-incomplete").lines
    assert len(left) == int(row["left"])
    assert sum(len(each["attempts"]) for each in left) == int(row["attempts"])


def test_many_are_not_deleted_where_nobody_was_asked(ask, store):
    mk(store, ["Failed"])
    seen = ask("delete", "--all")
    assert seen.code == 2
    assert "this deletes every payment that is not in flight; give --yes" in seen.err
    assert len(ask("list", "--include-incomplete").lines) == 1


def test_one_payment_is_deleted_or_its_failed_attempts(ask, store):
    one = mk(store, ["Succeeded"])[0].hex()
    assert ask("delete", one, "--failed-attempts-only").line == {"deleted": 0}
    assert len(ask("show", one).line["attempts"]) == 1
    assert ask("delete", "--payment-hash", one).line == {"deleted": 1}
    assert ask("show", one).code == 3


@pytest.mark.parametrize("flag", ["--all", "--failed-only"])
def test_a_hash_and_many_exclude_another(ask, store, flag):
    one = mk(store, ["Failed"])[0].hex()
    assert ask("delete", one, flag, "--yes").code == 2
    assert ask("show", one).code == 0


# Verification -----------------------------------------------------------------------------------


def test_a_sound_store_is_said_to_be(ask, store):
    mk(store, ["Failed", "InFlight"])
    seen = ask("verify")
    assert seen.code == 0
    assert seen.line == {
        "ok": True,
        "payments": 2,
        "attempts": 4,
        "duplicates": 0,
        "problem_count": 0,
        "problems": [],
    }


def test_what_is_kept_and_not_true_has_a_code_of_its_own(ask, store, monkeypatch):
    mk(store, ["Failed"])
    problem = Problem(bytes(32), "status", "SUCCEEDED", "FAILED")
    report = VerifyReport(1, 2, 0, 1, (problem,))
    monkeypatch.setattr(type(store), "verify", lambda self, progress=None: report)
    seen = ask("verify")
    assert seen.code == 6
    assert (seen.line["ok"], seen.line["problems"][0]["what"]) == (False, "status")
    assert "1 things are kept that the attempts do not say" in seen.err


# Input ------------------------------------------------------------------------------------------

BAD_WORDS = [
    ("init AB --value-msat 5", "is 1 bytes; a payment hash is 32 bytes"),
    ("init --value-msat 5", "give the payment hash"),
    (f"init {HASH} --payment-hash {OTHER} --value-msat 5", "name two payments"),
    (f"init {HASH}", "Missing option '--value-msat'"),
    (f"init {HASH} --value-msat -5", "is not whole millisatoshis"),
    (
        f"init {HASH} --value-msat=-5",
        "'-5' is not whole millisatoshis from 0 to 184467440737095516",
    ),
    (f"init {HASH} --value-msat 18446744073709551616", "is not whole millisatoshis"),
    (f"init {HASH} --value-msat 1.5", "is not whole millisatoshis"),
    (f"init {HASH} --value-msat 5 --created-at yesterday", "a time such as 2026-01-02T03:04:05"),
    (f"init {HASH} --value-msat 5 --record 65536", "give one like 65536=AB12"),
    (f"init {HASH} --value-msat 5 --record 65536=x", "give one like 65536=AB12"),
    ("list --index-offset 18446744073709551616", "is not a sequence number from 0 to"),
    ("list --max x", "is not a count from 0 to"),
    ("list --creation-date-start noon", "a time such as"),
    (f"settle {HASH} --preimage AB", "is 1 bytes; it is 32 bytes"),
    (f"fail {HASH} --reason BORED", "is not one of"),
    (f"fail {HASH} --reason ERROR --attempt-index 9223372036854775808", "is not an attempt index"),
    (f"attempt {HASH} --route missing.json", "No such file"),
]


@pytest.mark.parametrize(("line", "says"), BAD_WORDS, ids=[line for line, _ in BAD_WORDS])
def test_a_bad_word_is_wrong_usage_and_makes_no_store(ask, tmp_path, line, says):
    seen = ask(*line.split())
    assert (seen.code, seen.out) == (2, "")
    assert says in " ".join(seen.err.split())
    assert list(tmp_path.iterdir()) == []


BAD_ROUTES = [
    (b"", "body: "),
    (b"[]", "body: Expected `object`"),
    (b"\xff\xfe", "body: "),
    (b"[" * 100_000, "body: "),
    (b"[1," * 70_000, "body: more than 65536 values"),
    (b" " * (ROUTE_BYTES_MAX + 1), "a route has at most 2097152 bytes"),
    (b'{"hops": []}', "total_time_lock: "),
]


@pytest.mark.parametrize(("data", "says"), BAD_ROUTES, ids=range(len(BAD_ROUTES)))
def test_a_route_that_is_none_is_wrong_usage(ask, tmp_path, data, says):
    begin(ask)
    (tmp_path / "bad.json").write_bytes(data)
    seen = ask("attempt", HASH, "--route", tmp_path / "bad.json")
    assert (seen.code, seen.out) == (2, "")
    assert seen.err.startswith(f"paychan: {says}")
    assert ask("show", HASH).line["attempts"] == []


def test_a_reason_that_the_store_gives_is_known_to_the_command(ask):
    begin(ask)
    for reason in FailureReason:
        assert ask("fail", HASH, "--reason", reason.name).line["failure_reason"] == reason.name
