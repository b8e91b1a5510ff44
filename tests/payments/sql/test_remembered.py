"""What a handle on PostgreSQL remembers of payments is what their rows say, or nothing."""

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from msgspec.structs import replace

from bench.payment_places import postgres_server
from engine.payments import FailureReason, PaymentDBError, open_payment_db
from engine.payments.checking import MESSAGE_BYTES_MAX
from engine.payments.errors import StoreFullError
from engine.payments.memory import ATTEMPTS_MAX, PAYMENTS_MAX
from engine.payments.sql.believing import ROUND
from engine.payments.values import NUMBER_MAX
from tests.payments.builders import (
    begun,
    begun_plain,
    empty_records,
    failure,
    make_attempt,
    plain,
    settle,
    shard,
)
from tests.payments.sql.looking import watched

pytestmark = pytest.mark.slow


def remembered(store):
    """Return what a handle remembers, by identifier."""
    return store._database._remembered._left


def change(store, identifier):
    """Change a payment on a connection of its own; return the connection, not committed."""
    connection = psycopg.connect(store._database._url)
    statement = "UPDATE payments SET created_at_ns = 7 WHERE identifier = %s"
    connection.execute(statement, (identifier,))
    return connection


def reads(log):
    """Return the statements that read a payment or its attempts."""
    return [text for text, *_ in log if text.startswith("SELECT")]


def test_a_payment_under_way_is_not_read_again_and_says_what_the_server_says(postgresql):
    identifier = begun_plain(postgresql)
    with watched(postgresql) as log:
        first = postgresql.register_attempt(identifier, plain(1))
        assert first == postgresql.fetch_payment(identifier)
        log.clear()
        postgresql.register_attempt(identifier, plain(2))
        postgresql.fail_attempt(identifier, 1, failure())
        answer = postgresql.settle_attempt(identifier, 2, settle())
        assert reads(log) == []
    assert answer == postgresql.fetch_payment(identifier)
    assert identifier not in remembered(postgresql)  # it is over


def test_a_call_about_a_payment_that_is_new_or_under_way_is_one_statement(postgresql, monkeypatch):
    monkeypatch.setattr("engine.payments.sql.postgresql.PostgresWork", None)
    begun(postgresql)  # with custom records
    identifier = begun_plain(postgresql)
    postgresql.register_attempt(identifier, plain(1))
    postgresql.register_attempt(identifier, plain(2))
    postgresql.fail_attempt(identifier, 2, failure())
    payment = postgresql.settle_attempt(identifier, 1, settle())
    monkeypatch.undo()
    assert payment == postgresql.fetch_payment(identifier)


def test_a_call_with_many_records_is_one_statement(postgresql, monkeypatch):
    records = empty_records(MESSAGE_BYTES_MAX)
    route = replace(shard(), first_hop_wire_records=records)
    monkeypatch.setattr("engine.payments.sql.postgresql.PostgresWork", None)
    begun(postgresql, first_hop_custom_records=records)
    identifier = begun_plain(postgresql)
    payment = postgresql.register_attempt(identifier, make_attempt(1, route))
    monkeypatch.undo()
    assert payment == postgresql.fetch_payment(identifier)
    assert postgresql.verify().problem_count == 0


def test_a_statement_that_the_driver_does_not_send_leaves_no_outcome_open(postgresql, monkeypatch):
    """It takes 65,535 arguments; such a call goes the way of those that believe nothing."""
    monkeypatch.setattr("engine.payments.sql.believing.ROWS_APART_MAX", 100_000)
    route = replace(shard(), first_hop_wire_records=empty_records(MESSAGE_BYTES_MAX))
    identifier = begun_plain(postgresql)
    payment = postgresql.register_attempt(identifier, make_attempt(1, route))
    assert payment == postgresql.fetch_payment(identifier)


def test_a_payment_that_is_there_is_not_begun_and_takes_no_number(postgresql):
    identifier = begun_plain(postgresql)
    info = postgresql.fetch_payment(identifier).info
    with pytest.raises(PaymentDBError, match="payment_exists"):
        postgresql.init_payment(identifier, info)
    postgresql.fail_payment(identifier, FailureReason.TIMEOUT)
    postgresql.init_payment(identifier, info)  # begun again
    payment = postgresql.register_attempt(identifier, plain(1))
    assert payment == postgresql.fetch_payment(identifier)
    assert postgresql.counters().sequence_number == payment.sequence_number == 2
    assert postgresql.verify().problem_count == 0


def test_no_number_is_believed_in_where_none_is_left(postgresql):
    postgresql.raise_counters(NUMBER_MAX)
    with pytest.raises(StoreFullError, match="no sequence number is left"):
        begun_plain(postgresql)


def test_what_is_believed_is_no_ground_to_refuse(postgresql):
    identifier = begun_plain(postgresql, value_msat=185)
    postgresql.register_attempt(identifier, plain(1))
    with open_payment_db(postgresql._database._url) as beside:
        beside.fail_attempt(identifier, 1, failure())  # so there is room for another
    payment = postgresql.register_attempt(identifier, plain(2))
    assert payment == postgresql.fetch_payment(identifier)


def test_what_is_believed_is_no_ground_to_settle(postgresql):
    identifier = begun_plain(postgresql)
    postgresql.register_attempt(identifier, plain(1))
    with open_payment_db(postgresql._database._url) as beside:
        before = beside.fail_attempt(identifier, 1, failure())
    with pytest.raises(PaymentDBError, match="attempt_already_failed"):
        postgresql.settle_attempt(identifier, 1, settle())
    assert postgresql.fetch_payment(identifier) == before


def test_what_another_changed_is_read(postgresql):
    identifier = begun_plain(postgresql)
    postgresql.register_attempt(identifier, plain(1))
    assert identifier in remembered(postgresql)
    with change(postgresql, identifier):
        pass
    payment = postgresql.register_attempt(identifier, plain(2))
    assert payment.info.created_at_ns == 7
    assert payment == postgresql.fetch_payment(identifier)
    assert identifier in remembered(postgresql)


def test_what_another_takes_back_changed_nothing(postgresql):
    identifier = begun_plain(postgresql)
    beside = change(postgresql, identifier)
    beside.rollback()
    beside.close()
    with watched(postgresql) as log:
        payment = postgresql.register_attempt(identifier, plain(1))
    assert reads(log) == []
    assert payment == postgresql.fetch_payment(identifier)


def test_a_call_that_waits_for_another_sees_what_that_one_did(postgresql):
    identifier = begun_plain(postgresql)
    beside = change(postgresql, identifier)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(postgresql.register_attempt, identifier, plain(1))
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        with psycopg.connect(postgresql._database._url, autocommit=True) as looking:
            while not waiting.done() and looking.execute(blocked).fetchall() == [(0,)]:
                time.sleep(0.01)
        assert not waiting.done()
        beside.commit()
        payment = waiting.result()
    beside.close()
    assert payment.info.created_at_ns == 7
    assert payment == postgresql.fetch_payment(identifier)


def test_a_payment_that_another_deleted_is_gone(postgresql):
    identifier = begun_plain(postgresql)
    with open_payment_db(postgresql._database._url) as beside:
        beside.fail_payment(identifier, FailureReason.TIMEOUT)
        beside.delete_payment(identifier)
    with pytest.raises(PaymentDBError, match="payment_not_initiated"):
        postgresql.register_attempt(identifier, plain(1))


def test_a_number_that_has_come_round_is_not_taken_for_ours(postgresql):
    identifier = begun_plain(postgresql)
    left = remembered(postgresql)[identifier]
    older = replace(
        *(left,),
        transaction=left.transaction - ROUND,
        header=replace(left.header, created_at_ns=7),
    )
    remembered(postgresql)[identifier] = older
    payment = postgresql.register_attempt(identifier, plain(1))
    assert payment.info.created_at_ns != 7
    assert payment == postgresql.fetch_payment(identifier)


def test_what_a_server_said_before_it_was_started_again_is_not_believed():
    server = postgres_server()
    try:
        with open_payment_db(server.get_uri()) as store:
            identifier = begun_plain(store)
            left = remembered(store)[identifier]
            server.stop()
            server.start()
            payment = store.register_attempt(identifier, plain(1))
            assert payment == store.fetch_payment(identifier)
            assert remembered(store)[identifier].server != left.server
            assert store._database._remembered.get(identifier, left.server) is None
    finally:
        server.cleanup()


def test_a_refusal_changes_nothing_and_comes_in_order(postgresql):
    identifier = begun_plain(postgresql)
    first = plain(1)
    postgresql.register_attempt(identifier, first)
    with pytest.raises(PaymentDBError, match="attempt_exists"):
        postgresql.register_attempt(identifier, plain(1, 10**9))  # and exceeds the payment
    same_key = replace(plain(2), session_key=first.session_key)
    with pytest.raises(PaymentDBError, match="session_key_exists"):
        postgresql.register_attempt(identifier, same_key)
    payment = postgresql.register_attempt(identifier, plain(2))
    assert [each.attempt_index for each in payment.attempts] == [1, 2]
    assert payment == postgresql.fetch_payment(identifier)


def test_a_call_whose_commit_fails_is_not_remembered(postgresql):
    identifier = begun_plain(postgresql)
    before = remembered(postgresql)[identifier]
    refuse = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE SQLSTATE '53100'; END $$;"
        "CREATE CONSTRAINT TRIGGER refusing AFTER INSERT ON payment_htlc_attempts "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with psycopg.connect(postgresql._database._url, autocommit=True) as beside:
        beside.execute(refuse)
        try:
            with pytest.raises(Exception, match="nothing was changed"):
                postgresql.register_attempt(identifier, plain(1))
        finally:
            beside.execute("DROP FUNCTION refuse() CASCADE")
    assert remembered(postgresql)[identifier] is before
    payment = postgresql.register_attempt(identifier, plain(2))
    assert [each.attempt_index for each in payment.attempts] == [2]
    assert payment == postgresql.fetch_payment(identifier)


def test_little_is_remembered(postgresql):
    assert begun(postgresql) not in remembered(postgresql)  # it has custom records
    first = begun_plain(postgresql, value_msat=185 * 100)
    for index in range(1, ATTEMPTS_MAX + 2):
        assert first in remembered(postgresql), index
        postgresql.register_attempt(first, plain(index))
    assert first not in remembered(postgresql)
    others = [begun_plain(postgresql) for _ in range(PAYMENTS_MAX + 1)]
    assert [*remembered(postgresql)] == others[1:]
    assert postgresql.fail_payment(others[0], FailureReason.ERROR).failure_reason is not None


@pytest.mark.parametrize("seed", range(3))
def test_handles_that_take_turns_see_what_the_others_did(postgresql, seed):
    chance = random.Random(seed)
    url = postgresql._database._url
    with open_payment_db(url) as second, open_payment_db(url) as third:
        handles = (postgresql, second, third)
        identifiers = [begun_plain(postgresql, value_msat=185 * 500) for _ in range(3)]
        indexes = itertools.count(1)
        in_flight = []
        for _ in range(150):
            handle, identifier = chance.choice(handles), chance.choice(identifiers)
            if in_flight and chance.random() < 0.5:
                identifier, index = in_flight.pop(chance.randrange(len(in_flight)))
                payment = handle.fail_attempt(identifier, index, failure())
            else:
                index = next(indexes)
                payment = handle.register_attempt(identifier, plain(index))
                in_flight.append((identifier, index))
            assert payment == chance.choice(handles).fetch_payment(identifier)
        assert postgresql.verify().problem_count == 0
