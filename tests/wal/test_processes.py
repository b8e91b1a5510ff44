"""A real process, really killed: what it said it had committed is there."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lengths import often
from tests.wal.disk import record
from wal import Log, LogOptions, verify

OPTIONS = LogOptions(segment_bytes=64 << 10)
WRITER = """
import sys
from pathlib import Path
from tests.wal.disk import record
from wal import Log, LogOptions

log = Log.open(Path(sys.argv[1]), LogOptions(segment_bytes=64 << 10))
number = 0
while True:
    number += 1
    log.append([record(log.last + index) for index in range(1, 9)])
    print(log.commit(), flush=True)
    if number % 16 == 0:
        log.snapshot(log.last, [b"%d" % log.last])
    if number % 5 == 0:
        log.idle()
"""


@pytest.mark.slow
def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path) -> None:
    acknowledged = 0
    chance = random.Random(3)
    for _ in range(often(12, 25)):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        for _ in range(chance.randrange(1, 200)):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                acknowledged = int(line)
        writer.wait()
        writer.stdout.close()
        with Log.open(tmp_path, OPTIONS) as log:
            found = [data for _, data in log.read()]
            assert acknowledged <= len(found) <= acknowledged + 8
            assert found == [record(position) for position in range(1, len(found) + 1)]
            for snapshot in log.checkpoint():
                assert b"".join(snapshot[1]) == b"%d" % snapshot[0]
            acknowledged = len(found)
        assert verify(tmp_path).ok
    assert acknowledged > 1000
