"""All stores and the model get the same calls, made up by hypothesis, and must answer the same."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

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
    PaymentDBError,
    Query,
    Route,
    Settle,
    open_payment_db,
)
from engine.payments.records import PaymentRecord, check_record
from tests.lengths import often
from tests.payments.builders import P, addr, digest
from tests.payments.model import ModelDB
from tests.payments.stores import KINDS, Places

# What is drawn: from few, so that calls meet. -----------------------------------------------------

identifiers = st.sampled_from([digest("payment", number) for number in range(3)])
keys = st.sampled_from([digest("key", number) for number in range(12)])
indexes = st.integers(1, 12)
values = st.sampled_from([0, 370, 555, 740, 2**64 - 1])
times = st.sampled_from([0, 1, 999_999_999, 1_000_000_000, 5_900_000_001]) | st.integers(
    0, 9_999_999_999
)
custom = st.just({}) | st.dictionaries(
    st.integers(65_536, 65_540) | st.just(2**64 - 1), st.binary(max_size=4), max_size=2
)
mpps = st.none() | st.builds(
    MPP, st.sampled_from([addr("A"), addr("B")]), st.sampled_from([555, 740, 2**64 - 1])
)
amps = st.none() | st.builds(AMP, keys, keys, st.integers(0, 2**32 - 1))
amounts = st.sampled_from([0, 185, 185, 370, 555, 2**64 - 1])
optional = st.none() | st.binary(max_size=3)


@st.composite
def final_hops(draw: st.DrawFn) -> Hop:
    """Return a last hop: often a part of 185, sometimes blinded."""
    blinded: dict[str, Any] = {}
    if draw(st.integers(0, 4)) == 0:
        blinded = {
            "encrypted_data": draw(st.binary(min_size=1, max_size=3)),
            "blinding_point": draw(st.none() | st.just(P)),
            "blinded_total_msat": draw(st.sampled_from([0, 555, 740])),
        }
    return Hop(
        P,
        draw(st.integers(0, 2**64 - 1)),
        draw(st.integers(0, 2**32 - 1)),
        draw(amounts),
        legacy_payload=draw(st.booleans()),
        mpp=draw(mpps),
        amp=draw(amps),
        metadata=draw(optional),
        custom_records=draw(custom),
        **blinded,
    )


hops = st.builds(Hop, st.just(P), st.just(7), st.integers(0, 9), amounts, custom_records=custom)
routes = st.builds(
    lambda before, last, **fields: Route(hops=(*before, last), **fields),
    st.lists(hops, max_size=2),
    final_hops(),
    total_time_lock=st.integers(0, 2**32 - 1),
    total_amount_msat=st.sampled_from([0, 200, 600, 2**64 - 1]),
    source_pub_key=st.just(P),
    first_hop_amount_msat=st.sampled_from([0, 1_234]),
    first_hop_wire_records=custom,
)
attempts = st.builds(Attempt, indexes, keys, routes, times, st.none() | keys)
infos = st.builds(CreationInfo, st.just(bytes(32)), values, times, st.binary(max_size=5), custom)
settles = st.builds(Settle, keys, times)
failures = st.builds(
    Failure, times, st.sampled_from(AttemptFailureReason), st.integers(0, 3), optional
)
reasons = st.sampled_from(FailureReason)
offsets = st.integers(0, 30) | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1])
seconds = st.sampled_from([0, 0, 0]) | st.integers(0, 10) | st.just(2**64 - 1)
queries = st.builds(
    Query,
    offsets,
    st.integers(0, 5) | st.just(2**64 - 1),
    *(st.booleans(), st.booleans(), seconds, seconds, st.booleans(), st.booleans()),
)

PARTS = (
    Hop(P, 1, 1, 185, mpp=MPP(addr("A"), 555)),
    Hop(P, 1, 1, 185, mpp=MPP(addr("A"), 555)),
    Hop(P, 1, 1, 185, mpp=MPP(addr("B"), 555)),
    Hop(P, 1, 1, 185, mpp=MPP(addr("A"), 740)),
    Hop(P, 1, 1, 185, encrypted_data=b"1", blinded_total_msat=555),
    Hop(P, 1, 1, 185, encrypted_data=b"2", blinded_total_msat=555),
    Hop(P, 1, 1, 185, encrypted_data=b"3", blinded_total_msat=740),
    Hop(P, 1, 1, 185, encrypted_data=b"4", blinded_total_msat=0),
    Hop(P, 1, 1, 555),
)
"""Last hops of parts: of one payment, of another, and of no payment in parts."""


@st.composite
def records(draw: st.DrawFn) -> Callable[[int], PaymentRecord]:
    """Return what makes a payment to be moved in, above a number."""
    identifier = draw(identifiers)
    info = draw(infos)
    info = CreationInfo(identifier, *[getattr(info, name) for name in info.__struct_fields__[1:]])
    tries = sorted(draw(st.lists(attempts, max_size=2)), key=lambda attempt: attempt.attempt_index)
    results = [draw(settles | failures | st.none()) for _ in tries]
    done = tuple(resolved(*pair) for pair in zip(tries, results, strict=True))
    reason = draw(st.none() | reasons)
    gap = draw(st.integers(-1, 3))
    old = draw(st.lists(st.tuples(st.integers(1, 3), settles | reasons, times), max_size=2))

    def above(number: int) -> PaymentRecord:
        number += gap
        duplicates = []
        last = number
        for step, result, at in old:
            last += step
            over = {"settle": result} if isinstance(result, Settle) else {"failure_reason": result}
            duplicates.append(DuplicatePayment(last, identifier, 9, at, b"old", **over))
        return PaymentRecord(number, info, done, reason, tuple(duplicates))

    return above


def resolved(attempt: Attempt, result: Settle | Failure | None) -> Attempt:
    """Return an attempt with its result."""
    fields = [getattr(attempt, name) for name in attempt.__struct_fields__[:5]]
    return Attempt(
        *fields,
        settle=result if isinstance(result, Settle) else None,
        failure=result if isinstance(result, Failure) else None,
    )


# The machine --------------------------------------------------------------------------------------


def answer(call: Callable[[PaymentDB], Any], store: PaymentDB) -> Any:
    """Return what a store says: a value, or the code and numbers of its refusal."""
    try:
        return call(store)
    except PaymentDBError as refusal:
        return refusal.code, refusal.expected, refusal.actual, refusal.detail


class Stores(RuleBasedStateMachine):
    """Every store beside the model."""

    places: Places

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.model = ModelDB()
        self.urls: dict[str, str] = {}
        self.stores: dict[str, PaymentDB] = {}
        self.given: dict[str, int] = {}

    @initialize()
    def start(self) -> None:
        """Open one empty store of each kind."""
        self.urls = {kind: self.places.url(kind) for kind in KINDS}
        self.given = dict.fromkeys(KINDS, 0)
        self.enter()

    def enter(self) -> None:
        """Open all stores."""
        for kind, url in self.urls.items():
            self.stores[kind] = self.open.enter_context(open_payment_db(url))

    def ask(self, call: Callable[[PaymentDB], Any]) -> Any:
        """Let everybody do the same; compare."""
        expected = answer(call, self.model)
        for kind, store in self.stores.items():
            assert answer(call, store) == expected, kind
        return expected

    @rule(identifier=identifiers, info=infos)
    def init(self, identifier: bytes, info: CreationInfo) -> None:
        fields = [getattr(info, name) for name in info.__struct_fields__[1:]]
        self.ask(lambda store: store.init_payment(identifier, CreationInfo(identifier, *fields)))

    @rule(identifier=identifiers, attempt=attempts)
    def register(self, identifier: bytes, attempt: Attempt) -> None:
        self.ask(lambda store: store.register_attempt(identifier, attempt))

    @rule(identifier=identifiers, first=attempts, last=st.lists(st.sampled_from(PARTS), max_size=3))
    def register_parts(self, identifier: bytes, first: Attempt, last: list[Hop]) -> None:
        """Begin a payment of 555 and make parts that often fit, so that something can settle."""
        info = CreationInfo(identifier, 555, 1_000_000_000)
        self.ask(lambda store: store.init_payment(identifier, info))
        for step, hop in enumerate(last or PARTS[:1]):
            attempt = Attempt(
                first.attempt_index + step,
                digest("part", first.attempt_index + step),
                Route(1, 200, P, (hop,)),
                first.attempted_at_ns,
            )
            self.ask(lambda store, attempt=attempt: store.register_attempt(identifier, attempt))

    @rule(identifier=identifiers, first=indexes, last=st.lists(st.sampled_from(PARTS), max_size=3))
    def register_more(self, identifier: bytes, first: int, last: list[Hop]) -> None:
        for step, hop in enumerate(last):
            attempt = Attempt(
                first + step, digest("more", first + step), Route(1, 200, P, (hop,)), first
            )
            self.ask(lambda store, attempt=attempt: store.register_attempt(identifier, attempt))

    @rule(identifier=identifiers, index=indexes, settle=settles, own=st.booleans())
    def settle(self, identifier: bytes, index: int, settle: Settle, own: bool) -> None:
        index = self.own_index(identifier, index) if own else index
        self.ask(lambda store: store.settle_attempt(identifier, index, settle))

    @rule(identifier=identifiers, index=indexes, failure=failures, own=st.booleans())
    def fail_attempt(self, identifier: bytes, index: int, failure: Failure, own: bool) -> None:
        index = self.own_index(identifier, index) if own else index
        self.ask(lambda store: store.fail_attempt(identifier, index, failure))

    def own_index(self, identifier: bytes, index: int) -> int:
        """Return the index of an attempt that the payment has, if it has one."""
        record = self.model.records.get(identifier)
        if record is None or not record.attempts:
            return index
        return record.attempts[index % len(record.attempts)].attempt_index

    @rule(identifier=identifiers, reason=reasons)
    def fail(self, identifier: bytes, reason: FailureReason) -> None:
        self.ask(lambda store: store.fail_payment(identifier, reason))

    @rule(identifier=identifiers)
    def delete_failed_attempts(self, identifier: bytes) -> None:
        self.ask(lambda store: store.delete_failed_attempts(identifier))

    @rule(identifier=identifiers, attempts_only=st.booleans())
    def delete(self, identifier: bytes, attempts_only: bool) -> None:
        self.ask(lambda store: store.delete_payment(identifier, attempts_only))

    @rule(failed_only=st.booleans(), attempts_only=st.booleans(), often=st.integers(0, 2))
    def delete_many(self, failed_only: bool, attempts_only: bool, often: int) -> None:
        if often == 0:
            failed_only = attempts_only = True
        self.ask(lambda store: store.delete_payments(failed_only, attempts_only))

    @rule(identifier=identifiers, number=st.integers(0, 30))
    def fetch(self, identifier: bytes, number: int) -> None:
        self.ask(lambda store: store.fetch_payment(identifier))
        self.ask(lambda store: store.fetch_by_number(identifier, number))

    @rule(query=queries)
    def query(self, query: Query) -> None:
        self.ask(lambda store: store.query_payments(query))

    @rule()
    def next_index(self) -> None:
        """The stores may leave gaps, each its own; the promise is what is compared."""
        used = [
            attempt.attempt_index
            for record in self.model.records.values()
            for attempt in record.attempts
        ]
        for kind, store in self.stores.items():
            index = store.next_attempt_index()
            assert index > max([self.given[kind], *used]), kind
            self.given[kind] = index

    @rule(made=st.lists(records(), min_size=1, max_size=2), note=st.none() | st.binary(max_size=3))
    def move_in(self, made: list[Callable[[int], PaymentRecord]], note: bytes | None) -> None:
        batch = []
        number = self.model.sequence_number
        for above in made:
            batch.append(above(number))
            number += 10
        if is_plain(batch):
            self.ask(lambda store: store.write_records(batch, note))

    @rule(after=st.integers(0, 20), size=st.integers(1, 4))
    def move_out(self, after: int, size: int) -> None:
        self.ask(lambda store: list(store.read_records(after, size)))

    @rule(number=st.integers(0, 30))
    def raise_counters(self, number: int) -> None:
        self.ask(lambda store: store.raise_counters(sequence_number=number))

    @rule()
    def open_again(self) -> None:
        self.open.close()
        for kind, url in self.urls.items():
            opened = open_payment_db(url, unfinished=True)
            self.stores[kind] = self.open.enter_context(opened)

    @invariant()
    def counters_and_notes_are_the_same(self) -> None:
        def seen(store: PaymentDB) -> tuple[int, int, int, bytes | None]:
            counters = store.counters()
            return (
                counters.sequence_number,
                counters.payments,
                counters.duplicates,
                store.note(),
            )

        self.ask(seen)

    @rule(after=offsets, limit=st.none() | st.integers(0, 3) | st.just(2**64 - 1))
    def a_page_of_what_is_in_flight(self, after: int, limit: int | None) -> None:
        self.ask(lambda store: store.fetch_in_flight_payments(after, limit))

    @invariant()
    def what_is_in_flight_is_the_same(self) -> None:
        self.ask(lambda store: store.fetch_in_flight_payments())

    def teardown(self) -> None:
        self.ask(lambda store: store.query_payments(Query(max_payments=2**64 - 1)))
        self.ask(lambda store: [store.verify()])
        self.open.close()


def is_plain(batch: list[PaymentRecord]) -> bool:
    """Say whether a batch has one fault at most, so that it is clear which one is named."""
    faults = 0
    model = ModelDB()
    for record in batch:
        try:
            check_record(record)
            model.write_records([record])
        except PaymentDBError:
            faults += 1
    return faults == 0


def run(places: Places, examples: int, steps: int) -> None:
    machine = type("Stores", (Stores,), {"places": places})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_all_stores_answer_what_the_model_answers(places):
    run(places, 15, 25)


@pytest.mark.slow
def test_all_stores_answer_what_the_model_answers_at_length(places):
    run(places, often(15, 40), 40)
