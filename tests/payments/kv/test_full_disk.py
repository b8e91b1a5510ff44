"""A disk that is really full: a small file system of the test's own, in a name space of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

FILLER = """
import random, subprocess, sys, threading
from engine.payments import open_payment_db
from engine.payments.errors import StoreFullError
from tests.payments.builders import begun, everything, state_of_store

url = f"lmdb:///{sys.argv[1]}/store"
random = random.Random(sys.argv[2])


def begin_until_full(store):
    done = 0
    try:
        while True:
            begun(store, payment_request=random.randbytes(random.choice((100, 3_000, 30_000))))
            done += 1
    except StoreFullError as fault:
        assert "no room" in str(fault)
    return done


def read_at_once(store, count):
    together = threading.Barrier(count, timeout=30)
    read = lambda: store._environment.read(lambda transaction: together.wait())
    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


with open_payment_db(url) as store:
    done = sum(begin_until_full(store) for _ in range(6))
    assert done > 20
    assert len(everything(store).payments) == done
    state_of_store(store)
    with open(f"{sys.argv[1]}/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4_096))
        except OSError:
            pass
    done += begin_until_full(store)
    read_at_once(store, 300)
with open_payment_db(url) as store:
    assert store.verify().payments == done
    state_of_store(store)
    subprocess.run(["mount", "-o", "remount,size=16m", sys.argv[1]], check=True)  # some room
    begun(store)
    assert store.delete_payments() == done + 1
    state_of_store(store)
print("whole", flush=True)
"""

MOUNTED = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'


def in_small_disk(size: str, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command, with `folder` as first argument, where `folder` is a disk of this size."""
    apart = ("unshare", "--mount", "--map-root-user", "sh", "-c", MOUNTED, size, str(folder))
    return subprocess.run([*apart, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1500k", "2m", "3m"])
def test_a_disk_that_is_full_refuses_by_name_and_keeps_what_it_has(tmp_path, size):
    if shutil.which("unshare") is None or in_small_disk(size, tmp_path, "true").returncode:
        pytest.skip("this user may mount nothing, not even for itself")
    done = in_small_disk(size, tmp_path, sys.executable, "-c", FILLER, str(tmp_path), size)
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr
