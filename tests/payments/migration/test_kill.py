"""kill -9 in the middle of a move, again and again; the next run goes on and all is there."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.payments import open_payment_db
from engine.payments.errors import StoreUnfinishedError
from engine.payments.lnd import import_lnd
from engine.payments.migration import Report, migrate_store
from engine.payments.migration.move import BATCH_SIZE
from engine.payments.records import PaymentRecord
from tests.payments.builders import state_of_store
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.samples import Samples
from tests.payments.stores import Places

PAYMENTS = 2_600
ROOT = Path(__file__).parents[3]


class Victim:
    """The process of `mortal`."""

    def __init__(self, source: str, url: str) -> None:
        command = [sys.executable, "-m", "tests.payments.migration.mortal", source, url]
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


def killed(source: str, url: str, batches: int, in_the_middle: bool) -> list[int]:
    """Let a move go on for some batches and kill it; return how far it said it was."""
    victim = Victim(source, url)
    told = [victim.told()]
    for _ in range(batches):
        victim.go_on()
        told.append(victim.told())
    if in_the_middle:
        victim.go_on()
    victim.kill()
    return told


def killed_often(source: str, url: str) -> int:
    """Kill a move again and again; return how far it said it was at last."""
    far = 0
    for batches, in_the_middle in ((1, True), (2, False), (1, True), (2, True)):
        told = killed(source, url, batches, in_the_middle)
        # Not from the beginning: of what it told before at most one batch is compared again.
        assert far - BATCH_SIZE <= told[0] <= told[-1]
        far = max(far, told[-1])
    assert far >= 1_000
    with pytest.raises(StoreUnfinishedError):
        open_payment_db(url)
    return far


def check(url: str, report: Report, far: int, records: list[PaymentRecord]) -> None:
    assert report.resumed_at >= far
    assert report.totals.payments == PAYMENTS
    with open_payment_db(url) as store:
        assert state_of_store(store)["records"] == records


@pytest.mark.slow
def test_an_import_that_is_killed_goes_on_where_it_was(url, tmp_path):
    records = Samples(9).records(PAYMENTS, "split")
    path = node_of(records, payment_bound=10**6).write(tmp_path / "channel.db")
    far = killed_often(str(path), url)
    check(url, import_lnd(path, url), far, records)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lmdb", "sqlite"), ("sqlite", "lmdb"), ("lmdb", "lmdb"),
        ("postgresql", "sqlite"), ("lmdb", "postgresql"),
    ],
)  # fmt: skip
def test_a_migration_that_is_killed_goes_on_where_it_was(places: Places, one, other):
    records = Samples(9).records(PAYMENTS, "split")
    source, destination = places.url(one), places.url(other)
    with open_payment_db(source) as store:
        store.write_records(records)
        store.raise_counters(10**6, 10**5)
        before = store.counters(), store.fetch_in_flight_payments()
    far = killed_often(source, destination)
    check(destination, migrate_store(source, destination), far, records)
    for url in (source, destination):
        with open_payment_db(url) as store:
            assert (store.counters(), store.fetch_in_flight_payments()) == before
            assert store.note() is None
