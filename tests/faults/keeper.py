"""The deeds of a store under test: keep records, say what was committed, say what is there.

Everything is decided by the store's name, so that each meets the same work and the same faults.
"""

import hashlib
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Final

from tests.faults.adapters import STORES, Store
from tests.faults.nursery import Say

BATCHES: Final = 24
RECORDS: Final = 5
RECORD_BYTES: Final = 100
TIDY_EVERY: Final = 5
HUNG_AFTER_S: Final = 20
"""Damage may lead a reader in circles; it is then ended, and that counts as noticed."""


def records_of(batch: int, flavour: int = 0) -> list[bytes]:
    """Return the records of a batch: always the same, and they do not compress."""
    chance = random.Random(batch * 1_000 + flavour)
    return [chance.randbytes(RECORD_BYTES) for _ in range(RECORDS)]


def digests(records: list[bytes]) -> list[str]:
    return [hashlib.blake2b(record, digest_size=8).hexdigest() for record in records]


def expected() -> list[str]:
    """Return the digests of everything, in order."""
    return [one for batch in range(BATCHES) for one in digests(records_of(batch))]


def prepare(scratch: Path) -> None:
    """Have every store imported and warm."""
    for name in STORES:
        work(scratch / f"warm {name}", lambda value: None, name)
        check(scratch / f"warm {name}", lambda value: None, name)
    signal.alarm(0)


def work(
    directory: Path,
    say: Say,
    system: str,
    flavour: int = 0,
    is_closed: bool = True,
    copy_to: str = "",
) -> None:
    """Keep records batch by batch, and say after each commit how many are durable."""
    store = STORES[system](directory)
    for batch in range(BATCHES):
        if copy_to and batch == BATCHES - 1:
            shutil.copytree(directory, copy_to)
        keep(store, records_of(batch, flavour))
        say((batch + 1) * RECORDS)
        if (batch + 1) % TIDY_EVERY == 0:
            store.tidy()
    store.settle()
    say("done")
    if not is_closed:
        os._exit(0)  # as a crash does, before anything can tidy up behind us
    store.close()


def keep(store: Store, records: list[bytes]) -> None:
    store.append(records)
    store.commit()


def check(directory: Path, say: Say, system: str) -> None:
    """Say the digest of every record that is there, then see that the store still takes more."""
    signal.alarm(HUNG_AFTER_S)
    store = STORES[system](directory)
    found = store.read()
    keep(store, records_of(BATCHES))
    if store.read() != [*found, *records_of(BATCHES)]:
        raise RuntimeError("what was kept after the fault is not read back")
    store.close()
    say(digests(found))
