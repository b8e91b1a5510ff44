"""One connection's messages: each is sent when it may go, and what comes back is kept.

Closed loop: a window of messages is always under way. Open loop (`pause_s`): messages are due at
fixed times and latency counts from when a message was due, so a stall is charged to every message
it delayed. Nothing here waits: an answer sends the next message.
"""

import asyncio
import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

Send = Callable[[memoryview], None]
MS: Final = 1_000
WAKE_MIN_S: Final = 0.001
"""uvloop counts in milliseconds: for less it would be back at once, and the load would spin.

A message may so be sent a millisecond after it was due, and that counts as the engine's.
"""


class Pace(msgspec.Struct, frozen=True):
    """When messages go.

    Attributes:
        seconds: For how long.
        window: How many may be without an answer; infinite in an open loop over a pipeline.
        pause_s: Between two that are due; 0 = as soon as there is room.
        begins_s: When the first is due.
        early_s: How long before a message is due its sender wakes, to sleep to the moment; only
            for who has nothing else to do then. 0 = a timer is good enough.
    """

    seconds: float
    window: float = math.inf
    pause_s: float = 0.0
    begins_s: float = 0.0
    early_s: float = 0.0


class Stream:
    """Sends messages in order and pairs answers with them by number, counted from 0."""

    def __init__(self, messages: Iterator[memoryview], send: Send, pace: Pace) -> None:
        self.others: Counter[str] = Counter()
        self.exhausted = self.lost = False
        self.ends = array("d")
        self.latencies = array("d")
        """Seconds, in the order of `ends`."""
        self.accepted = array("L")
        self.refused = array("L")
        """Claims of the message answered at the same place of `ends`."""
        self._messages = messages
        self._send = send
        self._pace = pace
        self._due: dict[int, float] = {}
        self._number = 0
        self._begin = 0.0
        self._pushing = self._over = False
        self._alarm: asyncio.TimerHandle | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Send everything and return once it is answered, or the connection is gone."""
        self._begin = time.perf_counter() + self._pace.begins_s
        self._push()
        await self._done

    def answer(self, number: int, accepted: int, others: Sequence[str] = ()) -> None:
        """Take in the answer to a message; a second one to the same counts as late decisions."""
        due = self._due.pop(number, None)
        if due is None:
            self.others["late"] += 1
            return
        now = time.perf_counter()
        self.ends.append(now)
        self.latencies.append(now - due)
        self.accepted.append(accepted)
        self.refused.append(len(others))
        if others:
            self.others.update(others)
        self._push()

    def oldest(self) -> int:
        """Return the number of the oldest message without an answer."""
        return next(iter(self._due))

    def gone(self) -> None:
        """Take it that no more answers come."""
        if not self._over or self._due:
            self.lost = True
            self.others["unanswered"] += len(self._due)
            self._due.clear()
            self._finish()

    def _push(self) -> None:
        """Send all that may go; what is answered meanwhile does not come in here again."""
        if self._pushing or self._over:
            self._end_if_answered()
            return
        self._pushing = True
        while not self._over and len(self._due) < self._pace.window and self._send_next():
            pass
        self._pushing = False
        self._end_if_answered()

    def _wake(self) -> None:
        self._alarm = None
        self._push()

    def _send_next(self) -> bool:
        """Send the next message; say whether the one after it should be looked at."""
        now = time.perf_counter()
        due = self._begin + self._number * self._pace.pause_s if self._pace.pause_s else now
        if due - self._begin > self._pace.seconds:
            self._over = True
            return False
        early_s = self._pace.early_s
        if 0 < due - now <= early_s:
            time.sleep(due - now)
        elif due > now:
            if self._alarm is None:
                wait_s = max(due - now - early_s, WAKE_MIN_S)
                self._alarm = asyncio.get_running_loop().call_later(wait_s, self._wake)
            return False
        message = next(self._messages, None)
        if message is None:
            self.exhausted = self._over = True
            return False
        self._due[self._number] = due
        self._number += 1
        self._send(message)
        return True

    def _end_if_answered(self) -> None:
        if self._over and not self._due and not self._pushing:
            self._finish()

    def _finish(self) -> None:
        self._over = True
        if not self._done.done():
            self._done.set_result(None)


# What all connections saw together ----------------------------------------------------------------


class Percentiles(msgspec.Struct, frozen=True):
    """Latencies of messages, ms; zero where there was none."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0


class Slice(msgspec.Struct, frozen=True):
    """What came back up to a moment of `time.perf_counter`, since the slice before."""

    until: float
    accepted: int
    refused: int
    latency: Percentiles


class Tally(msgspec.Struct):
    """What came back.

    Attributes:
        answered: Claims by what was said of them.
        begun: Of `time.perf_counter`, which all processes of a machine share.
        seconds: From then to the last answer.
        latency: Of all messages.
        good: Of messages whose claims were all accepted.
        refusal: Of those whose claims were all refused.
        cpu_s: What sending and reading took.
        messages: How many were answered.
        exhausted: Whether there was nothing left to send.
        lost: Whether a connection ended before its last answer.
        slices: In order; empty unless asked for.
    """

    answered: dict[str, int]
    begun: float
    seconds: float
    latency: Percentiles
    good: Percentiles
    refusal: Percentiles
    cpu_s: float
    messages: int
    exhausted: bool
    lost: bool
    slices: list[Slice]

    @property
    def accepted(self) -> int:
        """Claims that were accepted."""
        return self.answered.get("accepted", 0)

    @property
    def accepted_per_s(self) -> float:
        """Claims accepted a second."""
        return self.accepted / self.seconds if self.seconds > 0 else 0.0


class Cut(msgspec.Struct, frozen=True):
    """Where slices end: after each so many accepted claims, or seconds; 0 = not there."""

    claims: int = 0
    seconds: float = 0.0


UNCUT: Final = Cut()

Seen = tuple[float, float, int, int]
"""When a message was answered, after how long, and how many claims were accepted and refused."""


def summed_up(streams: Sequence[Stream], begun: float, cpu_s: float, cut: Cut) -> Tally:
    """Return what all connections saw together."""
    seen: list[Seen] = []
    others: Counter[str] = Counter()
    for one in streams:
        seen += zip(one.ends, one.latencies, one.accepted, one.refused, strict=True)
        others += one.others
    seen.sort()
    accepted = sum(good for _, _, good, _ in seen)
    return Tally(
        answered=({"accepted": accepted} if accepted else {}) | dict(others),
        begun=begun,
        seconds=seen[-1][0] - begun if seen else 0.0,
        latency=percentiles([took for _, took, _, _ in seen]),
        good=percentiles([took for _, took, _, bad in seen if not bad]),
        refusal=percentiles([took for _, took, good, _ in seen if not good]),
        cpu_s=cpu_s,
        messages=len(seen),
        exhausted=any(one.exhausted for one in streams),
        lost=any(one.lost for one in streams),
        slices=list(_slices(seen, begun, cut)),
    )


def percentiles(latencies_s: list[float]) -> Percentiles:
    """Return what is at certain shares of all, by the nearest rank."""
    if not latencies_s:
        return Percentiles()
    ordered = sorted(latencies_s)
    shares = (0.5, 0.99, 0.999, 1.0)
    ranks = [min(len(ordered) - 1, int(len(ordered) * share)) for share in shares]
    return Percentiles(*(round(ordered[rank] * MS, 3) for rank in ranks))


def _slices(seen: list[Seen], begun: float, cut: Cut) -> Iterator[Slice]:
    """Yield slices that are whole; what comes after the last whole one is left out."""
    latencies: list[float] = []
    before = accepted = refused = 0
    until, wanted = begun + cut.seconds, cut.claims
    for end, took, good, bad in seen:
        while cut.seconds and end >= until:
            yield Slice(until, accepted, refused, percentiles(latencies))
            latencies, accepted, refused, until = [], 0, 0, until + cut.seconds
        latencies.append(took)
        accepted, refused = accepted + good, refused + bad
        if cut.claims and before + accepted >= wanted:
            yield Slice(end, accepted, refused, percentiles(latencies))
            before, wanted = before + accepted, wanted + cut.claims
            latencies, accepted, refused = [], 0, 0
