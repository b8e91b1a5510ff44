"""What a shard's process does under Ray and nowhere else."""

import os
import signal
import subprocess
import sys

import pytest

TICKS_FOR_EVER = """
import signal
from engine.channels.cluster import ticker_of_worker

ticker_of_worker(lambda: None, 0.01)
print("ticks", flush=True)
signal.pause()
"""
PARENT = """
import subprocess, sys

subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
"""


@pytest.mark.slow
def test_a_shard_whose_raylet_is_gone_ends_and_lets_go_of_its_log():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, TICKS_FOR_EVER], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout.readline() == b"ticks\n"
        os.kill(parent.pid, signal.SIGKILL)
        # The pipe is the orphan's too: it ends when the orphan does.
        assert parent.stdout.read() == b""
