"""What goes wrong below a store has a name, says what to do, and leaves nothing half-written."""

import os
import subprocess
import threading
from contextlib import contextmanager

import psycopg
import pytest

from engine.payments import open_payment_db
from engine.payments.errors import (
    StoreDamagedError,
    StoreFullError,
    StoreLockedError,
    StoreOutcomeUnknownError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UnknownStoreError,
)
from engine.payments.sql import SQLPaymentDB
from engine.payments.sql import sqlite as sqlite_module
from engine.payments.sql.postgresql import TRIES_MAX, WAIT_S_MAX
from engine.payments.sql.sqlite import SQLiteDatabase
from tests.payments.builders import (
    begun,
    begun_plain,
    make_attempt,
    make_info,
    make_record,
    mk,
    plain,
    settle,
    state_of_store,
)
from tests.payments.sql.looking import run

# SQLite -------------------------------------------------------------------------------------------


def test_a_full_file_changes_nothing(sqlite):
    identifier = begun(sqlite)
    writer = sqlite._database._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    before = state_of_store(sqlite)
    records = [make_record(number, [make_attempt(number)]) for number in range(10, 200)]
    with pytest.raises(StoreFullError, match="make room"):
        sqlite.write_records(records)
    assert state_of_store(sqlite) == before
    writer.execute("PRAGMA max_page_count = 1000000").fetchall()
    sqlite.register_attempt(identifier, make_attempt(1))
    sqlite.write_records(records)


def test_a_full_disk_changes_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    added = 0
    try:
        with open_payment_db(f"sqlite:///{disk}/payments.db") as store:
            with pytest.raises(StoreFullError, match="disk is full"):  # noqa: PT012  (until it is full)
                while True:
                    store.write_records([make_record(added + 1, [make_attempt(added + 1)])])
                    added += 1
            assert store.counters().payments == added > 10
            state_of_store(store)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_file_that_another_process_writes_is_locked(sqlite, tmp_path):
    other = SQLPaymentDB(SQLiteDatabase(place(sqlite), busy_timeout_ms=1))
    identifier = begun(sqlite)
    writer = sqlite._database._writer
    writer.execute("BEGIN IMMEDIATE")
    for call in (
        lambda: begun(other),
        lambda: other.register_attempt(identifier, make_attempt(1)),
        other.next_attempt_index,
        other.delete_payments,
    ):
        with pytest.raises(StoreLockedError, match="another process"):
            call()
    assert other.fetch_payment(identifier).attempts == ()  # readers do not wait
    writer.execute("ROLLBACK")
    other.register_attempt(identifier, make_attempt(1))
    other.close()


def place(store: SQLPaymentDB):
    return sqlite_module.Path(store._database.name.removeprefix(sqlite_module.PREFIX))


def test_a_store_that_is_opened_to_be_read_is_only_read(sql, places):
    url = sql._database.name if sql._database.name.startswith("sqlite") else places.postgres_url
    identifier = begun(sql)
    with open_payment_db(url, read_only=True) as reader:
        assert reader.fetch_payment(identifier) == sql.fetch_payment(identifier)
        assert reader.verify().is_sound
        for call in (
            lambda: begun(reader),
            lambda: reader.delete_payment(identifier),
            reader.next_attempt_index,
            lambda: reader.write_records([]),
        ):
            with pytest.raises(StoreReadOnlyError, match="open it for writing"):
                call()


def test_a_file_that_cannot_be_written_says_so(sqlite):
    writer = sqlite._database._writer
    writer.execute("PRAGMA query_only = ON").fetchall()
    with pytest.raises(StoreReadOnlyError, match="cannot be written"):
        begun(sqlite)


def test_a_new_file_that_another_makes_at_the_same_moment_is_waited_for(tmp_path, monkeypatch):
    """SQLite waits for no lock here: it says at once that the file is locked."""
    new, pauses = tmp_path / "new.db", []
    beside = sqlite_module.driver.connect(str(new), isolation_level=None)
    beside.execute("BEGIN IMMEDIATE")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            beside.execute("ROLLBACK")

    monkeypatch.setattr("engine.payments.sql.sqlite.time.sleep", pause)
    database = SQLiteDatabase(new)
    database.prepare()
    assert len(pauses) == 3
    assert database._writer.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    database.close()
    beside.close()


def test_a_new_file_that_stays_locked_is_waited_for_only_so_long(tmp_path):
    beside = sqlite_module.driver.connect(str(tmp_path / "new.db"), isolation_level=None)
    beside.execute("BEGIN IMMEDIATE")
    database = SQLiteDatabase(tmp_path / "new.db", busy_timeout_ms=1)
    with pytest.raises(StoreLockedError, match="another process"):
        database.prepare()
    database.close()
    beside.close()


def test_a_damaged_file_says_so(sqlite):
    identifiers = mk(sqlite, ["Succeeded"] * 30)
    path = place(sqlite)
    sqlite.close()
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4_096):
        data[page * 4_096 : page * 4_096 + 64] = os.urandom(64)
    path.write_bytes(data)
    with pytest.raises(StoreDamagedError, match="restore a backup"):
        read_all(f"sqlite:///{path}", identifiers)


def read_all(url: str, identifiers: list[bytes]) -> None:
    with open_payment_db(url) as store:
        for identifier in identifiers:
            store.fetch_payment(identifier)
        store.verify()


@pytest.mark.parametrize("code", [10, 1034])  # SQLITE_IOERR, SQLITE_IOERR_FSYNC
def test_a_sync_that_fails_leaves_the_outcome_open(code):
    error = sqlite_module.driver.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    fault = sqlite_module.fault_of(error, "sqlite:///a", is_committing=True)
    assert type(fault) is StoreOutcomeUnknownError
    assert type(sqlite_module.fault_of(error, "sqlite:///a")) is StoreUnavailableError


# PostgreSQL ---------------------------------------------------------------------------------------


@contextmanager
def raising(places, table: str, state: str):
    """Let the server raise an error of its own whenever a row is added to `table`."""
    places.postgres.execute(
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'played' USING ERRCODE = '{state}'; END $$"
    )
    places.postgres.execute(
        f"CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    try:
        yield
    finally:
        places.postgres.execute(f"DROP TRIGGER fail ON {table}; DROP FUNCTION fail()")


SERVER_FAULTS = {
    "disk full": ("53100", StoreFullError, "make room"),
    "standby": ("25006", StoreReadOnlyError, "primary"),
    "no rights": ("42501", StoreReadOnlyError, "GRANT"),
    "too slow": ("57014", StoreUnavailableError, "took too long"),
    "damaged": ("XX001", StoreDamagedError, "restore a backup"),
    "tables of others": ("42703", StoreDamagedError, "do not fit"),
}


@pytest.mark.parametrize(("state", "fault", "advice"), SERVER_FAULTS.values(), ids=SERVER_FAULTS)
@pytest.mark.parametrize("table", ["payment_htlc_attempts", "payment_route_hop_mpp"])
def test_a_fault_of_the_server_has_a_name(postgresql, places, table, state, fault, advice):
    identifier = begun(postgresql)
    before = state_of_store(postgresql)
    with raising(places, table, state), pytest.raises(fault, match=advice) as raised:
        postgresql.register_attempt(identifier, make_attempt(1))
    assert isinstance(raised.value, fault)
    assert state_of_store(postgresql) == before
    postgresql.register_attempt(identifier, make_attempt(1))


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_what_others_disturb_is_tried_again_and_ends(postgresql, places, monkeypatch, state):
    waits = []
    monkeypatch.setattr("engine.payments.sql.postgresql.time.sleep", waits.append)
    with raising(places, "payments", state), pytest.raises(StoreLockedError, match="try again"):
        begun(postgresql)
    assert len(waits) == TRIES_MAX
    assert max(waits) <= 1.5 * WAIT_S_MAX
    assert begun(postgresql)


def test_a_disturbance_that_passes_is_not_seen(postgresql, places, monkeypatch):
    waits = []

    def calm(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            places.postgres.execute("DROP TRIGGER fail ON payments")

    monkeypatch.setattr("engine.payments.sql.postgresql.time.sleep", calm)
    with pytest.raises(psycopg.errors.UndefinedObject), raising(places, "payments", "40001"):
        begun(postgresql)
    places.postgres.execute("DROP FUNCTION fail()")
    assert len(waits) == 3
    assert postgresql.counters().sequence_number == 1


def connections_of(places) -> list[int]:
    """Return the server's processes of all connections but ours."""
    rows = places.postgres.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'paychan'"
    )
    return [pid for (pid,) in rows]


def end_all(places) -> None:
    for pid in connections_of(places):
        places.postgres.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


@pytest.mark.parametrize("begun", [begun, begun_plain])  # a plain one is remembered
def test_a_server_that_was_gone_between_two_calls_is_not_noticed(postgresql, places, begun):
    identifier = begun(postgresql)
    end_all(places)
    postgresql.register_attempt(identifier, plain(9))
    end_all(places)
    assert len(postgresql.fetch_payment(identifier).attempts) == 1
    end_all(places)
    postgresql.register_attempt(identifier, plain(10))


def test_a_server_that_goes_away_in_the_middle_changes_nothing(postgresql, places, monkeypatch):
    identifier = begun(postgresql)
    before = state_of_store(postgresql)
    control = postgresql._control
    keep = control._keep

    def cut(work, *arguments):
        work.rows("SELECT 1")  # what was sent has arrived
        end_all(places)
        return keep(work, *arguments)

    monkeypatch.setattr(control, "_keep", cut)
    with pytest.raises(StoreUnavailableError) as raised:
        postgresql.register_attempt(identifier, make_attempt(1))
    assert raised.value.args
    monkeypatch.undo()
    assert state_of_store(postgresql) == before
    postgresql.register_attempt(identifier, make_attempt(1))


@pytest.mark.parametrize("begun", [begun, begun_plain])
def test_a_server_that_goes_away_in_a_commit_leaves_the_outcome_open(postgresql, places, begun):
    """A constraint that is looked at in the commit ends the connection there."""
    identifier = begun(postgresql)
    places.postgres.execute(
        "CREATE OR REPLACE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON payment_htlc_attempts "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()"
    )
    try:
        with pytest.raises(StoreOutcomeUnknownError, match="fetch the payment and see"):
            postgresql.register_attempt(identifier, plain(1))
    finally:
        places.postgres.execute("DROP TRIGGER cut ON payment_htlc_attempts; DROP FUNCTION cut()")
    assert postgresql.fetch_payment(identifier).attempts == ()
    state_of_store(postgresql)


@contextmanager
def switched_off(places, setting: str):
    """Let the server do without a setting."""

    def reload_until(value: str) -> None:
        places.postgres.execute("SELECT pg_reload_conf()")
        shown = None
        while shown != [(value,)]:
            with psycopg.connect(places.postgres_url) as beside:
                shown = beside.execute(f"SHOW {setting}").fetchall()

    places.postgres.execute(f"ALTER SYSTEM SET {setting} = off")
    try:
        reload_until("off")
        yield
    finally:
        places.postgres.execute(f"ALTER SYSTEM RESET {setting}")
        reload_until("on")


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_answered_is_told_of_in_the_log(places, caplog, setting):
    url = places.url("postgresql")
    with switched_off(places, setting):
        open_payment_db(url, read_only=True).close()
        assert caplog.messages == []
        with open_payment_db(url) as store:
            begun(store)
            begun(store)
    (message,) = caplog.messages
    assert f"{setting} = off" in message
    assert "set it to on" in message
    open_payment_db(url).close()
    assert caplog.messages == [message]


def test_a_server_that_is_not_there_has_a_name():
    with pytest.raises(StoreUnavailableError, match="createdb"):
        open_payment_db("postgresql://user:secret@127.0.0.1:1/payments")
    with pytest.raises(StoreUnavailableError) as raised:
        open_payment_db("postgresql://user:secret@127.0.0.1:1/payments")
    assert "secret" not in str(raised.value)
    with pytest.raises(UnknownStoreError, match="no PostgreSQL URL"):
        open_payment_db("postgresql://host:port:9/x?nonsense=1")


def test_a_lost_race_is_told_by_its_code(postgresql):
    """Two add the same, neither sees the other's row: the one that waits is tried again."""
    info = make_info()
    entered, go_on = threading.Event(), threading.Event()
    database = postgresql._database
    outcome: list[object] = []

    def slow(work):
        postgresql._control.init(work, info.identifier, info)
        work.rows("SELECT 1")
        entered.set()
        go_on.wait(10)

    first = threading.Thread(target=lambda: outcome.append(database.write(slow)))
    first.start()
    entered.wait(10)

    def late() -> None:
        try:
            postgresql.init_payment(info.identifier, info)
        except Exception as refusal:
            outcome.append(getattr(refusal, "code", refusal))

    second = threading.Thread(target=late)
    second.start()
    go_on.set()
    first.join(10)
    second.join(10)
    assert set(outcome) == {None, "payment_exists"}
    assert postgresql.counters().sequence_number == 1


def test_a_settled_payment_stays_settled_when_the_next_call_fails(sql):
    identifier = begun(sql)
    sql.register_attempt(identifier, make_attempt(1))
    read = sql.settle_attempt(identifier, 1, settle())
    with pytest.raises(Exception, match="payment_already_succeeded"):
        sql.register_attempt(identifier, make_attempt(1))
    assert sql.fetch_payment(identifier) == read


@pytest.mark.slow
def test_row_ids_that_were_restored_too_low_are_a_fault_with_a_name(postgresql):
    identifier = begun(postgresql, 555 * 9)
    for index in range(1, 6):
        postgresql.register_attempt(identifier, make_attempt(index))
    before = state_of_store(postgresql)
    lowest = "(SELECT min(id) FROM payment_htlc_attempts)"
    run(postgresql, f"SELECT setval('payment_htlc_attempts_id_seq', {lowest}, false)")
    with pytest.raises(StoreDamagedError, match="row ids"):
        postgresql.register_attempt(identifier, make_attempt(6))
    assert state_of_store(postgresql) == before
