"""All of it: every part of `bench all`, at a smoke size and at the real one.

A part is a function that returns a result line. A line is written to a file as soon as it is there;
a part whose line is of the same commit and size is not run again unless asked.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from bench import baseline, claims, memory
from bench.cases import growth, latency, overload, points, start_stop
from bench.cases.points import Point
from bench.harness import commit_measured, machine_line, scratch
from bench.options import ClaimsConfig, Told

Line = dict[str, Any]
Part = Callable[["Size", Path, Told], Line]

NEWEST: Final = "PAYCHAN_VERIFY__VERIFICATION=newest"

QUICK: Final = ClaimsConfig(
    runtime="inline", channels=64, shards=1, verifiers=1, ceiling_s=0.1
)  # fmt: skip
"""Nothing that takes long to start."""


class Size(msgspec.Struct, frozen=True):
    """How large the parts are.

    Attributes:
        full: The real size, on Ray; else one process and half a second each.
        seconds: Of every run at one point.
        rounds: Whose median a plain run is.
    """

    full: bool = False
    seconds: float = 0.5
    rounds: int = 1

    def base(self, **changes: Any) -> ClaimsConfig:
        """Return a configuration of this size."""
        wanted = {"seconds": self.seconds} | changes
        return msgspec.structs.replace(ClaimsConfig() if self.full else QUICK, **wanted)

    def of(self, small: Any, full: Any) -> Any:
        """Return what fits the size."""
        return full if self.full else small


SMOKE: Final = Size()
FULL: Final = Size(full=True, seconds=60.0, rounds=3)


def _plain(size: Size, folder: Path, told: Told, **changes: Any) -> Line:
    return asyncio.run(claims.median(size.base(**changes), size.rounds, folder, told))


def _at_a_rate(size: Size, folder: Path, told: Told, rate: float) -> Line:
    return _plain(size, folder, told, rate=rate)


def _one_a_second(size: Size, folder: Path, told: Told) -> Line:
    single = {"rate": size.of(10.0, 1.0), "claims_per_frame": 1, "connections": 1}
    return _plain(size, folder, told, **single)


def _latency(size: Size, folder: Path, told: Told) -> Line:
    shares = size.of((0.3,), latency.SHARES)
    return asyncio.run(latency.run(size.base(), folder, told, shares=shares))


def _overload(size: Size, folder: Path, told: Told) -> Line:
    few = {"settings": ("PAYCHAN_LANE__QUEUE_CLAIMS_MAX=4096",), "window": 2_048}
    return asyncio.run(overload.run(size.base(**size.of(few, {})), folder, told))


def _growth(size: Size, folder: Path, told: Told) -> Line:
    config = size.base(claims=size.of(100_000, 20_000_000))
    return asyncio.run(growth.run(config, folder, told))


def _points(
    size: Size, folder: Path, told: Told, small: Sequence[Point], full: Sequence[Point]
) -> Line:
    config = size.base() if size.full else size.base(ceiling_s=0.0)
    return asyncio.run(points.run(config, size.of(small, full), folder, told))


def _skew(size: Size, folder: Path, told: Told) -> Line:
    many, open_too = size.of((2_000, 30_000), (100_000, 999_000))
    rows: list[Point] = [
        ("uniform, before", {}),
        ("one channel", {"channels": 1}),
        (f"Zipf over {many:,}", {"channels": many, "spread": "zipf"}),
        (f"{open_too:,} more open", {"open_channels": open_too}),
        ("uniform, after", {}),
    ]
    return points.beside_uniform(_points(size, folder, told, rows, rows))


def _newest(size: Size, folder: Path, told: Told) -> Line:
    count = round(size.of(30_000, 250_000) * size.seconds)
    changes = {"channels": 100, "settings": (NEWEST,), "claims": count // 100 * 100}
    return _plain(size, folder, told, **changes)


def _memory(size: Size, folder: Path, told: Told) -> Line:
    config = size.of(memory.MemoryConfig(channels=500, dedicated=()), memory.FULL)
    return asyncio.run(memory.run(config, told, folder, size.of("inline", "ray")))


def _start_stop(size: Size, folder: Path, told: Told) -> Line:
    # A small one sends few of the claims it makes ready: to sign all of them would be its longest.
    ready = size.base(**size.of({"signatures": "prechecked"}, {}))
    return asyncio.run(start_stop.run(ready, size.of(1, 5), folder, told))


def _baseline(size: Size, folder: Path, told: Told) -> Line:
    config = baseline.BaselineConfig(claims=size.of(100, 200_000), seconds=min(20.0, size.seconds))
    return baseline.run(config, folder, told)


def _curve(name: str, field: str, small: Sequence[Any], full: Sequence[Any]) -> Part:
    """Return a part with a point for each value of a field; `name` is for whoever reads it."""
    few, many = (
        [(f"{value:,} {name}", {field: value}) for value in values] for values in (small, full)
    )
    return partial(_points, small=few, full=many)


def _batches(sizes: Sequence[int]) -> list[Point]:
    # With small batches a slow machine does not clear in a second what a closed loop has under way.
    patient = "PAYCHAN_LANE__QUEUE_MS_MAX=60000"
    setting = "PAYCHAN_LANE__BATCH_CLAIMS_MAX={}"
    return [
        (f"{size} claims a batch", {"settings": (setting.format(size), patient)}) for size in sizes
    ]


PARTS: Final[dict[str, Part]] = {
    "ws": partial(_plain),
    "ed25519": partial(_plain, curve="ed25519"),
    "mixed": partial(_plain, curve="mixed"),
    "prechecked": partial(_plain, signatures="prechecked"),
    "ws-single": partial(_plain, transport="ws-single"),
    "http": partial(_plain, transport="http"),
    "http-single": partial(_plain, transport="http-single"),
    "rate": lambda size, folder, told: _at_a_rate(size, folder, told, size.of(1_000.0, 10_000.0)),
    "idle": _one_a_second,
    "latency": _latency,
    "overload": _overload,
    "skew": _skew,
    "channels": _curve(
        "channels", "channels", (32, 128), (1_000, 10_000, 100_000, 1_000_000)
    ),
    "frames": _curve("claims a frame", "claims_per_frame", (16, 256), (1, 4, 16, 64, 256, 1_024)),
    "batches": partial(
        _points, small=_batches((64, 510)), full=_batches((16, 64, 128, 256, 510))
    ),
    "connections": _curve("connections", "connections", (1, 16), (1, 4, 16, 64, 256)),
    "shards": _curve("shards", "shards", (1, 2), (1, 2, 4, 8)),
    "verifiers": _curve("verifiers", "verifiers", (1, 2), (1, 2, 3, 4)),
    "growth": _growth,
    "newest": _newest,
    "memory": _memory,
    "start-stop": _start_stop,
    "baseline": _baseline,
}  # fmt: skip


def run_part(name: str, size: Size, told: Told, datadir: Path | None = None) -> Line:
    """Run one part; return its result line."""
    commit, started = commit_measured(), time.perf_counter()
    with scratch(datadir) as folder:
        line = PARTS[name](size, folder, told)
    head = machine_line("claims", {}, time.perf_counter() - started)
    mark = {"part": name, "asked": msgspec.to_builtins(size), "commit": commit}
    return head | line | mark | {"seconds": head["seconds"]}


class Results:
    """A folder with a file for each part's newest line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def missing(self, names: Sequence[str], size: Size, *, again: bool) -> Iterator[str]:
        """Yield the parts that have no line of this commit and size, or all of them."""
        commit, asked = commit_measured(), msgspec.to_builtins(size)
        for name in names:
            line = self.line(name)
            known = (line.get("commit"), line.get("asked")) == (commit, asked)
            if again or not known or commit.endswith("-dirty"):
                yield name

    def line(self, name: str) -> Line:
        """Return a part's newest line; empty where there is none."""
        path = self._path(name)
        line: Line = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        return line

    def lines(self) -> list[Line]:
        """Return the newest line of every part that has one."""
        return [line for line in map(self.line, PARTS) if line]

    def keep(self, line: Line) -> None:
        """Write a part's line in place of the one before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(line["part"]).write_bytes(msgspec.json.encode(line) + b"\n")

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def replaced(size: Size, seconds: float | None, rounds: int | None) -> Size:
    """Return a size with what was asked for otherwise."""
    return replace(size, seconds=seconds or size.seconds, rounds=rounds or size.rounds)
