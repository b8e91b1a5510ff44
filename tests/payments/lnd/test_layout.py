"""Payments in a file of lnd: every layout reads back what was written, damage has a name."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.payments import MPP, FailureReason, PaymentDBCode
from engine.payments.lnd import (
    DamagedFileError,
    DamagedPaymentError,
    LndCounters,
    LndPayments,
    UnknownLayoutError,
)
from engine.payments.records import PaymentRecord, check_record
from tests.payments.builders import P, digest, last_hop, make_attempt, make_record
from tests.payments.lnd.nodes import (
    Node,
    attempt_bytes,
    hop_bytes,
    hop_records,
    node_of,
    route_bytes,
    u64,
)
from tests.payments.lnd.samples import WAYS, Samples
from tests.payments.lnd.writer import Tree

FLAT, NESTED = 35, 22


def read(path: Path, after: int | None = None) -> tuple[list[PaymentRecord], list[str]]:
    warnings: list[str] = []
    with LndPayments(path) as payments:
        return list(payments.records(warnings.append, after)), warnings


def read_node(node: Node, path: Path) -> tuple[list[PaymentRecord], list[str]]:
    return read(node.write(path / "channel.db"))


def refusal(node: Node, path: Path) -> DamagedPaymentError:
    with pytest.raises(DamagedPaymentError) as caught:
        read_node(node, path)
    return caught.value


# What is read back --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [16, 22, 23, 29, 35])
@pytest.mark.parametrize("page_size", [4096, 16384])
@pytest.mark.parametrize("freelist", [True, False])
def test_every_kind_of_payment_reads_back_from_every_layout(tmp_path, version, page_size, freelist):
    records = Samples(version).records(120)
    path = node_of(records, version).write(tmp_path / "a.db", page_size, freelist=freelist)
    assert read(path) == (records, [])
    with LndPayments(path) as payments:
        assert payments.schema_version == version
        assert payments.count() == 120
        assert payments.highest_attempt_index() == max(
            attempt.attempt_index for record in records for attempt in record.attempts
        )
    for record in records:
        check_record(record)


@pytest.mark.parametrize("version", [NESTED, FLAT])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_reads_back_alone(tmp_path, version, way):
    records = Samples(7).records(4, way)
    assert read_node(node_of(records, version), tmp_path) == (records, [])


def test_long_failure_messages_and_long_routes_lie_in_further_pages(tmp_path):
    records = Samples(1).records(3, "long")
    failure = replace(Samples(2).records(2)[1].attempts[0].failure, message=b"m" * 65_535)
    attempts = (replace(records[0].attempts[0], failure=failure, settle=None),)
    records[0] = replace(records[0], attempts=attempts)
    assert read_node(node_of(records), tmp_path) == (records, [])


def test_a_legacy_hop_with_records_keeps_both(tmp_path):
    route = last_hop(STANDARD.attempts[0].route, legacy_payload=True)
    record = replace(STANDARD, attempts=(replace(STANDARD.attempts[0], route=route),))
    assert read_node(node_of([record]), tmp_path) == ([record], [])


def test_payments_come_in_the_order_of_the_index(tmp_path):
    records = Samples(3).records(200)
    assert len({record.info.identifier < records[0].info.identifier for record in records}) == 2
    path = node_of(reversed(records)).write(tmp_path / "a.db")
    assert [record.sequence_number for record in read(path)[0]] == [
        record.sequence_number for record in records
    ]
    for index in (0, 1, 100, 199):
        rest = read(path, records[index].sequence_number)[0]
        assert rest == records[index + 1 :]


@pytest.mark.parametrize("version", [NESTED, FLAT])
def test_an_attempt_without_a_hash_has_that_of_its_payment(tmp_path, version):
    attempt = make_attempt(
        1, last_hop(Samples(1).records(1)[0].attempts[0].route), payment_hash=None
    )
    route = replace(attempt.route, first_hop_amount_msat=0, first_hop_wire_records={})
    record = make_record(4, [replace(attempt, route=route)], value_msat=10**12)
    (found,), warnings = read_node(node_of([record], version), tmp_path)
    assert found.attempts[0].payment_hash == record.info.identifier
    assert warnings == []


def test_counters_are_those_of_the_buckets(tmp_path):
    path = Node.new(attempt_bound=2000, payment_bound=3000).write(tmp_path / "a.db")
    with LndPayments(path) as payments:
        assert payments.counters == LndCounters(3000, 2000)


def test_unset_times_are_zero(tmp_path):
    record = make_record(1, [make_attempt(1, attempted_at_ns=0)], created_at_ns=0)
    assert read_node(node_of([record]), tmp_path) == ([record], [])
    duplicate = make_record(2, duplicates=[3])
    node = node_of([duplicate])
    lies = node.payments.tree(duplicate.info.identifier).tree(b"payment-duplicate-bucket")
    lie = lies.tree(u64(3))[b"payment-creation-info"]
    lies.tree(u64(3))[b"payment-creation-info"] = (
        lie[:40] + (-62_135_596_800).to_bytes(8, signed=True) + lie[48:]
    )
    (found,), _ = read_node(node, tmp_path)
    assert found.duplicates[0].created_at_ns == 0


# No payments --------------------------------------------------------------------------------------


def without(*names: bytes) -> Node:
    node = Node.new()
    for name in names:
        del node.root.items[name]
    return node


def test_a_node_that_never_paid_has_no_payments(tmp_path):
    for node in (
        Node.new(),
        without(b"payments-root-bucket"),
        without(b"payments-root-bucket", b"payments-index-bucket", b"next-payment-id-key"),
    ):
        assert read_node(node, tmp_path) == ([], [])
    with LndPayments(tmp_path / "channel.db") as payments:
        assert (payments.count(), payments.counters) == (0, LndCounters(0, 0))


def test_payments_without_an_index_are_refused(tmp_path):
    with pytest.raises(UnknownLayoutError, match="no index"):
        read_node(without(b"payments-index-bucket"), tmp_path)


@pytest.mark.parametrize("version", [0, 1, 13, 15])
def test_a_version_from_before_the_index_is_refused(tmp_path, version):
    with pytest.raises(UnknownLayoutError, match=f"version is {version}, .*from 16 on: start lnd"):
        read_node(Node.new(version), tmp_path)


def test_a_bbolt_file_of_another_program_is_refused(tmp_path):
    odd = Node.new()
    odd.root.tree(b"metadata")[b"dbp"] = b"\0" * 5
    for node in (without(b"metadata"), odd, Node(Tree(), 35)):
        with pytest.raises(UnknownLayoutError, match="no schema version"):
            read_node(node, tmp_path)


def test_counters_that_no_store_counts_are_refused(tmp_path):
    for bounds in ({"attempt_bound": 2**63 - 1}, {"payment_bound": 2**64 - 1}):
        with pytest.raises(UnknownLayoutError, match="counters"):
            read_node(Node.new(**bounds), tmp_path)


# What is skipped, with a warning ------------------------------------------------------------------


def test_a_number_without_a_payment_is_skipped(tmp_path):
    records = Samples(1).records(3)
    node = node_of(records)
    node.point(500, digest("gone"))
    found, warnings = read_node(node, tmp_path)
    assert found == records
    assert warnings == [f"number 500: payment {digest('gone').hex()} is not there"]


def test_a_number_that_nothing_has_is_skipped(tmp_path):
    record = make_record(1, duplicates=[3])
    node = node_of([record])
    node.point(2, record.info.identifier)
    found, warnings = read_node(node, tmp_path)
    assert found[0].sequence_number == 1
    assert len(warnings) == 1
    assert "number 2" in warnings[0]


def test_a_key_among_duplicates_that_is_no_number_is_skipped(tmp_path):
    record = make_record(1, duplicates=[3])
    node = node_of([record])
    duplicates = node.payments.tree(record.info.identifier).tree(b"payment-duplicate-bucket")
    duplicates[b"seven b"] = Tree()
    duplicates[u64(9)] = b"a value"
    (found,), warnings = read_node(node, tmp_path)
    assert [each.sequence_number for each in found.duplicates] == [3]
    assert len(warnings) == 2


def test_a_blinded_total_without_data_is_left_out(tmp_path):
    record = make_record(1, [make_attempt(5)])
    attempt = record.attempts[0]
    for encrypted in ([], [(10, b"")]):
        node = node_of([replace(record, attempts=())])
        hops = [*attempt.route.hops]
        rows = [*hop_records(hops[1]), (18, b"\x01\xd2"), *encrypted]
        way = route_bytes(attempt.route, [hop_bytes(hops[0]), hop_bytes(hops[1], rows)])
        bucket = node.payments.tree(record.info.identifier)
        node.add_attempt(bucket, attempt, attempt_bytes(attempt, way))
        found, warnings = read_node(node, tmp_path)
        assert found == [record]
        assert warnings == [
            f"payment {record.info.identifier.hex()}: attempt 5: hop 1: the blinded total of "
            "466 msat was left out, for there is no encrypted data"
        ]


def test_an_attempt_of_a_duplicate_that_cannot_be_read_is_left_out(tmp_path):
    record = Samples(1).records(4)[3]
    node = node_of([record])
    duplicates = node.payments.tree(record.info.identifier).tree(b"payment-duplicate-bucket")
    for key in duplicates.items:
        duplicates.tree(key)[b"payment-attempt-info"] = b"damaged"
    (found,), warnings = read_node(node, tmp_path)
    assert [each.attempt for each in found.duplicates] == [None] * 3
    assert len(warnings) == 3


def test_an_attempt_that_settled_and_failed_has_settled(tmp_path):
    settled, failed = Samples(1).records(2)
    both = replace(settled.attempts[0], failure=failed.attempts[0].failure)
    (found,), warnings = read_node(node_of([replace(settled, attempts=(both,))]), tmp_path)
    assert found.attempts == settled.attempts[:1]
    assert len(warnings) == 1


# Damage -------------------------------------------------------------------------------------------

STANDARD = make_record(7, [make_attempt(3)])
"""One payment with one attempt of two hops."""


def broken(key: bytes, value: bytes | Tree | None) -> Node:
    """Return a node whose one payment has another value under `key`, or none."""
    node = node_of([STANDARD])
    bucket = node.payments.tree(STANDARD.info.identifier)
    if value is None:
        del bucket.items[key]
    else:
        bucket[key] = value
    return node


def with_attempt(data: bytes, key: bytes = b"ai") -> Node:
    node = node_of([STANDARD])
    bucket = node.payments.tree(STANDARD.info.identifier)
    bucket.tree(b"payment-htlcs-bucket")[key + u64(3)] = data
    return node


def with_hop(rows: list[tuple[int, bytes]]) -> Node:
    attempt = STANDARD.attempts[0]
    way = route_bytes(attempt.route, [hop_bytes(attempt.route.hops[0], rows)])
    return with_attempt(attempt_bytes(attempt, way))


ATTEMPT = attempt_bytes(STANDARD.attempts[0])
CREATION = node_of([STANDARD]).payments.tree(STANDARD.info.identifier)[b"payment-creation-info"]
HASHED = ATTEMPT[: ATTEMPT.index(STANDARD.attempts[0].payment_hash) + 32]

DAMAGES = {
    "no number": (broken(b"payment-sequence-key", None), "no sequence number"),
    "a short number": (broken(b"payment-sequence-key", b"\0" * 7), "1 bytes early"),
    "no creation info": (broken(b"payment-creation-info", None), "no creation info"),
    "a short creation info": (broken(b"payment-creation-info", b"x" * 51), "1 bytes early"),
    "another payment's creation info": (
        broken(b"payment-creation-info", b"y" * 32 + CREATION[32:]), "is of payment 7979",
    ),
    "a request longer than its value": (
        broken(b"payment-creation-info", CREATION[:48] + b"\xff" * 4 + CREATION[52:]), "early",
    ),
    "records out of order": (
        broken(b"payment-creation-info", CREATION + b"\xfe\0\1\0\0\0"), "follows record 65539",
    ),
    "a record twice in a stream": (
        broken(
            b"payment-creation-info", CREATION[:52] + b"hola" + 2 * b"\xfe\0\1\0\0\0"
        ),
        "follows record 65536",
    ),
    "a record that is not custom": (
        broken(b"payment-creation-info", CREATION[:52] + b"hola\7\0"), "record 7 is not a custom",
    ),
    "a record with a long length": (
        broken(b"payment-creation-info", CREATION[:52] + b"hola\xfe\0\1\0\0\xff" + b"\xff" * 8),
        "early",
    ),
    "a type in a longer form": (
        broken(b"payment-creation-info", CREATION[:52] + b"hola\xff" + u64(65536) + b"\0"),
        "shortest form",
    ),
    "a time before 1970": (
        broken(b"payment-creation-info", CREATION[:40] + b"\xff" * 8 + CREATION[48:]), "a time of",
    ),
    "an unknown failure": (broken(b"payment-fail-info", b"\6"), "reason 06"),
    "an empty failure": (broken(b"payment-fail-info", b""), "reason nothing"),
    "a long failure": (broken(b"payment-fail-info", b"\1\1"), "reason 0101"),
    "a key among attempts": (with_attempt(b"", b"xi"), "does not write"),
    "a bucket among attempts": (
        broken(b"payment-htlcs-bucket", Tree({b"ai" + u64(3): Tree({b"a": b""})})), "a bucket lies",
    ),
    "a settlement without its attempt": (
        broken(b"payment-htlcs-bucket", Tree({b"si" + u64(3): b"s" * 40})), "is not there itself",
    ),
    "an index that no store takes": (
        broken(b"payment-htlcs-bucket", Tree({b"ai" + u64(2**63): ATTEMPT})), str(2**63),
    ),
    "a short attempt": (with_attempt(ATTEMPT[:31]), "attempt 3: it ends 1 bytes early"),
    "an attempt without a time": (with_attempt(HASHED[:-40]), "attempt 3: it ends 8 bytes early"),
    "half a hash": (with_attempt(HASHED[:-1]), "attempt 3: it ends 1 bytes early"),
    "a first amount that is too long": (with_attempt(HASHED + b"\0\2\1\1"), "1 bytes follow"),
    "a first amount in a longer form": (with_attempt(HASHED + b"\0\3\xfd\0\1"), "shortest form"),
    "an unknown record beside it": (with_attempt(HASHED + b"\0\1\1\1\1\1"), "record 1 is not"),
    "a source key of 32 bytes": (with_attempt(ATTEMPT[:44] + b"\x20" + ATTEMPT[45:]), "32 bytes"),
    "more hops than an onion takes": (
        with_attempt(ATTEMPT[:78] + b"\0\0\0\x1c" + ATTEMPT[82:]), "its 28 hops",
    ),
    "endless hops": (with_attempt(ATTEMPT[:78] + b"\xff" * 4 + ATTEMPT[82:]), "4294967295 hops"),
    "a hop key of 34 bytes": (
        with_attempt(ATTEMPT[:82] + b"\x22" + ATTEMPT[83:]), "hop 0: its key",
    ),
    "endless records": (
        with_attempt(ATTEMPT[:137] + b"\xff" * 4 + ATTEMPT[141:]), "attempt 3: hop 0",
    ),
    "a record twice": (with_hop([(16, b"a"), (16, b"a")]), "hop 0: record 16 comes twice"),
    "a custom record twice": (with_hop([(65536, b""), (65536, b"")]), "comes twice"),
    "a record that is none": (with_hop([(6, b"a")]), "record 6 is none"),
    "a record of 1301 bytes": (with_hop([(65536, b"a" * 1301)]), "1301 bytes is longer"),
    "a short MPP record": (with_hop([(8, b"a" * 31)]), "MPP record is too short"),
    "an MPP total with a zero": (with_hop([(8, b"a" * 32 + b"\0\1")]), "begins with a zero"),
    "an MPP total of 9 bytes": (with_hop([(8, b"a" * 41)]), "too long"),
    "a short AMP record": (with_hop([(14, b"a" * 63)]), "AMP record is too short"),
    "an AMP child of 5 bytes": (with_hop([(14, b"a" * 69)]), "too long"),
    "a blinded total of 9 bytes": (with_hop([(10, b"a"), (18, b"a" * 9)]), "too long"),
    "a blinding point without data": (
        with_hop([(12, P)]), "attempt 3: hop 0: it has a blinding point and no encrypted data",
    ),
    "a blinding point beside empty data": (
        with_hop([(10, b""), (12, P)]), "attempt 3: hop 0: it has a blinding point",
    ),
    "a blinding point off the curve": (with_hop([(10, b"e"), (12, b"\5" * 33)]), "not one of"),
    "a settlement of 39 bytes": (with_attempt(b"s" * 39, b"si"), "its settlement: it ends 1"),
    "a settlement of 41 bytes": (with_attempt(b"\0" * 41, b"si"), "its settlement: 1 bytes follow"),
    "a failure without an end": (with_attempt(b"\0" * 13, b"fi"), "its failure: it ends 1"),
    "a failure for no reason": (
        with_attempt(b"\0" * 9 + b"\4" + b"\0" * 4, b"fi"), "its failure: attempts do not fail",
    ),
    "a failure with a long message": (
        with_attempt(b"\0" * 8 + b"\xfe\0\0\1\0" + b"\0" * 70_000, b"fi"), "is longer than 65535",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("node", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_payment_is_refused_by_name(tmp_path, node, reason):
    error = refusal(node, tmp_path)
    assert reason in error.reason
    assert error.identifier == STANDARD.info.identifier
    assert STANDARD.info.identifier.hex() in str(error)
    assert error.page >= 2


def test_some_refusals_carry_the_code_of_a_store(tmp_path):
    assert refusal(DAMAGES["no number"][0], tmp_path).code == PaymentDBCode.NO_SEQUENCE_NUMBER
    index = refusal(DAMAGES["an index that no store takes"][0], tmp_path)
    assert index.code == PaymentDBCode.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (u64(9)[1:], b"\0\x20" + b"h" * 32),
        (u64(9), b"\1\x20" + b"h" * 32),
        (u64(9), b"\0\x1f" + b"h" * 32),
        (u64(9), b"\0\x20" + b"h" * 31),
        (u64(9), b"\0\x20" + b"h" * 33),
        (u64(9), Tree({b"a": b"b"})),
    ],
)
def test_an_index_that_lnd_does_not_write_is_refused(tmp_path, key, value):
    node = node_of([STANDARD])
    node.index[key] = value
    with pytest.raises(DamagedFileError):
        read_node(node, tmp_path)


@pytest.mark.parametrize(
    "key", [b"payments-root-bucket", b"payments-index-bucket", b"next-payment-id-key", b"metadata"]
)
def test_a_value_where_lnd_has_a_bucket_is_not_passed_over(tmp_path, key):
    node = node_of([STANDARD])
    node.root[key] = b"value"
    with pytest.raises(DamagedFileError, match=key.decode()):
        read_node(node, tmp_path)


@pytest.mark.parametrize("version", [NESTED, FLAT])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"payment-htlcs-bucket", b"value"),
        (b"payment-duplicate-bucket", b"value"),
        (b"payment-fail-info", Tree({b"a": b"b"})),
    ],
)
def test_what_would_make_another_payment_of_it_is_not_passed_over(tmp_path, version, key, value):
    """One bit of a page says what is a bucket: without it attempts would be gone, and unnoticed."""
    node = node_of([STANDARD], version)
    node.payments.tree(STANDARD.info.identifier)[key] = value
    with pytest.raises(DamagedFileError, match=key.decode()):
        read_node(node, tmp_path)


def test_a_bucket_where_an_attempt_was_settled_is_not_passed_over(tmp_path):
    node = node_of([STANDARD], NESTED)
    attempts = node.payments.tree(STANDARD.info.identifier).tree(b"payment-htlcs-bucket")
    attempts.tree(u64(3))[b"htlc-settle-info"] = Tree({b"a": b"b"})
    with pytest.raises(DamagedFileError, match="htlc-settle-info"):
        read_node(node, tmp_path)


def test_what_is_no_payment_among_payments_is_not_looked_into(tmp_path):
    node = node_of([STANDARD])
    node.payments.tree(b"k" * 33).tree(b"payment-htlcs-bucket")[b"odd"] = b""
    with LndPayments(node.write(tmp_path / "channel.db")) as payments:
        assert payments.highest_attempt_index() == 3


def test_a_number_that_no_store_takes_is_refused(tmp_path):
    node = node_of([replace(STANDARD, sequence_number=2**63)])
    assert str(2**63) in refusal(node, tmp_path).reason


@pytest.mark.parametrize("key", [b"seven b", u64(3)])
def test_a_value_among_nested_attempts_is_refused(tmp_path, key):
    node = node_of([STANDARD], NESTED)
    bucket = node.payments.tree(STANDARD.info.identifier)
    bucket[b"payment-htlcs-bucket"] = Tree({key: b"value"})
    assert "does not write" in refusal(node, tmp_path).reason


# Duplicates ---------------------------------------------------------------------------------------


def with_duplicate(**changes: bytes | None) -> Node:
    """Return a node with a settled duplicate whose values were changed; None removes one."""
    record = make_record(7, duplicates=[8])
    node = node_of([record])
    duplicates = node.payments.tree(record.info.identifier).tree(b"payment-duplicate-bucket")
    duplicate = duplicates.tree(u64(8))
    for name, value in changes.items():
        key = b"payment-%b-info" % name.encode()
        duplicate.items.pop(key, None)
        if value is not None:
            duplicate[key] = value
    return node


def test_a_duplicate_that_both_settled_and_failed_is_refused(tmp_path):
    assert "both settled and failed" in refusal(with_duplicate(fail=b"\1"), tmp_path).reason


def test_a_duplicate_without_creation_info_is_refused(tmp_path):
    assert "no creation info" in refusal(with_duplicate(creation=None), tmp_path).reason


def test_a_duplicate_of_which_nobody_knows_the_end_has_failed(tmp_path):
    (found,), warnings = read_node(with_duplicate(settle=None), tmp_path)
    assert found.duplicates[0].failure_reason is FailureReason.ERROR
    assert len(warnings) == 1


def test_a_settlement_of_a_duplicate_has_two_lengths(tmp_path):
    for value, when in ((b"p" * 32, 0), (b"p" * 32 + u64(77), 77)):
        (found,), _ = read_node(with_duplicate(settle=value), tmp_path)
        assert found.duplicates[0].settle.preimage == b"p" * 32
        assert found.duplicates[0].settle.settled_at_ns == when
    assert "its settlement" in refusal(with_duplicate(settle=b"p" * 33), tmp_path).reason


def test_a_truncated_total_may_be_any_number(tmp_path):
    for total in (0, 1, 255, 256, 2**64 - 1):
        route = last_hop(STANDARD.attempts[0].route, mpp=MPP(b"a" * 32, total))
        record = replace(STANDARD, attempts=(replace(STANDARD.attempts[0], route=route),))
        assert read_node(node_of([record]), tmp_path)[0] == [record]
