"""The pages name every key, metric, command and file there is; the README's session is real."""

import os
import pty
import re
import subprocess
import sys
import termios
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from engine import config
from engine.cli.main import cli
from engine.core.rejections import RejectCode
from engine.gateway.problems import STATUS_OF
from tests.cli.serving import serving
from tests.test_docs import DOCS, PAGES, ROOT, headings, prose

BIN = Path(sys.executable).parent
TREE = re.compile(r"`((?:engine|wal|bench|tests|docs|configs)/[\w./-]*)`")
METRIC = re.compile(r'"(paychan_[a-z0-9_]+)"')
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


# Keys, metrics, commands, files -------------------------------------------------------------------


def keys(part: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Yield every key below a part of the configuration, with the names of its parts."""
    hints = typing.get_type_hints(part)
    for field in msgspec.structs.fields(part):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from keys(hint, f"{prefix}{field.encode_name}.")
        else:
            yield f"{prefix}{field.encode_name}"


def metrics() -> set[str]:
    """Return every name of a metric that stands anywhere in the engine."""
    return {
        re.sub("_(count|sum|bucket)$", "", found)  # the parts of a histogram
        for path in (ROOT / "engine").rglob("*.py")
        for found in METRIC.findall(path.read_text())
    }


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the words of every command that does something."""
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from commands(part, (*path, name))
    elif not command.hidden:
        yield " ".join(path)


def test_the_engine_has_keys_metrics_and_commands():
    assert list(keys(config.Config))
    assert metrics()
    assert list(commands(cli, ("paychan",)))


def test_a_config_key_has_its_heading():
    assert set(keys(config.Config)) - set(headings(DOCS / "reference" / "config.md")) == set()


def test_a_metric_has_its_heading_and_none_is_left_of_those_gone():
    found = {title for title in headings(DOCS / "reference" / "metrics.md") if "_" in title}
    assert found == metrics()


def test_a_command_has_its_heading_and_none_is_left_of_those_gone():
    found = {title for title in headings(DOCS / "reference" / "cli.md") if title.startswith("pay")}
    assert found == set(commands(cli, ("paychan",)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_names_exists(page):
    named = {path for path in TREE.findall(prose(page)) if "<" not in path}
    assert {path for path in named if not (ROOT / path).exists()} == set()


# The session of the README ------------------------------------------------------------------------


def session() -> list[tuple[str, str]]:
    """Return the commands of the README's console block, each with the output shown."""
    block = CONSOLE.search((ROOT / "README.md").read_text())
    assert block, "the README shows no console session"
    steps: list[tuple[list[str], list[str]]] = []
    for line in block[1].splitlines():
        if line.startswith("$ "):
            steps.append(([line[2:]], []))
        elif line.startswith("> ") and not steps[-1][1]:
            steps[-1][0].append(line[2:])
        else:
            steps[-1][1].append(line)
    return [("\n".join(command), "\n".join(output)) for command, output in steps]


def normalised(text: str) -> str:
    """Return output without what differs from run to run: ids, keys, times, sizes."""
    for pattern, word in (
        (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
        (r"\b(?:[0-9A-Fa-f]{4,}…|[0-9A-Fa-f]{16,})", "<hex>"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?", "<time>"),
        (r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|B|KB|KiB|MB|MiB)\b", "<size>"),
        (r"[─━═┄]{2,}", "─"),
        (r"[ \t\r]+", " "),
    ):
        text = re.sub(pattern, word, text)
    return "\n".join(line.strip() for line in text.strip().splitlines() if line.strip())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an engine of one process, on a free port, in a directory of its own."""
    with serving(tmp_path / "data") as engine:
        yield engine.url
        assert engine.stop() == 0, engine.said


def typed(script: str, environment: dict[str, str], folder: Path) -> str:
    """Return what a terminal of 100 columns shows when `script` is run in it."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (50, 100))
    # That is its size, and not the one of the terminal that the tests were started in.
    environment = environment | {"COLUMNS": "100"}
    environment.pop("LINES", None)
    process = subprocess.Popen(
        ["bash", "-c", script], stdin=end, stdout=end, stderr=end, env=environment, cwd=folder
    )
    os.close(end)
    seen = b""
    try:
        while piece := os.read(terminal, 65_536):
            seen += piece
    except OSError:  # Linux says EIO where the last writer has gone
        pass
    finally:
        os.close(terminal)
    process.wait(timeout=30)
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_the_session_of_the_readme_is_what_happens(server, tmp_path):
    steps = [step for step in session() if not step[0].startswith("paychan serve")]
    script = "".join(f"printf '\\036'\n{command}\n" for command, _ in steps)
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PAYCHAN_SERVER": server,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    shown = typed(script, environment, tmp_path).split("\036")[1:]
    assert len(shown) == len(steps)
    for (command, expected), output in zip(steps, shown, strict=True):
        assert normalised(output) == normalised(expected), command


def test_the_page_of_codes_says_the_http_status_that_is_sent():
    page = (DOCS / "reference" / "result-codes.md").read_text()
    for code in RejectCode:
        chapter = page.partition(f"## {code.value}\n")[2].partition("\n## ")[0]
        assert f"HTTP {STATUS_OF.get(code, 422)}." in chapter, code
