"""The map grows by itself; what is wrong with a store is said by name and left as it was."""

import errno
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import lmdb
import pytest

from engine.payments import open_payment_db
from engine.payments.errors import (
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreReadOnlyError,
    StoreTooNewError,
    StoreUnavailableError,
    UnknownStoreError,
)
from engine.payments.kv import layout, turn
from engine.payments.kv.environment import DATA_FILE, SPARE_PAGES, Environment
from engine.payments.kv.turn import Turn
from tests.payments.builders import (
    begun,
    digest,
    everything,
    make_attempt,
    make_info,
    make_record,
    state_of_store,
)

ROOT = Path(__file__).parents[3]


def put(environment: Environment, name: bytes, value: bytes) -> None:
    environment.write(lambda transaction: transaction.put(name, value))


def get(environment: Environment, name: bytes) -> bytes | None:
    return environment.read(lambda transaction: transaction.get(name))


def place_of(url: str) -> Path:
    return Path(url.removeprefix("lmdb:///"))


# The map ------------------------------------------------------------------------------------------


def test_the_map_grows_and_nothing_is_written_twice(environment):
    made = []

    def work(transaction) -> None:
        made.append(1)
        count = int(transaction.get(b"count") or 0) + 1
        transaction.put(b"count", b"%d" % count)
        for number in range(40):
            transaction.put(b"%d-%d" % (count, number), bytes(2_000))

    for _ in range(30):
        environment.write(work)
    assert get(environment, b"count") == b"30"
    assert environment._lmdb.info()["map_size"] >= 2 << 20
    assert len(made) > 30


def test_the_map_grows_beside_readers(environment):
    goes_on = Event()
    begun_reading = Event()

    def read(transaction) -> bytes | None:
        begun_reading.set()
        assert goes_on.wait(30)
        return transaction.get(b"a")

    put(environment, b"a", b"before")
    with ThreadPoolExecutor(2) as pool:
        reader = pool.submit(environment.read, read)
        assert begun_reading.wait(30)
        put(environment, b"a", b"after")  # a reader holds up no writer
        writer = pool.submit(put, environment, b"large", bytes(1 << 20))
        goes_on.set()
        assert reader.result(30) == b"before"
        writer.result(30)
    assert get(environment, b"large") == bytes(1 << 20)


def fill(folder: str) -> None:
    """Fill a store from another process, beyond the map that others have."""
    with open_payment_db(f"lmdb:///{folder}") as store:
        size = store._environment._lmdb.info()["map_size"]
        store._environment.write(lambda transaction: transaction.put(b"\xff", bytes(size)))
        begun(store, identifier=digest("another process", size))


@pytest.mark.slow
def test_another_process_may_grow_the_map(url, store):
    with get_context("spawn").Pool(1) as pool:
        for count in (1, 2):
            pool.apply(fill, (str(place_of(url)),))
            assert len(everything(store).payments) == 2 * count - 1  # reads see the larger map
            begun(store)
    state_of_store(store)


def test_no_address_space_is_a_fault_and_the_store_goes_on(environment):
    put(environment, b"a", b"1")
    with pytest.raises(StoreError):
        environment._set_map(1 << 62)
    assert get(environment, b"a") == b"1"
    put(environment, b"a", b"2")


# Faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["lmdb://", "lmdb:///", "lmdb://host/dir", "lmdb:///a\0b"])
def test_what_is_no_directory(url):
    with pytest.raises(UnknownStoreError, match="lmdb:///DIRECTORY"):
        open_payment_db(url)


def test_a_store_that_is_not_there(url):
    for make in ({"create": False}, {"read_only": True}):
        with pytest.raises(StoreNotFoundError):
            open_payment_db(url, **make)
    assert not place_of(url).exists()
    place_of(url).write_bytes(b"a file")
    with pytest.raises(StoreNotFoundError, match="is a file"):
        open_payment_db(url)


@pytest.mark.parametrize("data", [b"x", b"x" * 100, bytes(8_192), b"\xff" * 50_000])
def test_what_is_no_database(url, data):
    place = place_of(url)
    place.mkdir()
    (place / DATA_FILE).write_bytes(data)
    for read_only in (False, True):
        with pytest.raises(StoreDamagedError):
            open_payment_db(url, read_only=read_only)
    assert (place / DATA_FILE).read_bytes() == data


def test_a_database_of_something_else(url):
    place_of(url).mkdir()
    with lmdb.open(str(place_of(url))) as other, other.begin(write=True) as transaction:
        transaction.put(b"mine", b"data")
    with pytest.raises(StoreDamagedError, match="something else"):
        open_payment_db(url)


def test_a_newer_schema(url):
    open_payment_db(url).close()
    newer = (layout.SCHEMA_VERSION + 1).to_bytes(4, "big")
    with lmdb.open(str(place_of(url))) as raw, raw.begin(write=True) as transaction:
        transaction.put(layout.SCHEMA_KEY, layout.seal(layout.SCHEMA_KEY, newer))
    for read_only in (False, True):
        with pytest.raises(StoreTooNewError, match="newer version"):
            open_payment_db(url, read_only=read_only)


def cut(url: str, pages: int) -> None:
    """Take so many pages from the end of what is used."""
    place = place_of(url)
    with lmdb.open(str(place), readonly=True) as raw:
        used = raw.info()["last_pgno"] + 1
    os.truncate(place / DATA_FILE, (used - pages) * 4_096)


@pytest.mark.parametrize("pages", [1, 20])
def test_a_file_that_was_cut_off(url, pages):
    with open_payment_db(url) as store:
        store.write_records([make_record(number) for number in range(1, 300)])
    cut(url, pages)
    for read_only in (False, True):
        with pytest.raises(StoreDamagedError, match="cut off"):
            open_payment_db(url, read_only=read_only)


def test_pages_that_are_used_and_freed_at_once_do_not_look_cut_off(tmp_path):
    choice = random.Random(1)
    there: list[bytes] = []

    def work(transaction) -> None:
        for _ in range(choice.randrange(1, 60)):
            there.append(choice.randbytes(16))
            transaction.put(there[-1], bytes(choice.randrange(1_500)))
        for _ in range(min(choice.randrange(120), len(there))):
            transaction.delete(there.pop(choice.randrange(len(there))))

    environment = Environment(tmp_path, read_only=False, map_bytes=16 << 20)
    for _ in range(20):
        environment.write(work)
        pages = environment._lmdb.info()["last_pgno"] + 1
        assert (tmp_path / DATA_FILE).stat().st_size >= pages * 4_096
    environment.close()
    Environment(tmp_path, read_only=True).close()


def test_a_file_that_could_not_be_kept_longer_is_when_there_is_room_again(tmp_path, monkeypatch):
    environment = Environment(tmp_path, read_only=False)
    no_room = Mock(side_effect=OSError(errno.ENOSPC, "no room"))
    with monkeypatch.context() as full:
        full.setattr(Environment, "_append", no_room)
        put(environment, b"name", b"value")
    put(environment, b"name", b"another")
    pages = environment._lmdb.info()["last_pgno"] + 1
    environment.close()
    assert (tmp_path / DATA_FILE).stat().st_size >= (pages + SPARE_PAGES // 2) * 4_096


def test_the_length_of_the_file_is_durable(tmp_path, monkeypatch):
    synced: list[str] = []
    real = os.fdatasync

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr("engine.payments.kv.environment.os.fdatasync", note)
    environment = Environment(tmp_path, read_only=False)
    put(environment, b"name", b"value")
    environment.close()
    assert synced == [str(tmp_path / DATA_FILE)]


def test_one_flipped_bit_in_a_record_is_noticed(url):
    info = make_info(payment_request=b"a request that stands out")
    with open_payment_db(url) as store:
        store.init_payment(info.identifier, info)
    data = place_of(url) / DATA_FILE
    content = bytearray(data.read_bytes())
    while (at := content.find(b"stands out")) >= 0:
        content[at] ^= 1
    data.write_bytes(content)
    with open_payment_db(url) as store:
        with pytest.raises(StoreDamagedError, match="not what was written"):
            store.fetch_payment(info.identifier)
        begun(store)  # the others are well
        report = store.verify()
        assert [problem.what for problem in report.problems][:1] == ["a record"]


def test_a_read_only_handle_writes_nothing(url):
    with open_payment_db(url) as store:
        identifier = begun(store)
    before = (place_of(url) / DATA_FILE).read_bytes()
    with open_payment_db(url, read_only=True) as store:
        assert store.fetch_payment(identifier).sequence_number == 1
        for call in (
            lambda: begun(store),
            lambda: store.delete_payment(identifier),
            lambda: store.write_records([]),
            store.next_attempt_index,
        ):
            with pytest.raises(StoreReadOnlyError):
                call()
        assert store.verify().is_sound
    assert (place_of(url) / DATA_FILE).read_bytes() == before


def test_one_process_may_read_and_then_write(url):
    open_payment_db(url).close()
    with open_payment_db(url, read_only=True) as reader, open_payment_db(url) as writer:
        identifier = begun(writer)
        assert reader.fetch_payment(identifier) == writer.fetch_payment(identifier)
        with pytest.raises(StoreReadOnlyError):
            begun(reader)
    with open_payment_db(url) as one, open_payment_db(url) as other:
        one.close()
        assert other.fetch_payment(identifier).sequence_number == 1


@pytest.mark.parametrize("step", ["_open_map", "_begin"])
def test_readers_go_on_where_the_store_cannot_be_written(url, monkeypatch, step):
    open_payment_db(url).close()
    real = getattr(Environment, step)

    def only_reading(self, *arguments):
        if not self.read_only:
            raise StoreUnavailableError("nobody may write here")
        return real(self, *arguments)

    with open_payment_db(url, read_only=True) as reader:
        with monkeypatch.context() as locked:
            locked.setattr(Environment, step, only_reading)
            with pytest.raises(StoreUnavailableError, match="nobody may write"):
                open_payment_db(url)
        assert reader.counters().payments == 0
        with open_payment_db(url) as writer:
            begun(writer)
        assert reader.counters().payments == 1


def test_every_directory_that_is_made_is_durable_in_the_one_above(tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr("engine.payments.kv.opening.sync_folder", synced.append)
    open_payment_db(f"lmdb:///{tmp_path}/a/b/c").close()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def hold(folder: str, began, goes_on) -> None:
    """Have the turn to write for long."""
    turn_ = Turn(Path(folder) / "writer.lock")
    turn_.take()
    began.set()
    goes_on.wait(60)


def test_a_store_that_another_process_holds(url, store, monkeypatch):
    context = get_context("spawn")
    began, goes_on = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(place_of(url)), began, goes_on))
    holder.start()
    assert began.wait(60)
    with monkeypatch.context() as patch:
        patch.setattr(turn, "WAIT_S_MAX", 0.05)
        with pytest.raises(StoreLockedError, match="another process"):
            begun(store)
    assert everything(store).payments == ()  # readers wait for nobody
    holder.kill()  # and its turn goes with it
    holder.join()
    begun(store)


FILLER = """
import resource, signal, sys
from engine.payments import open_payment_db
from engine.payments.errors import StoreFullError
from tests.payments.builders import begun, digest, everything, make_info, state_of_store
with open_payment_db(sys.argv[1]) as store:
    begun(store)
    size = 2 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    done = 1
    try:
        for _ in range(2000):
            begun(store, payment_request=bytes(30_000))
            done += 1
    except StoreFullError as fault:
        print(type(fault).__name__, flush=True)
    assert len(everything(store).payments) == done
    state_of_store(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, ) * 2)
"""


def test_a_full_disk_is_a_fault_and_nothing_is_half_written(url):
    done = subprocess.run(
        [sys.executable, "-c", FILLER, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("StoreFullError\n", 0), done.stderr
    with open_payment_db(url) as store:
        info = make_info(identifier=digest("behind the full disk", 1))  # none of the other process
        store.init_payment(info.identifier, info)
        state_of_store(store)


def test_a_forked_child_is_refused_and_the_parent_goes_on(url, store):
    begun(store)
    child = os.fork()
    if not child:
        refusals = []
        for call in (lambda: everything(store), lambda: begun(store), lambda: open_payment_db(url)):
            try:
                call()
            except StoreUnavailableError as fault:
                refusals.append("fork" in str(fault))
        store.close()
        os._exit(0 if refusals == [True] * 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    begun(store)
    assert len(everything(store).payments) == 2


def test_a_forked_child_may_open_what_its_parent_has_closed(url):
    open_payment_db(url).close()
    child = os.fork()
    if not child:
        with open_payment_db(url) as store:
            begun(store)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with open_payment_db(url) as store:
        assert len(everything(store).payments) == 1


READER = """
import sys, lmdb, os, signal
reader = lmdb.open(sys.argv[1], readonly=True).begin()
print("reading", flush=True)
sys.stdin.read()
"""


def start_reader(place: Path) -> subprocess.Popen:
    """Start a process that reads and does not come to an end."""
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert reader.stdout.readline() == b"reading\n"
    return reader


def end(reader: subprocess.Popen) -> None:
    reader.kill()
    reader.communicate()


def test_readers_who_died_are_gone_when_a_store_is_opened(url):
    open_payment_db(url).close()
    dead, alive = start_reader(place_of(url)), start_reader(place_of(url))
    end(dead)
    with open_payment_db(url) as store:
        readers = store._environment._lmdb.readers()
        assert f"{dead.pid} " not in readers
        assert f"{alive.pid} " in readers
    end(alive)


def test_readers_who_died_are_looked_for_before_the_map_grows(environment):
    put(environment, b"a", b"1")
    end(start_reader(environment.place))
    size = environment._lmdb.info()["map_size"]
    environment._grow()
    assert "no active readers" in environment._lmdb.readers()
    assert environment._lmdb.info()["map_size"] == size
    environment._grow()
    assert environment._lmdb.info()["map_size"] == 2 * size


def test_indexes_are_above_what_another_handle_moved_in(url, store):
    first = store.next_attempt_index()
    with open_payment_db(url) as other:
        other.raise_counters(attempt_index=first + 100)
        assert store.next_attempt_index() == first + 101
        other.write_records([make_record(1, [make_attempt(first + 5_000)])])
    assert store.next_attempt_index() > first + 5_000
