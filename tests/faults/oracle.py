"""The oracle of the rounds: keeps every acknowledgement on a disk of its own, and judges by them.

It hears the payers through a pipe and writes what they say to its file before it counts it. Asked
on standard input, it reads every balance strongly and the log from where it had stopped, and holds
all of it against what was acknowledged: in the log at the very position that was told, once, in
order, and nothing there that no payer ever sent.
"""

import argparse
import array
import asyncio
import fcntl
import os
import select
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.signing import STEP_DROPS
from engine.channels.feed import Feed
from engine.client import Client
from engine.core.events import ClaimReceived
from tests.faults.payers import Sent, Told, Word, Wrong, decode_words, payer

READ_BYTES: Final = 1 << 20
PROOF_MAX_S: Final = 30.0
"""How long the newest frame may take to be proved durable by a later one, and so to be shown."""

NOTES_MAX: Final = 10
SHARD_SHIFT: Final = 48


class Question(msgspec.Struct, frozen=True):
    """What the oracle is asked.

    Attributes:
        url: The engine, to read balances from; empty where it has stopped.
        since: On the clock that never steps: wait until each of `shards` accepted a claim that was
            sent after it; 0 for no wait.
        shards: The shards of the engine.
    """

    url: str
    since: float
    shards: list[int]


class Verdict(msgspec.Struct):
    """What was compared so far, and every way in which it disagrees.

    Attributes:
        acknowledged: Claims that were acknowledged.
        checked: Of those, the ones seen in the log at their position.
        lost: Acknowledged, and not there.
        invented: There, and never sent; or a balance above or below what it may be.
        duplicates: There twice, or out of order.
        refused: Good claims refused for a reason that is none.
        first_s: Seconds from `Question.since` until each shard had accepted a later claim.
        notes: The first few disagreements in words.
    """

    acknowledged: int = 0
    checked: int = 0
    lost: int = 0
    invented: int = 0
    duplicates: int = 0
    refused: int = 0
    first_s: float = 0.0
    notes: list[str] = msgspec.field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep the first few."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(text)


class Book:
    """What the payers said. One thread writes it, another reads."""

    def __init__(self, channels: int) -> None:
        self.sent = [0] * channels
        self.positions = [array.array("Q") for _ in range(channels)]
        """By channel, by sequence - 1: shard and position as one number; 0 for none told."""

        self.wrong: list[Wrong] = []
        self.told_to: list[tuple[float, float, int]] = []
        """(began, at, shard) of submissions since the newest question."""

    def take(self, word: Word) -> None:
        """Write down one word."""
        match word:
            case Sent(channel, upto):
                self.sent[channel] = max(self.sent[channel], upto)
            case Told(began, at, claims):
                shards = {self._note(*claim) for claim in claims}
                self.told_to += [(began, at, shard) for shard in shards]
            case Wrong():
                self.wrong.append(word)

    def _note(self, channel: int, sequence: int, position: str) -> int:
        shard, _, number = position.partition("-")
        row = self.positions[channel]
        row.extend(0 for _ in range(sequence - len(row)))
        place = int(shard) << SHARD_SHIFT | int(number)
        # Told twice at two places is as bad as not kept at all; an impossible place shows it.
        row[sequence - 1] = place if row[sequence - 1] in (0, place) else (1 << 64) - 1
        return int(shard)

    def acknowledged(self) -> list[int]:
        """Return, for each channel, the highest sequence that was acknowledged."""
        return [len(row) for row in self.positions]


class Ear:
    """Reads the payers' pipe in a thread: to the file, to the disk, and only then into the book."""

    def __init__(self, pipe: int, file: Path, book: Book) -> None:
        self._pipe = pipe
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        self._book = book
        self._rest = b""
        self._read = self._taken = 0
        self.lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def catch_up(self) -> None:
        """Return once all that is in the pipe now has been taken."""
        with self.lock:
            waiting = array.array("i", [0])
            fcntl.ioctl(self._pipe, termios.FIONREAD, waiting)
            goal = self._read + waiting[0]
        while self._taken < goal:
            time.sleep(0.001)

    def _listen(self) -> None:
        while True:
            select.select([self._pipe], [], [])
            with self.lock:
                data = os.read(self._pipe, READ_BYTES)
                self._read += len(data)
            if not data:
                return
            os.write(self._file, data)
            os.fdatasync(self._file)
            with self.lock:
                self._take(data)
            self._taken += len(data)

    def _take(self, data: bytes) -> None:
        data = self._rest + data
        offset = 0
        while len(data) - offset >= 4:
            end = offset + 4 + int.from_bytes(data[offset : offset + 4], "big")
            if end > len(data):
                break
            for word in decode_words(data[offset + 4 : end]):
                self._book.take(word)
            offset = end
        self._rest = data[offset:]


class Judge:
    """Holds log and balances against the book; each event of the log is looked at once."""

    def __init__(self, book: Book, ear: Ear, datadir: Path, series: str) -> None:
        self._book = book
        self._ear = ear
        self._feed = Feed(datadir)
        self._ids = [payer(number, series).channel_id for number in range(len(book.sent))]
        self._numbers = {channel_id: number for number, channel_id in enumerate(self._ids)}
        self.begin()

    def begin(self) -> None:
        """Forget what was compared, and look at the log from its first event again."""
        self._verdict = Verdict()
        self._read: dict[int, int] = {}
        self._logged = [0] * len(self._ids)
        self._untold: list[list[tuple[int, int]]] = [[] for _ in self._ids]
        """Claims seen whose acknowledgement is not in the book yet: sequence and place."""

    def answer(self, question: Question) -> Verdict:
        """Wait for the shards, read back, compare."""
        verdict = self._verdict
        if question.since:
            verdict.first_s = self._first_s(question)
        self._ear.catch_up()
        acknowledged = self._book.acknowledged()
        balances = asyncio.run(self._balances(question.url)) if question.url else None
        self._read_log(question.shards, acknowledged)
        self._ear.catch_up()  # what was sent was told before: now all of it is known
        with self._ear.lock:
            self._compare(acknowledged)
            if balances is not None:
                self._compare_balances(acknowledged, balances)
        return verdict

    def _first_s(self, question: Question) -> float:
        """Return the seconds until every shard had accepted a claim sent after the moment."""
        give_up_at = time.monotonic() + PROOF_MAX_S * 2
        while time.monotonic() < give_up_at:
            with self._ear.lock:
                told = list(self._book.told_to)
            firsts = [
                min(
                    (at for began, at, to in told if to == shard and began > question.since),
                    default=0,
                )
                for shard in question.shards
            ]
            if all(firsts):
                with self._ear.lock:
                    self._book.told_to.clear()
                return max(firsts) - question.since
            time.sleep(0.002)
        raise TimeoutError("not every shard accepted a claim after the fault")

    async def _balances(self, url: str) -> list[tuple[int, int]]:
        async with Client(url) as client:

            async def one(channel_id: bytes) -> tuple[int, int]:
                balance = await client.balance(channel_id, consistency="strong")
                return balance.claimed, balance.sequence

            return list(await asyncio.gather(*(one(channel_id) for channel_id in self._ids)))

    def _read_log(self, shards: list[int], acknowledged: list[int]) -> None:
        """Read on, until all that was acknowledged has passed or can no longer come."""
        give_up_at = time.monotonic() + PROOF_MAX_S
        while True:
            for shard in shards:
                self._read_shard(shard)
            behind = any(
                logged < known for logged, known in zip(self._logged, acknowledged, strict=True)
            )
            if not behind or time.monotonic() > give_up_at:
                return
            time.sleep(0.01)

    def _read_shard(self, shard: int) -> None:
        for position, event in self._feed.events(shard, self._read.get(shard, 0) + 1):
            self._read[shard] = position
            if type(event) is ClaimReceived:
                self._see(event, shard << SHARD_SHIFT | position)

    def _see(self, event: ClaimReceived, place: int) -> None:
        verdict, number, sequence = self._verdict, self._numbers[event.channel_id], event.sequence
        if sequence != self._logged[number] + 1:
            verdict.duplicates += 1
            verdict.note(f"channel {number}: {sequence} after {self._logged[number]}")
        self._logged[number] = max(self._logged[number], sequence)
        if event.amount != sequence * STEP_DROPS:
            verdict.invented += 1
            verdict.note(f"channel {number}: {event.amount} drops at {sequence} were never sent")
        told = self._told(number, sequence)
        if told:
            self._count(number, sequence, is_there=told == place)
        else:
            self._untold[number].append((sequence, place))

    def _told(self, number: int, sequence: int) -> int:
        row = self._book.positions[number]
        return row[sequence - 1] if sequence <= len(row) else 0

    def _compare(self, acknowledged: list[int]) -> None:
        """Judge what the log lacks, and what of it nobody had been told when it was read."""
        verdict, book = self._verdict, self._book
        verdict.refused = len(book.wrong)
        for wrong in book.wrong[:1]:
            verdict.note(f"refused: {wrong}")
        for number, untold in enumerate(self._untold):
            for sequence, place in untold:
                if told := self._told(number, sequence):
                    self._count(number, sequence, is_there=told == place)
                elif sequence > book.sent[number]:
                    verdict.invented += 1
                    verdict.note(f"channel {number}: {sequence} was never sent")
            self._untold[number] = [mark for mark in untold if not self._told(number, mark[0])]
            missing = acknowledged[number] - self._logged[number]
            if missing > 0:
                verdict.lost += missing
                verdict.note(f"channel {number}: {missing} above {self._logged[number]} are gone")

    def _count(self, number: int, sequence: int, *, is_there: bool) -> None:
        self._verdict.checked += 1
        if not is_there:
            self._verdict.lost += 1
            self._verdict.note(f"channel {number}: {sequence} is not where it was said to be")

    def _compare_balances(self, acknowledged: list[int], balances: list[tuple[int, int]]) -> None:
        verdict = self._verdict
        for number, (claimed, sequence) in enumerate(balances):
            if sequence < acknowledged[number]:
                verdict.lost += acknowledged[number] - sequence
                verdict.note(f"channel {number}: {sequence} read, {acknowledged[number]} told")
            if sequence > self._book.sent[number] or claimed != sequence * STEP_DROPS:
                verdict.invented += 1
                verdict.note(f"channel {number}: {claimed} drops at {sequence} read back")


def whole(judge: Judge, question: Question, book: Book) -> Verdict:
    """Judge everything again from the first event, after the engine has stopped."""
    judge.begin()
    verdict = judge.answer(question)
    verdict.acknowledged = sum(len(row) - row.count(0) for row in book.positions)
    return verdict


def main(series: str, channels: int, pipe: int, file: str, datadir: str) -> None:
    """Answer questions, a line of JSON each, until standard input ends."""
    book = Book(channels)
    judge = Judge(book, Ear(pipe, Path(file), book), Path(datadir), series)
    for line in sys.stdin:
        question = msgspec.json.decode(line, type=Question)
        verdict = judge.answer(question) if question.url else whole(judge, question, book)
        sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    kinds = {"series": str, "channels": int, "pipe": int, "file": str, "datadir": str}
    for name, kind in kinds.items():
        parser.add_argument(name, type=kind)
    main(**vars(parser.parse_args()))
