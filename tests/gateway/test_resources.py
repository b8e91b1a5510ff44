"""A real engine on a disk that fills up, and on one that is slow: what its clients meet."""

import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.signing import make_payer, opening, sign
from engine.channels.host import EXIT_STEP_FAILED
from tests.cli.serving import Served, serving, start
from tests.faults.scorecard import CannotRun
from tests.faults.tracer import slowed
from tests.gateway.world import Payer, door_to_engine

WAIT_S = 60.0
DISK_BYTES = 64 << 20
LEFT_BYTES = 1 << 20
"""What is left free, below the two segments of 1 MiB that must be."""


class OnePayer:
    """A channel of an engine, and claims on it, one by one over HTTP."""

    def __init__(self, served: Served) -> None:
        self.url = served.url
        self.payer = make_payer(1, "ed25519", "resources")
        self.path = f"/v1/channels/{self.payer.channel_id.hex().upper()}"
        self.sequence = 0

    def call(self, path: str, body: object = None, timeout_s: float = WAIT_S):
        """Return status, document and headers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers

    def open(self) -> None:
        status, document, _ = self.call("/v1/channels", opening(self.payer))
        assert status == 201, document

    def pay(self, sequence: int | None = None):
        """Send the next claim, or that of `sequence`; what is accepted counts."""
        sequence = sequence or self.sequence + 1
        status, document, headers = self.call(f"{self.path}/claims", self.claim(sequence))
        if status == 200:
            self.sequence = max(self.sequence, sequence)
        return status, document, headers

    def claim(self, sequence: int) -> dict[str, object]:
        signature = sign(self.payer, sequence * 10).hex()
        return {"amount": str(sequence * 10), "signature": signature, "sequence": sequence}

    def pay_many(self, count: int) -> None:
        """Send the next claims in one call; all must be accepted."""
        channel = {"channel_id": self.payer.channel_id.hex()}
        claims = [self.claim(self.sequence + n) | channel for n in range(1, count + 1)]
        _, document, _ = self.call("/v1/claims", {"claims": claims})
        assert {result["status"] for result in document["results"]} == {"accepted"}
        self.sequence += count

    def pay_until(self, status: int) -> tuple[dict, object]:
        """Pay until the answer has this status; return the answer."""
        give_up_at = time.monotonic() + WAIT_S
        while time.monotonic() < give_up_at:
            seen, document, headers = self.pay()
            if seen == status:
                return document, headers
            time.sleep(0.02)
        raise AssertionError(f"never {status}; last {seen} {document}")

    def readiness(self, status: int) -> str:
        """Return the reason once `/readyz` has this status."""
        give_up_at = time.monotonic() + WAIT_S
        while time.monotonic() < give_up_at:
            seen, document, _ = self.call("/readyz")
            if seen == status:
                return str(document.get("detail", ""))
            time.sleep(0.05)
        raise AssertionError(f"never {status}; last {seen} {document}")

    def metric(self, name: str) -> float:
        """Return a metric, summed over its labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=WAIT_S) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


# A disk that fills up -----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """Yield a small file system of its own."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", mounted]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    """Write until so much is free; return the file to remove."""
    filler = disk / "filler"
    seen = os.statvfs(disk)
    with filler.open("wb") as file:
        file.write(bytes(max(0, seen.f_bavail * seen.f_frsize - left_bytes)))
    return filler


@pytest.mark.slow
def test_a_disk_nearly_full_refuses_what_is_new_and_serves_again_when_there_is_room(
    disk, monkeypatch
):
    monkeypatch.setenv("PAYCHAN_SHARD__SEGMENT_BYTES", str(1 << 20))
    monkeypatch.setenv("PAYCHAN_PLACEMENT__SHARDS", "1")
    with serving(disk / "data") as served:
        payer = OnePayer(served)
        payer.open()
        assert payer.pay()[0] == 200
        filler = fill(disk, LEFT_BYTES)
        problem, headers = payer.pay_until(503)
        assert (problem["code"], problem["retryable"]) == ("storage_full", True)
        assert problem["actual"] <= LEFT_BYTES < problem["expected"] == 2 << 20
        assert int(headers["retry-after"]) >= 1
        assert payer.pay(1)[1]["status"] == "duplicate"
        assert payer.call(f"{payer.path}/balance")[1]["claimed"] == str(payer.sequence * 10)
        other = make_payer(2, "ed25519", "resources")
        assert payer.call("/v1/channels", opening(other))[1]["code"] == "storage_full"
        assert payer.call("/readyz")[0] == 200
        wait_until(lambda: payer.metric("paychan_storage_full") >= 1)
        filler.unlink()
        payer.pay_until(200)
        filler = fill(disk, LEFT_BYTES)
        payer.pay_until(503)
        status, channel, _ = payer.call(f"{payer.path}/request-close", {})
        assert (status, channel["state"]) == (200, "Settling")
        assert served.stop() == 0
        assert "disk_nearly_full" in served.said


@pytest.mark.slow
def test_a_disk_that_is_full_in_spite_of_it_ends_the_process_and_loses_nothing(disk, monkeypatch):
    monkeypatch.setenv("PAYCHAN_SHARD__SEGMENT_BYTES", str(1 << 20))
    monkeypatch.setenv("PAYCHAN_SHARD__SPACE_SOFT_BYTES", "0")
    with serving(disk / "data") as served:
        payer = OnePayer(served)
        payer.open()
        filler = fill(disk, 0)
        with contextlib.suppress(OSError):  # the connection ends with the process
            while True:
                payer.pay_many(200)
        assert served.process.wait(WAIT_S) == EXIT_STEP_FAILED
    with pytest.raises(AssertionError, match="No space left on device"):
        start(disk / "data")
    filler.unlink()
    with serving(disk / "data") as served:
        accepted = payer.sequence
        payer.url = served.url
        balance = payer.call(f"{payer.path}/balance")[1]
        assert accepted <= balance["sequence"] <= accepted + 200
        payer.sequence = balance["sequence"]
        assert payer.pay()[0] == 200


@pytest.mark.slow
async def test_closes_and_reads_come_through_where_claims_and_openings_do_not(
    tmp_path, monkeypatch
):
    ask = os.statvfs
    seen = ask(tmp_path)
    full = os.statvfs_result([*seen[:4], 1, *seen[5:]])
    monkeypatch.setattr("engine.channels.space.LOOK_EVERY_S", 0.01)
    async with door_to_engine(tmp_path) as door:
        payer = await door.payer()
        # Other engines of this process go on with the disk as it is.
        monkeypatch.setattr(
            "engine.channels.space.os.statvfs",
            lambda path: full if tmp_path in Path(path).parents else ask(path),
        )
        (result,) = await door.results(payer.claim(1, 1))
        number = 1
        while result["status"] == "accepted":
            number += 1
            (result,) = await door.results(payer.claim(number, number))
        assert (result["code"], result["retryable"]) == ("storage_full", True)
        assert result["retry_after_ms"] > 0
        async with door.socket() as socket:
            ((_, code, _, _),) = await socket.frame(1, payer.wire(number, number))
        assert code == "storage_full"
        answer = await door.post("/v1/channels", Payer(door).opening())
        while answer.status == 201:  # the other shard may have looked at the disk a moment ago
            answer = await door.post("/v1/channels", Payer(door).opening())
        assert (answer.status, answer.code) == (503, "storage_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await payer.balance())["claimed"] == str(number - 1)
        assert (await door.get("/readyz")).status == 200
        assert (await door.post(f"{payer.path}/request-close")).status == 200


def wait_until(condition) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


# A disk that is slow ------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_syncs(served: Served, delay_s: float) -> Iterator[None]:
    """Let every sync of a running engine take longer while the block runs."""
    try:
        with slowed([served.process.pid], delay_s):
            yield
    except CannotRun as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_a_disk_that_hangs_keeps_nobody_waiting_and_what_it_took_is_known_later(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PAYCHAN_LANE__SILENT_AFTER_MS", "1000")
    with serving(tmp_path / "data") as served:
        payer = OnePayer(served)
        payer.open()
        with slow_syncs(served, 8.0):
            status, problem, _ = payer.pay()
            assert (status, problem["code"]) == (503, "unavailable")
            began = time.monotonic()
            assert payer.pay(2)[1]["code"] == "unavailable"
            assert payer.call(f"{payer.path}/balance")[0] == 503
            assert time.monotonic() - began < 6  # of the eight that the sync still takes
            assert payer.call("/readyz")[0] == 503
        payer.pay_until(200)
        assert payer.call(f"{payer.path}/balance")[1]["sequence"] == payer.sequence >= 1
        payer.readiness(200)


# No file descriptors ------------------------------------------------------------------------------

CROWD = 64


@contextlib.contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """Let a process open no further file while the block runs."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest_free = min(set(range(len(taken) + 1)) - taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_an_engine_without_file_descriptors_serves_whom_it_has_and_turns_others_away(tmp_path):
    with serving(tmp_path / "data") as served, contextlib.ExitStack() as crowd:
        payer = OnePayer(served)
        payer.open()
        assert payer.pay()[0] == 200
        known = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WAIT_S)
        crowd.callback(known.close)
        known.request("GET", "/livez")
        assert known.getresponse().read() is not None
        with no_more_files(served.process.pid):
            address = ("127.0.0.1", served.port)
            for _ in range(CROWD):
                turned_away = crowd.enter_context(socket.create_connection(address, WAIT_S))
                with contextlib.suppress(ConnectionResetError):
                    assert turned_away.recv(100) == b""
            claim = json.dumps(payer.claim(2))
            known.request(
                "POST", f"{payer.path}/claims", claim, {"content-type": "application/json"}
            )
            answer = known.getresponse()
            assert (answer.status, json.load(answer)["status"]) == (200, "accepted")
        payer.readiness(200)
        assert payer.pay(3)[0] == 200
        assert payer.call(f"{payer.path}/balance")[1]["sequence"] == payer.sequence == 3


# Two on one directory -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_engine_on_one_directory_is_refused_and_told_who_is_there(tmp_path):
    with serving(tmp_path / "data") as served:
        with pytest.raises(AssertionError, match=rf"another writer .*pid={served.process.pid} "):
            start(tmp_path / "data")
        payer = OnePayer(served)
        payer.open()
        assert payer.pay()[0] == 200
