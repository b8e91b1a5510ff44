"""The payers of the rounds: sign, send without a pause, and tell the oracle of it.

What is about to be sent is told before it is sent, what was answered "accepted" right after. Reads
the engine's address on standard input, again whenever it moves; writes to the oracle's pipe.
"""

import argparse
import asyncio
import os
import sys
import time
from typing import Final

import msgspec
import uvloop

from bench.signing import STEP_DROPS, Payer, make_payer, sign
from engine.client import Client, ClientOptions, Result
from engine.client.errors import ClientError
from engine.core.claim import Claim

TASKS: Final = 8
CLAIMS_EACH: Final = 4
"""Claims of one channel in one submission."""

BY_AMOUNT_EVERY: Final = 4
"""Every so many channels have claims without a number: the amount is their order."""

PATIENCE: Final = ClientOptions(
    retry_s=2.0, answer_timeout_s=15.0, call_timeout_s=15.0, backoff_max_s=0.1
)


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """Claims of channel number `channel` up to sequence `upto` may be at the engine from now on."""

    channel: int
    upto: int


class Told(msgspec.Struct, frozen=True, array_like=True, tag="told"):
    """Claims (channel number, sequence, position) that were accepted.

    `began` and `at` are when the submission went out and when its answer was there, on the clock of
    the machine that never steps.
    """

    began: float
    at: float
    claims: list[tuple[int, int, str]]


class Wrong(msgspec.Struct, frozen=True, array_like=True, tag="wrong"):
    """A good claim was refused for a reason that is none."""

    channel: int
    sequence: int
    code: str


Word = Sent | Told | Wrong
decode_words: Final = msgspec.msgpack.Decoder(list[Word]).decode


def is_by_amount(number: int) -> bool:
    """Say whether the claims of channel `number` come without a number of their own."""
    return number % BY_AMOUNT_EVERY == 0


def payer(number: int, series: str) -> Payer:
    """Return the payer of channel `number`."""
    return make_payer(number, "mixed", series)


class Payers:
    """All payers; several tasks, each with some of the channels and one submission under way."""

    def __init__(self, series: str, channels: int, pipe: int) -> None:
        self._payers = [payer(number, series) for number in range(channels)]
        self._pipe = pipe
        self._encode = msgspec.msgpack.Encoder().encode
        self._client: Client
        self._has_moved = asyncio.Event()

    async def run(self, addresses: asyncio.StreamReader) -> None:
        """Send until the list of addresses ends."""
        async with asyncio.TaskGroup() as tasks:
            paying: list[asyncio.Task[None]] = []
            while url := (await addresses.readline()).decode().strip():
                client = Client(url, PATIENCE)
                await client.__aenter__()
                self._client = client
                if not paying:
                    numbers = range(len(self._payers))
                    paying = [tasks.create_task(self._pay(numbers[n::TASKS])) for n in range(TASKS)]
            for task in paying:
                task.cancel()

    async def _pay(self, numbers: range) -> None:
        sequence = 0
        while True:
            upto = sequence + CLAIMS_EACH
            left = [(n, s) for s in range(sequence + 1, upto + 1) for n in numbers]
            self._tell([Sent(number, upto) for number in numbers])
            while left:
                left = await self._submit(left)
            sequence = upto

    async def _submit(self, marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Send claims once; return those whose outcome is not known yet."""
        claims = [self._claim(number, sequence) for number, sequence in marks]
        began = time.monotonic()
        try:
            results = await self._client.submit(claims)
        except (ClientError, OSError):
            await asyncio.sleep(0.02)
            return marks
        at = time.monotonic()
        pairs = list(zip(marks, results, strict=True))
        told = [(*mark, result.position or "") for mark, result in pairs if result.is_durable]
        words: list[Word] = [Told(began, at, told)]
        words += [Wrong(*mark, result.code or "") for mark, result in pairs if is_wrong(result)]
        self._tell(words)
        return [mark for mark, result in pairs if not result.is_durable]

    def _claim(self, number: int, sequence: int) -> Claim:
        payer, amount = self._payers[number], sequence * STEP_DROPS
        numbered = None if is_by_amount(number) else sequence
        return Claim(payer.channel_id, amount, sign(payer, amount), numbered)

    def _tell(self, words: list[Word]) -> None:
        data = self._encode(words)
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[os.write(self._pipe, data) :]


def is_wrong(result: Result) -> bool:
    """Say whether an answer cannot be right: every claim is good and comes in its order."""
    return not (result.is_durable or result.retryable)


async def main(series: str, channels: int, pipe: int) -> None:
    """Run until standard input ends."""
    addresses = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(addresses), sys.stdin)
    await Payers(series, channels, pipe).run(addresses)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, kind in (("series", str), ("channels", int), ("pipe", int)):
        parser.add_argument(name, type=kind)
    uvloop.run(main(**vars(parser.parse_args())))
