"""Verification notices each thing that is kept and is not so."""

import pytest

from tests.payments.builders import (
    begun,
    failure,
    make_attempt,
    make_record,
    mk,
    settle,
    shard,
    state_of_store,
)
from tests.payments.sql.looking import run

DAMAGES = {
    "too much sent": ("UPDATE payments SET sent_msat = 556 WHERE sequence_number = 2", "sent_msat"),
    "no fees": ("UPDATE payments SET fees_msat = 0 WHERE sequence_number = 2", "fees_msat"),
    "a failed one more": (
        "UPDATE payments SET attempts_failed = attempts_failed + 1 WHERE sequence_number = 2",
        "failed",
    ),
    "paid, says the row": (
        "UPDATE payments SET attempts_settled = 1, attempts_in_flight = 0, status = 3 "
        "WHERE sequence_number = 3",
        "status",
    ),
    "nothing tried, says the row": (
        "UPDATE payments SET attempts_settled = 0, attempts_in_flight = 0, attempts_failed = 0, "
        "failure_reason = NULL, status = 1 WHERE sequence_number = 1",
        "failed",
    ),
    "a result that is gone": ("DELETE FROM payment_htlc_attempt_resolutions", "in_flight"),
    "another last hop": (
        "UPDATE payment_route_hops SET amount_to_forward_msat = 554 WHERE hop_index = 1",
        "receiver_msat",
    ),
    "hops that are gone": ("DELETE FROM payment_route_hops", "hops"),
    "another amount": ("UPDATE payment_htlc_attempts SET receiver_msat = 1", "receiver_msat"),
    "another value": ("UPDATE payments SET value_msat = 1 WHERE sequence_number = 2", "amounts"),
    "a payment more": ("UPDATE payment_sequences SET payment_count = 4", "payments"),
    "a duplicate more": ("UPDATE payment_sequences SET duplicate_count = 1", "duplicates"),
    "numbers again": ("UPDATE payment_sequences SET last_sequence_number = 2", "sequence number"),
    "indexes again": ("UPDATE payment_sequences SET last_attempt_index = 5", "attempt index"),
}


@pytest.mark.parametrize(("damage", "what"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_kept_wrong_is_found(sql, damage, what):
    mk(sql, ["Failed", "Succeeded", "InFlight"])
    assert sql.verify().is_sound
    run(sql, damage)
    report = sql.verify()
    assert not report.is_sound
    assert [problem for problem in report.problems if what in problem.what]


def test_a_number_of_two_is_found(sql):
    sql.write_records([make_record(1, duplicates=[3]), make_record(2)])
    run(sql, "UPDATE payment_duplicates SET sequence_number = 2")
    assert [problem.what for problem in sql.verify().problems] == [
        "numbers of a payment and a duplicate"
    ]


def test_all_problems_are_counted_and_some_are_named(sql):
    sql.write_records([make_record(number) for number in range(1, 151)])
    run(sql, "UPDATE payments SET fees_msat = 7")
    report = sql.verify()
    assert (report.problem_count, len(report.problems)) == (150, 100)


def test_the_database_itself_refuses_a_status_that_the_counts_deny(sql):
    begun(sql)
    with pytest.raises(Exception, match="payments_check_status"):
        run(sql, "UPDATE payments SET status = 3")


def test_the_database_itself_refuses_an_attempt_that_settled_and_failed(sql):
    identifier = begun(sql, 555)
    sql.register_attempt(identifier, make_attempt(1, shard()))
    sql.register_attempt(identifier, make_attempt(2, shard()))
    sql.settle_attempt(identifier, 1, settle())
    sql.fail_attempt(identifier, 2, failure())
    for change in (
        "UPDATE payment_htlc_attempt_resolutions SET failure_reason = 1",
        "UPDATE payment_htlc_attempt_resolutions SET resolution_type = 3",
        "UPDATE payment_htlc_attempt_resolutions SET settle_preimage = NULL",
    ):
        with pytest.raises(Exception, match="settled_or_failed"):
            run(sql, change)
    state_of_store(sql)
