"""A move in a process of its own that waits before each batch to be told to go on, or killed.

python -m tests.payments.migration.mortal FILE|URL URL
"""

import sys

from engine.payments.lnd import import_lnd
from engine.payments.migration import Progress, migrate_store


def wait(progress: Progress) -> None:
    """Say how far it is, and go on when a line comes in."""
    sys.stdout.write(f"{progress.done}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    source, destination = sys.argv[1:]
    move = migrate_store if "://" in source else import_lnd
    move(source, destination, progress=wait)
