"""A store outlives its process: killed anywhere, it is as after the last call that returned."""

import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from engine.payments import PaymentDB, open_payment_db
from tests.payments.builders import everything, make_record, state_of_store
from tests.payments.model import ModelDB
from tests.payments.victim import calls, do

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ROUNDS = 4


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a victim; return when it has opened the store."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.payments.victim", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    return victim


def kill(victim: subprocess.Popen[str], instructions: int) -> list[str]:
    """Let some instructions pass, kill it, return what it had left to say."""
    for _ in range(instructions):
        pass
    victim.kill()
    assert victim.stdout is not None
    with victim.stdout as output:
        lines = output.read().splitlines()
    victim.wait()
    return lines


def seen(store: PaymentDB) -> tuple[object, object]:
    return state_of_store(store), store.counters().sequence_number


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_process_leaves_what_its_calls_left(url, seed):  # row 273
    choice = random.Random(seed)
    model, done = ModelDB(), 0
    for _ in range(ROUNDS):
        victim = start(url, seed, done)
        outcomes = [victim.stdout.readline().strip() for _ in range(choice.randrange(60))]
        outcomes += kill(victim, choice.randrange(200_000))
        following = islice(calls(seed), done, None)
        assert [do(next(following), model) for _ in outcomes] == outcomes
        done += len(outcomes)
        with open_payment_db(url) as store:
            found = seen(store)
            if found != seen(model):  # the call under way is there as well, whole
                do(next(following), model)
                done += 1
                assert found == seen(model)
    assert done > 20
    assert len(everything(model).payments) > 3


def test_a_long_delete_that_is_cut_off_leaves_whole_payments(url):
    total = 6_000
    with open_payment_db(url) as store:
        for first in range(1, total, 1_000):
            store.write_records([make_record(first + step) for step in range(1_000)])
    victim = start(url, "delete")
    with open_payment_db(url) as watcher:
        while watcher.counters().payments == total:  # until its first transaction is done
            assert victim.poll() is None
    kill(victim, 0)
    with open_payment_db(url) as store:
        left = store.counters().payments
        assert store.verify().is_sound
        assert store.verify().payments == left < total
        assert store.delete_payments() == left
        assert store.counters().payments == 0
