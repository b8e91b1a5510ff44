"""An engine's double: the same answers and the same order of claims, and trouble on demand.

It keeps for each channel what a real one keeps (mark, early claims, first answers), so a test can
ask in which order claims were taken, whatever happened to frames and connections on the way.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from engine.core.claim import Claim

ACCEPTED, DUPLICATE, BUFFERED, REJECTED = range(4)
GAP = [REJECTED, "sequence_gap", None, None]
WireClaim = list[Any]
Answer = list[Any]


@dataclass
class Frame:
    """One frame as it came, for the trouble-maker to look at."""

    number: int
    claims: list[WireClaim]
    socket: web.WebSocketResponse
    count: int


@dataclass
class Trouble:
    """What goes wrong with one frame.

    `refuse_from`: from this claim on, all of the same channel get `code`; `applied` ones were taken
    all the same. `silent`: no answer. `drop`: the connection ends, before or after the claims were
    taken. `hold_back`: the answer comes after that many others.
    """

    refuse_from: int | None = None
    code: str = "overloaded"
    applied: bool = False
    silent: bool = False
    drop: str = ""
    hold_back: int = 0


@dataclass
class Mark:
    """A channel as the double keeps it."""

    sequence: int = 0
    amount: int = 0
    taken: list[int] = field(default_factory=list)
    first: dict[int, tuple[int, int]] = field(default_factory=dict)
    early: dict[int, list[tuple[WireClaim, Frame, int]]] = field(default_factory=dict)


class EngineDouble:
    """Answers binary frames as an engine would, with `trouble(frame)` in between."""

    def __init__(self, trouble: Callable[[Frame], Trouble | None] = lambda _: None) -> None:
        self.trouble = trouble
        self.marks: dict[bytes, Mark] = defaultdict(Mark)
        self.frames = 0
        self.connections = 0
        self.most_in_flight: dict[bytes, int] = defaultdict(int)
        self.url = ""
        self.hold_max = 256
        self.remembered_max = 10_000
        self.histories = 0
        self._answers: dict[tuple[int, int], list[Answer]] = {}
        self._held_back: list[tuple[int, Frame]] = []

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["EngineDouble"]:
        """Listen on a free port while the block runs."""
        app = web.Application()
        app.router.add_get("/v1/ws", self._serve)
        app.router.add_get("/v1/channels/{id}/claims", self._history)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.connections += 1
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                continue
            number, claims = msgspec.msgpack.decode(message.data)
            self.frames += 1
            await self._take(Frame(number, claims, socket, self.frames))
        return socket

    async def _history(self, request: web.Request) -> web.Response:
        self.histories += 1
        mark = self.marks[bytes.fromhex(request.match_info["id"])]
        after = int(request.query["starting_after"])
        claims = [
            {"sequence": n, "amount": str(amount), "signature": "AB", "position": f"0-{n}"}
            for n, amount in enumerate(mark.taken, 1)
            if n > after
        ]
        return web.json_response({"claims": claims})

    async def _take(self, frame: Frame) -> None:
        trouble = self.trouble(frame) or Trouble()
        if trouble.drop == "before":
            await frame.socket.close()
            return
        answers = self._judge(frame, trouble)
        if trouble.drop == "after":
            await frame.socket.close()
            return
        self._answers[id(frame.socket), frame.number] = answers
        if not trouble.silent:
            await self._answer(frame, trouble.hold_back)

    def _judge(self, frame: Frame, trouble: Trouble) -> list[Answer]:
        """Answer every claim; late answers that this brings go out with the frame."""
        refused: set[bytes] = set()
        answers: list[Answer] = []
        for index, claim in enumerate(frame.claims):
            channel = claim[0]
            if trouble.refuse_from is not None and index >= trouble.refuse_from:
                refused.add(channel)
            if channel in refused:
                if trouble.applied:
                    self._decide(claim, frame, index)
                answers.append([REJECTED, trouble.code, None, None])
            else:
                answers.append(self._decide(claim, frame, index))
        return answers

    def _decide(self, claim: WireClaim, frame: Frame, index: int) -> Answer:
        channel, sequence, amount, *_ = claim
        mark = self.marks[channel]
        if sequence is None:
            return self._decide_by_amount(mark, amount)
        if sequence <= mark.sequence and sequence not in mark.first:
            return [REJECTED, "sequence_used", None, None]
        if sequence in mark.first:
            first, position = mark.first[sequence]
            if first != amount:
                return [REJECTED, "sequence_conflict", None, None]
            return [DUPLICATE, None, sequence, f"0-{position}"]
        if sequence > mark.sequence + 1:
            if len(mark.early) >= self.hold_max:
                return list(GAP)
            mark.early.setdefault(sequence, []).append((claim, frame, index))
            return [BUFFERED, None, sequence, None]
        return self._accept(mark, sequence, amount)

    def _decide_by_amount(self, mark: Mark, amount: int) -> Answer:
        for sequence, (first, position) in mark.first.items():
            if first == amount:
                return [DUPLICATE, None, sequence, f"0-{position}"]
        if amount <= mark.amount:
            return [REJECTED, "amount_not_increasing", None, None]
        return self._accept(mark, mark.sequence + 1, amount)

    def _accept(self, mark: Mark, sequence: int, amount: int) -> Answer:
        position = len(mark.taken) + 1
        mark.sequence, mark.amount = sequence, amount
        mark.taken.append(amount)
        mark.first[sequence] = (amount, position)
        mark.first.pop(sequence - self.remembered_max, None)
        return [ACCEPTED, None, sequence, f"0-{position}"]

    async def _answer(self, frame: Frame, hold_back: int) -> None:
        if hold_back:
            self._held_back.append((self.frames + hold_back, frame))
        else:
            await self._send(frame)
        due = [held for count, held in self._held_back if count <= self.frames]
        self._held_back = [pair for pair in self._held_back if pair[0] > self.frames]
        for held in due:
            await self._send(held)
        await self._answer_late()

    async def _send(self, frame: Frame) -> None:
        answers = self._answers[id(frame.socket), frame.number]
        with contextlib.suppress(ConnectionError):
            await frame.socket.send_bytes(msgspec.msgpack.encode([frame.number, answers]))

    async def _answer_late(self) -> None:
        """Decide early claims whose turn has come, and answer their frames again."""
        for mark in self.marks.values():
            while (held := mark.early.pop(mark.sequence + 1, None)) is not None:
                for claim, frame, index in held:
                    await self._answer_again(frame, index, self._decide(claim, frame, index))

    async def _answer_again(self, frame: Frame, index: int, answer: Answer) -> None:
        answers = self._answers.get((id(frame.socket), frame.number))
        if answers is not None and answers[index][0] == BUFFERED:
            answers[index] = answer
            await self._send(frame)

    async def give_up_early(self) -> None:
        """Answer every early claim with a gap, as when time is up."""
        for mark in self.marks.values():
            early, mark.early = mark.early, {}
            for held in early.values():
                for _, frame, index in held:
                    await self._answer_again(frame, index, list(GAP))

    async def release(self) -> None:
        """Send what was held back."""
        held, self._held_back = self._held_back, []
        for _, frame in held:
            await self._send(frame)
        await asyncio.sleep(0)


def claims_of(channel: int, count: int, *, numbered: bool = True) -> list[Claim]:
    """Return claims 1 to `count` of a channel, ten drops each."""
    return [
        Claim(bytes([channel]) * 32, 10 * n, b"s" * 64, n if numbered else None)
        for n in range(1, count + 1)
    ]
