"""Migration between stores that URLs name: every pair of kinds, rehearsed and done."""

import itertools
from pathlib import Path

import pytest

from engine.monitor.secrets import without_password
from engine.payments import open_payment_db
from engine.payments.errors import StoreNotEmptyError, StoreNotFoundError, UnknownStoreError
from engine.payments.lnd import UnreadableFileError, import_lnd
from engine.payments.migration import migrate_store
from tests.payments.builders import begun, state_of_store
from tests.payments.conftest import SLOW
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.samples import Samples
from tests.payments.migration.memory import peak_kib
from tests.payments.stores import KINDS, Places

PAIRS = [
    pytest.param(*pair, marks=[pytest.mark.slow] * bool(SLOW & {*pair}))
    for pair in itertools.product(KINDS, KINDS)
    # There is one PostgreSQL database.
    if pair != ("postgresql", "postgresql")
]


def filled(url: str) -> str:
    """Give the store at `url` payments of every kind, and counters that are above them."""
    with open_payment_db(url) as store:
        store.write_records(Samples(1).records(120))
        store.raise_counters(990_000, 98_000)
    return url


def seen(url: str) -> dict[str, object]:
    with open_payment_db(url, create=False) as store:
        return {**state_of_store(store), "counters": store.counters(), "note": store.note()}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_all_is_moved_between_every_pair_of_kinds(places: Places, one, other):
    source, destination = filled(places.url(one)), places.url(other)
    before = seen(source)
    rehearsed = migrate_store(source, destination, dry_run=True)
    told = []
    report = migrate_store(source, destination, progress=told.append)
    assert seen(destination) == seen(source) == before
    assert rehearsed.totals == report.totals
    assert report.totals.payments == 120
    assert [each.done for each in told] == [0, 0, 120]


def made_at(kind: str, folder: Path) -> str:
    """Return the URL of a store that is not there yet."""
    return f"{kind}:///{folder / 'new'}"


FILES = [kind for kind in KINDS if kind != "postgresql"]


@pytest.mark.parametrize("kind", FILES)
def test_a_rehearsal_makes_nothing(places, tmp_path, kind):
    source = filled(places.url(kind))
    report = migrate_store(source, made_at(kind, tmp_path), dry_run=True)
    assert report.totals.payments == 120
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FILES)
def test_a_destination_is_made_when_it_is_not_there(places, tmp_path, kind):
    source = filled(places.url(kind))
    migrate_store(source, made_at(kind, tmp_path))
    assert seen(made_at(kind, tmp_path)) == seen(source)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_store_is_not_moved_into_one_that_was_used(url, tmp_path, dry_run):
    with open_payment_db(url) as store:
        begun(store)
    before = seen(url)
    path = node_of(Samples(1).records(3)).write(tmp_path / "channel.db")
    for move in (
        lambda: migrate_store(url, url, dry_run=dry_run),
        lambda: import_lnd(path, url, dry_run=dry_run),
    ):
        with pytest.raises(StoreNotEmptyError):
            move()
    assert seen(url) == before


@pytest.mark.parametrize("kind", FILES)
def test_a_source_that_is_not_there_makes_no_destination(tmp_path, kind):
    (tmp_path / "here").mkdir()
    with pytest.raises(StoreNotFoundError):
        migrate_store(made_at(kind, tmp_path / "gone"), made_at(kind, tmp_path / "here"))
    with pytest.raises(UnreadableFileError):
        import_lnd(tmp_path / "gone.db", made_at(kind, tmp_path / "here"))
    assert list((tmp_path / "here").iterdir()) == []
    assert not (tmp_path / "gone").exists()


def test_a_url_of_no_store_is_refused(tmp_path):
    path = node_of([]).write(tmp_path / "channel.db")
    for dry_run in (True, False):
        with pytest.raises(UnknownStoreError):
            import_lnd(path, "mysql://somewhere", dry_run=dry_run)


@pytest.mark.parametrize("kind", FILES)
def test_a_destination_goes_on_where_the_source_was(places, tmp_path, kind):
    source, destination = filled(places.url(kind)), made_at(kind, tmp_path)
    migrate_store(source, destination)
    with open_payment_db(destination) as moved, open_payment_db(source) as old:
        for each in (moved, old):
            begun(each)
        assert moved.counters().sequence_number == old.counters().sequence_number == 990_001
        assert moved.next_attempt_index() > 98_000


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql:///db?host=/tmp/a:b@c", "postgresql:///db?host=/tmp/a:b@c"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
        ("lmdb:///payments", "lmdb:///payments"),
        ("postgresql://u:p@ss:w d@host/db", "postgresql://u:***@host/db"),
        ("postgresql://h/db?user=u&password=p", "postgresql://h/db?user=u&password=***"),
    ],
)
def test_a_report_shows_no_password(url, shown):
    assert without_password(url) == shown


def node(folder: Path, count: int) -> Path:
    """Return a file of lnd with so many payments."""
    records = Samples(2).records(count, "split")
    return node_of(records, payment_bound=10**8).write(folder / f"{count}.db")


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "lmdb"])
def test_memory_is_that_of_a_batch(tmp_path, kind, dry_run):
    """LMDB is left out: the pages of its map count as memory, though they are the kernel's."""
    few, many = (
        peak_kib(node(tmp_path, count), f"{kind}:///{tmp_path / f'store-{count}'}", dry_run=dry_run)
        for count in (2_000, 10_000)
    )
    assert many - few < 24 << 10
