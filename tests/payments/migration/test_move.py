"""Moving between stores: nothing is lost, nothing comes twice, and it goes on whatever ends it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from engine.payments import PaymentDB, StoreError
from engine.payments.errors import StoreNotEmptyError
from engine.payments.migration import (
    ComparisonError,
    Migration,
    OtherMigrationError,
    SourceChangedError,
    StoreSource,
    UnacceptableRecordError,
    rehearse,
)
from engine.payments.migration.comparison import DIFFERENCES_MAX, differences
from engine.payments.migration.note import FORMAT, Note, encode_note
from engine.payments.migration.report import WARNINGS_MAX, Pace, Totals
from engine.payments.migration.source import Place
from engine.payments.records import Counters, PaymentRecord
from tests.payments.builders import (
    begun,
    make_attempt,
    make_info,
    make_record,
    mk,
    state_of_store,
)
from tests.payments.lnd.samples import Samples
from tests.payments.migration.dying import Dying, EndError
from tests.payments.model import ModelDB


def filled(store: PaymentDB, count: int = 40, number: int = 1) -> PaymentDB:
    """Give a store payments of every kind, and counters that are above them."""
    store.write_records(Samples(number).records(count))
    store.raise_counters(90_000, 8_000)
    return store


def moved(source: PaymentDB, destination: PaymentDB, batch_size: int = 7, **more: Any):
    return Migration(StoreSource(source, "here"), destination, "there", **more).run(batch_size)


# All of it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_all_is_moved_into_every_store(store, batch_size):
    source = filled(ModelDB())
    report = moved(source, store, batch_size)
    assert state_of_store(store) == state_of_store(source)
    assert store.counters() == source.counters()
    assert (report.totals.payments, report.resumed_at) == (40, 0)
    assert report.next_attempt_index == 8_001
    assert store.next_attempt_index() == 8_001
    assert store.note() is None


def test_all_is_moved_out_of_every_store(store):
    filled(store)
    before = state_of_store(store)
    destination = ModelDB()
    moved(store, destination)
    assert state_of_store(destination) == state_of_store(store) == before
    assert destination.counters() == store.counters()


def test_a_payment_of_every_status_is_moved(store):
    source = ModelDB()
    mk(source, ["Failed", "Succeeded", "InFlight"])
    begun(source)
    report = moved(source, store)
    totals = report.totals
    assert (totals.failed, totals.succeeded, totals.in_flight, totals.initiated) == (1, 1, 1, 1)
    assert store.fetch_in_flight_payments() == source.fetch_in_flight_payments()
    begun(store)
    begun(source)
    assert store.counters() == source.counters()


def test_an_empty_store_is_moved_with_its_counters(store):
    source = ModelDB()
    source.raise_counters(5, 6)
    report = moved(source, store)
    assert store.counters() == source.counters()
    assert report.rate == 0
    assert report.lines()[-1] == "  no warnings"


# A destination that is not new --------------------------------------------------------------------


def used(store: PaymentDB) -> None:
    store.delete_payment(begun(store))


@pytest.mark.parametrize(
    "use",
    [filled, begun, used, lambda store: store.raise_counters(0, 1)],
    ids=["filled", "begun", "used", "counters"],
)
def test_a_store_that_was_used_is_refused_and_stays_as_it_is(store, use):
    use(store)
    before = state_of_store(store), store.counters()
    with pytest.raises(StoreNotEmptyError, match="was used before"):
        moved(filled(ModelDB()), store)
    assert (state_of_store(store), store.counters()) == before
    assert store.note() is None


def test_an_unfinished_migration_goes_on_from_its_own_source_only(store):
    with pytest.raises(EndError):
        moved(filled(ModelDB()), Dying(store, "write_records", 3, after=True))
    before = store.counters(), store.note()
    other = StoreSource(filled(ModelDB(), number=2), "elsewhere")
    with pytest.raises(OtherMigrationError, match=r"from here, and elsewhere .* remove the store"):
        Migration(other, store, "there").run(7)
    longer = filled(ModelDB())
    longer.raise_counters(99_999)
    with pytest.raises(SourceChangedError, match="remove there and migrate again"):
        moved(longer, store)
    assert (store.counters(), store.note()) == before
    moved(filled(ModelDB()), store)
    assert store.counters().payments == 40


NOTE = Note(FORMAT, "00", "here", Place(), 0, Totals(), "00")
NEWER = [
    encode_note(replace(NOTE, format=FORMAT + 1)),
    encode_note(NOTE).replace(b'{"format"', b'{"field of a newer version":1,"format"'),
    encode_note(NOTE).replace(b'"warnings"', b'"field of a newer version":1,"warnings"'),
]


@pytest.mark.parametrize("note", [b"", b"{}", b'{"format":2}', b"\xff", *NEWER])
def test_a_note_that_is_not_known_is_refused(store, note):
    store.write_records((), note)
    with pytest.raises(OtherMigrationError, match="with the version that began it"):
        moved(filled(ModelDB()), store)
    assert store.note() == note


# The end of the process at every point ------------------------------------------------------------

FIRST_AND_LAST = {("write_records", 1), ("write_records", 2), ("write_records", 8)} | {
    ("read_records", 1), ("read_records", 6), ("raise_counters", 1),
}  # fmt: skip
POINTS = [
    pytest.param(
        *(name, when, after),
        marks=() if (name, when) in FIRST_AND_LAST else pytest.mark.slow,
    )
    for name, calls in {"write_records": 8, "read_records": 6, "raise_counters": 1}.items()
    for when in range(1, calls + 1)
    for after in (False, True)
]


@pytest.mark.parametrize(("name", "when", "after"), POINTS)
def test_it_goes_on_wherever_it_ended(store, name, when, after):
    source = filled(ModelDB())
    with pytest.raises(EndError):
        moved(source, Dying(store, name, when, after))
    had = store.counters().payments
    if store.counters() == type(store.counters())() or store.note() is not None:
        report = moved(source, store, batch_size=11)
        assert report.resumed_at == had
        # Sums are those of all runs together.
        assert report.totals == moved(source, ModelDB()).totals
    assert state_of_store(store) == state_of_store(source)
    assert store.counters() == source.counters()


def test_it_may_end_every_time_after_one_batch(store):
    source = filled(ModelDB())
    runs = 0
    while store.counters().payments < 40:
        with pytest.raises(EndError):
            moved(source, Dying(store, "write_records", 2, after=True), batch_size=6)
        runs += 1
        assert runs < 20
    moved(source, store)
    assert state_of_store(store) == state_of_store(source)


def test_what_was_written_before_the_end_is_compared_after_it(store):
    source = filled(ModelDB())
    with pytest.raises(EndError):
        moved(source, Dying(store, "write_records", 2, after=True))
    with pytest.raises(ComparisonError) as caught:
        moved(source, Changing(store, place=0))
    assert caught.value.identifier == Samples(1).records(1)[0].info.identifier


# Comparison ---------------------------------------------------------------------------------------


class Changing:
    """A store that returns one payment other than it was written."""

    def __init__(self, store: PaymentDB, place: int) -> None:
        self.store = store
        self.place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read_records(self, after: int = 0, batch_size: int = 500) -> Iterator[Any]:
        for batch in self.store.read_records(after, batch_size):
            records = list(batch)
            if self.place < len(records):
                records[self.place] = self.changed(records[self.place])
            yield tuple(records)

    def changed(self, record: PaymentRecord) -> PaymentRecord:
        return replace(record, info=replace(record.info, value_msat=record.info.value_msat + 1))


class Losing(Changing):
    """A store that returns the payments of a batch but one."""

    def read_records(self, after: int = 0, batch_size: int = 500) -> Iterator[Any]:
        for batch in self.store.read_records(after, batch_size):
            yield batch[: self.place] + batch[self.place + 1 :]


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_payment_that_reads_back_otherwise_ends_the_migration(store, place):
    source = filled(ModelDB())
    records = Samples(1).records(40)
    with pytest.raises(ComparisonError) as caught:
        moved(source, Changing(store, place))
    value = records[place].info.value_msat
    assert caught.value.identifier == records[place].info.identifier
    assert caught.value.differences == (f"info.value_msat: {value} was written, {value + 1} read",)
    assert store.note() is not None


@pytest.mark.parametrize("place", [0, 6])
def test_a_payment_that_is_not_read_back_ends_the_migration(store, place):
    with pytest.raises(ComparisonError):
        moved(filled(ModelDB()), Losing(store, place))


def test_every_field_is_compared():
    record = next(each for each in Samples(1).records(40) if each.attempts and each.duplicates)
    seen = 0
    for changed in variants(record):
        assert list(differences(record, changed, "")) != []
        seen += 1
    assert seen > 40


def variants(value: Any) -> Iterator[Any]:
    """Yield `value` with one field after the other changed, all the way down."""
    if isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from ((*value[:index], other, *value[index + 1 :]) for other in variants(each))
        yield value[:-1] if value else (b"x",)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from (replace(value, **{name: other}) for other in variants(getattr(value, name)))
    else:
        yield other_than(value)


def other_than(value: Any) -> Any:
    match value:
        case bytes():
            return value + b"x"
        case dict():
            return {**value, 70_000: b"x"}
        case None:
            return b"x"
        case _:
            return type(value)(not value) if int(value) < 2 else value - 1


def test_the_report_of_a_difference_is_short():
    one = make_record(1, [make_attempt(index) for index in range(1, 100)], value_msat=10**9)
    source = ModelDB()
    source.write_records([one])
    with pytest.raises(ComparisonError) as caught:
        moved(source, Scrambling(ModelDB(), 0))
    assert len(caught.value.differences) == DIFFERENCES_MAX
    assert len(str(caught.value)) < 10_000


class Scrambling(Changing):
    def changed(self, record: PaymentRecord) -> PaymentRecord:
        attempts = tuple(replace(each, session_key=b"k" * 32) for each in record.attempts)
        return replace(record, attempts=attempts)


# A source that is not sound -----------------------------------------------------------------------


class Fixed(StoreSource):
    """A store as a source that has records no store would take."""

    def __init__(self, *records: PaymentRecord) -> None:
        store = ModelDB()
        store.raise_counters(100)
        store.records = {each.info.identifier: each for each in records}
        super().__init__(store, "here")


def test_a_payment_that_no_store_takes_is_named(store):
    bad = make_record(2, [make_attempt(0)])
    source = Fixed(make_record(1), bad, make_record(3))
    for move in (
        lambda: Migration(source, store, "there").run(),
        lambda: rehearse(source, "there"),
    ):
        with pytest.raises(UnacceptableRecordError, match="attempt_index_zero") as caught:
            move()
        assert bad.info.identifier.hex() in str(caught.value)
        assert store.counters().payments == 0


def test_payments_that_exclude_another_are_named(store):
    source = Fixed(make_record(1, [make_attempt(5)]), make_record(2, [make_attempt(5)]))
    with pytest.raises(UnacceptableRecordError, match=r"number from 1 to 2 .*attempt_exists"):
        Migration(source, store, "there").run()
    assert store.counters().payments == 0


def test_a_source_that_is_written_to_meanwhile_is_noticed(store):
    source = filled(ModelDB())

    def write_too(_: object) -> None:
        begun(source)

    with pytest.raises(SourceChangedError, match="not there at first"):
        moved(source, store, progress=write_too)
    assert store.note() is not None


def test_a_source_that_counts_on_meanwhile_is_noticed(store):
    source = filled(ModelDB())

    def count_on(_: object) -> None:
        source.raise_counters(0, 9_999)

    with pytest.raises(SourceChangedError, match="counts other than at first"):
        moved(source, store, progress=count_on)


class Miscounting(ModelDB):
    """A store that counts a payment it does not have."""

    def counters(self) -> Counters:
        counters = super().counters()
        return replace(counters, payments=counters.payments + 1)


def test_a_source_that_has_not_what_it_counts_is_noticed(store):
    source = filled(Miscounting())
    with pytest.raises(SourceChangedError, match="counts 41 payments, and has 40"):
        moved(source, store)
    with pytest.raises(SourceChangedError, match="counts 41 payments, and has 40"):
        rehearse(StoreSource(source, "here"), "there")


def test_a_destination_that_is_written_to_meanwhile_is_noticed(store):
    written = []

    def write_too(progress: Any) -> None:
        if progress.done == progress.total:
            info = make_info()
            store.init_payment(info.identifier, info)
            written.append(info)

    with pytest.raises(OtherMigrationError, match="somebody else writes"):
        moved(filled(ModelDB()), store, progress=write_too)
    assert len(written) == 1
    assert store.note() is not None


def test_the_same_migration_in_another_process_is_noticed(store):
    source = filled(ModelDB())

    def move_too(progress: Any) -> None:
        if progress.done == 14:
            with pytest.raises(EndError):
                moved(source, Dying(store, "write_records", 2, after=True))

    with pytest.raises(OtherMigrationError, match="another process"):
        moved(source, store, progress=move_too)
    # What both wrote is whole, and one of them can go on.
    moved(source, store)
    assert state_of_store(store) == state_of_store(source)


# Rehearsal, progress, report ----------------------------------------------------------------------


def test_a_rehearsal_says_what_a_migration_would_do(store):
    source = filled(store)
    before = state_of_store(source)
    told = []
    rehearsed = rehearse(StoreSource(source, "here"), "there", 7, told.append)
    report = moved(source, ModelDB())
    assert rehearsed.totals == report.totals
    assert rehearsed.is_dry_run
    assert rehearsed.lines()[0] == "would move 40 payments from here to there"
    assert (rehearsed.next_sequence_number, rehearsed.next_attempt_index) == (90_001, 8_001)
    assert [each.done for each in told] == [7, 14, 21, 28, 35, 40]
    assert state_of_store(source) == before


def test_progress_has_a_rate_and_a_time_left():
    seconds = iter(range(100))
    told = []
    moved(filled(ModelDB()), ModelDB(), progress=told.append, clock=lambda: float(next(seconds)))
    assert [each.done for each in told] == [0, 0, 7, 14, 21, 28, 35, 40]
    assert {each.total for each in told} == {40}
    assert (told[0].rate, told[0].seconds_left) == (0, None)
    assert (told[4].rate, told[4].seconds_left) == (21 / 4, 19 / (21 / 4))
    assert told[-1].seconds_left == 0


def test_the_rate_is_that_of_the_last_half_minute():
    seconds = iter([0.0, 10.0, 20.0, 30.0, 60.0, 70.0])
    pace = Pace(1_000, lambda: next(seconds))
    assert [pace.at(done).rate for done in (0, 100, 200, 300, 330, 340)] == [
        0, 10, 10, 10, 1, 1,
    ]  # fmt: skip


def test_warnings_are_counted_and_the_first_kept():
    totals = Totals()
    for batch in range(3):
        totals.warn([f"{batch} {index}" for index in range(30)], unquoted=5)
    assert totals.warning_count == 105
    assert len(totals.warnings) == WARNINGS_MAX
    assert (totals.warnings[0], totals.warnings[-1]) == ("0 0", "1 19")


def test_progress_goes_on_where_it_was():
    source, store, told = filled(ModelDB()), ModelDB(), []
    with pytest.raises(EndError):
        moved(source, Dying(store, "write_records", 4, after=True))
    moved(source, store, progress=told.append)
    assert [each.done for each in told] == [14, 21, 28, 35, 40]


def test_the_report_counts_what_was_moved():
    report = moved(filled(ModelDB()), ModelDB())
    records = Samples(1).records(40)
    attempts = [attempt for record in records for attempt in record.attempts]
    totals = report.totals
    assert totals.attempts == len(attempts)
    assert totals.hops == sum(len(attempt.route.hops) for attempt in attempts)
    assert totals.duplicates == sum(len(record.duplicates) for record in records)
    assert totals.succeeded + totals.failed + totals.in_flight + totals.initiated == 40
    assert report.lines()[0] == "moved and compared 40 payments from here to there"


def test_a_fault_of_a_store_goes_through():
    closed = ModelDB()
    closed.close()
    with pytest.raises(StoreError):
        moved(filled(ModelDB()), closed)
