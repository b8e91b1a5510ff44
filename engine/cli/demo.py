"""`paychan demo`: the main job end to end on this machine, with a verdict."""

import asyncio
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from engine.demo.story import DemoFigures, tell
from engine.demo.view import View


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(4, 3_600),
    default=20.0,
    show_default=True,
    help="How long claims are pushed.",
)
@click.option(
    "--datadir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the engine's files here; without it they are removed afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON line.")
def demo(seconds: float, datadir: Path | None, *, as_json: bool) -> None:
    """Stream signed claims into a real engine, kill a shard half way, and reach a verdict.

    Exit code 0 only if nothing acknowledged is missing and nothing was invented.
    """
    console = Console(stderr=as_json)
    if datadir is not None:
        datadir.mkdir(parents=True, exist_ok=True)
    with View(console, seconds) as view:
        figures = asyncio.run(tell(view, seconds, datadir))
    if as_json:
        click.echo(msgspec.json.encode(figures).decode())
    else:
        _print(console, figures)
    raise SystemExit(0 if figures.holds else 6)


def _print(console: Console, figures: DemoFigures) -> None:
    table = Table(title="What happened", show_header=False)
    verdict = figures.verdict
    rows = [
        ("claims acknowledged a second", figures.claims_per_s),
        ("acknowledged in all", verdict.acknowledged),
        ("found in the log", verdict.logged),
        ("channels read back", verdict.channels),
        ("p50 / p99 of a submission", f"{figures.p50_ms} / {figures.p99_ms} ms"),
        ("one shard was away for", f"{figures.seconds_without_shard} s"),
        ("published mainnet claim", figures.published_claim),
        ("acknowledged but missing", verdict.missing_from_log),
        ("never acknowledged but there", verdict.never_acknowledged),
        ("balances that differ", verdict.wrong_balances),
        ("damage in the log", figures.log_damage or "none"),
    ]
    rows += [(f"answered {code}", count) for code, count in sorted(figures.answers.items())]
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    for note in verdict.notes:
        console.print(note)
    if figures.holds:
        console.print("[bold green]It held: no acknowledged claim was lost, none was invented.")
    else:
        console.print("[bold red]It did not hold; see the figures above.")
