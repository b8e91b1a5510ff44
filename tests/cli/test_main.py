"""Every command has its help, completion knows them all, and neither waits for big libraries."""

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from engine.cli import connection
from engine.cli.main import COMMANDS, cli
from engine.client import DEFAULT_SERVER

HEAVY = {"ray", "xrpl", "aiohttp", "rich", "starlette", "uvicorn", "coincurve", "bench"} | {
    "alembic", "lmdb", "psycopg", "sqlalchemy",
}  # fmt: skip
API = """
    demo serve getinfo balance
    channel.open channel.show channel.list channel.confirm channel.fund channel.close
    channel.settle channel.dispute channel.resolve
    claim.submit claim.best claim.history claim.sign claim.verify
    config.check config.show wal.inspect wal.verify wal.replay
    payments.init payments.attempt payments.settle payments.fail payments.list payments.show
    payments.in-flight payments.delete payments.verify payments.migrate payments.import-lnd
    bench.claims bench.baseline bench.recovery bench.memory bench.wal completion
"""


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from walk(part, (*path, name))
    else:
        yield path


PATHS = sorted(walk(cli))


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def loaded_after(line: str, **environment: str) -> tuple[str, set[str]]:
    """Return what the command line prints, and which of the heavy libraries it loaded."""
    code = (
        "import sys\nfrom engine.cli.main import cli\n"
        f"try: cli({line.split()!r}, prog_name='paychan')\n"
        "except SystemExit: pass\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    out, _, modules = python(code, **environment).rpartition("LOADED")
    return out, set(modules.split()) & HEAVY


def test_there_is_a_command_for_each_promise():
    assert {".".join(path) for path in PATHS} >= set(API.split())


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_command_says_what_it_does(run, path):
    seen = run(*path, "--help")
    assert seen.code == 0
    usage, does = (line.strip() for line in seen.out.splitlines()[:3:2])
    assert usage.startswith("Usage: paychan " + " ".join(path))
    assert does[0].isupper()
    for line in seen.out.splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_of_a_command_what_its_help_says(name):
    text = COMMANDS.places[name][1]
    assert (COMMANDS[name].help or "").replace("\n", " ").startswith(text)


def test_a_command_nobody_knows_is_wrong_usage(run):
    seen = run("chanel")
    assert seen.code == 2
    assert "No such command 'chanel'" in seen.err


def test_the_default_server_is_the_client_s():
    assert connection.DEFAULT_SERVER == DEFAULT_SERVER


@pytest.mark.parametrize("line", ["--help", "channel --help", "wal --help", "serve --help",
                                  "payments --help", "payments list --help"])  # fmt: skip
def test_help_loads_no_big_library(line):
    out, heavy = loaded_after(line)
    assert "Usage: paychan" in out
    assert heavy == set()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("paychan ch", {"channel"}),
        ("paychan channel s", {"settle", "show"}),
        ("paychan channel open --s", {"--source", "--settle-delay", "--sequencing", "--server"}),
        ("paychan balance --consistency s", {"strong", "session"}),
        ("paychan payments i", {"init", "in-flight", "import-lnd"}),
        ("paychan payments list --i", {"--index-offset", "--include-incomplete"}),
    ],
)
def test_completion_knows_commands_options_and_choices_and_loads_no_big_library(words, found):
    count = str(len(words.split()) - 1)
    environment = {"COMP_WORDS": words, "COMP_CWORD": count}
    out, heavy = loaded_after("", _PAYCHAN_COMPLETE="bash_complete", **environment)
    assert {line.partition(",")[2] for line in out.splitlines()} == found
    assert heavy == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_the_program_and_its_variable(run, shell):
    seen = run("completion", shell)
    assert seen.code == 0
    assert "paychan" in seen.out
    assert "_PAYCHAN_COMPLETE" in seen.out


def test_a_shell_nobody_knows_is_wrong_usage(run):
    assert run("completion", "tcsh").code == 2
