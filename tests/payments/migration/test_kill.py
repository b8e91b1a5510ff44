"""kill -9 in the middle of an import, again and again; the next run goes on and all is there."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.payments import open_payment_db
from engine.payments.errors import StoreUnfinishedError
from engine.payments.lnd import import_lnd
from engine.payments.migration.move import BATCH_SIZE
from tests.payments.builders import state_of_store
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.samples import Samples

PAYMENTS = 2_600
ROOT = Path(__file__).parents[3]


class Victim:
    """The process of `mortal`."""

    def __init__(self, path: Path, url: str) -> None:
        command = [sys.executable, "-m", "tests.payments.migration.mortal", str(path), url]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def told(self) -> int:
        """Return how far it is now; it waits there."""
        return int(self.stdout.readline())

    def go_on(self) -> None:
        self.stdin.write("\n")
        self.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()
        self.stdin.close()


def killed(path: Path, url: str, batches: int, in_the_middle: bool) -> list[int]:
    """Let an import go on for some batches and kill it; return how far it said it was."""
    victim = Victim(path, url)
    told = [victim.told()]
    for _ in range(batches):
        victim.go_on()
        told.append(victim.told())
    if in_the_middle:
        victim.go_on()
    victim.kill()
    return told


@pytest.mark.slow
def test_an_import_that_is_killed_goes_on_where_it_was(url, tmp_path):
    records = Samples(9).records(PAYMENTS, "split")
    path = node_of(records, payment_bound=10**6).write(tmp_path / "channel.db")
    far = 0
    for batches, in_the_middle in ((1, True), (2, False), (1, True), (2, True)):
        told = killed(path, url, batches, in_the_middle)
        # Not from the beginning: of what it told before at most one batch is compared again.
        assert far - BATCH_SIZE <= told[0] <= told[-1]
        far = max(far, told[-1])
    assert far >= 1_000
    with pytest.raises(StoreUnfinishedError):
        open_payment_db(url)
    report = import_lnd(path, url)
    assert report.resumed_at >= far
    with open_payment_db(url) as store:
        assert state_of_store(store)["records"] == records
        assert report.totals.payments == PAYMENTS
