"""SIGKILL at any moment: this process keeps the acknowledgements, another one the log."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.channels.feed import Feed
from engine.channels.host import shard_directory
from engine.channels.journal import LogOptions, ShardJournal, verify_directory
from engine.channels.messages import (
    Status,
    decode_hello,
    decode_outcomes,
    decode_reply,
    decode_views,
    encode,
)
from engine.channels.recovery import recover, state_hash
from engine.core.events import ClaimReceived
from engine.core.types import Sequencing
from engine.validation.options import ValidationOptions
from engine.verify.seal import load_or_create_seal_key
from engine.verify.worker import VerifierWorker
from tests.channels.world import blob_of, channel_id, item, opening
from tests.lengths import often

ROUNDS = often(12, 24)
ROOT = Path(__file__).parents[2]
NAMES = ["a", "b", "c"]
CAPACITY = 10**9


class KilledError(Exception):
    """The process ended before it answered."""


class Victim:
    """The process, and how to ask it."""

    def __init__(self, datadir):
        command = [sys.executable, "-m", "tests.channels.victim", str(datadir)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hello = None

    def ask(self, step, *arguments):
        words = {bytes: "b", int: "i", str: "s"}
        texts = (arg.hex() if isinstance(arg, bytes) else arg for arg in arguments)
        marked = (f"{words[type(arg)]}:{text}" for arg, text in zip(arguments, texts, strict=True))
        try:
            self.process.stdin.write(f"{step} {' '.join(marked)}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer.endswith("\n"):
            raise KilledError
        return bytes.fromhex(answer)

    def greet(self):
        self.hello = decode_hello(self.ask("hello", "gateway", 0))

    def end(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                continue


class Oracle:
    """What was acknowledged, and what is to be asked next."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.acknowledged = {}
        self.asked = dict.fromkeys(NAMES, 0)

    def batch(self):
        """Claims not acknowledged yet first, then new ones; each amount says its number."""
        items = []
        for name in NAMES:
            known = self.acknowledged.get(name, 0)
            upto = max(self.asked[name], known + self.random.randrange(30))
            self.asked[name] = upto
            numbers = range(known + 1, upto + 1)
            items += [item(name, n * 3, None if name == "c" else n) for n in numbers]
        return items

    def take(self, items, answers):
        names = {channel_id(name): name for name in NAMES}
        for one, answer in zip(items, answers, strict=True):
            assert answer.status in (Status.ACCEPTED, Status.DUPLICATE), answer
            self.acknowledged[names[one.channel_id]] = one.amount // 3


def play(victim, oracle, verifier, up):
    """Ask until the process is killed; `up` is called once it is there."""
    turn = 0
    victim.greet()
    up()
    while True:
        items = oracle.batch()
        if not items:
            continue
        blob = blob_of(items)
        sealed = verifier.verify(blob)
        reply = decode_reply(
            victim.ask("commit", "gateway", victim.hello.epoch, turn, blob, sealed)
        )
        turn += 1
        assert reply.refused is None
        oracle.take(items, reply.answers)


def open_channels(victim):
    openings = [
        opening(
            name,
            capacity=CAPACITY,
            sequencing=Sequencing.AMOUNT if name == "c" else Sequencing.STRICT,
        )
        for name in NAMES
    ]
    outcomes = decode_outcomes(victim.ask("execute", encode(openings)))
    assert [outcome.rejected for outcome in outcomes] == [None] * len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_whenever_the_process_is_killed(tmp_path, seed):
    oracle, epochs = Oracle(seed), []
    seal_key = load_or_create_seal_key(tmp_path / "seal.key")
    verifier = VerifierWorker(seal_key)
    victim = Victim(tmp_path)
    open_channels(victim)
    victim.end()
    for number in range(ROUNDS):
        victim = Victim(tmp_path)
        killer = threading.Timer(oracle.random.random() * 0.7, victim.process.kill)
        at_work = number % 2  # every other round the clock runs from the start: it may end that too
        if not at_work:
            killer.start()
        try:
            play(victim, oracle, verifier, killer.start if at_work else lambda: None)
        except KilledError:
            pass
        finally:
            killer.cancel()
            victim.end()
        if victim.hello is not None:
            epochs.append(victim.hello.epoch)
    assert epochs == sorted(set(epochs))
    assert len(epochs) >= ROUNDS // 2
    assert sum(oracle.acknowledged.values()) > 10 * ROUNDS
    judge(tmp_path, oracle)


def judge(datadir, oracle):
    """Hold acknowledgements, balances and log against each other after one more start."""
    victim = Victim(datadir)
    victim.greet()
    views = decode_views(victim.ask("read", encode([channel_id(name) for name in NAMES])))
    victim.ask("close")
    victim.end()
    for name, view in zip(NAMES, views, strict=True):
        number = view.channel.sequence
        assert oracle.acknowledged[name] <= number <= oracle.asked[name]
        assert view.channel.claimed == number * 3
    accepted = [event for _, event in Feed(datadir).events(0) if type(event) is ClaimReceived]
    for name, view in zip(NAMES, views, strict=True):
        numbers = [one.sequence for one in accepted if one.channel_id == channel_id(name)]
        assert numbers == list(range(1, view.channel.sequence + 1))
    assert verify_directory(shard_directory(datadir, 0)).damages == ()
    journal = ShardJournal(shard_directory(datadir, 0), LogOptions(segment_bytes=65_536))
    states = [
        recover(journal, ValidationOptions().retries, from_genesis=whole) for whole in (False, True)
    ]
    journal.close()
    assert len({state_hash(state.actors) for state in states}) == 1
