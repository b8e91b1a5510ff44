"""`paychan config …`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option

if TYPE_CHECKING:
    from engine.config import Config

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file; the environment and flags win over it.",
)


@click.group("config")
def config_group() -> None:
    """Look at the configuration."""


def load(config_file: Path | None, flags: Mapping[str, str]) -> "tuple[Config, dict[str, str]]":
    """Return the configuration and where each key came from.

    Raises:
        Failure: it does not hold together.
    """
    # The options of every part come with it: help should not wait for them.
    from engine.config import ConfigError, load_config

    try:
        return load_config(config_file, os.environ, flags)
    except ConfigError as error:
        advice = "`paychan config show` lists every key; without a file all have defaults"
        raise Failure(ExitCode.USAGE, str(error), advice) from error


@config_group.command("check")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON on standard output too.")
def check(config_file: Path | None, *, as_json: bool) -> None:
    """Say whether the configuration holds together; exit code 2 if not."""
    _, origins = load(config_file, {})
    given = sum(origin != "default" for origin in origins.values())
    click.echo(f"ok: {len(origins)} keys, {given} of them not default", err=True)
    if as_json:
        Output(as_json=True).record({"keys": len(origins), "given": given})


@config_group.command("show")
@config_option
@json_option
def show(config_file: Path | None, *, as_json: bool) -> None:
    """List every key, its value and where it came from."""
    config, origins = load(config_file, {})
    from engine.config import flatten
    from engine.monitor.secrets import without_password

    rows = [
        {
            "key": key,
            "value": without_password(value) if isinstance(value, str) else value,
            "origin": origins[key],
        }
        for key, value in flatten(config).items()
    ]
    Output(as_json=as_json).records(rows, ("key", "value", "origin"))
