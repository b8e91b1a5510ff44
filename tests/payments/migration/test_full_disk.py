"""A disk that fills up in the middle of a migration: with more room the same call goes on."""

import shutil
import sys

import pytest

from engine.payments import open_payment_db
from tests.payments.kv.test_full_disk import in_small_disk
from tests.payments.lnd.samples import Samples

MOVER = """
import subprocess, sys
from engine.payments import open_payment_db
from engine.payments.errors import StoreFullError
from engine.payments.migration import migrate_store
from tests.payments.builders import state_of_store

folder, source, kind = sys.argv[1:]
destination = f"{kind}:///{folder}/new"
far = 0
for size in (5, 7, 9):
    try:
        migrate_store(source, destination)
    except StoreFullError:
        pass
    else:
        raise AssertionError(f"{size}m are enough")
    with open_payment_db(destination, unfinished=True) as store:
        assert store.note() is not None
        found = store.counters().payments
        assert found >= far, (found, far)
        far = found
    subprocess.run(["mount", "-o", f"remount,size={size + 2}m", folder], check=True)
assert far > 0
subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
report = migrate_store(source, destination)
assert report.resumed_at == far
with open_payment_db(source) as one, open_payment_db(destination) as other:
    assert state_of_store(other) == state_of_store(one)
    assert other.counters() == one.counters()
print("whole", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lmdb", "sqlite"])
def test_a_migration_goes_on_when_there_is_room_again(places, tmp_path, kind):
    if shutil.which("unshare") is None or in_small_disk("5m", tmp_path, "true").returncode:
        pytest.skip("this user may mount nothing, not even for itself")
    source = places.url("lmdb")
    with open_payment_db(source) as store:
        store.write_records(Samples(4).records(6_000, "split"))
    command = (sys.executable, "-c", MOVER, str(tmp_path), source, kind)
    done = in_small_disk("5m", tmp_path, *command)
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr
