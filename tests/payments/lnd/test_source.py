"""A file of lnd as a source: the same from any place on, and other when anything was written."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from engine.cli.main import cli
from engine.payments.errors import PaymentsError
from engine.payments.lnd import (
    DamagedFileError,
    DamagedPaymentError,
    LndPayments,
    LndSource,
    import_lnd,
)
from engine.payments.migration import Place, SourceBatch
from engine.payments.records import PaymentRecord
from tests.payments.lnd.nodes import Node, node_of
from tests.payments.lnd.samples import Samples


def old_records() -> list[PaymentRecord]:
    """Return payments of which the first has number 0 and every third an attempt without index."""
    records = [
        replace(record, sequence_number=record.sequence_number - 1)
        for record in Samples(4).records(30)
    ]
    for index in range(0, 30, 3):
        first, *others = records[index].attempts
        attempts = (replace(first, attempt_index=0), *others)
        records[index] = replace(records[index], attempts=attempts)
    return records


def batches(path: Path, place: Place, batch_size: int) -> list[SourceBatch]:
    with LndPayments(path) as payments:
        return list(LndSource(payments).batches(place, batch_size))


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    return node_of(old_records(), 22, attempt_bound=0).write(tmp_path / "channel.db")


@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_what_follows_a_place_is_the_same_whenever_it_is_read(old_file, batch_size):
    everything = [record for batch in batches(old_file, Place(), 7) for record in batch.records]
    assert len({each.attempt_index for record in everything for each in record.attempts}) == sum(
        len(record.attempts) for record in everything
    )
    place = Place()
    for index, batch in enumerate(batches(old_file, Place(), batch_size)):
        (again, *_) = batches(old_file, place, batch_size)
        assert again == batch
        start = index * batch_size
        assert list(batch.records) == everything[start : start + batch_size]
        place = Place(batch.records[-1].sequence_number, place.repaired + batch.repaired)
    assert place.repaired == 10
    assert place.after == everything[-1].sequence_number


def test_numbers_that_begin_at_zero_move_up_with_their_duplicates(old_file):
    read = [record for batch in batches(old_file, Place(), 7) for record in batch.records]
    for found, record in zip(read, old_records(), strict=True):
        assert found.sequence_number == record.sequence_number + 1
        assert [each.sequence_number for each in found.duplicates] == [
            each.sequence_number + 1 for each in record.duplicates
        ]
    with LndPayments(old_file) as payments:
        assert payments.counters.sequence_number == 1000
        assert LndSource(payments).counters() == (1001, 0)


def fingerprint(path: Path) -> bytes:
    with LndPayments(path) as payments:
        return LndSource(payments).fingerprint()


def test_a_copy_has_the_fingerprint_of_its_file(old_file, tmp_path):
    copy = Path(shutil.copyfile(old_file, tmp_path / "copy.db"))
    assert fingerprint(copy) == fingerprint(old_file)


def test_another_file_has_another_fingerprint(tmp_path):
    records = Samples(4).records(3)
    seen = set()
    for node in (
        Node.new(),
        node_of(records),
        node_of(records[:2]),
        node_of(records, 34),
        node_of(records, attempt_bound=2000),
        node_of(records, payment_bound=2000),
        node_of(Samples(5).records(3)),
    ):
        seen.add(fingerprint(node.write(tmp_path / "channel.db")))
    assert len(seen) == 7


def test_a_file_that_is_written_to_meanwhile_is_noticed_at_the_end(old_file):
    with LndPayments(old_file) as payments:
        source = LndSource(payments)
        assert source.finish(30) == ()
        with old_file.open("ab") as file:
            file.write(b"x")
        with pytest.raises(DamagedFileError, match="written to"):
            source.finish(30)


@pytest.mark.parametrize(
    "error",
    [
        DamagedFileError(Path("a.db"), 17, 17 * 4096, "reason"),
        DamagedPaymentError(Path("a.db"), 17, b"i" * 32, "reason"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, PaymentsError)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def misnamed(folder: Path) -> Path:
    """Return a file whose name is no UTF-8, as a shell makes it of $'chan\\xff.db'."""
    return node_of(Samples(4).records(30)).write(folder / os.fsdecode(b"chan\xff.db"))


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_a_file_whose_name_is_no_utf_8_is_imported(tmp_path, option):
    words = ["payments", "import-lnd", str(misnamed(tmp_path)), f"sqlite:///{tmp_path}/x.db"]
    seen = CliRunner().invoke(cli, [*words, *option])
    assert seen.exception is None
    assert json.loads(seen.stdout)["source"] == f"{tmp_path}/chan\\xff.db"


def test_a_report_of_a_file_whose_name_is_no_utf_8_can_be_printed(tmp_path):
    report = import_lnd(misnamed(tmp_path), f"sqlite:///{tmp_path}/x.db", dry_run=True)
    assert b"chan\\xff.db" in "\n".join(report.lines()).encode()


def test_a_name_that_is_utf_8_stays_what_it_is(tmp_path):
    path = node_of(Samples(4).records(1)).write(tmp_path / "Büro.db")
    with LndPayments(path) as payments:
        assert LndSource(payments).name == str(path)
