"""Histories by the thousand: whatever goes wrong, every promise holds. A number is a history."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from engine.channels.shard import Shard
from engine.validation.dedup import RetryWindow
from engine.verify import pool, seal
from tests.lengths import often
from tests.simulation.disk import SimFiles
from tests.simulation.play import Played, play, stage, totals

QUICK = range(1, 41)
MANY = range(1_000, 1_000 + often(500, 2_000))
MANY_COVERED = range(5_000, 5_000 + often(100, 300))
AT_ONCE = 50

FOUND = (46, 86, 103)
"""Numbers under which a promise was broken once.

46, 86, 103: `verify` called a log damaged that had only been cut below a checkpoint.
"""


@pytest.fixture(autouse=True)
def on_stage() -> Iterator[None]:
    with stage():
        yield


def broken(numbers: Iterator[int] | range) -> list[str]:
    return [f"{number}: {one.broken}" for number in numbers if (one := play(number)).broken]


def play_some(first: int) -> list[Played]:
    with stage():
        return [play(number) for number in range(first, first + AT_ONCE)]


def test_every_promise_holds_in_the_first_histories():
    played = [play(number) for number in QUICK]
    assert [f"{one.number}: {one.broken}" for one in played if one.broken] == []
    counts = totals(played)
    least = {"promises": 1_000, "met": 800, "starts": 100, "proofs": 100, "faults": 80}
    assert {name: counts[name] for name in least if counts[name] < least[name]} == {}


@pytest.mark.slow
def test_every_promise_holds_in_hundreds_of_histories():
    # Processes of their own, and so a generator of their own for each number: order is nothing.
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        played = [one for some in workers.map(play_some, MANY[::AT_ONCE]) for one in some]
    assert [f"{one.number}: {one.broken}" for one in played if one.broken] == []
    assert len(played) == len(MANY)


@pytest.mark.slow
def test_every_promise_holds_where_the_newest_claim_covers_the_others():
    played = [play(number, "newest") for number in QUICK]
    assert [f"{one.number}: {one.broken}" for one in played if one.broken] == []
    assert totals(played)["covered"] > 100


@pytest.mark.slow
def test_every_promise_holds_in_hundreds_of_histories_with_covered_claims():
    played = [play(number, "newest") for number in MANY_COVERED]
    assert [f"{one.number}: {one.broken}" for one in played if one.broken] == []


def test_what_was_found_once_stays_mended():
    assert broken(iter(FOUND)) == []


def test_one_number_is_one_story():
    first, second = play(3), play(3)
    assert first == second
    assert len(first.story) > 20
    assert play(4).story != first.story


@pytest.mark.slow
def test_the_story_is_the_same_in_another_process():
    def told(seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation", "--number", "87"]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    assert told("1") == told("2")
    assert told("1").endswith("every promise held\n")


# It can fail --------------------------------------------------------------------------------------


def no_data_sync(patch: pytest.MonkeyPatch) -> None:
    real = SimFiles.sync

    def sync(self: SimFiles, handle: int, *, data_only: bool = False) -> None:
        if not data_only:
            real(self, handle)

    patch.setattr(SimFiles, "sync", sync)


def no_directory_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("wal.writer.sync_directory", lambda *_: None)


def answers_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shard, "_commit_staged", lambda _: None)


def no_seal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(seal, "compare_digest", lambda *_: True)


def no_probe(patch: pytest.MonkeyPatch) -> None:
    for module in (pool, seal):
        patch.setattr(module, "are_plausible", lambda *_: True)


def no_memory_of_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RetryWindow, "by_sequence", lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "remove",
    [
        no_data_sync,
        no_directory_sync,
        answers_before_the_commit,
        no_seal,
        no_probe,
        no_memory_of_answers,
    ],
)
def test_without_a_safeguard_a_promise_is_broken_soon(remove, monkeypatch):
    remove(monkeypatch)
    assert any(play(number).broken for number in range(1, 101))
