"""The runbooks can be followed: every line of the log is explained, every command shown works."""

import ast
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from engine.channels.host import shard_directory
from engine.payments import open_payment_db
from tests.channels.world import Desk, item
from tests.payments.builders import make_record, mk
from tests.payments.lnd.nodes import node_of
from tests.test_docs import DOCS, ROOT, headings
from tests.test_docs_surface import BIN, CONSOLE, normalised, typed
from tests.wal.disk import flip, frame_starts, live_segment

HOW_TO = DOCS / "how-to"
COMMAND = re.compile(r"^\$ (paychan .+)$", re.MULTILINE)
NAME = re.compile(r"[a-z_]+")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


# Log lines ----------------------------------------------------------------------------------------


def logged(path: Path) -> list[str]:
    """Return the name of the event of every line that a module logs."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(
                func=ast.Attribute(value=logger, attr=level), args=[ast.Constant(value=str(event))]
            ) if level in LEVELS and is_logger(logger):
                found.append(event)
    return found


def is_logger(node: ast.AST) -> bool:
    """Say whether an expression is the log: `log`, or `structlog.get_logger()`."""
    return ast.unparse(node) in ("log", "structlog.get_logger()")


def test_every_line_of_the_log_is_explained_and_none_is_left_of_those_gone():
    events = set().union(*(logged(path) for path in (ROOT / "engine").rglob("*.py")))
    assert {"shard_ready", "shard_step_failed", "disk_slow"} <= events
    explained = [
        title for title in headings(HOW_TO / "log-lines.md") if re.fullmatch(r"[a-z_]+", title)
    ]
    assert sorted(explained) == sorted(events)


def test_every_line_names_its_event_where_it_is_logged():
    calls = re.compile(rf"(?:\blog|get_logger\(\))\.(?:{'|'.join(LEVELS)})\(")
    for path in (ROOT / "engine").rglob("*.py"):
        assert len(calls.findall(path.read_text())) == len(logged(path)), path


# Commands -----------------------------------------------------------------------------------------


def commands(page: str) -> list[list[str]]:
    """Return the words of every `paychan` command that a page shows."""
    return [shlex.split(line)[1:] for line in COMMAND.findall((HOW_TO / page).read_text())]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory that was in use, a backup of it, and files as the pages name them."""
    datadir = tmp_path / "var" / "lib" / "paychan"
    desk = Desk(shard_directory(datadir, 0))
    desk.open("a", "b")
    for number in range(1, 12):
        desk.submit(item("a", 10 * number, number), item("b", number, number))
    desk.rest()
    desk.crash()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def moved(words: list[str], place: Path) -> list[str]:
    """Return a command with its directories below `place`."""
    return [str(place) + word if word.startswith(("/var/", "/backup/")) else word for word in words]


def follow(run, page: str, place: Path) -> list[int]:
    """Do what a page says, line by line; return the codes the commands end with."""
    return [run(*moved(words, place)).code for words in commands(page)]


def test_the_page_on_backups_can_be_followed(run, place):
    assert follow(run, "restore.md", place) == [0, 0, 0, 0, 0, 0]
    assert (place / "events.jsonl").exists()


def test_the_page_on_a_lost_disk_can_be_followed(run, place):
    datadir = place / "var" / "lib" / "paychan"
    run("best-claims", "export", datadir, "--output", place / "best-claims.jsonl")
    assert follow(run, "lost-disk.md", place) == [0, 0, 0, 0]


def test_the_page_on_a_corrupt_segment_can_be_followed(run, place):
    datadir = place / "var" / "lib" / "paychan"
    shard = shard_directory(datadir, 0)
    run("backup", datadir, place / "backup" / "paychan-monday")
    live = live_segment(shard)
    flip(live, (frame_starts(live)[3] + 70) * 8)
    run("best-claims", "export", place / "backup" / "paychan-monday",
        "--output", place / "salvaged-claims.jsonl")  # fmt: skip
    codes = follow(run, "corrupt-segment.md", place)
    #  verify, dry run, dry run with the backup, apply, verify, check, dry run of a new MANIFEST
    assert codes == [6, 6, 6, 0, 0, 0, 6]
    assert json.loads(run("wal", "repair", datadir, "--dry-run").out)["needed"] is False
    shutil.rmtree(place / "backup")


# Payments ---------------------------------------------------------------------------------------

ROUTE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_first_payment_goes_as_the_page_shows(tmp_path):
    page = (HOW_TO / "payments.md").read_text()
    (tmp_path / "route.json").write_text(ROUTE.search(page)[1])
    blocks = CONSOLE.search(page)[1].split("$ ")[1:]
    steps = [block.partition("\n")[::2] for block in blocks]
    assert len(steps) == 5
    script = "".join(f"printf '\\036'\n{command}\n" for command, _ in steps)
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PAYCHAN_PAYMENTS_DB": "sqlite:///payments.db",
        "TERM": "xterm",
    }
    shown = typed(script, environment, tmp_path).split("\036")[1:]
    for (command, expected), output in zip(steps, shown, strict=True):
        assert normalised(output) == normalised(expected), command


@pytest.mark.parametrize("page", ["migrate-payments.md", "import-from-lnd.md"])
def test_a_page_on_moving_payments_can_be_followed(run, tmp_path, monkeypatch, page):
    """Its paths are taken as lying below a folder of the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var/lib/paychan").mkdir(parents=True)
    with open_payment_db("lmdb:///var/lib/paychan/payments") as store:
        mk(store, ["Succeeded", "InFlight"])
    node_of([make_record(1)]).write(tmp_path / "channel.db")
    lines = [[below(word) for word in words] for words in commands(page)]
    assert [run(*words).code for words in lines] == [0, 0]
    assert run("payments", "verify", "--db", lines[-1][-1]).line["payments"] > 0


def below(word: str) -> str:
    """Return a word of a command with its absolute paths made relative."""
    return word.replace(":////", ":///").replace("~/.lnd/data/graph/mainnet/", "")
