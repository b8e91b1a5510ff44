"""Benchmarks do not rot: each runs at its smallest and prints the fields that it promises."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench.baseline import RIVALS, BaselineConfig, kind_of
from bench.baseline import run as run_baseline
from bench.frames import Plan, plans, read_frames, write_frames
from bench.rivals import Account
from bench.signing import make_payer, sign
from bench.stores import STORES
from bench.tradeoff import TradeoffConfig
from bench.tradeoff import run as run_tradeoff
from bench.wal import BATCHES, Claims
from engine.core.claim import signing_message
from engine.verify.schemes import verify

HEAD = {"name", "commit", "machine", "cores", "config", "seconds"}
FIGURES = {
    "accepted_per_s", "p50_ms", "p99_ms", "p999_ms", "max_ms", "ceiling_verify_per_s",
    "ratio_to_ceiling", "fsyncs", "bytes_per_claim", "rss_mb", "cpu_s",
}  # fmt: skip


def line_of(*arguments: str) -> dict[str, object]:
    """Return the line of `paychan bench`."""
    command = [sys.executable, "-m", "engine.cli.main", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LIKE = Plan(
    path="", first=0, last=0, step=1, curve="secp256k1", claims=0, claims_per_frame=3
)  # fmt: skip


def test_the_load_is_signed_as_the_ledger_wants_it_and_in_order(tmp_path):
    like = msgspec.structs.replace(LIKE, curve="mixed")
    (plan,) = plans(tmp_path, (0, 4), 1, 10, like)
    payers = {make_payer(number, "mixed").channel_id: number for number in range(4)}

    written = write_frames(plan)
    frames = list(read_frames(plan.path))

    assert written == len(frames) == 4

    claims = [claim for frame in frames for claim in msgspec.msgpack.decode(frame)[1]]
    assert [sequence for _, sequence, _, _ in claims] == [1] * 4 + [2] * 4 + [3] * 2
    for channel_id, _, amount, signature in claims:
        key = make_payer(payers[channel_id], "mixed").public_key
        assert verify(key, signing_message(channel_id, amount), signature)


def claims_of(plan):
    write_frames(plan)
    frames = [msgspec.msgpack.decode(frame) for frame in read_frames(plan.path)]
    assert [number for number, _ in frames] == list(range(len(frames)))
    return [tuple(claim) for _, claims in frames for claim in claims]


def test_uniform_claims_are_split_over_connections_and_none_is_lost(tmp_path):
    parts = plans(tmp_path, (10, 17), 3, 70, msgspec.structs.replace(LIKE, signed=False))
    sent = [claim for plan in parts for claim in claims_of(plan)]

    channels = {make_payer(number, "secp256k1").channel_id for number in range(10, 17)}
    assert Counter(channel for channel, *_ in sent) == dict.fromkeys(channels, 10)
    assert {sequence for _, sequence, _, _ in sent} == set(range(1, 11))


def test_claims_by_zipf_keep_to_their_connection_and_the_first_rank_has_most(tmp_path):
    like = msgspec.structs.replace(LIKE, signed=False, spread="zipf", sequenced=False)
    ours, theirs = (claims_of(plan) for plan in plans(tmp_path, (0, 100), 2, 6_000, like))

    assert len(ours) == len(theirs) == 3_000
    assert {sequence for _, sequence, _, _ in ours} == {None}
    count = Counter(channel for channel, *_ in ours)
    assert not set(count) & {channel for channel, *_ in theirs}
    first, third = (count[make_payer(number, "secp256k1").channel_id] for number in (0, 2))
    assert first == max(count.values())
    assert 2 < first / third < 4.5


@pytest.mark.parametrize("curve", ["secp256k1", "ed25519"])
def test_a_payer_is_the_same_every_time_and_signs_on_its_curve(curve):
    payer = make_payer(7, curve)

    assert payer == make_payer(7, curve)
    assert payer.on_ed25519 == (curve == "ed25519")
    assert verify(payer.public_key, signing_message(payer.channel_id, 5), sign(payer, 5))


@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_accepts_every_good_claim(rival):
    line = run_baseline(BaselineConfig(claims=60, rivals=(rival,)))

    assert set(line) >= HEAD | {"accepted_per_s"}
    assert line["accepted"] >= 60
    assert [row["rival"] for row in line["rows"]] == [rival]


def taker(rival, tmp_path):
    payer = make_payer(1, "secp256k1")
    kind = kind_of(rival)
    kind.prepare(str(tmp_path), [Account(payer.channel_id, payer.public_key)])
    return payer, kind.worker(str(tmp_path))


@pytest.mark.parametrize("rival", [rival for rival in RIVALS if rival != "postgresql"])
def test_a_rival_refuses_what_does_not_continue_its_channel_or_is_not_signed(rival, tmp_path):
    payer, worker = taker(rival, tmp_path)

    assert worker.take(payer.channel_id, 1, 10, sign(payer, 10))
    assert not worker.take(payer.channel_id, 1, 10, sign(payer, 10))
    assert not worker.take(payer.channel_id, 3, 30, sign(payer, 30))
    assert not worker.take(payer.channel_id, 2, 10, sign(payer, 10))
    assert not worker.take(payer.channel_id, 2, 20, sign(payer, 21))
    assert worker.take(payer.channel_id, 2, 20, sign(payer, 20))
    worker.close()


def test_a_rival_whose_library_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "bench.rivals.eventsourced", None)
    with pytest.raises(ModuleNotFoundError, match="--only xrpl-sqlite --only postgresql"):
        kind_of("eventsourcing")


def test_the_claims_of_the_comparison_continue_their_channels_and_are_signed_once():
    claims = Claims(channels=3)
    made = [event for size in (2, 5) for event in claims.batch(size)]

    assert [event.sequence for event in made] == [1, 1, 1, 2, 2, 2, 3]
    assert len({event.channel_id for event in made}) == 3
    assert len({event.signature for event in made}) == len(made)
    assert {len(event.signature) for event in made} == {64}


@pytest.mark.slow
def test_the_log_benchmark_has_a_row_for_each_store_and_batch_size():
    line = line_of("wal", "--rounds", "1", "--channels", "100")

    assert set(line) >= HEAD | {"rows"}
    rows = {(row["store"], row["batch"]): row for row in line["rows"]}
    assert set(rows) == {(name, size) for name in STORES for size in BATCHES}
    assert all(row["appends_per_s"] > 0 and row["ratio_to_append"] > 0 for row in rows.values())
    assert all(rows["paychan", size]["bytes_per_claim"] <= 90 for size in BATCHES if size >= 8)
    assert rows["append", 8]["ratio_to_append"] == 1


def test_a_rival_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ModuleNotFoundError, match="--without lmdb"):
        STORES["lmdb"](tmp_path / "lmdb")


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["ws", "inprocess"])
def test_every_claim_of_the_benchmark_is_accepted_and_found_in_the_log(transport):
    """The other ways in, and other signatures, are parts of `bench all`: see `test_cases`."""
    line = line_of(
        "claims", "--seconds", "1", "--channels", "64", "--rate", "1500", "--transport", transport,
        "--runtime", "ray" if transport == "ws" else "inline",
    )  # fmt: skip

    assert set(line) >= HEAD | FIGURES
    assert set(line["answered"]) == {"accepted"}
    assert line["logged"] == line["answered"]["accepted"] > 500
    assert line["log_holds_all"] is True
    assert line.get("exit_code", 0) == 0


def test_prechecked_signatures_are_a_matter_of_the_bench_alone():
    root = Path(__file__).parents[2]
    assert not [
        file
        for file in (root / "engine").rglob("*.py")
        if "precheck" in file.read_text() and file.name != "bench.py"
    ]


@pytest.mark.slow
def test_the_memory_benchmark_counts_bytes_a_channel():
    line = line_of("memory", "--channels", "400")

    assert set(line) >= HEAD | {"bytes_per_channel", "mib_per_dedicated_channel", "opened_per_s"}
    assert 0 < line["bytes_per_channel"] < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("snapshot", [(), ("--snapshot", "--shards", "2", "--tail", "300")])
def test_the_recovery_benchmark_replays_all_and_takes_a_claim_after_the_kill(snapshot):
    line = line_of("recovery", "--events", "12000", "--channels", "100", *snapshot)

    assert set(line) >= HEAD | {"events", "channels", "seconds_to_ready", "events_per_s"}
    assert line["events"] == 12_000
    assert line["events_replayed"] == (600 if snapshot else 12_000)
    assert line["snapshot_used"] is bool(snapshot)
    assert line["seconds_from_kill_to_claim"] > 0
    assert line["same_state"] is True


@pytest.mark.slow
def test_checkpoints_cost_bytes_and_save_replay(tmp_path):
    config = TradeoffConfig(events=3_000, channels=50, distances=(500, 1_500))
    near, far = run_tradeoff(config, tmp_path, lambda done, total: None)

    assert (near["events_replayed"], far["events_replayed"]) == (499, 1_499)
    assert (near["checkpoints"], far["checkpoints"]) == (6, 2)
    assert near["checkpoint_bytes_per_event"] > far["checkpoint_bytes_per_event"] > 0
