"""Whatever is kept for speed and is not what it should be, verification finds it."""

import pytest
from msgspec.structs import replace

from engine.payments import FailureReason, PaymentStatus
from engine.payments.kv import layout, rows
from engine.payments.kv.layout import LINE, OWNER, SESSION_KEY, number_bytes, part_key, seal
from tests.payments.builders import (
    failure,
    make_attempt,
    make_record,
    settle,
    shard,
)

RECORD = make_record(
    5,
    [make_attempt(1, shard(), settle=settle()), make_attempt(2, shard(), failure=failure())],
    duplicates=[6],
    failure_reason=FailureReason.TIMEOUT,
    created_at_ns=9_000_000_000,
)
IDENTIFIER = RECORD.info.identifier
HEADER = part_key(IDENTIFIER, layout.HEADER)
LINE_5 = layout.line_bytes(layout.IS_PAYMENT, 9_000_000_000, IDENTIFIER)
OTHER = bytes(32)


def put(key: bytes, value: bytes):
    return lambda transaction: transaction.put(key, value)


def delete(key: bytes):
    return lambda transaction: transaction.delete(key)


def record(key: bytes, row):
    return put(key, seal(key, rows.encode(row)))


def header(**fields):
    def change(transaction) -> None:
        row = rows.decode_header(layout.unseal(HEADER, transaction.get(HEADER)))
        record(HEADER, replace(row, **fields))(transaction)

    return change


def counters(**fields):
    def change(transaction) -> None:
        stored = transaction.get(layout.COUNTERS_KEY)
        row = rows.decode_counters(layout.unseal(layout.COUNTERS_KEY, stored))
        record(layout.COUNTERS_KEY, replace(row, **fields))(transaction)

    return change


SUCCEEDED, FAILED = PaymentStatus.SUCCEEDED, PaymentStatus.FAILED
DAMAGE = {
    "line lost": delete(LINE + number_bytes(5)),
    "line of a duplicate lost": delete(LINE + number_bytes(6)),
    "line of another": put(
        LINE + number_bytes(5), layout.line_bytes(layout.IS_PAYMENT, 9_000_000_000, OTHER)
    ),
    "line with another time": put(
        LINE + number_bytes(5), layout.line_bytes(layout.IS_PAYMENT, 8, IDENTIFIER)
    ),
    "line of nothing": put(LINE + number_bytes(7), LINE_5),
    "status lost": delete(layout.status_key(SUCCEEDED, 5)),
    "status besides": put(layout.status_key(PaymentStatus.IN_FLIGHT, 5), LINE_5),
    "status of nothing": put(layout.status_key(SUCCEEDED, 7), LINE_5),
    "status of a duplicate lost": delete(layout.status_key(SUCCEEDED, 6)),
    "time lost": delete(layout.created_key(9, 5)),
    "time besides": put(layout.created_key(8, 5), b""),
    "time of nothing": put(layout.created_key(9, 7), b""),
    "zone lost": delete(layout.zone_key(0, 5)),
    "zone too narrow": put(layout.zone_key(1, 5), layout.span_bytes(0, 8)),
    "zone of nothing": put(layout.zone_key(0, 5_000), layout.span_bytes(0, 8)),
    "owner lost": delete(OWNER + number_bytes(1)),
    "owner is another": put(OWNER + number_bytes(1), OTHER),
    "owner of nothing": put(OWNER + number_bytes(3), IDENTIFIER),
    "session key lost": delete(SESSION_KEY + RECORD.attempts[0].session_key),
    "session key of another": put(SESSION_KEY + RECORD.attempts[0].session_key, number_bytes(2)),
    "session key of nothing": put(SESSION_KEY + OTHER, number_bytes(1)),
    "tally in flight": header(in_flight=1),
    "tally settled": header(settled=0),
    "tally failed": header(failed=0),
    "tally sent": header(sent_msat=1),
    "tally fees": header(fees_low=1),
    "value below what was sent": header(value_msat=1),
    "reason lost": header(failure_reason=None, settled=0),
    "header lost": delete(HEADER),
    "info lost": delete(part_key(IDENTIFIER, layout.INFO)),
    "attempt lost": delete(part_key(IDENTIFIER, layout.ATTEMPT, 2)),
    "hops lost": delete(part_key(IDENTIFIER, layout.HOPS, 2)),
    "all hops lost": lambda transaction: [
        delete(part_key(IDENTIFIER, layout.HOPS, index))(transaction) for index in (1, 2)
    ],
    "result lost": delete(part_key(IDENTIFIER, layout.RESULT, 1)),
    "duplicate lost": delete(part_key(IDENTIFIER, layout.DUPLICATE, 6)),
    "a record flipped": put(HEADER, b"\x90flip"),
    "a part of no kind": put(layout.PAYMENT + IDENTIFIER + b"\x09", b"x"),
    "payments counted wrong": counters(payments=2),
    "duplicates counted wrong": counters(duplicates=0),
    "numbers counted wrong": counters(sequence_number=5),
    "indexes counted wrong": counters(attempt_index=1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_wrong_is_found(store, damage):
    store.write_records([make_record(1), RECORD, make_record(8)])
    assert store.verify().is_sound
    store._environment.write(damage)
    report = store.verify()
    assert not report.is_sound
    assert report.problem_count == len(report.problems) < 12


def test_many_problems_are_counted_and_a_hundred_named(store):
    store.write_records([make_record(number) for number in range(1, 301)])

    def lose(transaction) -> None:
        for number in range(1, 301):
            transaction.delete(LINE + number_bytes(number))

    store._environment.write(lose)
    report = store.verify()
    assert report.problem_count >= 300
    assert len(report.problems) == 100
