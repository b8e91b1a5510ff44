"""The rounds are played for real, and the oracle sees what it is there for."""

import os
import subprocess
import sys

import msgspec
import pytest

from bench.signing import STEP_DROPS
from engine.core.events import ClaimReceived
from tests.builders import make_event
from tests.faults import oracle, rounds
from tests.faults.oracle import Book, Ear, Judge, Question
from tests.faults.payers import Sent, Told, Word, Wrong, payer

SERIES = "test"
encode = msgspec.msgpack.Encoder().encode


def claim(channel, sequence, amount=None):
    amount = sequence * STEP_DROPS if amount is None else amount
    channel_id = payer(channel, SERIES).channel_id
    fields = {"channel_id": channel_id, "sequence": sequence, "amount": amount}
    return msgspec.structs.replace(make_event(ClaimReceived), **fields)


class Log:
    """What stands for the logs of shards 0 and 1."""

    def __init__(self):
        self.shards = ([], [])

    def add(self, shard, *events):
        self.shards[shard].extend(events)

    def events(self, shard, start):
        yield from list(enumerate(self.shards[shard], 1))[start - 1 :]


class Court:
    """An oracle that hears what the test says, and reads what the test wrote."""

    def __init__(self, folder):
        ear, self.mouth = os.pipe()
        self.file = folder / "acknowledged"
        self.book = Book(2)
        self.log = Log()
        self.judge = Judge(self.book, Ear(ear, self.file, self.book), folder, SERIES)
        self.judge._feed = self.log

    def hear(self, *words: Word):
        data = encode(list(words))
        os.write(self.mouth, len(data).to_bytes(4, "big") + data)

    def verdict(self):
        return self.judge.answer(Question("", 0.0, [0, 1]))


@pytest.fixture
def court(tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "PROOF_MAX_S", 0.0)
    court = Court(tmp_path)
    court.hear(Sent(0, 4), Sent(1, 4))
    yield court
    os.close(court.mouth)


def told(channel, *marks):
    return Told(1.0, 2.0, [(channel, sequence, position) for sequence, position in marks])


def counts(verdict):
    return verdict.checked, verdict.lost, verdict.invented, verdict.duplicates, verdict.refused


def test_what_was_acknowledged_and_stands_where_it_should_is_checked_once(court):
    court.log.add(0, claim(0, 1), claim(0, 2))
    court.hear(told(0, (1, "0-1")), told(0, (2, "0-2")))
    assert counts(court.verdict()) == (2, 0, 0, 0, 0)
    court.log.add(1, claim(1, 1))
    court.hear(told(1, (1, "1-1")))
    assert counts(court.verdict()) == (3, 0, 0, 0, 0)


def test_what_is_in_the_log_and_not_acknowledged_yet_is_checked_when_it_is(court):
    court.log.add(0, claim(0, 1))
    assert counts(court.verdict()) == (0, 0, 0, 0, 0)
    court.hear(told(0, (1, "0-1")))
    assert counts(court.verdict()) == (1, 0, 0, 0, 0)


def test_an_acknowledged_claim_that_the_log_lacks_is_lost(court):
    court.log.add(0, claim(0, 1))
    court.hear(told(0, (1, "0-1"), (2, "0-2"), (3, "0-3")))
    assert counts(court.verdict()) == (1, 2, 0, 0, 0)


@pytest.mark.parametrize("position", ["0-2", "1-1"], ids=["place", "shard"])
def test_a_claim_that_stands_elsewhere_than_was_told_is_lost(court, position):
    court.log.add(0, claim(0, 1))
    court.hear(told(0, (1, position)))
    assert counts(court.verdict()) == (1, 1, 0, 0, 0)


def test_two_answers_that_name_two_places_cannot_both_be_true(court):
    court.log.add(0, claim(0, 1))
    court.hear(told(0, (1, "0-1")), told(0, (1, "0-7")))
    assert counts(court.verdict()) == (1, 1, 0, 0, 0)


def test_a_claim_that_nobody_sent_is_invented(court):
    court.log.add(0, *(claim(0, sequence) for sequence in range(1, 6)))
    assert counts(court.verdict()) == (0, 0, 1, 0, 0)


def test_another_amount_than_was_signed_is_invented(court):
    court.log.add(0, claim(0, 1, 11))
    assert counts(court.verdict())[2] == 1


def test_a_claim_that_is_there_twice_is_a_duplicate(court):
    court.log.add(0, claim(0, 1), claim(0, 2), claim(0, 2))
    assert counts(court.verdict())[3] == 1


def test_a_good_claim_that_was_refused_is_counted(court):
    court.hear(Wrong(0, 3, "bad_signature"))
    verdict = court.verdict()
    assert verdict.refused == 1
    assert "bad_signature" in verdict.notes[0]


def test_balances_must_lie_between_what_was_told_and_what_was_sent(court):
    court.hear(told(0, (1, "0-1"), (2, "0-2")))
    court.verdict()
    compare = court.judge._compare_balances
    before = counts(court.judge._verdict)
    compare([2, 0], [(2 * STEP_DROPS, 2), (4 * STEP_DROPS, 4)])
    assert counts(court.judge._verdict) == before
    compare([2, 0], [(STEP_DROPS, 1), (0, 0)])
    assert court.judge._verdict.lost == before[1] + 1
    compare([2, 0], [(3 * STEP_DROPS, 2), (5 * STEP_DROPS, 5)])
    assert court.judge._verdict.invented == before[2] + 2


def test_what_the_oracle_counts_is_in_its_file_however_it_was_cut(court):
    data = encode([told(0, (1, "0-1"))])
    data = len(data).to_bytes(4, "big") + data
    court.log.add(0, claim(0, 1))
    for byte in data:
        os.write(court.mouth, bytes([byte]))
        court.judge._ear.catch_up()
    assert counts(court.verdict()) == (1, 0, 0, 0, 0)
    assert court.file.read_bytes().endswith(data)


def test_the_whole_log_is_judged_again_at_the_end(court):
    court.log.add(0, claim(0, 1))
    court.hear(told(0, (1, "0-1")))
    court.verdict()
    court.log.shards[0].clear()
    verdict = oracle.whole(court.judge, Question("", 0.0, [0, 1]), court.book)
    assert (verdict.acknowledged, *counts(verdict)) == (1, 0, 1, 0, 0, 0)


def test_processes_are_found_by_their_mark_and_ended():
    mark = f"test-{os.getpid()}"
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, env=os.environ | {rounds.MARK: mark}
    ) as process:
        process.stdout.readline()
        assert list(rounds.marked(mark)) == [process.pid]
        assert rounds.marked(mark[:-1]) == {}
        rounds.kill([process.pid])
        process.wait()
        rounds.end_all(mark)
        assert rounds.marked(mark) == {}


def test_a_number_decides_whom_the_rounds_kill_and_every_kind_comes_up():
    plans = [[rounds.plan(number, index)[:2] for index in range(200)] for number in (5, 5, 6)]
    assert plans[0] == plans[1] != plans[2]
    assert {victim for _, victim in plans[0]} == set(rounds.VICTIMS)


@pytest.mark.slow
def test_nothing_is_lost_or_invented_when_processes_are_killed_under_load():
    """Number 155 kills a verifier, a shard and the raylet, and with it the gateway."""
    campaign, damages = rounds.play_rounds(3, 155, lambda done, total, what: None)
    row = rounds.row_of(campaign, damages, 0.0)
    assert row.good, row
    assert row.acknowledged_checked > 100
    assert {one.victim for one in campaign.rounds} == {"shard", "verifier", "raylet"}
