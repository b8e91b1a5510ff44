"""Section P: who watches sees every change in order, and never holds a writer up."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from engine.payments import (
    Attempt,
    AttemptFailureReason,
    FailureReason,
    PaymentDBError,
    PaymentStatus,
)
from engine.payments.errors import StoreUnavailableError
from engine.payments.interface import PaymentControl, PaymentReader, Sequencer
from engine.payments.memory import weight_of
from engine.payments.subscriptions import (
    BYTES_MAX,
    BYTES_OF_ONE_MAX,
    PAGE_BYTES,
    Subscription,
)
from engine.payments.tower import SUBSCRIPTIONS_MAX, ControlTower
from tests.payments.builders import (
    PREIMAGE,
    begun,
    failure,
    fresh,
    make_attempt,
    make_info,
    make_record,
    mk,
    paid,
    settle,
    shard,
)
from tests.payments.model import ModelDB


@pytest.fixture
def tower(store) -> ControlTower:
    return ControlTower(store)


def rest(subscription: Subscription) -> list[tuple[str, int]]:
    """Return what waits to be taken: status and attempts of each update."""
    return [paid(payment) for payment in waiting(subscription)]


def waiting(subscription: Subscription) -> Iterator:
    subscription.load()
    while (payment := subscription.take()) is not None:
        yield payment
        subscription.load()


def test_an_unknown_payment_is_not_watched(tower):  # row 197
    with pytest.raises(PaymentDBError) as refusal:
        tower.subscribe(fresh())
    assert refusal.value.code == "payment_not_initiated"
    assert tower.subscriptions() == 0


def test_every_stream_of_a_paid_payment_ends_with_it(tower):  # row 198
    identifier = begun(tower)
    first = tower.subscribe(identifier)
    tower.register_attempt(identifier, make_attempt(1))
    second = tower.subscribe(identifier)
    tower.settle_attempt(identifier, 1, settle())
    third = tower.subscribe(identifier)
    streams = [list(stream) for stream in (first, second, third)]
    assert [[paid(payment) for payment in stream] for stream in streams] == [
        [("INITIATED", 0), ("IN_FLIGHT", 1), ("SUCCEEDED", 1)],
        [("IN_FLIGHT", 1), ("SUCCEEDED", 1)],
        [("SUCCEEDED", 1)],
    ]
    for stream in streams:
        assert stream[-1].attempts[0].settle.preimage == PREIMAGE
        assert stream[-1] == tower.fetch_payment(identifier)
    assert tower.subscriptions() == 0


def test_every_stream_of_a_failed_payment_ends_with_it(tower):  # row 199
    identifier = begun(tower)
    first = tower.subscribe(identifier)
    tower.register_attempt(identifier, make_attempt(1))
    tower.fail_attempt(identifier, 1, failure(AttemptFailureReason.INTERNAL))
    tower.fail_payment(identifier, FailureReason.TIMEOUT)
    second = tower.subscribe(identifier)
    for stream in (first, second):
        last = list(stream)[-1]
        assert paid(last) == ("FAILED", 1)
        assert last.failure_reason is FailureReason.TIMEOUT
        assert stream.is_ended


def test_all_payments_are_watched(tower):  # row 201
    one = begun(tower)
    everything = tower.subscribe_all()
    tower.register_attempt(one, make_attempt(1))
    other = begun(tower)
    tower.register_attempt(other, make_attempt(2))
    tower.settle_attempt(one, 1, settle())
    tower.settle_attempt(other, 2, settle())
    updates = list(waiting(everything))
    assert len(updates) == 6
    assert not everything.is_ended
    for identifier in (one, other):
        of_one = [payment for payment in updates if payment.info.identifier == identifier]
        assert [paid(payment) for payment in of_one] == [
            ("INITIATED", 0),
            ("IN_FLIGHT", 1),
            ("SUCCEEDED", 1),
        ]


def test_what_is_in_flight_comes_at_once(tower):  # row 202
    mk(tower._store, ["Failed", "Succeeded"])
    identifier = begun(tower)
    tower.register_attempt(identifier, make_attempt(900))
    everything = tower.subscribe_all()
    assert rest(everything) == [("IN_FLIGHT", 1)]
    assert everything.take() is None


def test_a_cancelled_subscriber_costs_a_writer_nothing(tower):  # row 204
    identifier = begun(tower)
    one, everything = tower.subscribe(identifier), tower.subscribe_all()
    tower.register_attempt(identifier, make_attempt(1))
    one.cancel()
    everything.cancel()
    everything.cancel()
    tower.settle_attempt(identifier, 1, settle())
    assert list(one) == list(everything) == []
    assert tower.subscriptions() == 0


def test_a_refused_call_is_not_published(tower):
    identifier = begun(tower)
    everything = tower.subscribe_all()
    for call in (
        lambda: tower.settle_attempt(identifier, 1, settle()),
        lambda: tower.init_payment(identifier, make_info(identifier=identifier)),
        lambda: tower.register_attempt("no identifier", make_attempt(1)),
    ):
        with pytest.raises(PaymentDBError):
            call()
    assert rest(everything) == [("INITIATED", 0)]


def test_a_deleted_payment_ends_its_stream(tower):
    one, other, third = (begun(tower) for _ in range(3))
    streams = [tower.subscribe(identifier) for identifier in (one, other, third)]
    tower.register_attempt(third, make_attempt(1))
    tower.delete_payment(other, failed_attempts_only=True)
    assert not streams[1].is_ended
    tower.delete_payment(one)
    assert streams[0].is_ended
    assert tower.delete_payments() == 1
    assert [stream.is_ended for stream in streams] == [True, True, False]
    assert [rest(stream) for stream in streams] == [
        [("INITIATED", 0)],
        [("INITIATED", 0)],
        [("INITIATED", 0), ("IN_FLIGHT", 1)],
    ]
    tower.delete_payments(failed_attempts_only=True)
    tower.settle_attempt(third, 1, settle())
    tower.delete_payment(third, failed_attempts_only=True)
    assert rest(streams[2]) == [("SUCCEEDED", 1)]


@pytest.mark.parametrize("keep", [True, False])
def test_failed_attempts_go_when_a_payment_is_over_unless_they_are_kept(store, keep):
    """Rows 184 and 185."""
    tower = ControlTower(store, keep_failed_attempts=keep)
    for identifier in mk(store, ["Succeeded", "Failed"]):
        before = tower.fetch_payment(identifier)
        assert tower.finish(identifier) is not keep
        after = tower.fetch_payment(identifier)
        assert after.status is before.status
        left = [attempt for attempt in before.attempts if keep or attempt.failure is None]
        assert list(after.attempts) == left


# Bounds, on the model alone -----------------------------------------------------------------------


def attempts_of(tower: ControlTower, identifier: bytes, indexes: range) -> None:
    """Make attempts that fail, two updates each."""
    for index in indexes:
        tower.register_attempt(identifier, make_attempt(index))
        tower.fail_attempt(identifier, index, failure())


def test_a_slow_reader_gets_fewer_updates_and_the_newest():
    tower = ControlTower(ModelDB(), updates_max=8)
    identifier = begun(tower)
    one, everything = tower.subscribe(identifier), tower.subscribe_all()
    attempts_of(tower, identifier, range(1, 21))
    newest = tower.fetch_payment(identifier)
    for stream in (one, everything):
        seen = list(waiting(stream))
        assert len(seen) <= 8 + 1
        assert seen[-1] == newest
        counts = [len(payment.attempts) for payment in seen]
        assert counts == sorted(counts)
        assert not stream.is_ended


def test_a_reader_that_is_too_slow_is_cut_off_and_told():
    tower = ControlTower(ModelDB(), updates_max=8)
    everything = tower.subscribe_all()
    for _ in range(20):
        begun(tower)
    assert everything.is_ended
    with pytest.raises(PaymentDBError) as refusal:
        list(everything)
    assert (refusal.value.code, refusal.value.actual) == ("subscription_lagged", 9)
    assert tower.subscriptions() == 0
    assert len(rest(tower.subscribe_all())) == 20


def test_much_that_is_in_flight_is_not_lagging_and_waits_in_the_store():
    tower = ControlTower(ModelDB(), updates_max=8)
    identifiers = [begun(tower) for _ in range(50)]
    everything = tower.subscribe_all()
    attempts_of(tower, identifiers[0], range(1, 3))
    told, most = [], 0
    for payment in waiting(everything):
        told.append(payment.info.identifier)
        most = max(most, len(everything._waiting))
    assert told == [*identifiers[:2], *identifiers[:1] * 4, *identifiers[2:]]
    assert most <= 6


def test_what_begins_later_is_told_once_and_by_its_changes():
    tower = ControlTower(ModelDB(), updates_max=16)
    first = [begun(tower) for _ in range(10)]
    everything = tower.subscribe_all()
    later = [begun(tower) for _ in range(5)]
    told = [payment.info.identifier for payment in waiting(everything)]
    assert sorted(told) == sorted(first + later)


def test_a_reader_in_a_thread_is_given_page_after_page():
    tower = ControlTower(ModelDB(), updates_max=8)
    identifiers = [begun(tower) for _ in range(50)]
    everything = tower.subscribe_all()
    assert [everything.wait(0).info.identifier for _ in identifiers] == identifiers
    assert everything.wait(0) is None


def test_what_is_thinned_out_keeps_the_order_of_what_happened():
    tower = ControlTower(ModelDB(), updates_max=8)
    everything = tower.subscribe_all()
    one, other = begun(tower), begun(tower)
    attempts_of(tower, one, range(1, 4))
    tower.fail_payment(one, FailureReason.ERROR)
    order = [(payment.info.identifier, payment.status.name) for payment in waiting(everything)]
    assert order == [(other, "INITIATED"), (one, "FAILED")]


def test_half_of_the_room_must_become_free():
    for payments, is_cut_off in ((4, False), (5, True)):
        tower = ControlTower(ModelDB(), updates_max=8)
        everything = tower.subscribe_all()
        identifiers = [begun(tower) for _ in range(payments)]
        for index in range(9 - payments):
            tower.register_attempt(identifiers[0], make_attempt(2 * index + 1))
            tower._store.fail_attempt(identifiers[0], 2 * index + 1, failure())
        assert everything.is_ended is is_cut_off


def test_a_stream_that_ended_is_forgotten_at_once():
    tower = ControlTower(ModelDB())
    one, other = begun(tower), begun(tower)
    streams = [tower.subscribe(one), tower.subscribe(other), tower.subscribe_all()]
    tower.fail_payment(one, FailureReason.ERROR)
    assert list(tower._of_one) == [other]
    streams[1].cancel()
    streams[2].cancel()
    tower.register_attempt(other, make_attempt(1))
    assert (dict(tower._of_one), tower._of_all) == ({}, [])


def test_a_reader_is_woken_for_all_that_concerns_it():
    tower = ControlTower(ModelDB())
    identifier = begun(tower)
    woken: list[str] = []
    one = tower.subscribe(identifier, wake=lambda: woken.append("one"))
    everything = tower.subscribe_all(wake=lambda: woken.append("all"))
    assert woken == ["one", "all"]
    tower.register_attempt(identifier, make_attempt(1))
    assert woken[2:] == ["one", "all"]
    everything.cancel()
    one.end()
    assert woken[4:] == ["all", "one"]
    tower.fail_attempt(identifier, 1, failure())
    assert woken[6:] == []
    assert rest(one) == [("INITIATED", 0), ("IN_FLIGHT", 1)]


class Busy(ModelDB):
    """A store in which something happens before and after it looks for what is in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = lambda: None

    def fetch_in_flight_payments(self, *page) -> list:
        self.before()
        found = super().fetch_in_flight_payments(*page)
        self.after()
        return found


def test_pages_of_payments_that_are_gone_by_then_hold_nobody_up():
    store = Busy()
    tower = ControlTower(store, updates_max=4)
    first, *gone, last = (begun(tower) for _ in range(5))
    everything = tower.subscribe_all()

    def delete_next() -> None:
        if gone:
            tower.fail_payment(gone[0], FailureReason.ERROR)
            tower.delete_payment(gone.pop(0))

    store.after = delete_next
    assert [everything.wait(0).info.identifier for _ in range(2)] == [first, last]


@pytest.mark.parametrize("part", ["counters", "fetch_in_flight_payments"])
def test_a_stream_whose_store_fails_at_first_is_not_kept(monkeypatch, part):
    tower = ControlTower(ModelDB())
    begun(tower)
    monkeypatch.setattr(tower._store, part, fails)
    with pytest.raises(StoreUnavailableError):
        tower.subscribe_all()
    assert tower.subscriptions() == 0


def test_a_stream_whose_store_fails_later_ends(monkeypatch):
    tower = ControlTower(ModelDB(), updates_max=4)
    for _ in range(3):
        begun(tower)
    everything = tower.subscribe_all()
    monkeypatch.setattr(tower._store, "fetch_in_flight_payments", fails)
    with pytest.raises(StoreUnavailableError):
        list(everything)
    assert everything.is_ended
    assert tower.subscriptions() == 0


def fails(*_: object) -> None:
    raise StoreUnavailableError("gone")


def test_a_page_is_fetched_by_one_thread_at_a_time_and_only_where_there_is_room():
    store = Busy()
    tower = ControlTower(store, updates_max=4)
    for _ in range(4):
        begun(tower)
    everything = tower.subscribe_all()
    pages = []
    store.before = lambda: (pages.append(everything.after), everything.load())
    everything.load()  # one waits, and there is room for as many again
    everything.load()
    everything.cancel()
    everything.load()
    assert pages == [1]


def test_what_happens_while_a_stream_begins_is_told_once_and_as_it_is():
    store = Busy()
    tower = ControlTower(store)
    quiet, early, late, paid_meanwhile, gone = (begun(tower) for _ in range(5))
    attempts = iter(range(1, 9))

    def fail_one(identifier: bytes) -> None:
        index = next(attempts)
        tower.register_attempt(identifier, make_attempt(index))
        tower.fail_attempt(identifier, index, failure())

    def after() -> None:
        fail_one(late)
        tower.register_attempt(paid_meanwhile, make_attempt(50))
        tower.settle_attempt(paid_meanwhile, 50, settle())
        tower.fail_payment(gone, FailureReason.ERROR)
        tower.delete_payment(gone)

    store.before = lambda: fail_one(early)
    store.after = after
    updates = list(waiting(tower.subscribe_all()))
    assert len(updates) == 4
    assert {payment.info.identifier: paid(payment) for payment in updates} == {
        quiet: ("INITIATED", 0),
        early: ("IN_FLIGHT", 1),
        late: ("IN_FLIGHT", 1),
        paid_meanwhile: ("SUCCEEDED", 1),
    }


def test_there_may_be_so_many_subscriptions():
    tower = ControlTower(ModelDB())
    identifier = begun(tower)
    streams = [tower.subscribe(identifier) for _ in range(SUBSCRIPTIONS_MAX)]
    for more in (lambda: tower.subscribe(identifier), tower.subscribe_all):
        with pytest.raises(PaymentDBError) as refusal:
            more()
        assert refusal.value.code == "too_many_subscriptions"
    streams[0].cancel()
    tower.subscribe_all()


def test_a_reader_whose_wake_fails_does_not_fail_the_writer():
    tower = ControlTower(ModelDB())

    def gone() -> None:
        raise RuntimeError("the loop is closed")

    identifier = begun(tower)
    stream = tower.subscribe_all(wake=gone)
    tower.register_attempt(identifier, make_attempt(1))
    assert stream.is_ended
    assert tower.subscriptions() == 0


async def test_an_event_loop_is_woken():
    tower = ControlTower(ModelDB())
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()
    identifier = begun(tower)
    stream = tower.subscribe(identifier, wake=lambda: loop.call_soon_threadsafe(woken.set))

    def write() -> None:
        tower.register_attempt(identifier, make_attempt(1))
        tower.settle_attempt(identifier, 1, settle())

    writer = loop.run_in_executor(None, write)
    seen = []
    while not stream.is_ended or len(seen) < 3:
        seen += rest(stream)
        if not stream.is_ended:
            await woken.wait()
            woken.clear()
    await writer
    assert seen == [("INITIATED", 0), ("IN_FLIGHT", 1), ("SUCCEEDED", 1)]


def test_a_reader_waits_in_a_thread_until_the_end():
    tower = ControlTower(ModelDB())
    identifier = begun(tower)
    stream = tower.subscribe(identifier)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(lambda: [payment.status for payment in stream])
        tower.fail_payment(identifier, FailureReason.ERROR)
        assert reader.result(timeout=30)[-1] is PaymentStatus.FAILED
    assert stream.wait(timeout_s=0) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("updates_max", [1_000, 200])
def test_whoever_begins_to_watch_amid_writers_never_sees_time_run_backwards(seed, updates_max):
    """Subscriptions begin while four threads write; each must see every payment to its end."""
    tower = ControlTower(ModelDB(), updates_max=updates_max)
    identifiers = [begun(tower) for _ in range(40)]
    watchers = []

    def live(part: int) -> None:
        choice = random.Random(seed * 10 + part)
        mine = identifiers[part::4]
        choice.shuffle(mine)
        for position, identifier in enumerate(mine):
            index = part * 100 + position + 1
            tower.register_attempt(identifier, make_attempt(index))
            tower.settle_attempt(identifier, index, settle())

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(live, part) for part in range(4)]
        while not all(writer.done() for writer in writers):
            watchers.append((tower.subscribe_all(), set(identifiers)))
        for writer in writers:
            writer.result()
    assert watchers
    for stream, _ in watchers:
        latest: dict[bytes, PaymentStatus] = {}
        for payment in waiting(stream):
            before = latest.get(payment.info.identifier, PaymentStatus.INITIATED)
            assert payment.status >= before
            latest[payment.info.identifier] = payment.status
        assert set(latest.values()) <= {PaymentStatus.SUCCEEDED}


def test_the_tower_does_all_that_a_payer_needs():
    assert issubclass(ControlTower, PaymentReader | PaymentControl | Sequencer)
    tower = ControlTower(ModelDB())
    tower._store.write_records([make_record(4, duplicates=[6])])
    identifier = tower.fetch_in_flight_payments()[0].info.identifier
    assert tower.fetch_by_number(identifier, 6).sequence_number == 6
    assert tower.next_attempt_index() == 1


# Bounds in bytes ----------------------------------------------------------------------------------

LARGE = {65_536: bytes(65_000)}


def large(index: int, total: int) -> Attempt:
    """Return a part of a payment that is as large as a message."""
    return make_attempt(index, replace(shard(1, total), first_hop_wire_records=LARGE))


def test_what_waits_of_one_payment_is_bounded_in_bytes_and_its_newest_state_comes():
    tower = ControlTower(ModelDB())
    identifier = begun(tower, 10_000)
    stream = tower.subscribe(identifier)
    for index in range(1, 61):
        payment = tower.register_attempt(identifier, large(index, 10_000))
        held = sum(weight_of(each) for each, _ in stream._waiting)
        assert held <= BYTES_OF_ONE_MAX + 2 * weight_of(payment)
    told = [len(payment.attempts) for payment in waiting(stream)]
    assert told == sorted(told)
    assert told[-1] == 60
    for index in range(1, 61):
        tower.settle_attempt(identifier, index, settle())
    assert rest(stream)[-1] == ("SUCCEEDED", 60)
    assert stream.is_ended


def test_small_updates_wait_again_once_large_ones_were_taken():
    tower = ControlTower(ModelDB())
    stream = tower.subscribe_all()
    one, other = begun(tower, 10_000), begun(tower, 10_000)
    for index in range(1, 41):
        tower.register_attempt(one, large(index, 10_000))
    assert len(rest(stream)) < 40
    for index in range(41, 61):
        tower.register_attempt(other, make_attempt(index, shard(1, 10_000)))
    assert rest(stream) == [("IN_FLIGHT", count) for count in range(1, 21)]


def test_a_reader_of_all_is_cut_off_when_too_many_bytes_wait_and_one_payment_never_is_too_much():
    tower = ControlTower(ModelDB())
    stream = tower.subscribe_all()
    first = begun(tower, 10_000)
    for index in range(1, 151):
        payment = tower.register_attempt(first, large(index, 10_000))
    assert weight_of(payment) > BYTES_MAX
    assert rest(stream)[-1] == ("IN_FLIGHT", 150)
    for index in range(151, 500):
        if stream.is_ended:
            break
        tower.register_attempt(begun(tower, 10_000), large(index, 10_000))
        assert sum(weight_of(each) for each, _ in stream._waiting) <= 2 * BYTES_MAX + 100_000
    with pytest.raises(PaymentDBError) as refusal:
        list(stream)
    assert refusal.value.code == "subscription_lagged"


def test_pages_of_what_is_in_flight_are_shorter_where_payments_are_large():
    store = ModelDB()
    store.write_records(
        [
            make_record(number, [large(5 * number + part, 10_000) for part in range(5)],
                        value_msat=10_000)
            for number in range(1, 41)
        ]
    )  # fmt: skip
    everything = ControlTower(store).subscribe_all()
    told, most = [], 0
    while (payment := everything.wait(0)) is not None:
        told.append(payment.sequence_number)
        most = max(most, everything._weight)
    assert told == [*range(1, 41)]
    assert most <= 2 * PAGE_BYTES
