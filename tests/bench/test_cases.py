"""What the cases of `bench claims` make of what they saw, and what `bench all` runs again."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench import suite
from bench.cases import growth, overload, points
from bench.options import ClaimsConfig
from bench.stream import Percentiles, Slice, Tally
from engine.cli.bench import all_parts
from engine.config import load_config
from engine.verify.batch import CLAIMS_PER_BATCH_MAX
from tests.bench.lines import line
from tests.bench.test_bench import FIGURES, HEAD

NOTHING = Percentiles()
PLAIN = {"ws", "ed25519", "mixed", "prechecked", "ws-single", "http", "http-single"}
"""Parts that are one run of claims, of which each is to be accepted."""


def tally_of(slices, begun=100.0):
    return Tally(
        answered={},
        begun=begun,
        seconds=1.0,
        latency=NOTHING,
        good=NOTHING,
        refusal=NOTHING,
        cpu_s=0.0,
        messages=0,
        exhausted=False,
        lost=False,
        slices=slices,
    )


def moment(until, max_ms, accepted=5, refused=0):
    return Slice(until, accepted, refused, Percentiles(1.0, max_ms, max_ms, max_ms))


def test_growth_is_told_slice_by_slice_with_the_memory_of_its_end():
    slices = [Slice(102.0, 10, 0, NOTHING), Slice(103.0, 10, 0, NOTHING)]
    rows = growth.growth_rows(tally_of(slices), [(100.0, 1.0), (101.9, 2.0), (102.5, 3.0)])

    assert [row["claims"] for row in rows] == [10, 20]
    assert [row["accepted_per_s"] for row in rows] == [5, 10]
    assert [row["memory_mb"] for row in rows] == [2.0, 3.0]


def test_the_last_quarter_of_a_growth_is_set_beside_the_first():
    names = ("accepted_per_s", "p50_ms", "p99_ms", "memory_mb")
    rates = [100, 90, 1, 50, 50, 1, 45, 46]
    rows = [dict.fromkeys(names, rate) for rate in rates]

    assert growth.last_to_first(rows) == dict.fromkeys(names, round(45.5 / 95, 3))


@pytest.mark.parametrize(
    ("after", "normal"),
    [
        ([moment(110.25, 6.0)], 0.25),
        ([moment(110.25, 6.1), moment(110.5, 6.0)], 0.5),
        ([moment(110.25, 1.0, refused=1), moment(110.5, 1.0)], 0.5),
        ([moment(110.25, 1.0, accepted=0), moment(110.5, 1.0)], 0.5),
        ([moment(110.25, 7.0)], None),
    ],
)
def test_normal_is_a_moment_as_good_as_the_worst_before_the_flood(after, normal):
    before = [moment(99.0, 5.0), moment(99.5, 6.0)]
    during = [moment(105.0, 900.0), moment(110.1, 1.0)]
    probe = tally_of([*before, *during, *after])

    seen = overload._back_to_normal(probe, 100.0, 110.0)

    assert seen["normal_after_s"] == normal
    assert seen["probe_max_ms_before"] == 6.0
    assert seen["probe_max_ms_during"] == 900.0


def test_skew_is_told_beside_the_uniform_runs_before_and_after():
    rates = {"uniform, before": 90, "one channel": 50, "uniform, after": 110}
    rows = [{"point": name, "accepted_per_s": rate} for name, rate in rates.items()]

    told = points.beside_uniform({"rows": rows})

    assert told["uniform_per_s"] == 100
    assert [row["to_uniform"] for row in told["rows"]] == [0.9, 0.5, 1.1]


def test_a_window_is_shared_by_connections_and_a_call_is_alone():
    config = ClaimsConfig(window=1_024, connections=4, claims_per_frame=16)
    assert config.window_frames == 16
    assert replace(config, transport="http").window_frames == 1
    assert replace(config, channels=1).connection_count == 1
    assert replace(config, claims_per_frame=0, rate=1.0).per_frame == 16


SIZE = suite.Size()


def test_a_part_is_run_again_where_commit_or_size_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "commit_measured", lambda: "abc1234")
    results = suite.Results(tmp_path)
    known = line("ws", asked=msgspec.to_builtins(SIZE))
    results.keep(known)
    names = ["ws", "mixed"]

    assert results.lines() == [known]
    assert list(results.missing(names, SIZE, again=False)) == ["mixed"]
    assert list(results.missing(names, SIZE, again=True)) == names
    assert list(results.missing(names, replace(SIZE, seconds=9), again=False)) == names
    for commit in ("def5678", "abc1234-dirty"):
        monkeypatch.setattr(suite, "commit_measured", lambda commit=commit: commit)
        assert list(results.missing(names, SIZE, again=False)) == names
    results.keep(known | {"commit": "abc1234-dirty"})
    assert list(results.missing(names, SIZE, again=False)) == names


def test_the_help_names_every_part():
    told = set((all_parts.help or "").replace(".", " ").split())
    assert set(suite.PARTS) - told == set()


def full_points():
    parts = [part for part in suite.PARTS.values() if isinstance(part, partial)]
    return [point for part in parts for point in part.keywords.get("full", ())]


@pytest.mark.parametrize(("name", "changes"), full_points())
def test_the_engine_takes_the_settings_of_every_point_of_the_full_size(name, changes):
    settings = suite.FULL.base(**changes).environment()
    config, _ = load_config(None, dict(each.split("=", 1) for each in settings), {})
    assert config.lane.batch_claims_max <= CLAIMS_PER_BATCH_MAX


@pytest.mark.slow
@pytest.mark.parametrize("part", [name for name in suite.PARTS if name not in {"memory"}])
def test_every_part_runs_and_the_log_holds_what_was_accepted(part):
    told = suite.run_part(part, SIZE, lambda done, of: None)

    assert told["part"] == part
    assert told.get("log_holds_all", True)
    assert told.get("accepted_per_s", 1) > 0
    if part in PLAIN:
        assert set(told) >= HEAD | FIGURES
        assert set(told["answered"]) == {"accepted"}
        assert told["logged"] == told["answered"]["accepted"] > 0
        assert told.get("exit_code", 0) == 0


@pytest.mark.slow
def test_parts_that_are_named_are_run_and_kept_and_reported(tmp_path):
    command = [sys.executable, "-m", "engine.cli.main", "bench", "all", "--json"]
    named = ("--only", "ws", "--only", "idle")
    done = subprocess.run(
        [*command, *named, "--report", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr

    told = [json.loads(each) for each in done.stdout.splitlines()]
    assert [each["part"] for each in told] == ["ws", "idle"]
    for each in told:
        assert json.loads((tmp_path / f"{each['part']}.json").read_text()) == each
    assert Path(tmp_path, "report.md").exists()
