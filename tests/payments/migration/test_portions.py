"""How much is held at a time: it follows the size of the payments, in reading and in writing."""

import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.payments import PaymentDB, open_payment_db
from engine.payments.lnd import LndPayments, LndSource
from engine.payments.migration import Migration, StoreSource, reading, rehearse
from engine.payments.migration import portions as limits
from engine.payments.migration.portions import PORTION_SIZE_MAX, Portion, pieces, weight_of
from engine.payments.records import PaymentRecord
from tests.payments.builders import digest, make_attempt, make_record, one_hop, state_of_store
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.samples import WAYS, Samples
from tests.payments.migration.dying import Dying, EndError
from tests.payments.migration.memory import peak_kib
from tests.payments.model import ModelDB


def payment(number: int, attempts: int) -> PaymentRecord:
    indexes = range(100 * number + 1, 100 * number + 1 + attempts)
    made = [make_attempt(index, one_hop(1)) for index in indexes]
    return make_record(number, made, first_hop_custom_records={})


SMALL, LARGE = (weight_of(payment(1, attempts)) for attempts in (0, 20))


def stocked(records: list[PaymentRecord]) -> ModelDB:
    """Return a store that has `records`, each of which is fine."""
    store = ModelDB()
    store.records = {record.info.identifier: record for record in records}
    store.raise_counters(records[-1].sequence_number, 10**6)
    return store


class Weighed:
    """A store that keeps how much each of its reads and writes was about."""

    def __init__(self, store: PaymentDB) -> None:
        self.store = store
        self.read: list[list[int]] = []
        self.written: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read_records(self, after: int = 0, batch_size: int = 500) -> Iterator[Any]:
        for records in self.store.read_records(after, batch_size):
            self.read.append([weight_of(record) for record in records])
            yield records

    def write_records(self, records: Sequence[PaymentRecord], note: bytes | None = None) -> None:
        self.store.write_records(records, note)
        self.written.append([weight_of(record) for record in records])


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch hold ten large payments, and a portion two."""
    monkeypatch.setattr(limits, "PORTION_BYTES_MAX", 2 * LARGE + 9)
    monkeypatch.setattr(reading, "BATCH_BYTES_MAX", 10 * LARGE)


def both(store: PaymentDB, records: list[PaymentRecord]) -> tuple[Weighed, Weighed]:
    """Move `records` through a store; return both sides."""
    source, destination = Weighed(stocked(records)), Weighed(store)
    Migration(StoreSource(source, "here"), destination, "there").run()
    assert state_of_store(store)["records"] == records
    return source, destination


def test_large_payments_come_few_at_a_time(store, tight):
    source, destination = both(store, [payment(number, 20) for number in range(1, 61)])
    assert max(map(len, source.read)) == 2
    # The first portion is of one payment: at nine there is room for another.
    assert max(map(len, destination.written)) == 11
    # What is read back is cut too.
    assert max(map(len, destination.read)) == 2


def test_small_payments_come_many_at_a_time(store):
    source, destination = both(store, [payment(number, 0) for number in range(1, 1_201)])
    # The first read is for the fingerprint.
    assert [*map(len, source.read[1:9])] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert [len(each) for each in destination.written if each] == [500, 500, 200]


def test_large_payments_among_small_ones_make_portions_small_for_a_while(store, tight):
    records = [payment(number, 20 if 150 < number <= 250 else 0) for number in range(1, 401)]
    source, destination = both(store, records)
    sizes = [len(each) for each in source.read[1:]]
    large = [len(each) for each in source.read[1:] if max(each) > LARGE / 2]
    # The first of them come unseen, within a read that began with small ones.
    assert max(large) <= 2 * LARGE // SMALL
    assert max(large[1:-1]) <= 2
    assert max(sizes[-5:]) > 10
    assert max(map(sum, destination.written)) < 10 * LARGE + large[0] * LARGE
    assert max(map(sum, destination.read)) <= 2 * LARGE + 9


def test_a_rehearsal_holds_no_more(tight):
    source = Weighed(stocked([payment(number, 20) for number in range(1, 61)]))
    told = []
    rehearse(StoreSource(source, "here"), "there", progress=told.append)
    assert max(map(len, source.read)) == 2
    assert len(told) >= 6


def test_it_goes_on_after_a_batch_that_was_cut_by_size(store, tight):
    records = [payment(number, 20) for number in range(1, 61)]
    source = stocked(records)
    for _ in range(3):
        dying = Dying(store, "write_records", 2, after=True)
        with pytest.raises(EndError):
            Migration(StoreSource(source, "here"), dying, "there").run()
    report = Migration(StoreSource(source, "here"), store, "there").run()
    assert 0 < report.resumed_at < 60
    assert state_of_store(store)["records"] == records


def test_what_a_file_warns_of_at_its_end_is_counted_once(store, tmp_path):
    """The entries behind the last payment belong to the last batch, also when that was the end."""
    node = node_of(Samples(6).records(5), payment_bound=10**5)
    for number in (5_000, 5_001):
        node.point(number, digest("gone", number))
    path = node.write(tmp_path / "channel.db")

    def move(destination: object, batch_size: int) -> int:
        with LndPayments(path) as payments:
            migration = Migration(LndSource(payments), destination, "there")  # type: ignore[arg-type]
            return migration.run(batch_size).totals.warning_count

    # The first write is of no payment; with batches of 3 the third one is the last.
    for name, when in (("write_records", 3), ("read_records", 1), ("raise_counters", 1)):
        with pytest.raises(EndError):
            move(Dying(store, name, when, after=True), 3)
    assert move(store, 3) == 2
    assert [move(ModelDB(), size) for size in (1, 2, 3, 5, 9)] == [2] * 5


def test_what_is_in_flight_is_listed_few_at_a_time(tight):
    asked = []

    class Asked(ModelDB):
        def fetch_in_flight_payments(self, after=0, max_payments=None):
            asked.append(max_payments)
            return super().fetch_in_flight_payments(after, max_payments)

    store = Asked()
    store.records = stocked([payment(number, 20) for number in range(1, 31)]).records
    StoreSource(store, "here")
    assert max(asked) == 2


def test_a_portion_grows_while_payments_are_small():
    portion, sizes = Portion(), []
    for _ in range(9):
        sizes.append(portion.size)
        portion.follow([SMALL] * portion.size)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert portion.size == PORTION_SIZE_MAX
    portion.follow([SMALL, limits.PORTION_BYTES_MAX // 5])
    assert portion.size == 5
    portion.follow([limits.PORTION_BYTES_MAX * 9])
    assert portion.size == 1
    portion.follow([])
    assert portion.size == 2


def test_pieces_are_all_and_none_is_larger_than_a_portion(tight):
    records = [payment(number, 20 * (number % 3)) for number in range(1, 20)]
    cut = list(pieces(records, [*map(weight_of, records)]))
    assert [record for piece in cut for record in piece] == records
    for piece in cut:
        assert len(piece) == 1 or sum(map(weight_of, piece)) <= 2 * LARGE + 9
    assert list(pieces([], [])) == []


def test_records_that_hold_nothing_have_a_weight():
    bare = payment(1, 0)
    many = dict.fromkeys(range(65_536, 66_536), b"")
    info = replace(bare.info, first_hop_custom_records=many)
    assert weight_of(replace(bare, info=info)) >= weight_of(bare) + 50 * len(many)


@pytest.mark.parametrize("way", [*WAYS, "none"])
def test_a_weight_is_about_what_a_payment_takes(way):
    """Between the kinds of payment it may be off by as much as it says, and a little."""
    records = Samples(1).records(300, way) if way != "none" else [*map(make_record, range(1, 501))]
    with tempfile.TemporaryDirectory() as folder, open_payment_db(f"lmdb:///{folder}") as store:
        store.write_records(records)
        del records
        tracemalloc.start()
        try:
            read = next(store.read_records(batch_size=500))
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert 0.7 < sum(map(weight_of, read)) / taken < 1.3


# Memory -------------------------------------------------------------------------------------------


def heavy(folder: Path, count: int) -> str:
    """Return the URL of a store of so many payments with a thousand attempts each."""
    url = f"sqlite:///{folder / f'heavy-{count}.db'}"
    with open_payment_db(url) as store:
        for number in range(1, count + 1):
            indexes = range(1_000 * number, 1_000 * number + 1_000)
            attempts = [make_attempt(index, one_hop(0)) for index in indexes]
            store.write_records([make_record(number, attempts)])
    return url


@pytest.mark.slow
def test_memory_is_flat_whatever_the_size_of_a_payment(tmp_path):
    few, many = (
        peak_kib(heavy(tmp_path, count), f"sqlite:///{tmp_path}/new-{count}.db")
        for count in (12, 40)
    )
    assert many - few < 24 << 10
