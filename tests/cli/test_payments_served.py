"""A real `paychan serve` with a payments database, and commands beside it on the same one."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from engine.gateway.payments import answers
from engine.payments import open_payment_db
from tests.cli import serving as world
from tests.cli.serving import serving
from tests.payments.builders import R2, make_record

TALKATIVE = """
from engine.cli.main import main
from engine.cli.payments import moving
moving.SAID_EVERY_S = 0
main()
"""
pytestmark = pytest.mark.slow
ONE = "AB" * 32


def call(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("scheme", ["lmdb", "sqlite"])
def test_an_engine_serves_payments_and_commands_work_beside_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
):
    place = f"{scheme}:///{tmp_path}/payments" + (".db" if scheme == "sqlite" else "")
    monkeypatch.setitem(world.SETTINGS, "PAYCHAN_PAYMENTS__URL", place)
    with serving(tmp_path / "data") as engine:
        made = call(engine.url, "POST", "/v1/payments", {"identifier": ONE, "value_msat": "555"})
        assert made[0] == 201
        with connect(f"ws://127.0.0.1:{engine.port}/v1/ws", proxy=None) as socket:
            socket.send(json.dumps({"command": "subscribe", "payments": "all"}))
            assert json.loads(socket.recv(20))["status"] == "success"
            assert json.loads(socket.recv(20))["identifier"] == ONE
            body = {"session_key": "CD" * 32, "route": answers.route(R2)}
            status, _ = call(engine.url, "POST", f"/v1/payments/{ONE}/attempts", body)
            assert status == 201
            assert json.loads(socket.recv(20))["status"] == "IN_FLIGHT"
        # A command in another process settles what the engine registered.
        words = ("--preimage", "33" * 32, "--unchecked", "--db", place)
        assert run("payments", "settle", ONE, *words).line["status"] == "SUCCEEDED"
        _, seen = call(engine.url, "GET", f"/v1/payments/{ONE}")
        assert (seen["status"], len(seen["attempts"])) == ("SUCCEEDED", 1)
        other = run("payments", "init", "EF" * 32, "--value-msat", 5, "--db", place).line
        assert other["sequence_number"] == 2
        assert call(engine.url, "DELETE", "/v1/payments?all_payments=true") == (200, {"deleted": 2})
        engine.kill()  # and what was answered is there
    assert run("payments", "list", "--include-incomplete", "--db", place).lines == []
    with serving(tmp_path / "data") as engine:
        body = {"identifier": ONE, "value_msat": "555"}
        _, again = call(engine.url, "POST", "/v1/payments", body)
        assert again["sequence_number"] == 3
        assert engine.stop() == 0


BAD_URLS = [
    ("redis://payments", 2, "no store has a URL like"),
    ("postgresql://u:secret@127.0.0.1:1/payments", 5, "does not answer"),
]


@pytest.mark.parametrize(("place", "code", "says"), BAD_URLS, ids=["unknown", "away"])
def test_an_engine_does_not_start_without_its_payments(tmp_path, place, code, says):
    command = [sys.executable, "-m", "engine.cli.main", "serve", "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [*command, "--datadir", str(tmp_path / "data")],
        env=os.environ | world.SETTINGS | {"PAYCHAN_PAYMENTS__URL": place},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert says in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_of_a_process_that_migrates_is_one_line(tmp_path, run):
    source, target = f"lmdb:///{tmp_path}/source", f"sqlite:///{tmp_path}/target.db"
    fill(source, 20_000)
    with subprocess.Popen(
        [sys.executable, "-c", TALKATIVE, "payments", "migrate", source, target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while not re.match(r"[1-9][0-9,]* of 20,000 payments", process.stderr.readline()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, ""), errors
    assert "stopped after" in errors
    assert "Traceback" not in errors
    again = run("payments", "migrate", source, target)
    assert again.line["payments"] == 20_000
    assert again.line["resumed_at"] > 0


def fill(url: str, count: int) -> None:
    with open_payment_db(url) as store:
        for first in range(1, count, 1_000):
            store.write_records([make_record(number) for number in range(first, first + 1_000)])
