"""Compared with what? The simplest programs that do the same: verify, check, commit, answer.

The sums before the run, for 2 cores and a sync of 0.3 ms:

- xrpl-py and a SQLite commit a claim: 5 ms a check, so 400 claims a second on both cores, whatever
  is done about the rest.
- coincurve and a row lock of PostgreSQL: four round trips of 60 µs on each side and 30 µs of
  checking are 0.5 ms of a core, so 4,000 a second if enough workers share the syncs, and less by
  what PostgreSQL does for a transaction of its own: 2,500.
- eventsourcing on SQLite: 0.2 ms of Python for an event, a commit of 0.3 ms that nobody shares, for
  SQLite has one writer at a time: 2,000 to 3,000 a second.
"""

import os
import time
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.harness import machine_line, scratch
from bench.options import Told
from bench.payment_places import postgres_server
from bench.rivals import Account, Kind
from bench.signing import STEP_DROPS, Curve, channel_id_of, make_payer, signer_of

CHANNELS: Final = 50
"""Of each worker."""

KINDS: Final = {
    "xrpl-sqlite": "bench.rivals.xrpl_sqlite:XrplSqlite",
    "postgresql": "bench.rivals.postgres:Postgres",
    "eventsourcing": "bench.rivals.eventsourced:Eventsourced",
}
RIVALS: Final = tuple(KINDS)
WORKERS_A_CORE: Final = {"xrpl-sqlite": 1, "postgresql": 4, "eventsourcing": 1}
"""With more, each does worse."""

Claim = tuple[bytes, int, int, bytes]


class BaselineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: so many claims, or so many seconds, whichever ends first, for each rival."""

    curve: Curve = "secp256k1"
    claims: int = 500
    seconds: float = 60.0
    rivals: tuple[str, ...] = RIVALS


class _Share(msgspec.Struct, frozen=True):
    """What one worker does."""

    rival: str
    place: str
    curve: Curve
    first: int
    claims: int
    seconds: float


def run(
    config: BaselineConfig, datadir: Path | None = None, told: Told = lambda done, of: None
) -> dict[str, Any]:
    """Run the benchmark; return its result line.

    Raises:
        ModuleNotFoundError: a library of a rival is not installed; says what to do.
        ValueError: a rival that knows one curve is to check another.
    """
    started = time.perf_counter()
    if config.curve != "secp256k1" and set(config.rivals) != {"xrpl-sqlite"}:
        raise ValueError("only xrpl-sqlite checks other signatures than secp256k1's")
    rows = []
    with scratch(datadir) as folder:
        for done, rival in enumerate(config.rivals):
            told(done, len(config.rivals))
            rows.append(_row(config, rival, folder))
    line = machine_line("baseline", msgspec.to_builtins(config), time.perf_counter() - started)
    first = rows[0]
    return line | {
        "accepted_per_s": first["accepted_per_s"],
        "accepted": first["accepted"],
        "rows": rows,
    }


def _row(config: BaselineConfig, rival: str, folder: Path) -> dict[str, Any]:
    if rival != "postgresql":
        place = folder / rival
        place.mkdir()
        return _measured(config, rival, str(place))
    server = postgres_server()
    try:
        return _measured(config, rival, server.get_uri())
    finally:
        server.cleanup()


def _measured(config: BaselineConfig, rival: str, place: str) -> dict[str, Any]:
    workers = WORKERS_A_CORE[rival] * (os.cpu_count() or 1)
    each = -(-config.claims // workers)
    shares = [
        _Share(rival, place, config.curve, number * CHANNELS, each, config.seconds)
        for number in range(workers)
    ]
    payers = [make_payer(number, config.curve) for number in range(workers * CHANNELS)]
    kind_of(rival).prepare(place, [Account(one.channel_id, one.public_key) for one in payers])
    done = _in_processes(shares)
    return {
        "rival": rival,
        "workers": workers,
        "accepted_per_s": round(sum(accepted / took for accepted, took in done), 1),
        "accepted": sum(accepted for accepted, _ in done),
        "seconds": round(max(took for _, took in done), 2),
    }


def kind_of(rival: str) -> Kind:
    """Return how a rival is made.

    Raises:
        ModuleNotFoundError: its library is not installed; says what to do.
    """
    module, _, name = KINDS[rival].partition(":")
    try:
        kind: Kind = getattr(import_module(module), name)()
    except ModuleNotFoundError as error:
        others = " ".join(f"--only {other}" for other in RIVALS if other != rival)
        raise ModuleNotFoundError(
            f"{error}: it is among the extras `bench` (pip install 'paychan[bench]'); "
            f"`paychan bench baseline {others}` does without"
        ) from error
    return kind


def _in_processes(shares: Sequence[_Share]) -> list[tuple[int, float]]:
    context = get_context("spawn")
    barrier = context.Barrier(len(shares))
    pipes = [context.Pipe(duplex=False) for _ in shares]
    processes = [
        context.Process(target=_work, args=(share, barrier, theirs), daemon=True)
        for share, (_, theirs) in zip(shares, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    done: list[tuple[int, float]] = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return done


def _work(share: _Share, barrier: Barrier, end: Any) -> None:
    """Sign, wait for the others, then have claim after claim taken."""
    rival = kind_of(share.rival).worker(share.place)
    claims = _signed(share)
    barrier.wait()
    accepted, started = 0, time.perf_counter()
    until = started + share.seconds
    for claim in claims:
        accepted += rival.take(*claim)
        if time.perf_counter() > until:
            break
    end.send((accepted, time.perf_counter() - started))
    rival.close()


def _signed(share: _Share) -> list[Claim]:
    numbers = range(share.first, share.first + CHANNELS)
    payers = [(channel_id_of(number), signer_of(number, share.curve)) for number in numbers]
    claims = []
    for number in range(share.claims):
        channel_id, signed = payers[number % CHANNELS]
        sequence = number // CHANNELS + 1
        amount = sequence * STEP_DROPS
        claims.append((channel_id, sequence, amount, signed(amount)))
    return claims
