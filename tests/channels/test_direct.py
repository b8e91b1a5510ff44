"""A line to a process of this machine: its answer to each call, and no silence at the end."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import asynccontextmanager

import msgspec
import pytest
import uvloop

from engine.channels import direct
from engine.channels.direct import FRAME_BYTES_MAX, Door, LineBroken, connect
from engine.verify.errors import MalformedBatchError

LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


def echo(octets):
    return octets


def malformed(octets):
    raise MalformedBatchError("3 items")


def failing(octets):
    raise KeyError(octets)


@asynccontextmanager
async def lined(address):
    line = await connect(address)
    try:
        yield line
    finally:
        line.close()
        await asyncio.sleep(0.001)  # the loop lets go of a socket at its next turn


@pytest.fixture
def door():
    door = Door({"echo": echo, "malformed": malformed, "failing": failing})
    yield door
    door.close()


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("size", [0, 1, 80_000, FRAME_BYTES_MAX - 100])
def test_what_is_sent_comes_back_whole(door, run, size):
    async def play():
        octets = os.urandom(size)
        async with lined(door.address) as line:
            assert await asyncio.wait_for(line.call("echo", octets), 20) == octets

    run(play())


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_each_call_gets_its_own_answer_in_order(door, run):
    async def play():
        told = []
        async with lined(door.address) as line:
            calls = [line.call("echo", b"%d" % number) for number in range(200)]
            for call in calls:
                call.add_done_callback(lambda done: told.append(done.result()))
            answers = await asyncio.wait_for(asyncio.gather(*calls), 20)
        assert answers == told == [b"%d" % number for number in range(200)]

    run(play())


async def test_what_a_step_raises_reaches_the_caller_and_the_line_goes_on(door):
    async with lined(door.address) as line:
        with pytest.raises(MalformedBatchError, match="3 items"):
            await line.call("malformed", b"")
        for step in ("failing", "no such step"):
            with pytest.raises(RuntimeError, match="KeyError"):
                await line.call(step, b"")
        assert await line.call("echo", b"still here") == b"still here"


async def test_who_gives_up_waiting_does_not_get_in_the_way(door):
    async with lined(door.address) as line:
        given_up = line.call("echo", b"one")
        given_up.cancel()
        assert await asyncio.wait_for(line.call("echo", b"two"), 20) == b"two"


async def test_calls_of_two_lines_are_taken_one_at_a_time():
    inside, most = 0, 0
    may_go = threading.Event()

    def count(octets):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        may_go.wait(0.01)
        inside -= 1
        return octets

    door = Door({"count": count})
    async with lined(door.address) as one, lined(door.address) as other:
        calls = [line.call("count", b"") for _ in range(10) for line in (one, other)]
        await asyncio.wait_for(asyncio.gather(*calls), 20)
    assert most == 1
    door.close()


# The end ------------------------------------------------------------------------------------------

SLEEPER = """
import time
from engine.channels.direct import Door
door = Door({"sleep": lambda octets: time.sleep(600), "echo": lambda octets: octets})
print(door.address, flush=True)
time.sleep(600)
"""


async def test_a_process_that_is_killed_is_told_of_to_all_who_wait():
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        line = await connect(process.stdout.readline().decode().strip())
        assert await asyncio.wait_for(line.call("echo", b"alive"), 20) == b"alive"
        waiting = [line.call("sleep", b"") for _ in range(3)]
        await asyncio.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
    assert [type(error) for error in told] == [LineBroken] * 3
    assert not line.is_up
    with pytest.raises(LineBroken, match="before echo"):
        await line.call("echo", b"")


async def test_nobody_is_there_after_the_process_or_a_close(door):
    door.close()
    for address in (door.address, "paychan-0-nobody"):
        with pytest.raises(OSError, match="refused"):
            await connect(address)


async def test_closing_a_line_tells_who_waits():
    may_go = threading.Event()
    door = Door({"wait": lambda octets: may_go.wait(20) and octets})
    line = await connect(door.address)
    waiting = line.call("wait", b"")
    line.close()
    with pytest.raises(LineBroken):
        await asyncio.wait_for(waiting, 20)
    may_go.set()
    door.close()


# What is not one of ours --------------------------------------------------------------------------


def stranger(door):
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(20)
    line.connect(f"\0{door.address}")
    return line


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack("<I", FRAME_BYTES_MAX + 1),
        struct.pack("<I", 0),
        struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1",
        struct.pack("<I", 1) + msgspec.msgpack.encode(7),
        struct.pack("<I", 2) + msgspec.msgpack.encode([1]),
    ],
    ids=["too long", "empty", "no msgpack", "no list", "no step"],
)
async def test_a_door_ends_the_line_of_who_talks_nonsense_and_only_that(door, octets):
    async with lined(door.address) as ours:
        with stranger(door) as line:
            line.sendall(octets)
            assert await asyncio.to_thread(line.recv, 1) == b""
        assert await asyncio.wait_for(ours.call("echo", b"here"), 20) == b"here"


async def test_a_door_is_closed_to_other_users(door, monkeypatch):
    monkeypatch.setattr(direct.os, "getuid", lambda: 12_345)
    with stranger(door) as line:
        assert await asyncio.to_thread(line.recv, 1) == b""


@pytest.mark.parametrize(
    "octets",
    [struct.pack("<I", FRAME_BYTES_MAX + 1), struct.pack("<I", 3) + b"\xc1\xc1\xc1"],
    ids=["too long", "no answer"],
)
async def test_a_line_ends_when_the_other_end_talks_nonsense(octets):
    address = f"paychan-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0{address}")
        listener.listen()
        async with lined(address) as line:
            other, _ = listener.accept()
            with other:
                call = line.call("echo", b"")
                other.sendall(octets)
                with pytest.raises(LineBroken):
                    await asyncio.wait_for(call, 20)
