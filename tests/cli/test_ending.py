"""A command that is told to end tidies up: no process of its own is left, and no scratch file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WAIT_S = 60.0
BENCH = [sys.executable, "-m", "engine.cli.main", "bench", "claims", "--runtime", "inline"]


def engines_in(folder: Path) -> list[str]:
    """Return the command lines of the engines that serve from below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "serve" in command and str(folder) in " ".join(command):
            found.append(" ".join(command))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("interrupts", "code"), [(signal.SIG_DFL, 1), (signal.SIG_IGN, 143)])
def test_a_bench_that_is_told_to_end_ends_its_engine_and_removes_its_files(
    tmp_path, interrupts, code
):
    bench = subprocess.Popen(
        [*BENCH, "--seconds", "60"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupts),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up_at = time.monotonic() + WAIT_S
        while not engines_in(tmp_path):
            assert bench.poll() is None
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        bench.terminate()
        assert bench.wait(WAIT_S) == code
    finally:
        bench.kill()
        bench.wait()
    assert engines_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
