"""The file of best claims has the money of every channel in it, and cannot lie about it."""

import json
from pathlib import Path

import msgspec
import pytest

from engine.channels.offline.best_claims import read_best_claims, write_best_claims
from engine.core.claim import signing_message
from engine.verify.schemes import verify
from tests.channels.world import Desk, channel_id, item
from tests.cli.serving import serving
from tests.cli.test_wal import build
from tests.cli.test_wal_copies import Load


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    """Three channels on both curves, one of them without a claim, after a clean stop."""
    make(tmp_path / "data", {"a": [10, 25], "b": [7], "idle": []})
    return tmp_path / "data"


def make(datadir: Path, claims: dict[str, list[int]]) -> None:
    desk = Desk(datadir / "shard-0000")
    desk.open(*claims)
    for name, amounts in claims.items():
        for sequence, amount in enumerate(amounts, 1):
            assert desk.words(item(name, amount, sequence)) == ["accepted"]
    desk.shard.close()


@pytest.fixture
def file(run, datadir, tmp_path: Path) -> Path:
    seen = run("best-claims", "export", datadir, "--output", tmp_path / "best")
    assert seen.code == 0, seen.err
    return tmp_path / "best"


def test_it_has_what_the_ledger_asks_for(file):
    head, *claims, end = [json.loads(line) for line in file.read_text().splitlines()]
    assert (head["channels"], head["total"]) == (2, "32")
    assert list(end) == ["sha256"]
    found = {claim["channel_id"]: claim for claim in claims}
    assert set(found) == {channel_id(name).hex().upper() for name in "ab"}
    best = found[channel_id("a").hex().upper()]
    assert (best["amount"], best["sequence"], best["position"]) == ("25", 2, "0-8")
    message = signing_message(channel_id("a"), 25)
    assert verify(bytes.fromhex(best["public_key"]), message, bytes.fromhex(best["signature"]))


def test_the_same_claims_make_the_same_bytes(run, datadir, file, tmp_path):
    run("best-claims", "export", datadir, "--output", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_a_good_file_is_found_good(run, datadir, file):
    seen = run("best-claims", "check", file, "--against", datadir)
    assert seen.code == 0
    assert (seen.line["ok"], seen.line["total"]) == (True, "32")


@pytest.mark.parametrize("line", range(4))
def test_a_changed_digit_is_noticed_whatever_line_it_is_in(run, file, line):
    lines = file.read_bytes().splitlines(keepends=True)
    place = max(index for index, byte in enumerate(lines[line]) if chr(byte) in "0123456789")
    changed = bytearray(lines[line])
    changed[place] = ord("1") if changed[place] != ord("1") else ord("2")
    file.write_bytes(b"".join([*lines[:line], bytes(changed), *lines[line + 1 :]]))
    assert run("best-claims", "check", file).code == 6


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_file_that_was_cut_short_is_refused(run, file, kept):
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:kept]))
    seen = run("best-claims", "check", file)
    assert (seen.code, "cut short" in seen.err) == (6, True)


def test_a_claim_over_more_than_was_signed_is_named_though_all_else_was_made_to_fit(run, file):
    first, *others = read_best_claims(file).claims.values()
    forged = msgspec.structs.replace(first, amount=str(first.drops + 1))
    write_best_claims(file, [forged, *others], {})
    seen = run("best-claims", "check", file)
    assert seen.code == 6
    assert seen.line["unsigned"] == [first.channel_id]


def test_it_says_which_channels_moved_on_and_which_lost_claims(run, file, tmp_path):
    make(tmp_path / "later", {"a": [10, 25, 40], "b": [7], "c": [1]})
    later = run("best-claims", "check", file, "--against", tmp_path / "later")
    assert later.code == 0
    assert [row["difference"] for row in later.lines[1:]] == ["older", "older"]
    make(tmp_path / "earlier", {"a": [10]})
    earlier = run("best-claims", "check", file, "--against", tmp_path / "earlier")
    assert earlier.code == 6
    assert sorted(row["difference"] for row in earlier.lines[1:]) == ["better", "missing"]
    assert "over 22 drops on 2 channels" in earlier.err


def test_a_claim_that_the_ledger_would_refuse_is_not_written(run, tmp_path):
    build(tmp_path / "data" / "shard-0000")
    seen = run("best-claims", "export", tmp_path / "data", "--output", tmp_path / "best")
    assert seen.code == 6
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("words", [(), ("DIR", "--server", "http://127.0.0.1:1")])
def test_one_source_must_be_given(run, tmp_path, words):
    assert run("best-claims", "export", *words, "--output", tmp_path / "best").code == 2


@pytest.mark.slow
def test_a_running_engine_and_its_directory_give_the_same_claims(run, tmp_path):
    with serving(tmp_path / "data") as served:
        load = Load(served.url)
        load.start()
        assert load.warm.wait(60)
        load.stopped.set()
        load.join(60)
        asked = run("best-claims", "export", "--server", served.url, "--output", tmp_path / "asked")
        assert asked.code == 0, asked.err
        assert served.stop() == 0
    read = run("best-claims", "export", tmp_path / "data", "--output", tmp_path / "read")
    assert (asked.line["channels"], asked.line["total"]) == (6, read.line["total"])
    assert run("best-claims", "check", tmp_path / "asked", "--against", tmp_path / "data").code == 0
    lines = [(tmp_path / name).read_text().splitlines()[1:-1] for name in ("asked", "read")]
    assert lines[0] == lines[1]
