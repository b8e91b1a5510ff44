"""A command that is told to end tidies up: no process of its own is left, and no scratch file."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.channels.processes import named, until

WAIT_S = 60.0
BENCH = [sys.executable, "-m", "engine.cli.main", "bench", "claims", "--runtime", "inline"]


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
    engine = f"serve --datadir {tmp_path}"
    try:
        asyncio.run(until(lambda: named(engine) or bench.poll() is not None, WAIT_S))
        (served,) = named(engine)
        bench.terminate()
        assert bench.wait(WAIT_S) == code
    finally:
        bench.kill()
        bench.wait()
    # By its number: once its parent has gone it is below this process no more.
    assert not Path(f"/proc/{served}").exists()
    assert list(tmp_path.iterdir()) == []
