"""A source that is written to, between two runs or during one: what moves money is noticed."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from engine.payments import FailureReason, PaymentDB, Settle
from engine.payments.migration import (
    Migration,
    SourceChangedError,
    StoreSource,
    UnacceptableRecordError,
    rehearse,
)
from engine.payments.migration.in_flight import NOTHING, listed, with_moved
from tests.payments.builders import (
    begun,
    failure,
    make_attempt,
    make_info,
    make_record,
    mk,
    settle,
    shard,
)
from tests.payments.lnd.samples import Samples
from tests.payments.migration.dying import Dying, EndError
from tests.payments.model import ModelDB

FREE = 4_001
"""An attempt index of a block that was taken: to register it changes no counter."""


class Shop:
    """A store with a payment in every state that a call can change."""

    def __init__(self, store: PaymentDB) -> None:
        self.store = store
        self.paid, self.failed = mk(store, ["Succeeded", "Failed"])
        self.parts, self.refused, self.fresh = begun(store), begun(store), begun(store)
        store.register_attempt(self.parts, make_attempt(10, shard()))
        store.register_attempt(self.refused, make_attempt(11))
        store.fail_attempt(self.refused, 11, failure())
        store.raise_counters(attempt_index=5_000)

    def begin_and_pay(self) -> None:
        identifier = begun(self.store)
        self.store.register_attempt(identifier, make_attempt(FREE))
        self.store.settle_attempt(identifier, FREE, settle())


TIMEOUT = FailureReason.TIMEOUT
UNCOUNTED: dict[str, Callable[[Shop], object]] = {
    "settled": lambda shop: shop.store.settle_attempt(shop.parts, 10, settle()),
    "failed": lambda shop: shop.store.fail_attempt(shop.parts, 10, failure()),
    "one more": lambda shop: shop.store.register_attempt(shop.parts, make_attempt(FREE, shard())),
    "the first": lambda shop: shop.store.register_attempt(shop.fresh, make_attempt(FREE)),
    "again": lambda shop: shop.store.register_attempt(shop.refused, make_attempt(FREE)),
    "given up": lambda shop: shop.store.fail_payment(shop.fresh, TIMEOUT),
    "given up after a try": lambda shop: shop.store.fail_payment(shop.refused, TIMEOUT),
    "given up in flight": lambda shop: shop.store.fail_payment(shop.parts, TIMEOUT),
}
"""Changes that leave every counter as it is."""

COUNTED: dict[str, Callable[[Shop], object]] = {
    "deleted": lambda shop: shop.store.delete_payment(shop.paid),
    "deleted unused": lambda shop: shop.store.delete_payment(shop.fresh),
    "begun": lambda shop: begun(shop.store),
    "begun again": lambda shop: shop.store.init_payment(
        shop.failed, make_info(identifier=shop.failed)
    ),
    "begun and paid": Shop.begin_and_pay,
}
CHANGES = UNCOUNTED | COUNTED


@pytest.fixture
def shop(store: PaymentDB) -> Shop:
    return Shop(store)


def moved(source: PaymentDB, destination: PaymentDB, progress: object = None) -> object:
    migration = Migration(StoreSource(source, "here"), destination, "there", progress)  # type: ignore[arg-type]
    return migration.run(batch_size=2)


@pytest.mark.parametrize("change", UNCOUNTED.values(), ids=UNCOUNTED)
def test_counters_do_not_show_it(shop, change):
    before = shop.store.counters()
    change(shop)
    assert shop.store.counters() == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("batches", [1, 3])
def test_a_change_between_two_runs_is_noticed(shop, change, batches):
    destination = ModelDB()
    with pytest.raises(EndError):
        moved(shop.store, Dying(destination, "write_records", 1 + batches, after=True))
    before = dict(destination.records), destination.note()
    change(shop)
    with pytest.raises(SourceChangedError, match="stop what writes to it, remove there and mig"):
        moved(shop.store, destination)
    assert (destination.records, destination.note()) == before
    again = ModelDB()
    moved(shop.store, again)
    assert again.records == {
        record.info.identifier: record
        for batch in shop.store.read_records()
        for record in batch
    }  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_after_its_payment_was_moved_is_noticed(shop, change):
    destination = ModelDB()

    def meanwhile(progress):
        if progress.done == progress.total:
            change(shop)

    with pytest.raises(SourceChangedError, match="stop what writes to it, remove the destination"):
        moved(shop.store, destination, meanwhile)
    assert destination.note() is not None
    with pytest.raises(SourceChangedError, match="stop what writes to it, remove there"):
        moved(shop.store, destination)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_during_a_rehearsal_is_noticed(change):
    shop = Shop(ModelDB())

    def meanwhile(progress):
        if progress.done == progress.total:
            change(shop)

    with pytest.raises(SourceChangedError):
        rehearse(StoreSource(shop.store, "here"), "there", 2, meanwhile)


UNNOTICED: dict[str, Callable[[Shop], object]] = {
    "another reason": lambda shop: shop.store.fail_payment(shop.failed, TIMEOUT),
    "a reason beside money": lambda shop: shop.store.fail_payment(shop.paid, TIMEOUT),
    "failed attempts": lambda shop: shop.store.delete_failed_attempts(shop.paid),
    "all failed attempts": lambda shop: shop.store.delete_payments(failed_attempts_only=True),
}


@pytest.mark.parametrize("change", UNNOTICED.values(), ids=UNNOTICED)
def test_what_is_not_noticed_moves_no_money(shop, change):
    destination = ModelDB()
    with pytest.raises(EndError):
        moved(shop.store, Dying(destination, "read_records", 2, after=True))
    change(shop)
    moved(shop.store, destination)
    for identifier in (shop.paid, shop.failed, shop.parts, shop.refused, shop.fresh):
        here, there = shop.store.fetch_payment(identifier), destination.fetch_payment(identifier)
        assert (there.status, there.state.remaining_msat) == (
            here.status,
            here.state.remaining_msat,
        )
        assert preimages(there) == preimages(here)


def preimages(payment) -> list[bytes]:
    return [each.settle.preimage for each in payment.attempts if each.settle is not None]


# The hash -----------------------------------------------------------------------------------------


def backwards(value):
    """Return a record with the entries of its mappings in another order."""
    if isinstance(value, dict):
        return dict(reversed(value.items()))
    if isinstance(value, tuple):
        return tuple(map(backwards, value))
    fields = getattr(value, "__struct_fields__", ())
    return replace(value, **{name: backwards(getattr(value, name)) for name in fields})\
        if fields else value  # fmt: skip


def test_the_hash_is_the_same_on_every_store_and_of_what_was_moved(store):
    records = Samples(3).records(60)
    store.write_records(records)
    expected = with_moved(NOTHING, records)
    assert listed(store, "here") == expected != NOTHING
    assert with_moved(with_moved(NOTHING, records[:30]), records[30:]) == expected
    assert with_moved(NOTHING, map(backwards, records)) == expected


def test_the_hash_is_over_nothing_where_all_is_over(store):
    mk(store, ["Succeeded", "Failed"])
    assert listed(store, "here") == NOTHING


def test_the_hash_is_another_for_every_preimage(store):
    seen = set()
    identifier = begun(store)
    for index in (1, 2, 3):
        store.register_attempt(identifier, make_attempt(index, shard()))
        seen.add(listed(store, "here"))
    for index in (1, 2):
        store.settle_attempt(identifier, index, Settle(bytes([index]) * 32, 0))
        seen.add(listed(store, "here"))
    assert len(seen) == 5


def test_a_payment_in_flight_that_cannot_be_read_is_said_to_be_so():
    store = ModelDB()
    record = make_record(1, [make_attempt(1), make_attempt(2)])
    store.records = {record.info.identifier: record}
    with pytest.raises(UnacceptableRecordError, match=r"after the number 0 .* payments verify"):
        StoreSource(store, "here")
