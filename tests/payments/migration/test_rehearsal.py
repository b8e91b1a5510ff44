"""A dry run refuses what the real one would, however late that were, and it writes nothing."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from engine.payments import open_payment_db
from engine.payments.lnd import import_lnd
from engine.payments.migration import (
    Migration,
    MigrationError,
    OtherMigrationError,
    Place,
    SourceBatch,
    SourceChangedError,
    StoreSource,
    UnacceptableRecordError,
    migrate_store,
    rehearse,
)
from engine.payments.migration.acceptance import Taken
from engine.payments.records import PaymentRecord
from tests.payments.builders import begun, make_attempt, make_record, one_hop, settle
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.samples import Samples
from tests.payments.migration.dying import Dying, EndError

KEY = b"k" * 32


class Listed:
    """Payments as a source, whatever is wrong with them."""

    name = "here"

    def __init__(self, records: list[PaymentRecord]) -> None:
        self.records = records

    def fingerprint(self) -> bytes:
        return bytes(32)

    def count(self) -> int:
        return len(self.records)

    def batches(self, place: Place, batch_size: int) -> Iterator[SourceBatch]:
        wanted = [each for each in self.records if each.sequence_number > place.after]
        for start in range(0, len(wanted), batch_size):
            yield SourceBatch(tuple(wanted[start : start + batch_size]))

    def counters(self) -> tuple[int, int]:
        return 0, 0

    def finish(self, moved: int) -> tuple[str, ...]:
        return ()


def settled(index: int, **fields: Any) -> Any:
    return make_attempt(index, one_hop(1), settle=settle(), **fields)


ONE = make_record(3, [settled(5, session_key=KEY), settled(6)], duplicates=[4, 8])
CLASHES = {
    "identifier": (make_record(9, identifier=ONE.info.identifier), "payment_exists"),
    "number of a duplicate": (make_record(8), "sequence_number_exists 8"),
    "duplicate of a duplicate": (make_record(9, duplicates=[8]), "sequence_number_exists 8"),
    "duplicate of a payment": (make_record(9, duplicates=[3]), "sequence_number_exists 3"),
    "attempt": (make_record(9, [settled(4), settled(6)]), "attempt_exists 6"),
    "session key": (
        make_record(9, [settled(7), settled(11, session_key=KEY)]),
        "session_key_exists of attempt 11",
    ),
}


@pytest.mark.parametrize("between", [0, 1, 70])
@pytest.mark.parametrize(("other", "says"), CLASHES.values(), ids=CLASHES)
def test_payments_that_exclude_another_are_both_named(store, other, says, between):
    """What is between the two is as many batches of the real run."""
    numbers = range(20, 20 + between)
    last = replace(
        other, sequence_number=other.sequence_number + 100 * (other.sequence_number == 9)
    )
    fine = [make_record(number, [settled(number)]) for number in numbers]
    records = sorted([ONE, *fine, last], key=lambda record: record.sequence_number)
    source = Listed(records)
    owner = last if last.sequence_number < ONE.sequence_number else ONE
    with pytest.raises(UnacceptableRecordError) as caught:
        rehearse(source, "there", 7)
    text = str(caught.value)
    assert last.info.identifier.hex() in text
    assert f"number {last.sequence_number}, cannot be in one store" in text
    assert text.endswith(f"with the payment that has the number {owner.sequence_number}: {says}")
    assert KEY.hex() not in text
    # The real run says the same, only later.
    with pytest.raises(UnacceptableRecordError, match=f"{says.split()[0]}.*`--dry-run` names both"):
        Migration(source, store, "there").run(7)


def test_numbers_that_do_not_ascend_are_refused():
    with Taken() as taken:
        taken.take([make_record(5)])
        for number in (5, 4):
            with pytest.raises(UnacceptableRecordError, match="sequence_number_exists"):
                taken.take([make_record(number)])


def test_payments_that_share_nothing_are_taken():
    with Taken() as taken:
        for start in range(0, 300, 60):
            taken.take(Samples(2).records(300)[start : start + 60])
        taken.take([])


@pytest.mark.parametrize("kind", ["attempt", "session key"])
def test_a_file_of_lnd_whose_payments_exclude_another_is_refused_before_it_is_begun(tmp_path, kind):
    """lnd's key-value store keeps neither index nor session key unique."""
    clash = CLASHES[kind][0]
    fine = [make_record(number, [settled(number)]) for number in range(20, 600)]
    records = [replace(ONE, duplicates=()), *fine, replace(clash, sequence_number=700)]
    path = node_of(records).write(tmp_path / "channel.db")
    url = f"sqlite:///{tmp_path}/new.db"
    with pytest.raises(UnacceptableRecordError, match=r"number 700, .* that has the number 3: "):
        import_lnd(path, url, dry_run=True)
    assert [each.name for each in tmp_path.iterdir()] == ["channel.db"]


def test_where_temporary_files_have_no_room_it_is_said_so(monkeypatch):
    connect = sqlite3.connect

    def small(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **named)
        connection.execute("PRAGMA max_page_count = 12")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    records = [make_record(number) for number in range(1, 2_001)]
    with pytest.raises(MigrationError, match="set SQLITE_TMPDIR"):
        rehearse(Listed(records), "there")


# The destination ----------------------------------------------------------------------------------


@pytest.fixture
def half(places, tmp_path):
    """A migration that died: the URLs of its source and its destination."""
    source, destination = places.url("lmdb"), f"sqlite:///{tmp_path}/half.db"
    with open_payment_db(source) as store:
        store.write_records(Samples(1).records(40))
        with open_payment_db(destination) as there:
            name = source
            with pytest.raises(EndError):
                Migration(
                    StoreSource(store, name), Dying(there, "write_records", 3, after=True), "there"
                ).run(7)
    return source, destination


def test_a_rehearsal_allows_the_destination_that_its_own_migration_began(half):
    source, destination = half
    assert migrate_store(source, destination, dry_run=True).totals.payments == 40
    assert migrate_store(source, destination).resumed_at == 14


def test_a_rehearsal_refuses_the_destination_of_another_migration(places, half, tmp_path):
    other = places.url("sqlite")
    with open_payment_db(other) as store:
        store.write_records(Samples(2).records(40))
    with pytest.raises(OtherMigrationError, match="finish that one, or remove the store"):
        migrate_store(other, half[1], dry_run=True)
    path = node_of(Samples(1).records(40)).write(tmp_path / "channel.db")
    with pytest.raises(OtherMigrationError, match="is another source"):
        import_lnd(path, half[1], dry_run=True)


def test_a_rehearsal_refuses_a_source_that_was_written_to_since(half):
    with open_payment_db(half[0]) as store:
        begun(store)
    with pytest.raises(SourceChangedError, match="was written to since its migration into"):
        migrate_store(*half, dry_run=True)


def test_a_rehearsal_refuses_a_destination_that_somebody_else_wrote_to(half):
    with open_payment_db(half[1], unfinished=True) as store:
        store.delete_payment(begun(store))
    with pytest.raises(OtherMigrationError, match="gave out the number"):
        migrate_store(*half, dry_run=True)
