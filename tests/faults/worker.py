"""The writer under test: a real shard host over a real log, doing a fixed piece of work.

The deeds run in processes of the nursery. The work is the same each time, event for event, so what
a log may hold after any fault is known: the first so many steps of it, whole.
"""

import hashlib
import itertools
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.channels import host as host_module
from engine.channels.host import LOCK_WAIT_S, ShardHost, ShardSettings, shard_directory
from engine.channels.journal import verify_directory
from engine.channels.machine import Machine
from engine.channels.messages import decode_hello, decode_outcomes, decode_reply, encode
from engine.channels.options import ShardOptions
from engine.channels.recovery import recover, state_hash
from engine.core.commands import AnyCommand, RequestClose
from engine.core.types import NS_PER_S, ChannelId, TimeNs
from engine.validation.options import RiskOptions, ValidationOptions
from engine.verify.batch import decode_batch
from engine.verify.seal import load_or_create_seal_key, seal
from engine.verify.worker import VerifierWorker
from tests.builders import NOON
from tests.channels.world import blob_of, channel_id, item, opening, spoiled
from tests.faults.nursery import Say
from wal import LogFailedError, OsFiles
from wal.format import MANIFEST_NAME, SEGMENTS
from wal.manifest import decode_manifest

NAMES: Final = ("a", "b", "c", "d")
BATCHES: Final = 30
CLAIMS: Final = 5
CAPACITY: Final = 10**6
SEGMENT_BYTES: Final = 8_192
CHECKPOINT_EVENTS: Final = 20
TICK_EVERY: Final = 3
GATEWAY: Final = "gateway-a"
VALIDATION: Final = ValidationOptions()
BEGAN_NS: Final = time.monotonic_ns()


class StandingClock:
    """The same time for ever, so that every run makes the same events."""

    def now_ns(self) -> TimeNs:
        return NOON


class EarlierFiles(OsFiles):
    """This machine's disk, with a clock that is an hour behind the shard's."""

    def now_ns(self) -> int:
        return NOON - 3_600 * NS_PER_S + time.monotonic_ns() - BEGAN_NS


class NoTicker:
    """Never ticks: the work does, where it says so."""

    def __init__(self, tick: Callable[[], object], period_s: float) -> None:
        self.tick = tick

    def stop(self) -> None:
        """There is nothing to stop."""


STILL: Final = Machine(
    files=EarlierFiles(),
    clock=StandingClock(),
    ticker=NoTicker,
    monotonic=itertools.count(0.0, 10.0).__next__,
    threads=False,
)
"""One thread, and time as it is told: the Nth call is then the same call in every run."""


def steps() -> list[list[AnyCommand] | bytes]:
    """Return the work: commands, or the blob of a batch of claims; each step is one commit."""
    work: list[list[AnyCommand] | bytes] = [[opening(name, capacity=CAPACITY) for name in NAMES]]
    sequences = dict.fromkeys(NAMES, 0)
    for batch in range(BATCHES):
        items = []
        for index in range(CLAIMS):
            name = NAMES[(batch + index) % len(NAMES)]
            sequences[name] += 1
            items.append(item(name, sequences[name] * 10, sequences[name]))
        if batch % 7 == 3:
            items.append(spoiled(items[-1]))
        work.append(blob_of(items))
    work.append([RequestClose(channel_id=ChannelId(channel_id(NAMES[0])))])
    return work


WORK: Final = steps()
VERDICTS: dict[bytes, bytes] = {}
"""The true verdicts on each blob; checking signatures is not what is tried here."""


def prepare(scratch: Path) -> None:
    """Have everything imported, and every signature checked, before the first deed."""
    worker = VerifierWorker(bytes(32))
    for step in WORK:
        if isinstance(step, bytes):
            VERDICTS[step] = worker.verify(step)[: len(decode_batch(step))]
    work(scratch / "warm", lambda value: None)
    check(scratch / "warm", lambda value: None)


SHIPPED: Final = Machine(files=EarlierFiles(), clock=StandingClock())
"""The same with the threads that a shard has in earnest: ticks, spare segments, checkpoints."""

SERVING: Final = msgspec.structs.replace(STILL, threads=True)
"""The same, ticked by hand, with processes of its own beside it."""


def open_host(
    datadir: Path, kept: str = "all", machine: Machine = STILL, **options: int
) -> ShardHost:
    """Return the host of shard 0, which keeps all of its log or only what it needs."""
    increments_and_packing = {"increments_max": 2, "pack_after_s": 1, **options}
    return ShardHost(
        ShardSettings(
            number=0,
            datadir=str(datadir),
            shard=ShardOptions(
                checkpoint_events=CHECKPOINT_EVENTS,
                log_kept=kept,  # type: ignore[arg-type]
                segment_bytes=SEGMENT_BYTES,
                **increments_and_packing,  # type: ignore[arg-type]
            ),
            validation=VALIDATION,
            risk=RiskOptions(),
        ),
        machine=machine,
    )


# Incidents ----------------------------------------------------------------------------------------


def limit_file_size(host: ShardHost, datadir: Path, size: int) -> None:
    """Let no file grow above `size` from now on: the write that reaches it is a short one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def stop(host: ShardHost, datadir: Path, size: int) -> None:
    """Stand still until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_then_checkpoint(host: ShardHost, datadir: Path, size: int) -> None:
    """Stand still, and then write the MANIFEST before anything goes into the log."""
    stop(host, datadir, size)
    try:
        host._shard.checkpoint()
        host._tick()
    except LogFailedError as error:
        host_module.end_process(error)


def remove_log(host: ShardHost, datadir: Path, size: int) -> None:
    """Lose the directory of the segments, as by a careless hand."""
    shutil.rmtree(shard_directory(datadir, 0) / SEGMENTS)


INCIDENTS: Final = {
    "limit": limit_file_size,
    "stop": stop,
    "stop, checkpoint": stop_then_checkpoint,
    "remove": remove_log,
}


# Deeds --------------------------------------------------------------------------------------------


def start(datadir: Path, say: Say, patience_s: float = LOCK_WAIT_S) -> None:
    """Start and stop like a crash: recovery alone."""
    host_module.LOCK_WAIT_S = patience_s  # type: ignore[misc]
    hello = decode_hello(open_host(datadir).hello(GATEWAY, 0))
    say({"position": hello.position, "epoch": hello.epoch})
    os._exit(0)


def work_shipped(datadir: Path, say: Say, kept: str) -> None:
    """Do all the work with the threads that a shard has in earnest."""
    host = open_host(datadir, kept, SHIPPED)
    say("ready")
    do_steps(host, datadir, say)
    host.close()
    say("closed")


def work(
    datadir: Path, say: Say, incident: str = "", at: int = 0, size: int = 0, kept: str = "all"
) -> None:
    """Do all the work, and say after each step what was answered and where the log then ends.

    After step `at` there is an incident, if one is named.
    """
    host = open_host(datadir, kept)
    say("ready")

    def after(told: dict[str, Any]) -> None:
        say(told)
        if incident and told["step"] == at:
            INCIDENTS[incident](host, datadir, size)

    do_steps(host, datadir, after)
    host.close()
    say("closed")


NEITHER: Final = {"increments_max": 1_000, "pack_after_s": 0}
BESIDE: Final = {
    "packing": NEITHER | {"pack_after_s": 1},
    "merging": NEITHER | {"increments_max": 2},
}
"""Options for a shard that neither packs nor merges, or does only one of them."""


def lay(datadir: Path, say: Say, upto: int) -> None:
    """Do the work up to a step, with nothing beside it, and end like a crash."""

    def after(told: dict[str, Any]) -> None:
        say(told)
        if told["step"] == upto:
            os._exit(0)

    do_steps(open_host(datadir, **NEITHER), datadir, after)


def work_threaded(datadir: Path, say: Say, kept: str) -> None:
    """Do all the work with threads and processes beside it, ticked by hand."""
    host = open_host(datadir, kept, SERVING)
    do_steps(host, datadir, say)
    host.close()
    say("closed")


def work_beside(datadir: Path, say: Say, task: str, program: str) -> None:
    """Do all the work again while `program`, in the place of Python, packs or merges beside it."""
    sys.executable = program
    host = open_host(datadir, machine=SERVING, **BESIDE[task])
    host._tick()
    do_steps(host, datadir, lambda told: None)
    if task == "packing":
        while host._packer._process is not None:
            os.waitid(os.P_PID, host._packer._process.pid, os.WEXITED | os.WNOWAIT)
            host._tick()
    else:
        while host._merger._thread is not None:
            host._merger._thread.join()
            host._tick()
    say({"packed": host._packer.packed, "bases": host._merger.bases})
    do_steps(host, datadir, say)
    host.close()
    say("closed")


Call = Callable[[int, Callable[[], bytes]], bytes]
"""Makes the call of a step to the host, knowing its number."""


def do_steps(
    host: ShardHost, datadir: Path, say: Say, call: Call = lambda number, ask: ask()
) -> None:
    epoch = decode_hello(host.hello(GATEWAY, 0)).epoch
    key = load_or_create_seal_key(datadir / "seal.key")
    turn = 0
    for number, step in enumerate(WORK, 1):
        if isinstance(step, bytes):
            sealed = seal(key, step, VERDICTS[step])
            commit = partial(host.commit, GATEWAY, epoch, turn, step, sealed)
            reply = decode_reply(call(number, commit))
            if reply.refused is not None:
                raise RuntimeError(f"a batch was {reply.refused}")
            turn += 1
            words = [[one.status.name, one.sequence, one.position] for one in reply.answers]
        else:
            outcomes = decode_outcomes(call(number, partial(host.execute, encode(step))))
            words = [["done" if one.rejected is None else "refused", 0, 0] for one in outcomes]
        say({"step": number, "end": host._shard.position, "answers": words})
        if number % TICK_EVERY == 0:
            host._tick()
            host._tick()  # nothing came in between: the newest frame gets its proof


def check(datadir: Path, say: Say) -> None:
    """Say all there is to say about a log after a fault, then finish the work on it."""
    directory = shard_directory(datadir, 0)
    if (directory / MANIFEST_NAME).exists():
        say(trouble(directory))
    host = open_host(datadir)
    first = first_position(directory)
    say({"found": digests(host, first), "first": first, "state": states(host, first)})
    said: list[Any] = []
    do_steps(host, datadir, said.append)
    say({"resent": said})
    say({"final": digests(host, first), "state": states(host, first)})
    host.close()
    say(trouble(directory))


def trouble(directory: Path) -> dict[str, Any]:
    """Return what `verify` holds against a log, "" for nothing, and how long its torn tail is."""
    report = verify_directory(directory)
    return {"verify": "" if report.ok else repr(report), "torn": report.torn_bytes}


def first_position(directory: Path) -> int:
    """Return the position of the oldest event that is kept."""
    manifest = decode_manifest((directory / MANIFEST_NAME).read_bytes())
    return manifest.sealed[0].first_position if manifest.sealed else 1


def digests(host: ShardHost, first: int) -> list[str]:
    """Return a short digest of every event from position `first` on, in order."""
    encoded = (
        encode((position + index, event))
        for position, events in host._journal.read_batches(first)
        for index, event in enumerate(events)
    )
    return [hashlib.blake2b(data, digest_size=8).hexdigest() for data in encoded]


def states(host: ShardHost, first: int) -> list[str]:
    """Return the state hash of what serves (checkpoint and tail), and that of the whole log."""
    serving = state_hash(host._shard._actors)
    if first > 1:
        return [serving]  # the beginning of the log is cut away
    replayed = recover(host._journal, VALIDATION.retries, from_genesis=True)
    return [serving, state_hash(replayed.actors)]
