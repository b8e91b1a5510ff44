"""How a store is found and opened, and how it says that it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.payments import FailureReason, PaymentDB, Query, StoreError, open_payment_db
from engine.payments.errors import (
    StoreDamagedError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
    StoreUnavailableError,
    StoreUnfinishedError,
    UnknownStoreError,
)
from engine.payments.opening import STORES
from engine.payments.values import NUMBER_MAX
from tests.payments.builders import (
    begun,
    everything,
    failure,
    make_attempt,
    make_info,
    make_record,
    mk,
    returned,
    settle,
    state_of_store,
)
from tests.payments.stores import KINDS

FILES = ["lmdb", "sqlite"]


def test_every_kind_of_store_is_tested():
    assert tuple(STORES) == KINDS


@pytest.mark.parametrize("url", ["", "mysql://h/db", "/tmp/x.db", "sqlite", "LMDB:///x", ":///x"])
def test_an_unknown_url_is_refused(url):
    with pytest.raises(UnknownStoreError, match=r"lmdb:///.*sqlite:///.*postgresql://"):
        open_payment_db(url)


@pytest.mark.parametrize("url", ["lmdb://", "lmdb:///", "sqlite://", "sqlite:///", "lmdb://x"])
def test_a_url_without_a_place_is_refused(url):
    with pytest.raises(UnknownStoreError):
        open_payment_db(url)


@pytest.mark.parametrize("kind", FILES)
def test_a_store_is_made_only_when_it_may_be(kind, tmp_path):
    place = tmp_path / "new"
    for named in ({"create": False}, {"read_only": True}):
        with pytest.raises(StoreNotFoundError):
            open_payment_db(f"{kind}:///{place}", **named)
        assert list(tmp_path.iterdir()) == []
    open_payment_db(f"{kind}:///{place}").close()
    assert place.exists()
    open_payment_db(f"{kind}:///{place}", create=False).close()


@pytest.mark.parametrize("kind", FILES)
def test_a_path_may_be_relative(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_payment_db(f"{kind}:///here") as store:
        begun(store)
    assert (tmp_path / "here").exists()
    with open_payment_db(f"{kind}:///{tmp_path}/here") as store:
        assert returned(everything(store)) == [1]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_something_else_is_no_store(kind, tmp_path):
    place = tmp_path / "other"
    if kind == "lmdb":
        place.mkdir()
    file = place / "data.mdb" if kind == "lmdb" else place
    content = b"Something else altogether. " * 1_000
    file.write_bytes(content)
    with pytest.raises(StoreDamagedError):
        open_payment_db(f"{kind}:///{place}")
    assert file.read_bytes() == content


@pytest.mark.parametrize("kind", FILES)
def test_a_place_of_the_other_kind_is_no_store(kind, tmp_path):
    place = tmp_path / "place"
    if kind == "lmdb":
        place.write_bytes(b"a file")
    else:
        place.mkdir()
    with pytest.raises(StoreError):
        open_payment_db(f"{kind}:///{place}")


@pytest.mark.parametrize("kind", FILES)
def test_a_place_that_cannot_be_is_an_error(kind, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        open_payment_db(f"{kind}:///{tmp_path}/file/below")


def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailableError):
        open_payment_db(f"postgresql://postgres@/payments?host={tmp_path}&connect_timeout=2")


@pytest.mark.slow
def test_a_database_that_is_not_there_says_how_to_make_it(places):
    url = places.server.get_uri(database="nobody_made_this")
    with pytest.raises(StoreUnavailableError, match="createdb"):
        open_payment_db(url)


# What an open store is ----------------------------------------------------------------------------


def fill(url: str) -> object:
    """Make some payments; return all that is seen of them."""
    with open_payment_db(url) as store:
        mk(store, ["Failed", "Succeeded", "InFlight"])
        store.write_records([make_record(9, duplicates=[10])])
        return state_of_store(store)


def test_what_is_written_is_there_after_the_store_is_opened_again(url):
    before = fill(url)
    with open_payment_db(url) as store:
        assert state_of_store(store) == before
        assert store.fetch_payment(begun(store)).sequence_number == 11


def test_a_store_opened_to_be_read_is_read_and_never_written(url):
    before = fill(url)
    with open_payment_db(url, read_only=True) as store:
        identifier = store.fetch_in_flight_payments()[0].info.identifier
        for call in (
            lambda: begun(store),
            lambda: store.register_attempt(identifier, make_attempt(900)),
            lambda: store.settle_attempt(identifier, 6, settle()),
            lambda: store.fail_attempt(identifier, 6, failure()),
            lambda: store.fail_payment(identifier, FailureReason.ERROR),
            lambda: store.delete_failed_attempts(identifier),
            lambda: store.delete_payment(identifier),
            lambda: store.delete_payments(),
            lambda: store.raise_counters(sequence_number=500),
            lambda: store.write_records([make_record(99)]),
            store.next_attempt_index,
        ):
            with pytest.raises(StoreReadOnlyError):
                call()
        assert state_of_store(store) == before
    with open_payment_db(url) as store:
        assert state_of_store(store) == before


def test_two_handles_see_one_store(url):
    with open_payment_db(url) as one, open_payment_db(url) as other:
        identifier = begun(one)
        other.register_attempt(identifier, make_attempt(1))
        assert one.fetch_payment(identifier) == other.fetch_payment(identifier)
        info = make_info()
        other.init_payment(info.identifier, info)
        assert returned(everything(one)) == [1, 2]
        one.close()
        assert returned(everything(other)) == [1, 2]


def test_a_handle_is_closed_at_the_end_of_its_block_even_after_an_error(url):
    def fail_inside() -> PaymentDB:
        with open_payment_db(url) as store:
            kept.append(store)
            raise KeyError

    kept: list[PaymentDB] = []
    with pytest.raises(KeyError):
        fail_inside()
    with pytest.raises(StoreError):
        kept[0].query_payments(Query())


def test_a_store_that_is_half_moved_in_is_not_opened(url):
    with open_payment_db(url) as store:
        store.write_records([make_record(1)], note=b"half")
    with pytest.raises(StoreUnfinishedError, match="migrate"):
        open_payment_db(url)
    with open_payment_db(url, unfinished=True) as store:
        assert store.note() == b"half"
        store.write_records([make_record(2)])
    with open_payment_db(url) as store:
        assert returned(everything(store)) == [1, 2]


# The last numbers ---------------------------------------------------------------------------------


def test_the_last_numbers_are_given_and_then_no_more(store):
    store.raise_counters(sequence_number=NUMBER_MAX - 1)
    last = begun(store)
    assert store.fetch_payment(last).sequence_number == NUMBER_MAX
    assert returned(everything(store)) == [NUMBER_MAX]
    assert returned(store.query_payments(Query(index_offset=NUMBER_MAX - 1))) == [NUMBER_MAX]
    assert returned(store.query_payments(Query(index_offset=NUMBER_MAX))) == []
    for _ in range(2):
        with pytest.raises(StoreFullError):
            begun(store)
    assert returned(everything(store)) == [NUMBER_MAX]


def test_the_last_index_is_taken_and_then_no_more_are_given(store):
    identifier = begun(store)
    read = store.register_attempt(identifier, make_attempt(NUMBER_MAX))
    assert read.attempts[0].attempt_index == NUMBER_MAX
    for _ in range(2):
        with pytest.raises(StoreFullError):
            store.next_attempt_index()
    assert store.settle_attempt(identifier, NUMBER_MAX, settle()).status.name == "SUCCEEDED"


def test_a_store_is_loaded_when_it_is_asked_for():
    """Whoever keeps payments in SQLite need not load LMDB, and none of them comes with claims."""
    script = (
        "import sys; import engine.payments; "
        "print(sorted({'lmdb', 'sqlalchemy', 'alembic', 'psycopg', 'pysqlite3', 'ray'} "
        "& set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert said.stdout == "[]\n"
