"""`paychan payments migrate` and `import-lnd`: reports, progress, Ctrl-C, and hostile files."""

import contextlib
import fcntl
import os
import shlex
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from engine.cli.payments import moving
from engine.payments import open_payment_db
from engine.payments.migration import Progress
from tests.payments.builders import make_attempt, make_record, mk, one_hop, settle
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.real import needs_real_files, real_file
from tests.test_docs_surface import BIN, typed

MANY = 1_200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAYCHAN_PAYMENTS_DB", raising=False)
    return tmp_path


@pytest.fixture
def few(folder) -> str:
    """A store of three payments with six attempts and one duplicate."""
    with open_payment_db("lmdb:///few") as store:
        mk(store, ["Failed", "Succeeded", "InFlight"])
        store.write_records([make_record(4, duplicates=(9,))])
    return "lmdb:///few"


@pytest.fixture
def many(folder) -> str:
    """A store whose payments take three batches."""
    with open_payment_db("lmdb:///many") as store:
        store.write_records([make_record(number) for number in range(1, MANY + 1)])
    return "lmdb:///many"


def count(url: str) -> int:
    with open_payment_db(url, create=False) as store:
        return store.counters().payments


def test_all_payments_are_moved_and_the_report_says_so(run, few):
    seen = run("payments", "migrate", few, "sqlite:///new.db")
    assert seen.code == 0
    report = seen.line
    assert report["payments"] == 4
    assert (report["succeeded"], report["failed"], report["in_flight"]) == (1, 1, 1)
    assert (report["attempts"], report["duplicates"], report["resumed_at"]) == (6, 1, 0)
    assert (report["source"], report["destination"]) == (few, "sqlite:///new.db")
    assert (report["is_dry_run"], report["warnings"]) == (False, [])
    one, other = (
        run("payments", "list", "--include-incomplete", "--db", url).lines
        for url in (few, "sqlite:///new.db")
    )
    assert one == other
    assert len(one) == 5


def test_a_dry_run_writes_nothing(run, few, folder):
    seen = run("payments", "migrate", few, "sqlite:///new.db", "--dry-run")
    assert (seen.code, seen.line["is_dry_run"], seen.line["payments"]) == (0, True, 4)
    assert [path.name for path in folder.iterdir()] == ["few"]


def test_a_store_that_was_used_is_no_destination(run, few):
    assert run("payments", "migrate", few, "lmdb:///new").code == 0
    for words in ((), ("--dry-run",)):
        seen = run("payments", "migrate", few, "lmdb:///new", *words)
        assert (seen.code, seen.out) == (4, "")
        assert "lmdb:///new was used before: it has 4 payments" in seen.err
    assert run("payments", "migrate", few, few).code != 0
    assert count(few) == 4


@pytest.fixture
def interrupted(monkeypatch) -> Callable[[int], None]:
    """Press Ctrl-C after so many calls of the progress."""

    def press_after(calls: int) -> None:
        told = 0

        def tell(_: Progress) -> None:
            nonlocal told
            told += 1
            if told == calls:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(moving, "_bar", lambda: contextlib.nullcontext(tell))

    return press_after


def test_ctrl_c_ends_it_after_a_batch_and_the_same_command_goes_on(run, many, interrupted):
    before = signal.getsignal(signal.SIGINT)
    interrupted(3)  # told twice at the beginning, then after each batch
    seen = run("payments", "migrate", many, "sqlite:///new.db")
    assert (seen.code, seen.out) == (1, "")
    assert "stopped after 500 of 1,200 payments" in seen.err
    assert "the same command goes on from there" in seen.err
    assert signal.getsignal(signal.SIGINT) is before
    unfinished = run("payments", "list", "--db", "sqlite:///new.db")
    assert unfinished.code == 4
    assert "did not finish" in unfinished.err
    interrupted(0)
    again = run("payments", "migrate", many, "sqlite:///new.db")
    assert (again.code, again.line["payments"], again.line["resumed_at"]) == (0, MANY, 500)
    assert count("sqlite:///new.db") == MANY


def test_ctrl_c_in_a_dry_run_has_written_nothing(run, many, folder, interrupted):
    interrupted(1)
    seen = run("payments", "migrate", many, "sqlite:///new.db", "--dry-run")
    assert seen.code == 1
    assert "nothing was written" in seen.err
    assert [path.name for path in folder.iterdir()] == ["many"]


def test_a_pipe_is_told_how_far_it_is_now_and_then(run, many, monkeypatch):
    monkeypatch.setattr(moving, "SAID_EVERY_S", 0.0)
    seen = run("payments", "migrate", many, "lmdb:///new")
    said = seen.err.splitlines()
    assert said[-1].startswith("1,200 of 1,200 payments, ")
    assert " a second, 0:00 left" in said[-1]
    monkeypatch.setattr(moving, "SAID_EVERY_S", 3_600.0)
    assert run("payments", "migrate", many, "lmdb:///newer").err == ""


@pytest.mark.parametrize(
    ("progress", "says"),
    [
        (Progress(0, 10, 0.0, None), "0 a second"),
        (Progress(5, 10, 2_500.4, 65.2), "2,500 a second, 1:05 left"),
        (Progress(5, 10, 1.0, 7_384.0), "1 a second, 2:03:04 left"),
    ],
)
def test_a_pace_is_a_rate_and_the_time_left(progress, says):
    assert moving.pace_of(progress) == says


@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_a_report_in_words(many, folder):
    words = shlex.join([str(BIN / "paychan"), "payments", "migrate", many, "sqlite:///new.db"])
    shown = typed(words, os.environ | {"TERM": "xterm", "NO_COLOR": "1"}, folder)
    assert "1200/1200" in shown
    assert " a second" in shown
    assert "moved and compared 1,200 payments from lmdb:///many to sqlite:///new.db" in shown
    assert "no warnings" in shown


# From lnd ---------------------------------------------------------------------------------------


@pytest.fixture
def channel_db(folder) -> Path:
    """A file as lnd writes it, of two payments and a duplicate."""
    path = folder / "channel.db"
    attempts = [make_attempt(number, one_hop(555)) for number in (1, 2, 3)]
    paid = replace(attempts[0], settle=settle())
    node_of([make_record(1, [paid], (4,)), make_record(2, attempts[1:2])]).write(path)
    return path


def test_a_file_of_lnd_is_imported(run, channel_db):
    seen = run("payments", "import-lnd", channel_db, "lmdb:///new")
    assert seen.code == 0, seen.err
    assert (seen.line["payments"], seen.line["attempts"], seen.line["duplicates"]) == (2, 2, 1)
    lines = run("payments", "list", "--include-incomplete", "--db", "lmdb:///new").lines
    assert [line["status"] for line in lines] == ["SUCCEEDED", "IN_FLIGHT", "SUCCEEDED"]
    assert run("payments", "verify", "--db", "lmdb:///new").code == 0


@needs_real_files
@pytest.mark.parametrize(("name", "status"), [("carol", "SUCCEEDED"), ("dave", "FAILED")])
def test_a_file_of_a_real_node_is_imported(run, folder, name, status):
    seen = run("payments", "import-lnd", real_file(name), "sqlite:///new.db")
    assert seen.code == 0, seen.err
    line = run("payments", "list", "--include-incomplete", "--db", "sqlite:///new.db").line
    assert (line["status"], line["value_msat"]) == (status, "123000")


def test_a_dry_run_of_an_import_writes_nothing(run, channel_db, folder):
    seen = run("payments", "import-lnd", channel_db, "lmdb:///new", "--dry-run")
    assert (seen.code, seen.line["is_dry_run"]) == (0, True)
    assert [path.name for path in folder.iterdir()] == ["channel.db"]


def damaged(path: Path, how: str) -> None:
    match how:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("this is no database\n" * 1_000)
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "zeros":
            path.write_bytes(bytes(65_536))


@pytest.mark.parametrize("how", ["empty", "text", "cut", "zeros"])
def test_a_file_that_is_damaged_is_said_to_be_in_one_line(run, channel_db, folder, how):
    damaged(channel_db, how)
    seen = run("payments", "import-lnd", channel_db, "lmdb:///new")
    assert (seen.code, seen.out) == (6, "")
    assert seen.err.startswith(f"paychan: {channel_db}")
    assert "is damaged" in seen.err
    assert len(seen.err.splitlines()) == 1


def test_a_file_with_wrong_bytes_ends_in_a_report_or_in_one_line(run, channel_db, folder):
    """A page of bbolt has no checksum, so some wrong bytes are only other payments."""
    sound, random, codes = channel_db.read_bytes(), Random(4), set()
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(random.choice((1, 20, 400))):
            data[random.randrange(len(data))] = random.randrange(256)
        channel_db.write_bytes(data)
        seen = run("payments", "import-lnd", channel_db, "lmdb:///new", "--dry-run")
        codes.add(seen.code)
        assert seen.code == 0 or len(seen.err.splitlines()) == 1
    assert codes == {0, 6}


def test_a_file_that_lnd_uses_is_left_alone(run, channel_db):
    with channel_db.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        seen = run("payments", "import-lnd", channel_db, "lmdb:///new")
    assert seen.code == 1
    assert "is in use: stop lnd" in seen.err


def test_what_is_no_file_is_not_found(run, folder):
    os.mkfifo(folder / "pipe")
    (folder / "directory").mkdir()
    for name in ("missing.db", "pipe", "directory", "nul\udcffl"):
        seen = run("payments", "import-lnd", name, "lmdb:///new")
        assert (seen.code, seen.out) == (3, "")
    assert not (folder / "new").exists()


# Stores that cannot be used ---------------------------------------------------------------------


def newer(url: str) -> None:
    """Make a store look like one of the future."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        file.execute("UPDATE payments_schema_version SET version_num = 'x999'")


def test_stores_that_cannot_be_used_are_said_so_in_one_line(run, few, folder):
    assert run("payments", "migrate", few, "sqlite:///new.db").code == 0
    newer("sqlite:///new.db")
    (folder / "bad.db").write_text("no database at all" * 500)
    for url, code, says in (
        ("redis://here", 2, "no store has a URL like 'redis://here'"),
        ("here", 2, "no store has a URL like 'here'"),
        ("sqlite:///none.db", 3, "none.db"),
        ("lmdb:///none", 3, "none"),
        ("sqlite:///bad.db", 6, "not a database"),
        ("sqlite:///new.db", 1, "newer"),
        ("postgresql://user:secret@127.0.0.1:1/payments", 5, "does not answer"),
    ):
        for words in (("list", "--db", url), ("verify", "--db", url)):
            seen = run("payments", *words)
            assert (seen.code, seen.out) == (code, ""), (url, seen.err)
            assert says in seen.err
            assert "secret" not in seen.err
            assert len(seen.err.splitlines()) == 1
        assert run("payments", "migrate", url, "lmdb:///other").code == code
    assert not (folder / "none.db").exists()
    assert not (folder / "other").exists()


def test_where_no_store_is_named_it_says_how_to_name_one(run, folder):
    seen = run("payments", "list")
    assert (seen.code, seen.out) == (2, "")
    for way in ("--db", "PAYCHAN_PAYMENTS_DB", "payments.url"):
        assert way in seen.err


def test_the_store_is_that_of_the_flag_then_the_environment_then_the_configuration(
    run, folder, monkeypatch
):
    for name, value in (("flag", 1), ("variable", 2), ("file", 3)):
        run("payments", "init", f"{value:064X}", "--value-msat", value, "--db", f"lmdb:///{name}")
    (folder / "paychan.toml").write_text('[payments]\nurl = "lmdb:///file"\n')
    words = ("payments", "list", "--include-incomplete", "--config", "paychan.toml")
    assert run(*words).line["value_msat"] == "3"
    monkeypatch.setenv("PAYCHAN_PAYMENTS__URL", "lmdb:///flag")
    assert run(*words).line["value_msat"] == "1"
    monkeypatch.setenv("PAYCHAN_PAYMENTS_DB", "lmdb:///variable")
    assert run(*words).line["value_msat"] == "2"
    assert run(*words, "--db", "lmdb:///flag").line["value_msat"] == "1"


def test_a_password_is_not_shown(run, folder, monkeypatch):
    monkeypatch.setenv("PAYCHAN_PAYMENTS__URL", "postgresql://user:secret@db/payments")
    seen = run("config", "show")
    assert "secret" not in seen.out
    assert "postgresql://user:***@db/payments" in seen.out
    monkeypatch.setenv("PAYCHAN_PAYMENTS__THREADS", "many")
    seen = run("config", "check")
    assert seen.code == 2
    assert "secret" not in seen.err
