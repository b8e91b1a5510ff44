"""A destination that somebody else writes to, during a run or between two: it is not let out."""

from collections.abc import Callable

import pytest

from engine.payments import FailureReason, PaymentDB
from engine.payments.migration import (
    ComparisonError,
    Migration,
    OtherMigrationError,
    Progress,
    StoreSource,
)
from tests.payments.builders import (
    begun,
    failure,
    make_attempt,
    make_info,
    make_record,
    mk,
    settle,
    shard,
    state_of_store,
)
from tests.payments.migration.dying import Dying, EndError
from tests.payments.model import ModelDB


class Shop:
    """A source, and a destination to which most of it was moved."""

    def __init__(self, store: PaymentDB) -> None:
        self.source, self.store = ModelDB(), store
        self.paid, self.failed = mk(self.source, ["Succeeded", "Failed"])
        self.parts, self.fresh = begun(self.source), begun(self.source)
        self.source.register_attempt(self.parts, make_attempt(10, shard()))
        self.source.write_records([make_record(100), make_record(101)])
        self.source.raise_counters(200, 5_000)

    def move(self, progress: Callable[[Progress], None] | None = None) -> None:
        Migration(StoreSource(self.source, "here"), self.store, "there", progress).run(batch_size=2)

    def begin_and_delete(self) -> None:
        self.store.delete_payment(begun(self.store))

    def swap(self) -> None:
        begun(self.store)
        self.store.delete_payment(self.paid)

    def swap_for_one_that_fails(self) -> None:
        self.store.fail_payment(begun(self.store), FailureReason.TIMEOUT)
        self.store.delete_payment(self.paid)

    def begin_again(self) -> None:
        self.store.init_payment(self.failed, make_info(identifier=self.failed))


TIMEOUT = FailureReason.TIMEOUT
CHANGES: dict[str, Callable[[Shop], object]] = {
    "begun": lambda shop: begun(shop.store),
    "begun and deleted": Shop.begin_and_delete,
    "begun, another deleted": Shop.swap,
    "begun and failed, another deleted": Shop.swap_for_one_that_fails,
    "begun again": Shop.begin_again,
    "deleted": lambda shop: shop.store.delete_payment(shop.paid),
    "settled": lambda shop: shop.store.settle_attempt(shop.parts, 10, settle()),
    "failed": lambda shop: shop.store.fail_attempt(shop.parts, 10, failure()),
    "one more": lambda shop: shop.store.register_attempt(shop.parts, make_attempt(4_000, shard())),
    "the first": lambda shop: shop.store.register_attempt(shop.fresh, make_attempt(4_000)),
    "given up": lambda shop: shop.store.fail_payment(shop.fresh, TIMEOUT),
    "counted on": lambda shop: shop.store.raise_counters(102),
}


@pytest.fixture
def shop(store: PaymentDB) -> Shop:
    return Shop(store)


@pytest.mark.parametrize("done", [4, 6])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_somebody_else_writes_meanwhile_is_noticed(shop, change, done):
    """At 4 there is a batch to come, at 6 there is none."""

    def meanwhile(progress: Progress) -> None:
        if progress.done == done:
            change(shop)

    with pytest.raises(OtherMigrationError, match="somebody else writes to it"):
        shop.move(meanwhile)
    assert shop.store.note() is not None
    with pytest.raises(OtherMigrationError, match="remove the store and begin again"):
        shop.move()


@pytest.mark.parametrize("writes", [3, 4])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_somebody_else_wrote_between_two_runs_is_noticed(shop, change, writes):
    """After 3 writes, the first of which is of no payment, 4 payments are there; after 4, all."""
    real, shop.store = shop.store, Dying(shop.store, "write_records", writes, after=True)
    with pytest.raises(EndError):
        shop.move()
    shop.store = real
    change(shop)
    # Of the batch that was written last it may be seen that it reads back otherwise.
    with pytest.raises((OtherMigrationError, ComparisonError), match="remove"):
        shop.move()
    assert shop.store.note() is not None


def test_a_counter_that_an_earlier_run_raised_is_its_own(shop):
    for when in (1, 1):
        real, shop.store = shop.store, Dying(shop.store, "raise_counters", when, after=True)
        with pytest.raises(EndError):
            shop.move()
        shop.store = real
    shop.move()
    assert state_of_store(shop.store) == state_of_store(shop.source)
    assert shop.store.counters() == shop.source.counters()
