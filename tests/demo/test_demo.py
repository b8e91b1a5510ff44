"""The demo itself, short: a real Ray, a real SIGKILL, three records compared."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_loses_nothing_when_a_shard_is_killed(tmp_path):
    command = [sys.executable, "-m", "engine.cli.main", "demo", "--seconds", "6", "--json"]

    done = subprocess.run(
        [*command, "--datadir", str(tmp_path)], capture_output=True, text=True, timeout=180
    )

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["holds"] is True
    assert figures["published_claim"] == "accepted"
    assert figures["verdict"]["acknowledged"] == figures["verdict"]["logged"] > 1_000
    assert figures["seconds_without_shard"] > 0
    refused = set(figures["answers"]) - {"accepted", "duplicate"}
    assert refused == {"amount_over_capacity", "bad_signature", "sequence_gap"}
