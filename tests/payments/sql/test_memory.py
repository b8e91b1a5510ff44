"""What a writer of SQLite remembers of payments under way is what the file says, or nothing."""

import pytest
from msgspec.structs import replace

from engine.payments import FailureReason, PaymentDBError, Settle, open_payment_db
from engine.payments.memory import ATTEMPTS_MAX, PAYMENTS_MAX
from tests.payments.builders import (
    PREIMAGE,
    begun,
    begun_plain,
    failure,
    make_attempt,
    plain,
    settle,
    shard,
)
from tests.payments.sql.looking import run, watched


def is_known(store, identifier):
    """Say whether the next call about a payment will not read it."""
    return identifier in store._database._memory._known


def reads(log):
    """Return the statements that read a payment or its attempts."""
    return [text for text, *_ in log if text.startswith("SELECT")]


def test_a_payment_under_way_is_read_from_memory_and_says_what_the_file_says(sqlite):
    identifier = begun_plain(sqlite)
    with watched(sqlite) as log:
        answers = [sqlite.register_attempt(identifier, plain(1))]
    assert answers == [sqlite.fetch_payment(identifier)]
    with watched(sqlite) as again:
        sqlite.register_attempt(identifier, plain(2))
        sqlite.fail_attempt(identifier, 1, failure())
        answer = sqlite.settle_attempt(identifier, 2, settle())
    assert answer == sqlite.fetch_payment(identifier)
    assert reads(log + again) == []
    assert not is_known(sqlite, identifier)  # it is over


@pytest.mark.parametrize("other", ["handle", "refusal", "other change"])
def test_what_may_have_changed_is_read(sqlite, other):
    identifier = begun_plain(sqlite)
    sqlite.register_attempt(identifier, plain(1))
    assert is_known(sqlite, identifier)
    match other:
        case "handle":
            with open_payment_db(sqlite._database.name) as beside:
                beside.fail_attempt(identifier, 1, failure())
        case "refusal":
            with pytest.raises(PaymentDBError, match="attempt_exists"):
                sqlite.register_attempt(identifier, plain(1))
        case _:
            run(sqlite, "UPDATE payments SET created_at_ns = 7")
    payment = sqlite.register_attempt(identifier, plain(2))
    assert payment == sqlite.fetch_payment(identifier)
    assert is_known(sqlite, identifier)


def test_handles_that_take_turns_see_what_the_other_did(sqlite):
    identifier = begun_plain(sqlite, value_msat=185 * 20)
    with open_payment_db(sqlite._database.name) as beside:
        for index in range(1, 11):
            stores = (sqlite, beside) if index % 3 else (beside, sqlite)
            stores[0].register_attempt(identifier, plain(index))
            with pytest.raises(PaymentDBError, match="attempt_exists"):
                stores[1].register_attempt(identifier, plain(index))
            payment = stores[1].fail_attempt(identifier, index, failure())
            assert len(payment.attempts) == index
            assert payment == stores[0].fetch_payment(identifier)
        beside.fail_payment(identifier, FailureReason.TIMEOUT)
        beside.delete_payment(identifier)
    with pytest.raises(PaymentDBError, match="payment_not_initiated"):
        sqlite.register_attempt(identifier, plain(20))


def test_a_commit_that_fails_leaves_nothing_in_memory(sqlite, monkeypatch):
    identifier = begun_plain(sqlite)
    real = sqlite._database._work._execute

    def refuse(statement, *arguments):
        if statement == "COMMIT":
            raise sqlite._database.driver_error("disk I/O error")
        return real(statement, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite._database._work, "_execute", refuse)
        with pytest.raises(Exception, match="disk I/O error"):
            sqlite.register_attempt(identifier, plain(1))
    assert sqlite.register_attempt(identifier, plain(2)) == sqlite.fetch_payment(identifier)
    assert [each.attempt_index for each in sqlite.fetch_payment(identifier).attempts] == [2]


def test_what_a_caller_keeps_is_not_what_is_remembered(sqlite):
    identifier = begun_plain(sqlite)
    attempt = plain(1)
    sqlite.register_attempt(identifier, attempt)
    sqlite.fail_attempt(identifier, 1, replace(failure(), reason=1))
    attempt.route.hops[0].custom_records[70_000] = b"later"
    attempt.route.first_hop_wire_records[70_000] = b"later"
    assert is_known(sqlite, identifier)
    payment = sqlite.register_attempt(identifier, plain(2))
    assert payment == sqlite.fetch_payment(identifier)
    assert payment.attempts[0].failure.reason.name == "UNREADABLE"


def test_payments_with_custom_records_are_not_remembered(sqlite):
    with_records = begun(sqlite)
    assert not is_known(sqlite, with_records)
    identifier = begun_plain(sqlite)
    sqlite.register_attempt(identifier, make_attempt(1, shard()))  # its last hop has some
    assert not is_known(sqlite, identifier)
    sqlite.register_attempt(identifier, plain(2))
    assert not is_known(sqlite, identifier)
    assert sqlite.settle_attempt(identifier, 2, Settle(PREIMAGE, 1)) == sqlite.fetch_payment(
        identifier
    )


def test_little_is_remembered(sqlite):
    first = begun_plain(sqlite, value_msat=185 * 100)
    for index in range(1, ATTEMPTS_MAX + 2):
        assert is_known(sqlite, first), index
        sqlite.register_attempt(first, plain(index))
    assert not is_known(sqlite, first)
    others = [begun_plain(sqlite) for _ in range(PAYMENTS_MAX + 1)]
    assert not is_known(sqlite, others[0])
    assert is_known(sqlite, others[1])
    assert len(sqlite._database._memory._known) == PAYMENTS_MAX
    assert sqlite.fail_payment(others[0], FailureReason.ERROR) == sqlite.fetch_payment(others[0])
