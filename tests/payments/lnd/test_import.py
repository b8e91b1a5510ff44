"""From a file of lnd into every kind of store: rows Q and Q2 of the scenarios."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.payments import (
    AMP,
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Hop,
    PaymentDB,
    PaymentDBCode,
    PaymentStatus,
    Route,
    Settle,
    StoreError,
)
from engine.payments.lnd import (
    DamagedPaymentError,
    LndPayments,
    LndSource,
    UnknownLayoutError,
    import_lnd,
)
from engine.payments.migration import Migration, Report
from engine.payments.records import PaymentRecord
from tests.payments.builders import NOW, SECOND, P, digest, state_of_store
from tests.payments.lnd.nodes import Node, attempt_bytes, hop_bytes, node_of, route_bytes, u64
from tests.payments.lnd.real import FOLDER, needs_real_files, real_file
from tests.payments.lnd.samples import Samples
from tests.payments.lnd.writer import Tree
from tests.payments.migration.dying import Dying, EndError

HOUR = 3600 * SECOND


def hashed(index: int) -> bytes:
    return sha256(index.to_bytes(1 + index // 256)).digest()


def m(number: int, attempt_index: int, **fields: Any) -> PaymentRecord:
    """Return the base payment M of the table; seq mod 3 = 0 is settled."""
    identifier = hashed(number)
    hops = (Hop(P, 12_345, 499_500, 850), Hop(P, 67_890, 499_000, 800))
    attempt = Attempt(
        attempt_index=attempt_index,
        session_key=digest("session", number),
        route=Route(500_000, 900, P, hops),
        attempted_at_ns=NOW - 2 * HOUR,
        payment_hash=identifier,
        settle=Settle(identifier, NOW - HOUR) if number % 3 == 0 else None,
    )
    attempt = replace(attempt, **fields)
    info = CreationInfo(identifier, 1_000_000 + 1000 * number, NOW - 24 * HOUR, b"lnbc1test")
    return PaymentRecord(number, info, (attempt,))


def d(number: int, identifier: bytes, settled: bool) -> DuplicatePayment:
    return DuplicatePayment(
        sequence_number=number,
        identifier=identifier,
        value_msat=2_000_000 + 1000 * number,
        created_at_ns=NOW - 48 * HOUR,
        settle=Settle(b"\7" * 32, 0) if settled else None,
        attempt=Attempt(5, b"\5" * 32, Route(1, 1, P, (Hop(P, 1, 1, 1),)), 0),
    )


class Importer:
    """Writes a node to a file and imports it into a store, as often as asked."""

    def __init__(self, store: PaymentDB, folder: Path) -> None:
        self.store = store
        self.path = folder / "channel.db"

    def __call__(self, node: Node) -> Report:
        return self.file(node.write(self.path))

    def file(self, path: Path) -> Report:
        before = path.read_bytes()
        with LndPayments(path) as payments:
            report = Migration(LndSource(payments), self.store, "the store").run(batch_size=3)
        assert path.read_bytes() == before
        assert self.store.note() is None
        return report

    @property
    def records(self) -> list[PaymentRecord]:
        found = state_of_store(self.store)["records"]
        assert all(isinstance(record, PaymentRecord) for record in found)
        return list(found)


@pytest.fixture
def importer(store: PaymentDB, tmp_path: Path) -> Importer:
    return Importer(store, tmp_path)


def test_205_no_payments_bucket(importer):
    node = Node.new(attempt_bound=0)
    del node.root.items[b"payments-root-bucket"]
    report = importer(node)
    assert (report.totals.payments, importer.records) == (0, [])
    assert report.next_sequence_number == report.next_attempt_index == 1


def test_206_payments_without_an_index(importer):
    node = Node.new()
    del node.root.items[b"payments-index-bucket"]
    with pytest.raises(UnknownLayoutError):
        importer(node)
    assert importer.store.note() is None


def test_207_five_payments_of_which_the_first_has_number_0(importer):
    """Number 0 is one that lnd never gives and no store takes: all move up by one."""
    sources = [m(number, number + 1) for number in range(5)]
    report = importer(node_of(sources, attempt_bound=0, payment_bound=0))
    assert importer.records == [
        replace(record, sequence_number=record.sequence_number + 1) for record in sources
    ]
    assert report.totals.attempts == 5
    assert importer.store.next_attempt_index() == 6


def test_numbers_are_kept(importer):
    sources = [m(number, number) for number in (1, 2, 7, 1001, 2001)]
    importer(node_of(sources, attempt_bound=3000, payment_bound=3000))
    assert importer.records == sources
    counters = importer.store.counters()
    assert (counters.sequence_number, counters.attempt_index) == (3000, 2999)


def test_209_duplicates(importer):
    parent = m(0, 1)
    identifier = parent.info.identifier
    unresolved = replace(d(2, identifier, True), settle=None)
    sources = replace(parent, duplicates=(d(1, identifier, True), unresolved))
    report = importer(node_of([sources]))
    (found,) = importer.records
    one, two = found.duplicates
    assert (one.value_msat, one.settle, one.failure_reason) == (
        2_001_000, Settle(b"\7" * 32, 0), None,
    )  # fmt: skip
    assert (two.value_msat, two.settle, two.failure_reason) == (2_002_000, None, FailureReason(2))
    assert [each.sequence_number for each in found.duplicates] == [2, 3]
    assert (report.totals.payments, report.totals.duplicates) == (1, 2)
    assert report.totals.warning_count == 1


def settled_duplicate() -> tuple[Node, Tree]:
    """Return a node with one duplicate, and where that lies."""
    parent = m(1, 1)
    node = node_of([replace(parent, duplicates=(d(2, parent.info.identifier, True),))])
    duplicates = node.payments.tree(parent.info.identifier).tree(b"payment-duplicate-bucket")
    return node, duplicates.tree(u64(2))


def test_211_a_duplicate_with_both_ends(importer):
    node, duplicate = settled_duplicate()
    duplicate[b"payment-fail-info"] = b"\1"
    with pytest.raises(DamagedPaymentError, match="both"):
        importer(node)


def test_212_a_duplicate_without_creation_info(importer):
    node, duplicate = settled_duplicate()
    del duplicate.items[b"payment-creation-info"]
    with pytest.raises(DamagedPaymentError, match="no creation info"):
        importer(node)


def test_214_a_settlement_with_its_time(importer):
    node, duplicate = settled_duplicate()
    duplicate[b"payment-settle-info"] = b"p" * 32 + u64(NOW)
    importer(node)
    assert importer.records[0].duplicates[0].settle == Settle(b"p" * 32, NOW)


def test_215_a_key_among_duplicates_that_is_no_number(importer):
    node, _ = settled_duplicate()
    node.payments.tree(hashed(1)).tree(b"payment-duplicate-bucket")[b"7 bytes"] = Tree()
    report = importer(node)
    assert len(importer.records[0].duplicates) == report.totals.warning_count == 1


def test_217_no_sequence_number(importer):
    node = node_of([m(1, 1)])
    del node.payments.tree(hashed(1)).items[b"payment-sequence-key"]
    with pytest.raises(DamagedPaymentError) as caught:
        importer(node)
    assert caught.value.code == PaymentDBCode.NO_SEQUENCE_NUMBER
    assert importer.store.counters().payments == 0


def test_218_two_attempts_without_an_index(importer):
    report = importer(node_of([m(3, 0), m(6, 0)], attempt_bound=0))
    assert [record.attempts[0].attempt_index for record in importer.records] == [1, 2]
    assert report.next_attempt_index == importer.store.next_attempt_index() == 3
    assert report.totals.repaired == report.totals.warning_count == 2


def test_an_index_that_is_made_up_is_above_all_others(importer):
    """lnd counts on its counter; a file in which that lags behind must not clash."""
    sources = [m(3, 0), m(6, 1), m(9, 4000), m(12, 0)]
    importer(node_of(sources, attempt_bound=0))
    assert [record.attempts[0].attempt_index for record in importer.records] == [
        4001,
        1,
        4000,
        4002,
    ]
    assert importer.store.next_attempt_index() > 4002


def test_220_indexes_are_kept_and_the_counter_too(importer):
    importer(node_of([m(3, 17), m(6, 900)], attempt_bound=1000))
    assert [record.attempts[0].attempt_index for record in importer.records] == [17, 900]
    assert importer.store.next_attempt_index() == 1000


def test_an_attempt_without_an_index_that_is_in_flight_has_failed(importer):
    alone, kept, given_up = m(1, 0), m(2, 0), replace(m(4, 0), failure_reason=FailureReason.TIMEOUT)
    still = replace(m(5, 8).attempts[0], session_key=digest("still"))
    kept = replace(kept, attempts=(*kept.attempts, still))
    importer(node_of([alone, kept, given_up], attempt_bound=9))
    first, second, third = importer.records
    unknown = Failure(0, AttemptFailureReason.UNKNOWN)
    assert first.attempts[0].failure == unknown
    assert first.failure_reason is FailureReason.ERROR
    assert [each.attempt_index for each in second.attempts] == [8, 10]
    assert [each.failure for each in second.attempts] == [None, unknown]
    assert second.failure_reason is None
    assert third.failure_reason is FailureReason.TIMEOUT
    assert [each.status for each in map(importer.store.fetch_payment, map(hashed, (1, 2, 4)))] == [
        PaymentStatus.FAILED, PaymentStatus.IN_FLIGHT, PaymentStatus.FAILED,
    ]  # fmt: skip


def test_indexes_that_are_made_up_stay_the_same_wherever_it_ended(store, importer):
    sources = [m(3 * number, 0) for number in range(1, 20)]
    path = node_of(sources, attempt_bound=77).write(importer.path)
    for when in (2, 3, 4):
        with LndPayments(path) as payments:
            dying = Dying(store, "write_records", when, after=True)
            migration = Migration(LndSource(payments), dying, "the store")
            with pytest.raises(EndError):
                migration.run(batch_size=2)
    report = importer.file(path)
    indexes = [record.attempts[0].attempt_index for record in importer.records]
    assert indexes == list(range(77, 96))
    assert report.totals.repaired == report.totals.warning_count == 19


def test_222_in_flight_stays_in_flight(importer):
    route = Route(500_000, 100_000, P, (Hop(P, 12_345, 499_500, 99_000),))
    record = replace(m(42, 1, route=route, settle=None))
    importer(node_of([record]))
    (found,) = importer.store.fetch_in_flight_payments()
    assert (found.status, found.attempts) == (PaymentStatus.IN_FLIGHT, record.attempts)
    settled = importer.store.settle_attempt(hashed(42), 1, Settle(b"p" * 32, NOW))
    assert settled.status is PaymentStatus.SUCCEEDED


def test_223_an_attempt_without_a_hash(importer):
    importer(node_of([m(100, 1, payment_hash=None)]))
    assert importer.records[0].attempts[0].payment_hash == hashed(100)


def hops(count: int, channel: int, lock: int, amount: int, **last: Any) -> tuple[Hop, ...]:
    way = [Hop(P, channel + i, lock - 40 * i, amount - 100 * i) for i in range(count)]
    return (*way[:-1], replace(way[-1], **last))


ADDRESS = b"test_mpp_payment_address_32".ljust(32, b"\0")
NEW_YEAR = 1_704_110_400 * SECOND
BLINDED = {"encrypted_data": b"\1\2\3", "blinding_point": P}
CUSTOM = {65_540: b"x", 65_541: b""}
TYPES: dict[str, Callable[[], PaymentRecord]] = {
    "224 legacy": lambda: typed(1, 9, hops(2, 1, 500, 50_000, legacy_payload=True)),
    "225 mpp": lambda: typed(
        1, 50_000, hops(3, 100_000, 500_000, 50_000, mpp=MPP(ADDRESS, 50_000))
    ),
    "226 amp": lambda: typed(
        2, 75_000, hops(2, 200_000, 600_000, 75_000, amp=AMP(b"r" * 32, b"s" * 32, 0))
    ),
    "227 amp child": lambda: typed(
        3, 75_000, hops(2, 200_000, 600_000, 75_000, amp=AMP(b"r" * 32, b"s" * 32, 0x80000001))
    ),
    "228 custom": lambda: typed(
        4, 9_000,
        tuple(replace(hop, custom_records={65_538 + index: b"hop"})
              for index, hop in enumerate(hops(3, 1, 500, 9_000))),
        wire={65_541: b"w1", 65_542: b""}, first={65_536: b"p1", 65_537: b"p2"},
    ),
    "230 metadata": lambda: typed(
        5, 9_000, tuple(replace(hop, metadata=b"meta") for hop in hops(3, 1, 500, 9_000))
    ),
    "231 all": lambda: typed(
        6, 149_250,
        hops(3, 1, 500, 149_250, metadata=b"meta", mpp=MPP(ADDRESS, 149_250), **BLINDED,
             blinded_total_msat=149_250, custom_records={65_540: b"x"}),
        wire={65_541: b"w1"}, first={65_536: b"p1"},
    ),
    "232 mpp and custom": lambda: pair(10, mpp=MPP(ADDRESS, 9_000), custom_records=CUSTOM),
    "232 amp and blinded": lambda: pair(11, amp=AMP(b"r" * 32, b"s" * 32, 1), **BLINDED),
    "232 custom and metadata": lambda: pair(12, custom_records=CUSTOM, metadata=b"meta"),
    "232 blinded and metadata": lambda: pair(13, metadata=b"", **BLINDED),
    "232 mpp and metadata": lambda: pair(14, mpp=MPP(ADDRESS, 9_000), metadata=b"meta"),
}  # fmt: skip


def pair(number: int, **last: Any) -> PaymentRecord:
    """Return a payment whose last hop has these two kinds of records."""
    return typed(number, 9_000, hops(2, 1, 500, 9_000, **last))


def typed(
    number: int,
    value: int,
    way: tuple[Hop, ...],
    wire: dict[int, bytes] | None = None,
    first: dict[int, bytes] | None = None,
) -> PaymentRecord:
    """Return a settled payment over these hops."""
    record = m(number, number)
    route = Route(600_000, value + 300, P, way, 1234, wire or {})
    attempt = replace(
        record.attempts[0],
        route=route,
        attempted_at_ns=NEW_YEAR + 60 * SECOND,
        settle=Settle(b"p" * 32, NEW_YEAR + 120 * SECOND),
    )
    info = replace(
        record.info, value_msat=50_000 * value, created_at_ns=NEW_YEAR,
        first_hop_custom_records=first or {},
    )  # fmt: skip
    return replace(record, info=info, attempts=(attempt,))


@pytest.mark.parametrize("build", TYPES.values(), ids=TYPES)
def test_224_to_232_every_field_is_kept(importer, build):
    record = build()
    report = importer(node_of([record]))
    assert importer.records == [record]
    assert report.totals.warning_count == 0


def test_233_a_failure_with_a_message(importer):
    message = bytes.fromhex("1007") + b"\0\x88" + b"u" * 136 + b"trailing bytes"
    failed = Failure(NOW, AttemptFailureReason.MESSAGE, 1, message)
    record = replace(m(50, 500, failure=failed, settle=None), failure_reason=FailureReason.NO_ROUTE)
    importer(node_of([record]))
    assert importer.records == [record]


@pytest.mark.parametrize("encrypted", [[], [(10, b"")]])
def test_234_235_a_blinded_total_without_data(importer, encrypted):
    record = m(3, 1)
    node = node_of([replace(record, attempts=())])
    attempt = record.attempts[0]
    first, last = attempt.route.hops
    way = route_bytes(
        attempt.route, [hop_bytes(first), hop_bytes(last, [(18, b"\1\xd2\x68"), *encrypted])]
    )
    bucket = node.payments.tree(record.info.identifier)
    node.add_attempt(bucket, attempt, attempt_bytes(attempt, way))
    report = importer(node)
    assert importer.records == [record]
    assert "119400 msat" in report.totals.warnings[0]


def test_237_an_index_above_what_a_store_takes(importer):
    with pytest.raises(DamagedPaymentError, match=str(2**63)):
        importer(node_of([m(1, 1), m(2, 2**63)]))


def test_238_more_payments_than_a_batch(importer):
    sources = Samples(238).records(100)
    report = importer(node_of(sources))
    assert importer.records == sources
    assert report.totals.payments == 100


def test_240_a_failure_leaves_the_file_and_the_same_call_goes_on(importer):
    sources = Samples(5).records(10)
    node = node_of(sources)
    broken = node.payments.tree(sources[7].info.identifier)
    creation = broken[b"payment-creation-info"]
    broken[b"payment-creation-info"] = b"short"
    with pytest.raises(DamagedPaymentError):
        importer(node)
    assert importer.store.counters().payments == 6
    broken[b"payment-creation-info"] = creation
    report = importer(node)
    assert report.resumed_at == 6
    assert importer.records == sources


def test_241_a_second_import_is_refused(importer):
    node = node_of(Samples(5).records(10))
    importer(node)
    before = importer.records
    with pytest.raises(StoreError, match="was used before"):
        importer(node)
    assert importer.records == before


@pytest.mark.parametrize("version", [16, 22, 23])
def test_older_layouts_import(importer, version):
    sources = Samples(version).records(20)
    importer(node_of(sources, version))
    assert importer.records == sources


def test_payments_that_are_not_in_the_index_are_told(importer):
    sources = Samples(6).records(5)
    node = node_of(sources)
    del node.index.items[u64(sources[2].sequence_number)]
    report = importer(node)
    assert importer.records == sources[:2] + sources[3:]
    assert report.totals.warnings == [
        "1 payments are not in the index of the file and were left out"
    ]


def test_many_warnings_are_counted_and_the_first_quoted(importer):
    node = node_of(Samples(6).records(5))
    for number in range(5000, 5200):
        node.point(number, digest("gone", number))
    report = importer(node)
    assert report.totals.warning_count == 200
    assert len(report.totals.warnings) == 50
    assert "    and 150 more" in report.lines()


def test_a_file_is_imported_by_url(url, tmp_path):
    sources = Samples(9).records(30)
    path = node_of(sources).write(tmp_path / "channel.db")
    told = []
    rehearsed = import_lnd(path, url, dry_run=True)
    report = import_lnd(path, url, progress=told.append)
    assert rehearsed.totals == report.totals
    assert rehearsed.is_dry_run
    assert (rehearsed.next_sequence_number, rehearsed.next_attempt_index) == (
        report.next_sequence_number, report.next_attempt_index,
    )  # fmt: skip
    assert [told[0].done, told[-1].done, told[-1].total] == [0, 30, 30]
    assert report.lines()[0].startswith("moved and compared 30 payments from ")


# Q2: files of real nodes --------------------------------------------------------------------------


@needs_real_files
def test_244_carol(importer):
    report = importer.file(real_file("carol"))
    (found,) = importer.records
    assert (found.sequence_number, found.info.value_msat) == (3, 123_000)
    assert [attempt.attempt_index for attempt in found.attempts] == [1]
    assert importer.store.fetch_payment(found.info.identifier).status is PaymentStatus.SUCCEEDED
    assert report.totals.warning_count == 0
    assert (report.next_sequence_number, report.next_attempt_index) == (1001, 1000)


@needs_real_files
def test_245_dave(importer):
    importer.file(real_file("dave"))
    (found,) = importer.records
    assert (found.sequence_number, found.info.value_msat, found.attempts) == (1, 123_000, ())
    assert found.failure_reason is FailureReason.INSUFFICIENT_BALANCE
    assert importer.store.fetch_payment(found.info.identifier).status is PaymentStatus.FAILED
    assert importer.store.next_attempt_index() == 1
    with LndPayments(real_file("dave")) as payments:
        assert payments.counters.next_attempt_index == 0
        assert payments.counters.sequence_number == 1000


@pytest.mark.parametrize(("name", "version"), [("lndinit", 35), ("invoices", 33)])
def test_246_247_a_node_that_never_paid(importer, tmp_path, name, version):
    """The shape of those two files: pages of 16 KiB, an empty index, no payments bucket."""
    node = Node.new(version)
    del node.root.items[b"payments-root-bucket"]
    path = node.write(tmp_path / f"{name}.db", 16_384)
    assert importer.file(path).totals.payments == 0


@needs_real_files
def test_the_real_files_are_the_ones_that_are_described():
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.db")}
    assert sizes == {"carol.channel.db": 180_224, "dave.channel.db": 94_208}
