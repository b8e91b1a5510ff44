"""Many deletions go in transactions of bounded size, and look again before they remove."""

from engine.payments import PaymentStatus
from engine.payments.sql.deletion import cut
from tests.payments.builders import begun, failure, make_attempt, mk, state_of_store


def test_what_began_since_it_was_looked_up_stays(sql):
    identifiers = [begun(sql) for _ in range(3)]
    deletion = sql._deletion
    find = deletion._find

    def then_somebody_pays(work, status, after):
        found = find(work, status, after)
        if status is PaymentStatus.INITIATED and found and not after:
            busy.append(True)
        return found

    busy: list[bool] = []
    remove = deletion._remove_batch

    def late(work, *arguments):
        if busy:
            header = sql._reading.header(work, identifiers[1])
            sql._control.register(work, header.identifier, make_attempt(1))
            busy.clear()
        return remove(work, *arguments)

    deletion._find, deletion._remove_batch = then_somebody_pays, late
    assert sql.delete_payments() == 2
    assert [payment.info.identifier for payment in sql.fetch_in_flight_payments()] == [
        identifiers[1]
    ]
    state_of_store(sql)


def test_a_batch_is_cut_by_payments_and_attempts_together():
    found = [(number, 3) for number in range(1, 11)]
    assert cut(found, 8) == ([1, 2], found[2:])
    assert cut(found, 1) == ([1], found[1:])  # one at least, however large
    assert cut(found, 1_000) == ([*range(1, 11)], [])


def test_failed_attempts_of_a_payment_that_is_tried_again_stay(sql):
    (identifier,) = mk(sql, ["Failed"])
    deletion, remove = sql._deletion, sql._deletion._remove_batch

    def late(work, *arguments):
        sql._control.init(work, identifier, sql._reading.fetch(work, identifier).info)
        sql._control.register(work, identifier, make_attempt(9))
        return remove(work, *arguments)

    deletion._remove_batch = late
    assert sql.delete_payments(failed_attempts_only=True) == 0
    sql.fail_attempt(identifier, 9, failure())
    assert len(sql.fetch_payment(identifier).attempts) == 1
    state_of_store(sql)
