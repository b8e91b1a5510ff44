"""What no file can make the reader do: work without end, and memory without end."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.payments import AttemptFailureReason, Failure, open_payment_db
from engine.payments.lnd import (
    DamagedFileError,
    DamagedPaymentError,
    LndPayments,
    LndSource,
    payment,
    source,
    work,
)
from engine.payments.lnd.bbolt import DEPTH_MAX
from engine.payments.migration import Migration, Place
from engine.payments.records import PaymentRecord
from tests.payments.builders import make_attempt, make_record, settle
from tests.payments.lnd.nodes import Node, node_of
from tests.payments.lnd.samples import Samples


def read(path: Path) -> list[PaymentRecord]:
    with LndPayments(path) as payments:
        return list(payments.records(ignore))


def ignore(text: str) -> None:
    """Take a warning; there are thousands."""


# Work ---------------------------------------------------------------------------------------------


def made_to_be_read_over_and_over() -> Node:
    """Each number of a long index points at one of a few payments in a page of megabytes."""
    records = [make_record(number) for number in (1, 2, 3, 4)]
    node = node_of(records)
    for record in records:
        bucket = node.payments.tree(record.info.identifier)
        bucket.is_whole = True
        bucket[b"junk"] = bytes(3 << 20)
    for number in range(5, 4000):
        node.point(number, records[number % 4].info.identifier)
    return node


def test_a_file_that_is_made_to_be_read_over_and_over_is_refused(tmp_path):
    with pytest.raises(DamagedFileError, match="more work than a sound one"):
        read(made_to_be_read_over_and_over().write(tmp_path / "channel.db"))


def test_no_file_pays_for_work_with_holes_at_its_end(tmp_path):
    path = made_to_be_read_over_and_over().write(tmp_path / "channel.db")
    os.truncate(path, 1 << 40)
    with pytest.raises(DamagedFileError, match="more work than a sound one"):
        read(path)


def test_an_element_counts_as_more_than_its_bytes():
    seen = work.Work(4096)
    seen.add_page(4096, 10)
    seen.add_page(4096, 100)
    seen.add_inline(1024, 20)
    assert (seen.read, seen.inline) == (4096 + 12_800, 2560)


def test_no_more_elements_count_than_there_is_room_for():
    seen = work.Work(4096)
    seen.add_page(4096, 65_535)
    assert seen.read == 256 * 128


def test_pages_in_memory_are_looked_at_no_oftener_than_in_a_sound_file(tmp_path, monkeypatch):
    """A payment that each number names lies below branches of one element, and so does its tree."""
    monkeypatch.setattr(work, "FREE_BYTES", 0)
    record = make_record(1)
    node = node_of([record])
    node.payments.depth = node.payments.tree(record.info.identifier).depth = DEPTH_MAX - 1
    path = node.write(tmp_path / "channel.db")
    assert read(path) == [record]
    for number in range(2, 3_000):
        node.point(number, record.info.identifier)
    with pytest.raises(DamagedFileError, match="more work than a sound one"):
        read(node.write(path))


def inline_payment(junk: dict[bytes, bytes], names: int) -> Node:
    """Return a node with one payment, inline with `junk` in it, that so many numbers name."""
    record = make_record(1)
    node = node_of([record])
    bucket = node.payments.tree(record.info.identifier)
    bucket.is_inline = True
    bucket.items.update(junk)
    for number in range(2, 2 + names):
        node.point(number, record.info.identifier)
    return node


@pytest.mark.parametrize(
    ("junk", "names"),
    [({b"junk": bytes(15_000)}, 8_000), ({b"a%03d" % index: b"" for index in range(800)}, 1_000)],
    ids=["long", "many"],
)
def test_an_inline_payment_is_taken_apart_no_oftener_than_in_a_sound_file(tmp_path, junk, names):
    node = inline_payment(junk, names)
    with LndPayments(node.write(tmp_path / "channel.db", 65_536)) as payments:
        with pytest.raises(DamagedFileError, match="more work than a sound one"):
            list(payments.records(ignore))
        assert payments.work.inline < 100 << 20


def test_an_inline_payment_of_many_elements_is_refused_when_it_is_first_seen(tmp_path):
    junk = {b"a%d" % index: b"" for index in range(3_000)}
    with LndPayments(inline_payment(junk, 2_000).write(tmp_path / "channel.db")) as payments:
        with pytest.raises(DamagedFileError, match="no more than 1024 lie in a parent"):
            list(payments.records(ignore))
        assert payments.work.inline < 1024


# Memory -------------------------------------------------------------------------------------------


def with_messages(count: int) -> Node:
    """Return a node whose payment has so many attempts that failed, each with 65,535 bytes."""
    failure = Failure(0, AttemptFailureReason.MESSAGE, 0, b"m" * 65_535)
    attempts = [make_attempt(index, failure=failure) for index in range(1, count + 1)]
    return node_of([make_record(7, attempts)])


def test_a_payment_of_many_megabytes_is_read(tmp_path):
    (found,) = read(with_messages(250).write(tmp_path / "channel.db"))
    assert len(found.attempts) == 250


def test_a_payment_that_memory_is_not_made_for_is_refused(tmp_path):
    path = with_messages(257).write(tmp_path / "channel.db")
    with pytest.raises(DamagedPaymentError, match="16,777,216 that are allowed: delete"):
        read(path)
    with LndPayments(path) as payments, pytest.raises(DamagedPaymentError, match="16,777,216"):
        payments.highest_attempt_index()


@pytest.mark.parametrize("version", [22, 35])
def test_attempts_and_duplicates_of_a_payment_count_together(tmp_path, monkeypatch, version):
    def size_of(record: PaymentRecord) -> int:
        with LndPayments(node_of([record], version).write(path)) as payments:
            assert list(payments.records(ignore)) == [record]
            return payments.record_bytes

    path = tmp_path / "channel.db"
    attempts = [make_attempt(3), make_attempt(4, settle=settle())]
    records = [
        make_record(7, attempts[:1]),
        make_record(7, attempts),
        make_record(7, attempts, duplicates=[8]),
        make_record(7, attempts, duplicates=[8, 9]),
    ]
    sizes = [size_of(record) for record in records]
    assert sizes == sorted(set(sizes))
    monkeypatch.setattr(payment, "RECORD_BYTES_MAX", sizes[-1])
    size_of(records[-1])
    monkeypatch.setattr(payment, "RECORD_BYTES_MAX", sizes[-1] - 1)
    with pytest.raises(DamagedPaymentError, match=f"it has {sizes[-1]:,} bytes"):
        size_of(records[-1])


def test_a_batch_ends_where_it_is_long_and_is_the_same_when_it_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES_MAX", 3_000)
    records = Samples(4).records(30)
    place = Place()
    sizes = []
    with LndPayments(node_of(records).write(tmp_path / "channel.db")) as payments:
        lnd = LndSource(payments)
        found = list(lnd.batches(place, 10))
        for batch in found:
            sizes.append(len(batch.records))
            assert next(lnd.batches(place, 10)) == batch
            asked = next(lnd.batches(place, sizes[-1]))
            assert asked == replace(batch, is_cut=False)
            place = Place(batch.records[-1].sequence_number, place.repaired + batch.repaired)
    assert [record for batch in found for record in batch.records] == records
    assert max(sizes) > min(sizes[:-1]) > 0
    assert max(sizes) < 10
    assert all(batch.is_cut for batch in found[:-1])


def test_what_follows_a_batch_that_was_long_is_imported_too(tmp_path, monkeypatch):
    records = Samples(4).records(30)
    monkeypatch.setattr(source, "BATCH_BYTES_MAX", 2_000)
    with (
        LndPayments(node_of(records).write(tmp_path / "channel.db")) as payments,
        open_payment_db(f"lmdb:///{tmp_path}/moved", unfinished=True) as store,
    ):
        report = Migration(LndSource(payments), store, "there").run()
        assert report.totals.payments == len(records)
        assert [record for batch in store.read_records() for record in batch] == records
