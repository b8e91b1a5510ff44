"""The load sends what it should, when it should, and counts what came back."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import pytest

from bench.load import Job
from bench.stream import UNCUT, Cut, Pace, Stream, percentiles, summed_up
from bench.wire import (
    BINARY,
    PING,
    HttpReader,
    WebsocketReader,
    _websocket_end,
    count_batch,
    count_frame,
    count_single,
    frame_of,
    http_single,
    message,
    websocket_message,
)
from engine.gateway.schemas import JSON_READER, decode_frame

CLAIM = (b"\1" * 32, 7, 70, b"\2" * 64)


def test_a_frame_is_what_the_gateway_reads():
    number, claims = decode_frame(frame_of(3, [CLAIM] * 2))

    assert number == 3
    assert [(one.channel_id, one.sequence, one.amount) for one in claims] == [CLAIM[:3]] * 2


def test_a_call_is_what_the_gateway_reads():
    head, _, body = http_single(CLAIM).partition(b"\r\n\r\n")

    claim = JSON_READER.one(body, CLAIM[0])
    assert (claim.channel_id, claim.sequence, claim.amount, claim.signature) == CLAIM
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_websocket_message_is_masked_and_found_again(size):
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sent = websocket_message(payload)

    head = bytearray(sent[:2] + sent[2:14])
    head[1] &= 0x7F
    start, end = _websocket_end(head + bytes(size), 0)
    assert (end - start, start + 4 + size) == (size, len(sent))
    mask = sent[-size - 4 :][:4] if size else sent[-4:]
    body = sent[len(sent) - size :]
    unmasked = bytes(octet ^ mask[at % 4] for at, octet in enumerate(body))
    assert sent[1] & 0x80
    assert unmasked == payload


def server_message(payload: bytes, opcode: int = BINARY) -> bytes:
    size = len(payload)
    head = bytes([0x80 | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    return head + b"\x7e" + size.to_bytes(2, "big") + payload


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_messages_are_found_however_they_are_cut(step):
    stream = server_message(b"abc") + server_message(b"", PING) + server_message(b"x" * 300)
    reader = WebsocketReader()
    parts = [stream[at : at + step] for at in range(0, len(stream), step)]

    found = [one for part in parts for one in reader.feed(part)]

    assert found == [(BINARY, b"abc"), (PING, b""), (BINARY, b"x" * 300)]


@pytest.mark.parametrize("step", [1, 7, 1_000])
def test_answers_to_calls_are_found_however_they_are_cut(step):
    one = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
    stream = one + b"HTTP/1.1 429 No\r\nContent-Length: 0\r\nx: y\r\n\r\n" + one
    reader = HttpReader()
    parts = [stream[at : at + step] for at in range(0, len(stream), step)]

    assert [one for part in parts for one in reader.feed(part)] == [
        (200, b"abc"),
        (429, b""),
        (200, b"abc"),
    ]


def test_what_was_accepted_is_counted_and_every_other_answer_has_its_word():
    answers = [[0, None, 1, "0-1"], [3, "overloaded", None, None], [1, None, 1, "0-1"]]
    assert count_frame(msgspec.msgpack.encode([9, answers])) == (
        9,
        (1, ["overloaded", "duplicate"]),
    )
    assert count_frame(msgspec.msgpack.encode([9, answers[:1] * 3])) == (9, (3, []))

    results = [{"status": "accepted"}, {"status": "rejected", "code": "bad_signature"}]
    body = msgspec.msgpack.encode({"results": results})
    assert count_batch(200, body) == (1, ["bad_signature"])
    assert count_batch(503, b"") == (0, ["http_503"])

    assert count_single(200, b'{"status": "accepted"}') == (1, [])
    assert count_single(202, b'{"status": "buffered"}') == (0, ["buffered"])
    assert count_single(429, b"") == (0, ["http_429"])


class Engine:
    """Answers messages when told."""

    def __init__(self, count: int, pace: Pace) -> None:
        self.sent: list[float] = []
        self.on_message: Callable[[int], object] = lambda number: None
        self.stream = Stream(iter([memoryview(b"x")] * count), self._take, pace)

    def _take(self, message: memoryview) -> None:
        self.sent.append(time.perf_counter())
        self.on_message(len(self.sent) - 1)


async def test_a_closed_loop_keeps_its_window_full_and_ends_when_all_is_answered():
    engine = Engine(10, Pace(seconds=60, window=4))
    running = asyncio.create_task(engine.stream.run())
    await asyncio.sleep(0)
    assert len(engine.sent) == 4

    for number in (2, 0, 1, 3):
        engine.stream.answer(number, 1)
    assert len(engine.sent) == 8
    for number in range(4, 10):
        engine.stream.answer(number, 1)
    await running

    tally = summed_up([engine.stream], engine.sent[0], 0.0, UNCUT)
    assert tally.accepted == tally.messages == 10
    assert tally.exhausted
    assert not tally.lost


async def test_a_load_that_is_held_up_charges_the_messages_that_were_due_meanwhile():
    engine = Engine(100, Pace(seconds=0.045, pause_s=0.01))
    loop = asyncio.get_running_loop()
    engine.on_message = lambda number: loop.call_soon(engine.stream.answer, number, 1)
    running = asyncio.create_task(engine.stream.run())
    await asyncio.sleep(0)
    time.sleep(0.04)  # noqa: ASYNC251  (what is tested)
    await running

    assert len(engine.stream.latencies) == 5
    assert sorted(engine.stream.latencies)[-2] > 0.018


async def test_in_an_open_loop_latency_counts_from_when_a_message_was_due():
    engine = Engine(100, Pace(seconds=0.055, pause_s=0.01))
    running = asyncio.create_task(engine.stream.run())
    await asyncio.sleep(0)
    time.sleep(0.03)  # noqa: ASYNC251  (the load itself is held up)
    await asyncio.sleep(0.05)
    while not running.done():
        for number in range(len(engine.sent)):
            if number not in {2}:
                engine.stream.answer(number, 1)
        if len(engine.sent) == 6:
            engine.stream.answer(2, 0, ["overloaded"])
        await asyncio.sleep(0.005)

    stream = engine.stream
    assert len(engine.sent) == 6
    assert max(stream.latencies) > 0.05
    tally = summed_up([stream], 0.0, 0.0, UNCUT)
    assert tally.answered["accepted"] == 5
    assert tally.answered["overloaded"] == 1
    assert tally.refusal.max_ms > 0


async def test_a_calm_load_sends_to_the_moment():
    engine = Engine(5, Pace(seconds=0.3, pause_s=0.05, early_s=0.01))
    loop = asyncio.get_running_loop()
    engine.on_message = lambda number: loop.call_soon(engine.stream.answer, number, 1)
    await engine.stream.run()
    late = sorted(sent - engine.sent[0] - n * 0.05 for n, sent in enumerate(engine.sent))
    assert late[0] > -0.001
    assert late[len(late) // 2] < 0.005


@pytest.mark.parametrize(("rate", "files", "calm"), [(1, 1, True), (10, 1, True), (100, 16, False)])
def test_only_who_sends_seldom_sends_to_the_moment(rate, files, calm):
    job = Job("http://here", "ws", ["file"] * files, 1, 60, rate=rate)
    assert {pace.early_s > 0 for pace in job.paces()} == {calm}


async def test_what_is_never_answered_is_counted_as_such():
    engine = Engine(3, Pace(seconds=60, window=2))
    running = asyncio.create_task(engine.stream.run())
    await asyncio.sleep(0)
    engine.stream.answer(0, 1)
    engine.stream.gone()
    await running

    tally = summed_up([engine.stream], 0.0, 0.0, UNCUT)
    assert tally.lost
    assert tally.answered == {"accepted": 1, "unanswered": 2}


async def test_slices_end_after_so_many_claims_or_seconds():
    stream = Stream(iter([memoryview(b"x")] * 6), lambda message: None, Pace(60, window=6))
    running = asyncio.create_task(stream.run())
    await asyncio.sleep(0)
    for number in range(6):
        stream.answer(number, 10)
    await running
    for at in range(6):
        stream.ends[at], stream.latencies[at] = 100.5 + at, 0.001 * (at + 1)

    by_claims = summed_up([stream], 100.0, 0.0, Cut(claims=30)).slices
    assert [(one.until, one.accepted) for one in by_claims] == [(102.5, 30), (105.5, 30)]
    assert by_claims[0].latency.max_ms == 3
    uneven = summed_up([stream], 100.0, 0.0, Cut(claims=25)).slices
    assert [one.accepted for one in uneven] == [30, 20]
    by_time = summed_up([stream], 100.0, 0.0, Cut(seconds=2)).slices
    assert [(one.until, one.accepted) for one in by_time] == [(102.0, 20), (104.0, 20)]


def test_percentiles_are_of_the_nearest_rank():
    of_all = percentiles([at / 1_000 for at in range(1_000, 0, -1)])
    assert (of_all.p50_ms, of_all.p99_ms, of_all.p999_ms, of_all.max_ms) == (501, 991, 1_000, 1_000)


def test_every_transport_has_its_message():
    assert message("inprocess", 1, [CLAIM]) == frame_of(1, [CLAIM])
    assert message("ws", 1, [CLAIM]) == websocket_message(frame_of(1, [CLAIM]))
    assert message("http", 1, [CLAIM]).startswith(b"POST /v1/claims HTTP/1.1\r\n")
